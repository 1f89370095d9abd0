"""Kick and ban through whole rooms, and what forgers get: nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import ClosedError, InvalidConfig, NotHost, ProtocolError
from psyne_mesh.game import bans, state_wire
from psyne_mesh.game.bans import SUBJECTS_MAX, VOTE_S, Order, Vote, Votes, needed, read_untrusted, signed
from psyne_mesh.game.state_wire import Part, Stand
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.room.events import Evicted, VoteCast
from psyne_mesh.room.room import Room, inside
from psyne_mesh.testing import World, open_world
from tests.room.test_host_and_clock import agree_on_a_host, everybody

NAMES = ["ada", "bob", "cid", "dan", "eve"]


async def hosted(world: World) -> tuple[list[Room], Room]:
    rooms = await everybody(world, *NAMES)
    host = await agree_on_a_host(rooms)
    await trio.sleep(4)  # everybody has its seat and a vote
    return rooms, host


def leavers(rooms: list[Room]) -> list[tuple[PeerId, str]]:
    told: list[tuple[PeerId, str]] = []
    for room in rooms:
        room.on_peer_left(lambda peer, reason: told.append((peer.id, reason)))
    return told


async def test_whom_the_host_kicks_stays_out_whoever_is_host_later(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=1) as world:
        rooms, host = await hosted(world)
        bad = next(room for room in rooms if room is not host)
        rest = [room for room in rooms if room is not bad]
        told, own = leavers(rest), []
        bad.on(Evicted, own.append)
        with pytest.raises(NotHost, match=host.player.name):
            bad.kick(host.me)
        for wrong in ({"peer": "x"}, {"peer": host.me}, {"peer": bad.me, "reason": "x" * 101}):
            with pytest.raises(InvalidConfig):
                host.kick(**wrong)  # type: ignore[arg-type]
        host.kick(host.peers[bad.me], "cheats")
        await trio.sleep(1)
        assert sorted(told) == sorted([(bad.me, "kicked")] * 4)
        assert own == [Evicted("kicked")]
        with pytest.raises(ClosedError, match="expelled"):
            bad.channel("x")
        assert all(room.barred == {bad.me} for room in rest)
        name = NAMES[rooms.index(bad)]
        world.crash(name)
        again = await world.join("arena", name)  # the same key
        fox = await world.join("arena", "fox")
        await fox.wait_connected(4)
        await trio.sleep(5)
        assert bad.me not in fox.peers
        assert not any(bad.me in room.peers for room in rest)
        assert not again.connected
        world.crash(NAMES[rooms.index(host)])
        rest.remove(host)
        await trio.sleep(4)
        second = await agree_on_a_host([*rest, fox])
        assert second is not host
        gil = await world.join("arena", "gil")
        await trio.sleep(8)
        assert bad.me not in gil.peers
        assert gil.barred == {bad.me}


async def test_votes_of_more_than_half_of_the_seats_bar_and_fewer_do_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(seed=2) as world:
        rooms, host = await hosted(world)
        rest = [room for room in rooms if room is not host]
        told, own = leavers(rest), []
        host.on(Evicted, own.append)
        cast: list[VoteCast] = []
        rest[3].on_vote(cast.append)
        rest[0].vote_kick(host.me, "unfair")
        rest[0].vote_kick(host.me, "unfair")
        rest[1].vote_kick(host.me)
        await trio.sleep(10)
        assert told == []
        assert len(cast) == 3
        assert (max(event.votes for event in cast), {event.needed for event in cast}) == (2, {3})
        rest[2].vote_kick(host.me)
        began = trio.current_time()
        while len(told) < 4:
            await trio.sleep(0.05)
        assert trio.current_time() - began <= 2.0
        await trio.sleep(1)
        assert told == [(host.me, "kicked")] * 4
        assert own == [Evicted("kicked")]
        with trio.fail_after(5):
            while (await agree_on_a_host(rest)) not in rest:
                await trio.sleep(0.05)
        await trio.sleep(1)
        fox = await world.join("arena", "fox")
        await fox.wait_connected(4)
        await trio.sleep(3)
        assert fox.barred == {host.me}  # the next host has written it down


async def test_of_two_neither_bars_the_other(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=2) as world:
        ada, bob = await everybody(world, "ada", "bob")
        await trio.sleep(4)
        ada.vote_kick(bob.me)
        await trio.sleep(2)
        assert bob.connected
        assert not ada.barred


async def test_forged_orders_and_votes_do_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=3) as world:
        rooms, host = await hosted(world)
        evil, victim = [room for room in rooms if room is not host][:2]
        told = leavers(rooms)
        membership, identity = evil._joined(), evil._core.identity
        term, tag = host.term, membership.tag
        orders = [
            signed(identity, Order(tag, victim.me.raw, term, "")),  # not the host
            signed(identity, Order(tag, victim.me.raw, term + 1, "")),
            signed(identity, Order(tag, victim.me.raw, 0, "")),
        ]
        state, votes = inside(evil).parts.states._channel, inside(evil).parts.barring._channel
        for order in orders:
            for part in (
                Part(b"", term, 50, None, 0, 1, [("!" + victim.me, order)]),
                Part(b"", term - 1, 50, None, 0, 1, [("!" + victim.me, order)]),
                Part(b"", term + 1, 50, Stand(term, 0, host.me.raw), 0, 1, [("!" + victim.me, order)]),
            ):
                state.send_nowait(state_wire.encode(part))
            votes.send_nowait(order)
        other = Identity.generate()
        now = evil._core.wall_ms()
        for vote in (
            signed(other, Vote(tag, victim.me.raw, now, "")),  # of nobody here
            signed(identity, Vote(b"another", victim.me.raw, now, "")),
            signed(identity, Vote(tag, victim.me.raw, now - 100_000, "")),
            signed(identity, Vote(tag, victim.me.raw, now, ""))[:-1] + b"x",
            *[signed(identity, Vote(tag, victim.me.raw, now + number, "")) for number in range(9)],  # one vote
        ):
            votes.send_nowait(vote)
        await trio.sleep(5)
        assert told == []
        assert not any(room.barred for room in rooms)
        assert host.is_host
        # What the host writes must say what its key says, too.
        inside(host).parts.states.write_room("!" + victim.me, signed(identity, Order(tag, victim.me.raw, term, "")))
        inside(host).parts.states.write_room(
            "!" + victim.me, signed(host._core.identity, Order(tag, evil.me.raw, term, ""))
        )
        inside(host).parts.states.write_room("!nobody", b"\x00")
        await trio.sleep(1)
        assert told == []


def test_votes_lapse_and_half_is_never_enough() -> None:
    seats = [PeerId(f"{number:032x}") for number in range(8)]
    for size in range(1, 9):
        seated = seats[:size]
        votes = Votes()
        for number, voter in enumerate(seated[1:], 1):
            votes.heard(voter, seated[0], 0.0)
            votes.heard(voter, seated[0], 0.1)
            votes.heard(seated[0], seated[0], 0.1)  # the subject's own
            votes.heard(PeerId("f" * 32), seated[0], 0.1)  # without a seat
            assert votes.is_decided(seated[0], seated, 0.2) is (number > size / 2)
        assert not votes.is_decided(seated[0], seated, 0.1 + VOTE_S)
        assert needed(seated) > size / 2
    many = Votes()
    for number in range(1000):
        many.heard(seats[0], PeerId(f"{number:032x}"), 0.0)
    assert len(many._until) == SUBJECTS_MAX


@given(st.binary(max_size=300))
def test_nothing_but_a_protocol_error_leaves_the_parser(data: bytes) -> None:
    with suppress(ProtocolError):
        bans.read_untrusted(data, b"room")
    with pytest.raises(ProtocolError):
        bans.read_untrusted("text", b"room")


def test_words_come_back_as_they_were() -> None:
    ada = Identity.from_seed(b"a" * 32)
    words: list[Any] = [Order(b"room", ada.peer_id.raw, 3, "why"), Vote(b"room", ada.peer_id.raw, 5, "é")]
    for word in words:
        assert read_untrusted(signed(ada, word), b"room") == (ada.peer_id, word)
