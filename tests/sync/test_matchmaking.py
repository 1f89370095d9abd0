"""Lobbies for programs with a loop of their own."""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
from typing import Any

import pytest

import psyne_mesh
from psyne_mesh import sync
from psyne_mesh.errors import DeadlineExceeded, InvalidConfig, UnknownCode, WrongPassword
from tests.room.players import LOOPBACK


def test_a_room_of_our_own_and_friends_by_its_code(url: str) -> None:
    options: dict[str, Any] = {"signaling": url, "config": LOOPBACK}
    with sync.create_room("own", password="swordfish", **options) as host:
        assert [(room.name, room.policy) for room in sync.list_rooms("own", signaling=url)] == [("own", "password")]
        with pytest.raises(WrongPassword), sync.join_room(host.code, password="x", **options):
            pass
        with pytest.raises(UnknownCode), sync.join_room("AAAA-AAAA", **options):
            pass
        with sync.join_room(host.code, password="swordfish", **options) as guest:
            guest.wait_connected(1, timeout=30)
            assert (guest.name, guest.info.policy, guest.code) == ("own", "password", host.code)
    with sync.open_mesh(url, config=LOOPBACK) as mesh:
        room = mesh.create_room("own", policy="invite")
        assert room.invite().startswith("psyne-invite-")
        assert mesh.list_rooms("own") == ()
        changes = sync.RoomChanges()
        assert changes.look(mesh.list_rooms()) == []
        mesh.create_room("other")
        assert [(change.kind, change.room.name) for change in changes.look(mesh.list_rooms("other"))] == [
            ("new", "other")
        ]


def test_a_quick_match_waits_for_the_others(url: str) -> None:
    found: list[str] = []

    def play() -> None:
        with sync.quick_match("duel", players=2, signaling=url, config=LOOPBACK, timeout=30) as net:
            found.append(net.code)
            met.wait()

    met = threading.Barrier(2, timeout=30)
    threads = [threading.Thread(target=play) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len(set(found)) == 1
    with (
        pytest.raises(DeadlineExceeded),
        sync.quick_match("nobody", players=2, signaling=url, config=LOOPBACK, timeout=1),
    ):
        pass


def test_the_two_doors_lead_to_the_same_rooms() -> None:
    ways_in = ("join_game_room", "create_room", "join_room", "quick_match", "list_rooms", "open_mesh")
    for name in ways_in:
        assert hasattr(psyne_mesh, name)
        ours, theirs = (inspect.signature(getattr(door, name)).parameters for door in (sync, psyne_mesh))
        assert set(ours) - {"timeout"} <= set(theirs) | {"options"}, name
    public = {name for name in dir(psyne_mesh.room.Mesh) if not name.startswith("_")}
    assert public <= set(dir(sync.Mesh))


def test_what_is_no_option_is_told(url: str) -> None:
    with pytest.raises(TypeError, match="maximum"), sync.create_room("own", signaling=url, maximum=3):  # type: ignore[call-arg]
        pass
    with pytest.raises(InvalidConfig, match="code of a room"), sync.join_room("?", signaling=url):
        pass


def test_players_who_share_a_room_match_without_the_server() -> None:
    """A real server, over real sockets, that dies."""
    with contextlib.ExitStack() as stack:
        with sync.open_server(port=0) as server:
            ada, bob = [stack.enter_context(sync.open_mesh(server.url, config=LOOPBACK)) for _ in range(2)]
            halls = [mesh.join_game_room("hall") for mesh in (ada, bob)]
            for hall in halls:
                hall.wait_connected(1, timeout=30)
        room = ada.create_room("own", password="swordfish", timeout=30)
        for _ in range(200):  # ada may have made it at the dying server, and says so in the hall soon
            if bob.list_rooms("own"):
                break
            time.sleep(0.1)
        assert [info.code for info in bob.list_rooms("own")] == [room.info.code]
        guest = bob.join_room(room.code, password="swordfish", timeout=30)
        guest.wait_connected(1, timeout=30)
        with pytest.raises(DeadlineExceeded):
            bob.quick_match(players=2, timeout=2)
        assert ada.join_game_room("own", timeout=30).code != room.code
