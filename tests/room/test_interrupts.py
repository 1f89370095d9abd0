"""Ctrl-C ends the game and nothing else: no task of ours, and no call of ours half way."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio

import psyne_mesh
from psyne_mesh.interrupts import interruptible, uninterrupted
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.signaling.server import open_server
from tests.room.interrupting import DOORS, interrupted
from tests.room.players import LOOPBACK, PATIENCE_S, connected, open_party

PACKAGE = str(Path(psyne_mesh.__file__ or "").parent)
# What a game's own task may be interrupted in: nothing there is left half done that anybody else would see.
HARMLESS = (
    "config.", "errors.", "names.", "identity.", "uri.", "in_trio.", "blocks.async_block", "interrupts.", "room.peer.",
    "room.messages.", "room.delivery.", "room.callbacks.", "gossip.config.", "gossip.records.", "signaling.transport.",
)  # fmt: skip


class Watch:
    """Names of functions of ours that were called where Trio would raise a `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.unmarked: set[str] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not trio.lowlevel.currently_ki_protected():
            module = code.co_filename[len(PACKAGE) + 1 :].removesuffix(".py").replace("/", ".")
            self.unmarked.add(f"{module}.{code.co_qualname}")


@pytest.mark.python_only
async def test_no_code_of_ours_runs_where_ctrl_c_would_be_raised() -> None:
    watch = Watch()
    sys.setprofile(watch)
    try:
        with trio.fail_after(PATIENCE_S):
            async with (
                open_server("127.0.0.1", 0) as server,
                join_game_room("lobby", signaling=server.url, config=LOOPBACK, player_name="ada") as ada,
                join_game_room("lobby", signaling=server.url, config=LOOPBACK, player_name="bob") as bob,
            ):
                await connected(ada, bob)
                words, positions = ada.channel("words"), ada.channel("position", mode="unreliable")
                heard = bob.channel("words")
                called: list[Any] = []
                bob.channel("position", mode="unreliable").on_message(lambda peer, message: called.append(message))
                while not called:
                    positions.send_nowait(b"here")
                    await words.send("hello")
                    assert (await heard.receive())[1] == "hello"
                (peer,) = bob.peers.values()
                await ada.leave()
                await bob.wait_left(peer)
    finally:
        sys.setprofile(None)
    assert not {name for name in watch.unmarked if not name.startswith(HARMLESS)}


def test_the_mark_is_on_classes_properties_and_what_stands_inside() -> None:
    protected = trio.lowlevel.currently_ki_protected

    @uninterrupted
    class Marked:
        def inner(self) -> bool:
            def deep() -> bool:
                return protected()

            return deep()

        @property
        def seen(self) -> bool:
            return protected()

        def calls(self) -> bool:
            return interruptible(protected)

    async def main() -> None:
        assert not protected()
        assert Marked().inner()
        assert Marked().seen
        assert not Marked().calls()

    trio.run(main)


async def test_a_callback_that_is_interrupted_ends_the_block_with_that() -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    for register in ("event", "message"):
        with pytest.raises(KeyboardInterrupt):
            async with open_party() as party:
                ada, bob = await party.join(name="ada"), await party.join(name="bob")
                await connected(ada, bob)
                if register == "event":
                    ada.on_peer_connected(press)
                else:
                    ada.channel("words").on_message(press)
                    await bob.channel("words").send("hello")
                await trio.sleep_forever()


def test_pressing_it_twice_is_pressing_it() -> None:
    with pytest.raises(KeyboardInterrupt), unwrapped():
        raise BaseExceptionGroup("", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles only")
@pytest.mark.parametrize("door", DOORS)
def test_a_game_under_load_ends_as_interrupted_and_the_others_are_told(door: str) -> None:
    outcomes = trio.run(interrupted, door, 20)
    assert [outcome for outcome in outcomes if not outcome.is_good] == []
