"""Spectators on the virtual network: 50 ms away, two of a hundred datagrams lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from psyne_mesh import Message, Shared, smooth
from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import (
    InvalidConfig,
    OnlyWatching,
    RoomNotFound,
    SpectatorsFull,
    UnknownCode,
    WrongPassword,
)
from psyne_mesh.mesh.membership import SendOutcome
from psyne_mesh.room import events
from psyne_mesh.room.audience import Audience
from psyne_mesh.room.delivery import RELIABLE_ORDERED
from psyne_mesh.room.room import Room, inside
from psyne_mesh.room.watched import WatchedRoom
from psyne_mesh.testing import Quality, World, open_world

WAN = Quality(latency_s=0.05, loss=0.02, datagram_bytes_max=1472)
# Probes of the path's MTU come in sizes that no path of the Internet takes, and are counted as upload.
CONFIG = WebRTCConfig(path_mtu_max=1472)


HANDING_OVER = [2, 5, 9]


class Position(Message):
    tick: int
    said_at: float
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0


class Note(Message):
    number: int
    said_at: float


class Tank(Shared):
    x: float = smooth(0.0)
    health: int = 100


@attrs.define
class Match:
    """Players who play, and what spectators see of it."""

    world: World
    rooms: list[Room]
    nursery: trio.Nursery
    notes_per_s: float
    is_on: bool = True
    delays: list[float] = attrs.Factory(list)
    notes: dict[tuple[str, str], list[int]] = attrs.Factory(dict)

    async def watch(self, name: str, **options: object) -> WatchedRoom:
        mesh = await self.world.mesh(name, config=CONFIG)
        room = await mesh.join_game_room("arena", spectate=True)
        self.nursery.start_soon(self._read_positions, room)
        self.nursery.start_soon(self._read_notes, name, room)
        return room

    async def _read_positions(self, room: WatchedRoom) -> None:
        async for _, message in room.channel("positions", Position, mode="unreliable"):
            self.delays.append(trio.current_time() - message.said_at)

    async def _read_notes(self, name: str, room: WatchedRoom) -> None:
        async for peer, message in room.channel("notes", Note):
            self.notes.setdefault((name, peer.name), []).append(message.number)
            self.delays.append(trio.current_time() - message.said_at)

    async def play(self, room: Room, hz: float) -> None:
        positions, notes = room.channel("positions", Position, mode="unreliable"), room.channel("notes", Note)
        tick = 0
        while self.is_on and not self.world.hosts[room.player.name].is_dead:
            positions.send_nowait(Position(tick, trio.current_time(), 1.0 * tick))
            if tick % 5 == 0:
                notes.send_nowait(Note(tick // 5, trio.current_time()))
            tick += 1
            await trio.sleep(1 / hz)

    def uploaded(self) -> list[int]:
        return [self.world.hosts[room.player.name].bytes_sent for room in self.rooms]

    def p99(self) -> float:
        return sorted(self.delays)[int(0.99 * len(self.delays))]

    def check_notes(self, names: list[str], *, last: int) -> None:
        """Each spectator has got all notes of each player since its first, in order, to `last` at least."""
        for name in names:
            for room in self.rooms:
                got = self.notes[name, room.player.name]
                assert got == list(range(got[0], got[-1] + 1)), (name, room.player.name)
                assert got[-1] >= last


@asynccontextmanager
async def a_match(players: int, *, hz: float = 20, spectators: int = 32, seed: int = 1) -> AsyncIterator[Match]:
    async with open_world(seed=seed, quality=WAN) as world, trio.open_nursery() as nursery:
        rooms = [
            await world.join("arena", f"p{number}", max_players=8, spectators=spectators, config=CONFIG)
            for number in range(players)
        ]
        for room in rooms:
            await room.wait_connected(players - 1)
        match = Match(world, rooms, nursery, hz / 5)
        if hz:
            for room in rooms:
                nursery.start_soon(match.play, room, hz)
        yield match
        nursery.cancel_scope.cancel()


async def until(holds: Callable[[], object], within_s: float = 10.0) -> None:
    with trio.fail_after(within_s):
        while not holds():
            await trio.sleep(0.05)


async def test_spectators_see_players_messages_objects_and_state(autojump_clock: MockClock) -> None:
    async with a_match(3, hz=0) as match:
        ada, bob, _ = match.rooms
        tank = ada.share(Tank(x=1.0))
        bob.me.state["ready"] = True
        await until(lambda: [room for room in match.rooms if room.is_host])
        (host,) = [room for room in match.rooms if room.is_host]
        host.state["map"] = "dust"
        chat = ada.channel("chat")
        seats = {peer: number for number, peer in enumerate(ada.seats) if peer is not None}
        early, late = await match.watch("s0"), await match.watch("s1")
        for watched in (early, late):
            await watched.wait_players(3)
            assert {peer.name for peer in watched.peers.values()} == {"p0", "p1", "p2"}
            await until(lambda watched=watched: {peer.id: peer.seat for peer in watched.peers.values()} == seats)
            await until(lambda watched=watched: watched.peers[bob.me].state.get("ready"))
            await until(lambda watched=watched: watched.state.get("map") == "dust")
            await until(lambda watched=watched: list(watched.all(Tank)))
            await until(lambda watched=watched: watched.host is not None and watched.host.id == host.me)
        (seen,) = early.all(Tank)
        tank.x, tank.health = 5.0, 40
        host.state["map"] = "snow"
        ada.update_player(name="countess")
        chat.send_nowait("hello")
        chat.send_nowait("to bob alone", to=bob.me)
        chat.send_nowait(b"all" * 10_000)
        for watched in (early, late):
            channel = watched.channel("chat")
            assert [(peer.id, said) for peer, said in [await channel.receive(), await channel.receive()]] == [
                (ada.me, "hello"), (ada.me, b"all" * 10_000)
            ]  # fmt: skip
            await until(lambda watched=watched: watched.state["map"] == "snow")
            await until(lambda watched=watched: watched.peers[ada.me].name == "countess")
            await until(lambda watched=watched: [round(each.x, 2) for each in watched.all(Tank)] == [5.0])
        assert seen.health == 40
        assert seen.owner == early.peers[ada.me]
        ada.unshare(tank)
        await until(lambda: not list(late.all(Tank)))
        told = late.events()
        await ada.leave()
        await until(lambda: ada.me not in late.peers)
        assert [event.reason async for event in _only(told, events.PeerLeft, 1)] == ["left"]
        assert late.spectators == 2
        await late.leave()
        await until(lambda: early.spectators == 1)


async def _only(told: object, kind: type, count: int) -> AsyncIterator[object]:
    async for event in told:  # type: ignore[attr-defined]
        if isinstance(event, kind):
            yield event
            count -= 1
            if not count:
                return


async def test_spectators_are_on_no_seat_and_no_list(autojump_clock: MockClock) -> None:
    async with a_match(2, hz=0) as match:
        ada = match.rooms[0]
        watched = await match.watch("s0")
        await watched.wait_players(2)
        await trio.sleep(3)
        assert len(ada.peers) == 1
        assert {seat for seat in ada.seats if seat is not None} == {room.me for room in match.rooms}
        assert watched.me not in ada.peers
        assert ada.voters <= {room.me for room in match.rooms}
        assert watched.me not in watched.peers
        mesh = await match.world.mesh("looker")
        assert [info.name for info in await mesh.list_rooms()] == ["arena"]
        for number in range(2, 8):  # all seats are still to be had
            await match.world.join("arena", f"p{number}", create=False)


async def test_a_spectator_says_nothing(autojump_clock: MockClock) -> None:
    async with a_match(2, hz=0) as match:
        watched = await match.watch("s0")
        await watched.wait_players(2)
        channel = watched.channel("chat")
        with pytest.raises(OnlyWatching):
            await channel.send("hello")
        with pytest.raises(OnlyWatching):
            channel.send_nowait("hello")
        with pytest.raises(InvalidConfig):
            watched.channel("chat", mode="unreliable")


async def test_a_hostile_spectator_is_not_heard_and_forges_nothing(autojump_clock: MockClock) -> None:
    """A gate has a link to each player: it writes to their channels, and tells spectators what nobody said."""
    async with a_match(3, hz=10) as match:
        mallory, guest = await match.watch("s0"), await match.watch("s1")
        for watched in (mallory, guest):
            await watched.wait_players(3)
        await until(lambda: mallory.is_gate)
        ada, inner = match.rooms[0], mallory._spectating
        heard: list[object] = []
        ada.channel("chat").on_message(lambda peer, message: heard.append(message))
        theirs, tag = inner._gates.membership, ada._joined()
        config = RELIABLE_ORDERED.data_channel(tag.label("chat"), 256)
        await until(lambda: theirs.is_linked(ada.me))
        for _ in range(20):
            assert theirs.send(ada.me, config, "I win", reliable=True) is SendOutcome.SENT
            inner.gallery.membership.broadcast(b"garbage")
            inner._gates.membership.send(
                ada.me, RELIABLE_ORDERED.data_channel(theirs.label("feed"), 256), b"garbage", reliable=True
            )
        said = guest.channel("chat")
        from psyne_mesh.game.watching.wire import Batch, Signed, encode

        body = encode(
            Batch(2**52, 0, 0, True, Audience.facts(inside(ada).parts.audience), messages=[("chat", [(1, b"I lost")])])
        )
        lie = Signed(
            body, mallory._core.identity.sign(b"psyne-watch", inner._domain + body), ada._core.identity.public_key
        )
        for _ in range(5):
            inner.gallery.broadcast(lie)
            await trio.sleep(0.5)
        assert heard == []
        assert not said._inbox
        assert set(guest.peers) == {room.me for room in match.rooms}
        assert mallory.me not in ada.peers
        assert inner.gallery.membership.room != tag.room
        assert guest._spectating.gallery.refused >= 5
        before = len(match.notes["s1", "p0"])
        await trio.sleep(3)
        assert len(match.notes["s1", "p0"]) > before, "the match goes on"
    match.check_notes(["s1"], last=8)


async def gate_dies(match: Match, watching: dict[str, WatchedRoom]) -> None:
    """One of those who fetch what players say: within 3 s all spectators hear all players again."""
    dead = next(name for name, watched in watching.items() if watched.is_gate)
    match.world.crash(dead)
    del watching[dead]
    crashed_at = trio.current_time()
    said = dict.fromkeys((name, room.player.name) for name in watching for room in match.rooms)
    last = {key: match.notes[key][-1] for key in said}
    heard_now = int(2.0 * match.notes_per_s)  # what was said in the first two seconds after the crash
    with trio.move_on_after(10):
        while not all(match.notes[key][-1] >= last[key] + heard_now for key in said):
            await trio.sleep(0.05)
    assert trio.current_time() - crashed_at <= 3.0


async def test_a_gate_dies_and_nothing_reliable_is_lost(autojump_clock: MockClock) -> None:
    async with a_match(3, hz=10) as match:
        watching = {f"s{number}": await match.watch(f"s{number}") for number in range(4)}
        for watched in watching.values():
            await watched.wait_players(3)
        await until(lambda: sum(watched.is_gate for watched in watching.values()) == 2)
        await trio.sleep(2.5)
        await gate_dies(match, watching)
        await trio.sleep(2)
        final = min(match.notes[name, "p0"][-1] for name in watching) - 3
    match.check_notes(list(watching), last=final)


@pytest.mark.parametrize("seed", HANDING_OVER)
async def test_nothing_reliable_is_lost_while_many_come_at_once(autojump_clock: MockClock, seed: int) -> None:
    """Each newcomer may sit below those who fetch: gates hand over several times within seconds, to some who have only come."""
    async with a_match(2, hz=10, seed=seed) as match:
        await trio.sleep(1)
        watching = {f"s{number}": await match.watch(f"s{number}") for number in range(10)}
        told = {name: watched.events() for name, watched in watching.items()}
        for watched in watching.values():
            await watched.wait_players(2)
        await trio.sleep(6)  # longer than `viewer.GIVE_UP_S`
        match.check_notes(list(watching), last=match.notes["s0", "p0"][-1] - 3)
        for name, watched in watching.items():
            await watched.leave()
            assert not [event async for event in told[name] if isinstance(event, events.MessagesLost)]


async def test_who_may_watch(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada = await world.mesh("ada")
        await ada.create_room("closed")
        small = await ada.create_room("small", spectators=2)
        secret = await ada.create_room("secret", spectators=4, password="swordfish")
        guests = [await world.mesh(f"g{number}") for number in range(4)]
        with pytest.raises(RoomNotFound, match="spectators=32"):
            await guests[0].join_game_room("closed", spectate=True)
        with pytest.raises(RoomNotFound):
            await guests[0].join_game_room("nowhere", spectate=True)
        with pytest.raises(UnknownCode):
            await guests[0].join_room("K7QM-3FHT", spectate=True)
        for guest in guests[:2]:
            assert (await guest.join_room(small.code, spectate=True)).info.code == small.info.code
        with pytest.raises(SpectatorsFull, match="2 watch room 'small' already"):
            await guests[2].join_room(small.code, spectate=True)
        with pytest.raises(WrongPassword):
            await guests[2].join_room(secret.code, password="sardine", spectate=True)
        watched = await guests[2].join_room(secret.code, password="swordfish", spectate=True)
        await watched.wait_players(1)
        with pytest.raises(InvalidConfig, match="spectators"):
            await ada.create_room("many", spectators=257)
        with pytest.raises(InvalidConfig, match="up to 16"):
            await ada.create_room("large", max_players=64, spectators=8)
        closed = await ada.create_room("by code", policy="code")
        with pytest.raises(SpectatorsFull, match="allows no spectators"):
            await guests[3].join_room(closed.code, spectate=True)


async def uploads_for(match: Match, seconds: float) -> list[int]:
    before = match.uploaded()
    await trio.sleep(seconds)
    return [after - start for start, after in zip(before, match.uploaded(), strict=True)]


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_a_room_of_eight_is_watched_by_thirty_two(autojump_clock: MockClock) -> None:
    """A second behind at most, for a tenth more upload of any player, and through the death of a gate."""
    async with a_match(8) as match:
        await trio.sleep(1)
        unwatched = await uploads_for(match, 5)
        watching = {f"s{number}": await match.watch(f"s{number}") for number in range(32)}
        mesh = await match.world.mesh("too many", config=CONFIG)
        with pytest.raises(RoomNotFound):
            await mesh.join_game_room("arena", spectate=True)
        for watched in watching.values():
            await watched.wait_players(8)
        await trio.sleep(3)
        match.delays.clear()
        watched_uploads = await uploads_for(match, 5)
        ratios = [after / start for start, after in zip(unwatched, watched_uploads, strict=True)]
        seen_per_s = len(match.delays) / 5 / 8 / 32
        print(f"upload {max(ratios):.3f} p99 {match.p99():.3f} s, {seen_per_s:.1f} messages a second of each player")
        assert max(ratios) <= 1.10
        assert match.p99() <= 1.0
        assert seen_per_s >= 7
        await gate_dies(match, watching)
        await trio.sleep(2)
        final = min(match.notes[name, "p0"][-1] for name in watching) - 3
    match.check_notes(list(watching), last=final)
