"""Mistakes that beginners make: each is one error of ours, where it is made, that says what to write instead."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import psyne_mesh
from psyne_mesh import Identity, Message, create_channel, join_game_room, open_mesh
from psyne_mesh.errors import CannotListen, InvalidConfig, OutsideTrio
from psyne_mesh.events import MessageRefused, PeerLeft
from psyne_mesh.room import events as room_events
from psyne_mesh.signaling import open_server
from psyne_mesh.webrtc import open_endpoint
from psyne_mesh.webrtc.ice import Path as IcePath
from tests.room.players import connected, open_party

ENTRANCES: list[Callable[[], Any]] = [
    lambda: join_game_room("x"), open_mesh, open_server, lambda: create_channel("webrtc://bob", player_name="ada"),
    open_endpoint,
]  # fmt: skip


@pytest.mark.parametrize("entrance", ENTRANCES)
async def test_entered_by_another_way_than_async_with(entrance: Callable[[], Any]) -> None:
    block = entrance()
    with pytest.raises(InvalidConfig, match="write `async with "):
        block.peers  # noqa: B018
    with pytest.raises(InvalidConfig, match="write `async with "):
        await block
    with pytest.raises(InvalidConfig, match="write `async with "), block:
        pass


async def test_callbacks_with_brackets_and_with_other_arguments() -> None:
    async with open_party() as party:
        room = await party.join()
        names = ["discovered", "connected", "suspected", "resumed", "left"]
        for name in [*(f"on_peer_{each}" for each in names), "on_partition", "on_heal"]:
            register: Any = getattr(room, name)
            with pytest.raises(InvalidConfig, match=f"write `@room.{name}` without brackets"):
                register()
            with pytest.raises(InvalidConfig, match=r"write `def <lambda>\((peer|event)"):
                register(lambda: None)
            with pytest.raises(InvalidConfig, match="is no function"):
                register("print")
        with pytest.raises(InvalidConfig, match=r"write `def left\(peer, reason\):`"):

            @room.on_peer_left
            def left(peer: Any) -> None: ...

        with pytest.raises(InvalidConfig, match=r"write `def heard\(peer, message\):`"):

            @room.channel("words").on_message
            def heard(message: Any) -> None: ...

        room.on_peer_left(print)  # takes anything
        room.on_peer_left(lambda *all_of_it: None)


async def test_a_channel_on_another_thread() -> None:
    async with open_party() as party:
        words = (await party.join()).channel("words")
        errors: list[Exception] = []

        def elsewhere() -> None:
            for call in (lambda: words.send_nowait("hello"), words.receive_nowait):
                try:
                    call()
                except OutsideTrio as error:
                    errors.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await trio.to_thread.run_sync(thread.join)
        assert ["another thread" in str(error) for error in errors] == [True, True]


async def test_a_port_in_use() -> None:
    async with open_server("127.0.0.1", 0) as server:
        with pytest.raises(CannotListen, match="port=0 takes any free one"):
            async with open_server("127.0.0.1", server.port):
                pass
        with pytest.raises(OSError, match="cannot listen"):  # as before
            async with open_server("127.0.0.1", server.port):
                pass


class Picture:
    pass


class Says(Message):
    picture: Picture


class Old(Message, tag="pos"):
    x: float


class New(Message, tag="pos"):
    x: float
    y: float


async def test_a_field_that_cannot_travel_is_named_where_the_channel_is_made() -> None:
    async with open_party() as party:
        room = await party.join()
        with pytest.raises(InvalidConfig, match=r"Says\.picture cannot travel, as Picture has no form"):
            room.channel("says", Says)


async def test_a_message_of_another_version_is_told_once_for_each_peer_and_channel() -> None:
    async with open_party() as party:
        ada, bob = await party.join(name="ada"), await party.join(name="bob")
        told: list[MessageRefused] = []
        ada.on(MessageRefused, told.append)
        one, two = ada.channel("one", New), ada.channel("two", New)
        await connected(ada, bob)
        for name in ("one", "one", "two"):
            await bob.channel(name, Old).send(Old(1.0))
        with trio.move_on_after(0.5):
            await one.receive()
        with trio.move_on_after(0.5):
            await two.receive()
        assert one.stats.refused == 2
        assert [(event.peer.name, event.channel) for event in told] == [("bob", "one"), ("bob", "two")]
        assert told[0].reason == "New has y here and not there; give new fields a default"


def test_two_windows_of_one_user_are_two_players_and_the_same_ones_each_time(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "me.key"
    here = [Identity.load_or_create(file).peer_id for _ in range(2)]
    assert len(set(here)) == 2
    program = f"from psyne_mesh import Identity; print(Identity.load_or_create({str(file)!r}).peer_id)"
    third = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert third not in here
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert again == third  # the window was closed, and its key is free
    if sys.platform != "win32":
        assert file.stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_identity(tmp_path: Path) -> None:
    file = tmp_path / "me.key"
    file.write_text("hello")
    with pytest.raises(InvalidConfig, match="is no identity: it has 5 bytes, not 32"):
        Identity.load_or_create(file)
    with pytest.raises(InvalidConfig, match="cannot be kept"):
        Identity.load_or_create(file / "below")


def test_a_path_reads_as_people_speak() -> None:
    ends: Any = {"local": ("10.0.0.1", 1), "remote": ("10.0.0.2", 2)}
    assert str(IcePath(kind="srflx", rtt_s=0.0024, **ends)) == "direct, 2.4 ms"
    assert str(IcePath(kind="host", **ends)) == "direct"
    assert str(IcePath(kind="relay", rtt_s=0.05, **ends)) == "over a TURN server, 50.0 ms"
    assert str(IcePath(kind="peer", **ends)) == "through another player"


def test_events_are_where_one_looks_for_them() -> None:
    assert PeerLeft is room_events.PeerLeft
    public = {
        name for name, value in vars(room_events).items() if getattr(value, "__module__", "") == room_events.__name__
    }
    assert public <= set(psyne_mesh.events.__all__)


def test_the_version_is_said_and_the_package_runs() -> None:
    for command in (["-m", "psyne_mesh", "--version"], ["-m", "psyne_mesh.cli", "--version"]):
        said = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True).stdout
        assert said.strip() == f"psyne-mesh {psyne_mesh.__version__}"
