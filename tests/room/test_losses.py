"""A reliable message is delivered, or both sides are told how many are not. In virtual time."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.events import MessagesLost, MessagesUndelivered
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.mesh.membership import SendOutcome
from psyne_mesh.room.carried import carried, lost_word
from psyne_mesh.room.channel import Channel
from psyne_mesh.room.messages import Message
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, World, open_world

EVERY_S = 0.2


class Note(Message):
    number: int
    data: bytes = b""


@attrs.define
class Told:
    """What the two rooms said, and what came."""

    lost: int = 0
    undelivered: int = 0
    came: list[int] = attrs.Factory(list)

    def listen(self, speaker: Room, hearer: Room) -> None:
        hearer.on(MessagesLost, self._on_lost)
        speaker.on(MessagesUndelivered, self._on_undelivered)

    def _on_lost(self, event: MessagesLost) -> None:
        self.lost += event.count

    def _on_undelivered(self, event: MessagesUndelivered) -> None:
        self.undelivered += event.count

    async def read(self, room: Room) -> None:
        async for _, note in room.channel("notes", Note):
            self.came.append(note.number)


async def speak(notes: Channel[Note], seconds: float, first: int = 0) -> int:
    """How many were sent, in all."""
    for number in range(first, first + round(seconds / EVERY_S)):
        notes.send_nowait(Note(number))
        await trio.sleep(EVERY_S)
    return first + round(seconds / EVERY_S)


async def pair(world: World, told: Told, nursery: trio.Nursery) -> tuple[Room, Room]:
    ada, bob = [await world.join("lobby", name) for name in ("ada", "bob")]
    for room in (ada, bob):
        await room.wait_connected(1)
    told.listen(ada, bob)
    nursery.start_soon(told.read, bob)
    return ada, bob


@pytest.mark.parametrize("away_s", [30, 60, 90])
async def test_who_was_away_for_longer_than_the_room_waits_is_told_what_it_missed(
    autojump_clock: MockClock, away_s: int
) -> None:
    told = Told()
    async with open_world(seed=away_s) as world, trio.open_nursery() as nursery:
        ada, _ = await pair(world, told, nursery)
        notes = ada.channel("notes", Note)
        sent = await speak(notes, 5)
        with world.net.partition(["ada"], ["bob"], signaling=False):
            sent = await speak(notes, away_s, sent)
        sent = await speak(notes, 20, sent)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert told.came == sorted(set(told.came))
    assert len(told.came) + told.lost == sent
    assert told.undelivered == told.lost
    assert (told.lost > 0) is (away_s > 50)


async def test_a_link_that_ends_with_messages_under_way_tells_both_sides(autojump_clock: MockClock) -> None:
    told = Told()
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        ada, bob = await pair(world, told, nursery)
        notes = ada.channel("notes", Note)
        sent = await speak(notes, 5)
        with world.net.partition(["ada"], ["bob"], signaling=False):
            sent = await speak(notes, 0.8, sent)
            ada._core.driver.links[bob.me].close("test")
            await trio.sleep(1)
        sent = await speak(notes, 80, sent)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert told.came == sorted(set(told.came))
    assert len(told.came) + told.lost == sent
    assert told.lost == told.undelivered >= 4


async def test_a_link_given_up_in_good_order_first_carries_what_was_sent_over_it(autojump_clock: MockClock) -> None:
    """As the overlay does with links that a large room can spare, in the middle of bulk both ways."""
    told, back = Told(), Told()
    quality = Quality(latency_s=0.02, bytes_per_s=200_000)
    async with open_world(seed=4, quality=quality) as world, trio.open_nursery() as nursery:
        ada, bob = await pair(world, told, nursery)
        back.listen(bob, ada)
        nursery.start_soon(back.read, ada)
        sent = [0, 0]
        for _ in range(60):
            for number, room in enumerate((ada, bob)):
                room.channel("bulk").send_nowait(bytes(16_000))
                room.channel("notes", Note).send_nowait(Note(sent[number]))
                sent[number] += 1
        old = ada._core.driver.links[bob.me]
        old.close("surplus")
        assert not ada.connected
        await trio.sleep(1)
        assert not bob.connected
        for number, room in enumerate((ada, bob)):  # waits for the next link
            room.channel("notes", Note).send_nowait(Note(sent[number]))
            sent[number] += 1
        await trio.sleep(30)
        assert ada._core.driver.links[bob.me] is not old
        nursery.cancel_scope.cancel()
    assert (told.came, back.came) == (list(range(sent[0])), list(range(sent[1])))
    assert (told.lost, back.lost, told.undelivered, back.undelivered) == (0, 0, 0, 0)


async def test_a_queue_that_overflows_is_told(autojump_clock: MockClock) -> None:
    """Nobody waits: 12 MiB wait for a player whose path is slow, and its link goes, with what was in it."""
    told = Told()
    quality = Quality(latency_s=0.02, bytes_per_s=200_000)
    async with open_world(seed=2, quality=quality) as world, trio.open_nursery() as nursery:
        ada, bob = await pair(world, told, nursery)
        bulk, taken = ada.channel("bulk"), bob.channel("bulk")
        got = skipped = sent = 0

        async def read() -> None:
            nonlocal got
            async for _ in taken:
                got += 1

        nursery.start_soon(read)
        while sent < 2_000:
            report = bulk.send_nowait(bytes(16_000))
            sent += 1
            skipped += len(report.skipped)
            await trio.sleep(0.001)
            if SendOutcome.OVERFLOW in report.skipped.values():
                break
        await trio.sleep(40)
        bulk.send_nowait(b"the last")
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert skipped == 1
    assert got + told.lost == sent + 1
    assert told.undelivered == told.lost - skipped > 500


async def test_send_waits_while_everybody_is_silent(autojump_clock: MockClock) -> None:
    told = Told()
    async with open_world(seed=3) as world, trio.open_nursery() as nursery:
        ada, bob = await pair(world, told, nursery)
        bulk, taken = ada.channel("bulk"), bob.channel("bulk")
        got = sent = 0

        async def read() -> None:
            nonlocal got
            async for _ in taken:
                got += 1

        async def write() -> None:
            nonlocal sent
            while True:
                await bulk.send(bytes(16_000))
                sent += 1
                await trio.sleep(0.001)

        writing = trio.CancelScope()

        async def write_until_cancelled() -> None:
            with writing:
                await write()

        nursery.start_soon(read)
        nursery.start_soon(write_until_cancelled)
        await trio.sleep(2)
        with world.net.partition(["ada"], ["bob"], signaling=False):
            await trio.sleep(20)
            assert bob.me not in ada.peers
            waiting = sent
            await trio.sleep(10)
            assert sent == waiting < got + 200
        await trio.sleep(10)
        assert sent > waiting + 1_000
        writing.cancel()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert (got, told.lost, told.undelivered) == (sent, 0, 0)


@pytest.mark.parametrize("lasts_s", [6.0, 12.0])
async def test_broadcasts_that_nobody_can_give_any_more_are_told_to_both_sides(
    autojump_clock: MockClock, lasts_s: float
) -> None:
    """Others carry them, and keep them for a while: who was silent for longer has lost the first of them, and says so to
    their author, whether or not the two are linked."""
    gossip = GossipConfig(
        max_players=64, full_mesh_max=4, full_mesh_hysteresis=1, active_view=3, links_max=6, cache_bytes=65_536
    )
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        rooms = [await world.join("lobby", f"p{i}", max_players=64, gossip=gossip) for i in range(7)]
        for room in rooms:
            await room.wait_connected(6)
        await trio.sleep(5)
        speaker, hearer = rooms[0], rooms[-1]
        told = Told()
        told.listen(speaker, hearer)
        nursery.start_soon(told.read, hearer)
        notes, sent = speaker.channel("notes", Note), 0

        async def talk(seconds: float) -> None:
            nonlocal sent
            for _ in range(round(seconds / 0.05)):
                notes.send_nowait(Note(sent, bytes(4_000)))
                sent += 1
                await trio.sleep(0.05)

        await talk(1.0)
        others = [f"p{i}" for i in range(6)]
        with world.net.partition(["p6"], others, signaling=False):
            await talk(lasts_s)
        await talk(1.0)
        await trio.sleep(30)
        assert told.came == sorted(set(told.came))
        assert 0 < told.lost == sent - len(told.came)
        assert told.undelivered == told.lost
        nursery.cancel_scope.cancel()


async def test_nobody_lacks_more_broadcasts_than_there_were_whatever_it_says(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        told = Told()
        ada, bob = await pair(world, told, nursery)
        for number in range(3):
            ada._joined().broadcast(carried("notes", b"%d" % number))
        bob._joined().send_signal(ada.me, lost_word(2**32 - 1))
        await trio.sleep(5)
        assert told.undelivered == 3
        nursery.cancel_scope.cancel()
