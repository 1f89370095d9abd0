"""Fair play in rooms on a virtual network: rules before delivery, a signed record, dice that nobody loads."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from examples.netcode.path import taken
from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.game.evidence import evidence_untrusted, judge
from psyne_mesh.game.rules import Seen, rate, sequence, speed, within
from psyne_mesh.room.events import Equivocated, MovesRevealed, NotSigned, Rolled, RoundFailed, RuleBroken
from psyne_mesh.room.fairness import word_untrusted
from psyne_mesh.room.messages import Message
from psyne_mesh.room.room import Room, inside
from psyne_mesh.testing import Quality, World
from psyne_mesh.testing.plugin import OpenWorld

ARENA = ((-1000.0, -1000.0), (1000.0, 1000.0))


class Move(Message, rules=[speed(max=12), rate(per_s=30), sequence(), within(ARENA)], stamp="at"):
    sequence: int
    at: float
    x: float
    y: float = 0.0


def anything(message: Any, seen: Seen) -> str | None:
    return None


class Free(Message, tag="Move", rules=[anything]):
    """What a changed game says: the same on the wire, and no rules to speak of at home."""

    sequence: int
    at: float
    x: float
    y: float = 0.0


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 21))]


def told(room: Room, *kinds: type[Any]) -> list[Any]:
    heard: list[Any] = []
    for kind in kinds or (RuleBroken, Equivocated, NotSigned):
        room.on(kind, heard.append)
    return heard


async def entered(world: World, *names: str, kind: type[Any] = Move) -> list[Room]:
    rooms = [await world.join("arena", name) for name in names]
    for room in rooms:
        await room.wait_connected(len(rooms) - 1)
        room.channel("moves", kind if room is rooms[0] else Move, mode="unreliable")
    await trio.sleep(8)  # the clock is set
    return rooms


async def run_about(room: Room, kind: type[Any], seconds: float, pace: float = 1.0, first: int = 0) -> None:
    """At 12 units a second times `pace`, 20 times a second."""
    channel = room.channel("moves")
    for tick in range(first, first + int(seconds * 20)):
        channel.send_nowait(kind(tick, room.time(), tick / 20 * 12 * pace))
        await trio.sleep(0.05)


@pytest.mark.parametrize("psyne_seed", SEEDS)
async def test_who_plays_by_the_rules_is_heard_and_nobody_accuses_him(
    autojump_clock: MockClock, psyne_world: OpenWorld
) -> None:
    quality = Quality(latency_s=0.05, jitter_s=0.1, loss=0.05)  # 100 +- 50 ms each way
    async with psyne_world(quality=quality) as world, trio.open_nursery() as nursery:
        rooms = await entered(world, "ada", "bob", "cid")
        heard = [told(room) for room in rooms]
        for room in rooms:
            nursery.start_soon(run_about, room, Move, 20.0)
        await trio.sleep(21)
        assert heard == [[], [], []]
        for room in rooms:
            stats = room.channel("moves").stats
            assert stats.received + len(room.channel("moves")._inbox) > 500
        assert not any(inside(room).parts.fairness.refused for room in rooms)


@pytest.mark.parametrize("psyne_seed", SEEDS)
async def test_cuts_stalls_and_late_comers_are_no_cheats(autojump_clock: MockClock, psyne_world: OpenWorld) -> None:
    quality = Quality(latency_s=0.03, jitter_s=0.02, loss=0.02)
    async with psyne_world(quality=quality) as world, trio.open_nursery() as nursery:
        rooms = await entered(world, "ada", "bob", "cid")
        heard = [told(room) for room in rooms]
        for room in rooms:
            nursery.start_soon(run_about, room, Move, 60.0)
        await trio.sleep(3)
        with world.net.cut(("ada", "bob"), ("bob", "ada")):
            await trio.sleep(2)
        await trio.sleep(3)
        with world.net.partition(["ada"], ["bob", "cid"], signaling=False):
            await trio.sleep(12)
        late = await world.join("arena", "dan")
        heard.append(told(late))
        late.channel("moves", Move, mode="unreliable")
        with world.hosts["cid"].pause():
            await trio.sleep(1.5)
        await trio.sleep(20)
        assert heard == [[], [], [], []]
        assert late.channel("moves").stats.received + len(late.channel("moves")._inbox) > 100
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("psyne_seed", SEEDS)
async def test_what_breaks_a_rule_is_an_event_and_is_not_delivered(
    autojump_clock: MockClock, psyne_world: OpenWorld
) -> None:
    async with psyne_world(quality=Quality(latency_s=0.05, jitter_s=0.02, loss=0.05)) as world:
        cheat, bob, cid = await entered(world, "eve", "bob", "cid", kind=Free)
        heard = told(bob, RuleBroken)
        await run_about(cheat, Free, 2.0)
        assert heard == []
        began = trio.current_time()
        bob.on(RuleBroken, lambda event: seen.append(trio.current_time()))
        seen: list[float] = []
        await run_about(cheat, Free, 3.0, pace=1.2, first=40)
        assert heard[0].rule == "speed(max=12)"
        assert heard[0].peer.name == "eve"
        assert isinstance(heard[0].message, Move)
        assert isinstance(heard[0].before, Move)
        assert seen[0] - began <= 1.0
        assert len(heard) <= 6  # of some fifty: the rest is counted
        assert sum(event.count for event in heard) > 15
        places = [message.x for message in taken(bob.channel("moves"))]
        assert len(places) > 20
        assert heard[0].message.x not in places
        assert cid.channel("moves").stats.refused > 10
        heard.clear()
        cheat.channel("moves").send_nowait(Free(1000, bob.time() + 5, 50.0))
        cheat.channel("moves").send_nowait(Free(1001, bob.time() - 60, 50.0))
        cheat.channel("moves").send_nowait(Free(1002, bob.time(), 5000.0))
        await trio.sleep(1)
        assert {event.rule for event in heard} >= {"stamped"}


async def test_a_rule_is_a_function_and_one_that_raises_ends_its_own_room_only(
    autojump_clock: MockClock, psyne_world: OpenWorld
) -> None:
    def even(message: Any, seen: Seen) -> str | None:
        if message.number == 99:
            raise ZeroDivisionError("of the game's own")
        return None if message.number % 2 == 0 else f"{message.number} is odd"

    class Number(Message, rules=[even]):
        number: int

    class Anything(Message, tag="Number"):
        number: int

    async with psyne_world() as world:
        ada = await world.join("arena", "ada")
        with pytest.raises(ZeroDivisionError):
            async with world.joining("arena", "bob") as bob:
                await ada.wait_connected(1)
                inbox = bob.channel("numbers", Number)
                heard = told(bob, RuleBroken)
                outbox = ada.channel("numbers", Anything)
                for number in (2, 3, 4):
                    await outbox.send(Anything(number))
                assert (await inbox.receive())[1] == Number(2)
                assert (await inbox.receive())[1] == Number(4)
                await trio.sleep(0.1)
                assert [(event.rule, event.reason) for event in heard] == [("even", "3 is odd")]
                assert heard[0].before == Number(2)
                await outbox.send(Anything(99))
                await trio.sleep_forever()
        assert ada.name == "arena"
        ada.channel("numbers")


@pytest.mark.parametrize("psyne_seed", SEEDS)
async def test_two_stories_are_proved_and_the_file_shows_it(
    autojump_clock: MockClock, psyne_world: OpenWorld, tmp_path: Path
) -> None:
    async with (
        psyne_world(quality=Quality(latency_s=0.03, jitter_s=0.01)) as world,
        trio.open_nursery() as nursery,
    ):
        liar, *others = await entered(world, "eve", "bob", "cid", "dan", kind=Free)
        heard = [told(room, Equivocated) for room in others]
        nursery.start_soon(run_about, liar, Free, 10.0)
        await trio.sleep(2)
        # From now on bob is told another story: other places, and a statement that fits them.
        began = trio.current_time()
        tell_two_stories(liar, others[0])
        while not all(heard):
            await trio.sleep(0.05)
            assert trio.current_time() - began < 5
        assert trio.current_time() - began <= 1.2  # a span that was begun before, and one
        assert {event.player for events in heard for event in events} == {liar.me}
        path = tmp_path / "eve.evidence"
        others[2].evidence(path)
        found = judge([evidence_untrusted(path.read_bytes())[0]])
        assert [(finding.against, finding.proved) for finding in found.findings] == [(liar.me, True)]
        assert found.signed[liar.me] > 20
        assert path.stat().st_size < 2 << 20
        with pytest.raises(InvalidConfig, match="cannot be written"):
            others[2].evidence(tmp_path / "nowhere" / "file")
        nursery.cancel_scope.cancel()


def tell_two_stories(liar: Room, victim: Room) -> None:
    fairness = inside(liar).parts.fairness
    assert fairness._scribe is not None
    true, channel = fairness._send, liar.channel("moves")
    scribe, hand_over = fairness._scribe, channel._hand_over
    second = type(scribe)(scribe._identity, scribe._room, scribe._stay)
    second._spans, second._before = dict(scribe._spans), dict(scribe._before)
    second._pending = {stream: list(entries) for stream, entries in scribe._pending.items()}
    victims = [victim.me]

    def two_payloads(payload: bytes, targets: Any, to: Any) -> Any:
        other = payload[:-8] + struct.pack(">d", 5.0)
        second.said("moves", other)
        channel._membership.send_to_each(victims, channel._config, other, reliable=False)
        return hand_over(payload, [peer for peer in targets if peer not in victims], to)

    def two_statements(word: Any, to: Any) -> None:
        if type(word).__name__ != "Say":
            true(word, to)
            return
        for peer in liar.peers:
            if peer not in victims:
                true(word, peer)
        for signed in second.statements(trio.current_time()):
            true(type(word)(signed), victim.me)

    channel._hand_over = two_payloads  # type: ignore[method-assign]
    fairness._send = two_statements  # type: ignore[method-assign]


async def test_accusations_stand_in_the_file_with_what_was_signed(
    autojump_clock: MockClock, psyne_world: OpenWorld, tmp_path: Path
) -> None:
    async with psyne_world() as world:
        cheat, bob = await entered(world, "eve", "bob", kind=Free)
        await run_about(cheat, Free, 1.0)
        await run_about(cheat, Free, 0.1, pace=30, first=20)
        await trio.sleep(40)  # longer than what is kept of the rest
        bob.evidence(tmp_path / "file")
        found = judge([evidence_untrusted((tmp_path / "file").read_bytes())[0]])
        assert found.writers == [bob.me]
        assert found.names[cheat.me] == "eve"
        proved = [finding.what for finding in found.findings if finding.proved]
        assert all(finding.against == cheat.me for finding in found.findings)
        assert proved
        assert proved[0].startswith("signed Move(20, ")
        assert any(finding.by == bob.me and "speed" in finding.what for finding in found.findings)


async def test_a_die_is_the_same_for_all_and_who_hides_its_hand_is_named(
    autojump_clock: MockClock, psyne_world: OpenWorld
) -> None:
    async with psyne_world() as world:
        rooms = [await world.join("dice", name) for name in ("ada", "bob", "cid")]
        for room in rooms:
            await room.wait_connected(2)
        heard = [told(room, Rolled, MovesRevealed, RoundFailed) for room in rooms]
        rolled = rooms[0].roll(6)
        await trio.sleep(1)
        assert rolled.is_done
        assert heard == [[Rolled(rooms[0].me, 6, rolled.value)]] * 3
        moves = [room.secret_move("round 1", name) for room, name in zip(rooms, ("rock", "paper", "rock"))]
        await trio.sleep(1)
        assert [move.moves for move in moves] == [dict(zip([room.me for room in rooms], ("rock", "paper", "rock")))] * 3
        hidden = rooms[1].secret_move("round 2", "rock", players=[rooms[0].me], timeout=3)
        await trio.sleep(4)
        assert hidden.refused == {rooms[0].me: "does not commit"}
        assert heard[1][-1] == RoundFailed("round 2", {rooms[0].me: "does not commit"})
        drawn = {room.witness(500, besides=[rooms[0].me], seed=rolled.value or 0) for room in rooms}
        assert len(drawn) == 1
        assert drawn < {rooms[1].me, rooms[2].me}
        for wrong in (
            lambda: rooms[0].roll(1), lambda: rooms[0].roll(6, players=["ada"]),  # type: ignore[list-item]
            lambda: rooms[0].witness(-1), lambda: rooms[0].secret_move("", 1), lambda: rooms[0].secret_move("x", 1, timeout=0),
        ):  # fmt: skip
            with pytest.raises(InvalidConfig):
                wrong()


@given(st.binary(max_size=200))
def test_nothing_but_a_protocol_error_leaves_their_words(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        word_untrusted(data)
