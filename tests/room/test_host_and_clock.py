"""The clock and the host of real rooms, on the virtual network: what the pure cores promise reaches a player."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from psyne_mesh.errors import ProtocolError
from psyne_mesh.game import host_wire
from psyne_mesh.game.host import Answer, Ask, Beat, Grant, HostWord, Place, Resign
from psyne_mesh.game.room_clock import Reading
from psyne_mesh.identity import Identity
from psyne_mesh.room import timekeeper
from psyne_mesh.room.events import HostChanged
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, World, open_world


async def everybody(world: World, *names: str) -> list[Room]:
    rooms = [await world.join("arena", name) for name in names]
    for room in rooms:
        await room.wait_connected(len(names) - 1)
    return rooms


async def agree_on_a_host(rooms: list[Room]) -> Room:
    with trio.fail_after(30):
        while True:
            hosts = [room.host for room in rooms]
            ids = {host.id if host is not None else None for host in hosts}
            if len(ids) == 1 and ids <= {room.me for room in rooms}:
                return next(room for room in rooms if room.me in ids)
            await trio.sleep(0.05)


async def test_all_clocks_show_one_time_half_a_second_after_they_are_asked(autojump_clock: MockClock) -> None:
    async with open_world(seed=1, quality=Quality(latency_s=0.025, jitter_s=0.01)) as world:
        rooms = await everybody(world, "ada", "bob", "cid", "dan")
        for room in rooms:
            room.time()
        await trio.sleep(6)  # who founded the room is found out by silence
        times = [room.time() for room in rooms]
        assert max(times) - min(times) <= 0.01
        assert all(room.time_error() <= 0.05 for room in rooms)
        newcomer = await world.join("arena", "eve")
        await newcomer.wait_connected(4)
        newcomer.time()
        await trio.sleep(0.6)
        assert abs(newcomer.time() - rooms[0].time()) <= 0.02
        before = newcomer.time()
        await trio.sleep(1)
        assert newcomer.time() - before == pytest.approx(1, abs=0.051)


async def test_latency_one_way_and_seats_are_seen(autojump_clock: MockClock) -> None:
    async with open_world(seed=1, quality=Quality(latency_s=0.03)) as world:
        rooms = await everybody(world, "ada", "bob", "cid")
        ada, bob, _ = rooms
        assert ada.peers[bob.me].latency_ms is None
        for room in rooms:
            room.time()
        await trio.sleep(10)
        for room in rooms:
            for peer in room.peers.values():
                assert peer.latency_ms == pytest.approx(30, abs=5)
                assert peer.skew_ms == pytest.approx(0, abs=5)
                assert peer.seat == room.seats.index(peer.id)
        assert len({room.seats.index(room.me) for room in rooms}) == 3


async def test_who_crashes_finds_its_seat_again_though_others_came(autojump_clock: MockClock) -> None:
    async with open_world(seed=1, quality=Quality(latency_s=0.03)) as world:
        rooms = [await world.join("arena", name, max_players=4) for name in ("ada", "bob", "cid")]
        for room in rooms:
            await room.wait_connected(2)
        await trio.sleep(5)
        ada, bob, _ = rooms
        seat = ada.peers[bob.me].seat
        assert seat is not None
        world.crash("bob")
        await trio.sleep(20)
        assert bob.me not in ada.peers
        dan = await world.join("arena", "dan", max_players=4)
        await dan.wait_connected(2)
        await trio.sleep(10)
        assert dan.seats.index(dan.me) != seat
        again = await world.join("arena", "bob", max_players=4)
        await again.wait_connected(3)
        await trio.sleep(5)
        assert ada.peers[bob.me].seat == again.seats.index(again.me) == seat


@pytest.mark.parametrize("seed", range(4))
async def test_who_is_back_is_linked_at_once_and_has_its_seat_of_many(seed: int, autojump_clock: MockClock) -> None:
    """The server had refused what was for the dead; what is for the living goes through it again."""
    async with open_world(seed=seed, quality=Quality(latency_s=0.03)) as world:
        ada, bob, cid = await everybody(world, "ada", "bob", "cid")
        await trio.sleep(5)
        seat = ada.peers[bob.me].seat
        assert seat is not None
        world.crash("bob")
        await trio.sleep(15)
        again = await world.join("arena", "bob")
        with trio.fail_after(2):
            await again.wait_connected(2)
        await trio.sleep(3)
        assert again.seats.index(again.me) == ada.peers[bob.me].seat == cid.peers[bob.me].seat == seat


async def test_a_killed_host_is_replaced_for_all_and_a_leaving_one_hands_over(autojump_clock: MockClock) -> None:
    async with open_world(seed=2, quality=Quality(latency_s=0.02)) as world:
        rooms = await everybody(world, "ada", "bob", "cid", "dan")
        events: list[HostChanged] = []
        rooms[3].on(HostChanged, events.append)
        first = await agree_on_a_host(rooms)
        assert first.is_host
        await trio.sleep(5)
        assert first.me in first.seats
        names = ["ada", "bob", "cid", "dan"]
        world.crash(names[rooms.index(first)])
        rest = [room for room in rooms if room is not first]
        began = trio.current_time()
        await trio.sleep(2.2)
        second = await agree_on_a_host(rest)
        assert second is not first
        assert trio.current_time() - began <= 3.0
        await trio.sleep(5)
        rest.remove(second)
        await second.leave()
        began = trio.current_time()
        third = await agree_on_a_host(rest)
        assert third in rest
        assert trio.current_time() - began <= 1.0
        terms = [event.term for event in events]
        assert terms == sorted(terms)


@given(st.binary(max_size=200))
def test_nothing_but_a_protocol_error_leaves_their_words(data: bytes) -> None:
    for parse in (host_wire.decode_untrusted, timekeeper.word_untrusted):
        with suppress(ProtocolError):
            parse(data)
    with pytest.raises(ProtocolError):
        host_wire.decode_untrusted("text")
    with pytest.raises(ProtocolError):
        timekeeper.word_untrusted("text")


def test_words_come_back_as_they_were() -> None:
    ada = Identity.from_seed(b"a" * 32).peer_id
    words: list[HostWord] = [
        Beat(3, 7, 2, (Place(0, ada),)),
        Answer(3, 7, -1),
        Ask(4, 3, 2, is_trial=True),
        Grant(4, is_granted=True, is_trial=False),
        Resign(3),
    ]
    for word in words:
        assert host_wire.decode_untrusted(host_wire.encode(word)) == word
    assert host_wire.decode_untrusted(host_wire.encode(None)) is None
    assert timekeeper.word_untrusted(timekeeper.ask(1.5)) == (1.5, None)
    assert timekeeper.word_untrusted(timekeeper.answer(1.5, Reading(2.0, 3.0, 0.0))) == (1.5, Reading(2.0, 3.0, 0.0))
    assert struct.calcsize("!Bdddf") == 29
