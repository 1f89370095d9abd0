"""What breaks in the middle of a game and heals by itself, in virtual time; tests/lab measures the same on real networks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.room.messages import Message
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, World, open_world

INTERVAL_S = 0.1
HEALED_S = 5.0
LATE_S = 1.0


class Note(Message):
    number: int


class Position(Message):
    sent_at: float


async def send(room: Room, count: int) -> None:
    for number in range(count):
        room.channel("notes", Note).send_nowait(Note(number))
        await trio.sleep(INTERVAL_S)


async def read(room: Room, received: list[tuple[int, float]]) -> None:
    async for _, note in room.channel("notes", Note):
        received.append((note.number, trio.current_time()))


def cut(world: World, how: str) -> AbstractContextManager[None]:
    if how == "one direction":
        return world.net.cut(("ada", "bob"))
    return world.net.partition(["ada"], ["bob"]) if how != "rebinding" else nullcontext()


@pytest.mark.parametrize(
    ("how", "lasts_s"),
    [("silence", 3.0), ("silence", 20.0), ("silence", 44.0), ("one direction", 10.0), ("rebinding", 0.0)],
)
@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_reliable_is_lost_or_doubled(
    autojump_clock: MockClock, how: str, lasts_s: float, seed: int
) -> None:
    """The link sleeps through it, signaling is dead, and each message comes once and in order."""
    async with open_world(seed=seed) as world:
        rooms = [await world.join("lobby", name, nat="full-cone") for name in ("ada", "bob")]
        for room in rooms:
            await room.wait_connected(1)
        if how != "rebinding":  # a new port has to be told, and between two there is nobody else to tell it
            world.hub.kill()
        received: tuple[list[tuple[int, float]], ...] = ([], [])
        count = int((lasts_s + 15) / INTERVAL_S)
        async with trio.open_nursery() as nursery:
            for room, inbox in zip(rooms, received, strict=True):
                nursery.start_soon(read, room, inbox)
                nursery.start_soon(send, room, count)
            await trio.sleep(1)
            with cut(world, how):
                if how == "rebinding":
                    world.hosts["ada"].rebind()
                await trio.sleep(lasts_s)
            mended_at = trio.current_time()
            with trio.fail_after(60):
                while any(len(inbox) < count for inbox in received):
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        for inbox in received:
            assert [number for number, _ in inbox] == list(range(count))
            assert next(at for _, at in inbox if at > mended_at) - mended_at <= HEALED_S


async def broadcast(room: Room, mode: str) -> None:
    """Reliably too: what is lost of that fills the window of a dead path."""
    while True:
        for one in (mode, "reliable"):
            room.channel(one, Position, mode=one).send_nowait(Position(trio.current_time()))
        await trio.sleep(0.02)


async def note_ages(room: Room, mode: str, ages: list[float]) -> None:
    async for _, position in room.channel(mode, Position, mode=mode):
        ages.append(trio.current_time() - position.sent_at)


async def oldest_after_a_cut(seed: int, mode: str, lasts_s: float, quality: Quality) -> float:
    """Two and two are cut apart; the age of the oldest message that comes then or later."""
    ages: list[float] = []
    async with open_world(seed=seed, quality=quality) as world, trio.open_nursery() as nursery:
        rooms = [await world.join("lobby", name) for name in "abcd"]
        for room in rooms:
            await room.wait_connected(3)
            nursery.start_soon(note_ages, room, mode, ages)
            nursery.start_soon(broadcast, room, mode)
        world.hub.kill()
        await trio.sleep(1 + seed / 10)
        del ages[:]
        with world.net.partition("ab", "cd"):
            await trio.sleep(lasts_s)
        within = len(ages)
        await trio.sleep(4)
        assert len(ages) - within > 12 * 1.5 / 0.02  # all to all again
        nursery.cancel_scope.cancel()
    return max(ages)


@pytest.mark.parametrize("mode", ["unreliable", "retransmits(1)"])
async def test_nothing_unreliable_comes_late(autojump_clock: MockClock, mode: str) -> None:
    """Whoever notices the cut sends through a neighbour, who may not have noticed yet: what he cannot pass on must not
    wait with him for the end of it."""
    assert await oldest_after_a_cut(0, mode, 5, Quality()) <= LATE_S


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["unreliable", "unreliable_ordered", "retransmits(1)", "ttl(500)"])
@pytest.mark.parametrize("seed", range(1, 11))
async def test_nothing_unreliable_comes_late_whatever_the_dice_say(
    autojump_clock: MockClock, seed: int, mode: str
) -> None:
    rough = Quality(jitter_s=0.02, loss=0.02, reorder=0.02)
    assert await oldest_after_a_cut(seed, mode, 20, rough if seed % 2 else Quality()) <= LATE_S


@pytest.mark.parametrize("mover", ["ada", "bob"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_machine_that_knows_of_its_move_does_not_wait_for_silence(
    autojump_clock: MockClock, mover: str, times: int
) -> None:
    """Whoever made the first offer. A move that follows the last one closely disturbs no answer that is under way."""
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        world.hub.delay_s = 0.05
        rooms = {name: await world.join("lobby", name, nat="port") for name in ("ada", "bob")}
        received: list[tuple[int, float]] = []
        events: list[str] = []
        for name, room in rooms.items():
            await room.wait_connected(1)
            room.on_peer_left(lambda peer, reason: events.append(f"{peer.name} {reason}"))
            nursery.start_soon(read, room, received if name != mover else [])
            nursery.start_soon(send, room, 60)
        await trio.sleep(2)
        gateway = rooms[mover]._core.endpoint.gateway
        for _ in range(times):
            world.hosts[mover].rebind()
            gateway._network_changed(True)
            await trio.sleep(0.06)
        moved_at = trio.current_time()
        await trio.sleep(5)
        assert [number for number, _ in received] == list(range(60))
        assert next(at for number, at in received if at > moved_at and number > 22) - moved_at <= 0.7
        assert all(room.peers for room in rooms.values())
        assert events == []
        nursery.cancel_scope.cancel()
