"""Players in TypeScript in one room with Python players: in Node.js, in Chromium and in Firefox."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

from psyne_mesh import Message, create_room, join_game_room
from psyne_mesh.room import events
from psyne_mesh.room.hub import EventIterator
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.server import open_server
from tests.js.members import KINDS, Member, build, needs, open_member
from tests.js.node import needs_node

# Real processes and pages on a shared machine: some of these waver still, and CI shows them without deciding by them.
pytestmark = [pytest.mark.interop, pytest.mark.slow]

MODES = ("reliable", "reliable_unordered", "unreliable_ordered", "unreliable", "retransmits(3)", "ttl(500)")
COUNT = 60
QUIET = ("peerDiscovered", "peerConnected", "seatsChanged")
MIXED_S = int(os.environ.get("PSYNE_MIXED_S", "10"))
# Every stack plays every day; what else may happen to a player happens in Node.js, and in browsers in the long tests.
STACKS = ("node", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("chromium", "firefox")))
STILL_S = 8.0  # longer than Firefox waits
GONE_S = 30.0  # a net, not a measure: the machine may be shared


Party: TypeAlias = tuple[list[Room], list[Member], str]


class Ping(Message):
    sequence: int
    x: float
    text: str
    blob: bytes


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_node()
    return build(tmp_path_factory.mktemp("members"))


@asynccontextmanager
async def open_party(built: Path, kinds: tuple[str, ...], python: int = 1) -> AsyncIterator[Party]:
    """Players of Python, then those in TypeScript, all connected."""
    for kind in kinds:
        needs(kind)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            open_server("127.0.0.1", 0, config=ServerConfig(origins=frozenset("*")))
        )
        rooms = [
            await stack.enter_async_context(join_game_room("arena", signaling=server.url, player_name=f"py{number}"))
            for number in range(python)
        ]
        members = [await stack.enter_async_context(open_member(kind, built)) for kind in kinds]
        for number, member in enumerate(members):
            await member.join("arena", server.url, playerName=f"js{number}", metadata={"colour": "blue"})
        others = python + len(members) - 1
        with trio.fail_after(30):
            for room in rooms:
                await room.wait_connected(others)
            for member in members:
                await member.ask("waitConnected", others)
        yield rooms, members, server.url


async def numbers(room: Room, channel: str, sender: str, count: int) -> list[int]:
    found: list[int] = []
    with trio.fail_after(20):
        while len(found) < count:
            peer, message = await room.channel(channel).receive()
            assert isinstance(message, Ping)
            if peer.id == sender:
                found.append(message.sequence)
    return found


class Departure:
    """Made before the player goes: `await reasons()` is why it has, as each of the rooms was told."""

    def __init__(self, rooms: list[Room], who: str) -> None:
        self._who = who
        self._told = [room.events() for room in rooms]

    async def reasons(self) -> set[str]:
        return {await self._reason(told) for told in self._told}

    async def _reason(self, told: EventIterator) -> str:
        with trio.fail_after(GONE_S):
            async for event in told:
                if isinstance(event, events.PeerLeft) and event.peer.id == self._who:
                    return event.reason
        raise AssertionError("the room ended")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_player_in_typescript_plays_with_a_player_in_python(built: Path, kind: str) -> None:
    async with open_party(built, (kind,)) as ([room], [member], _url):
        peer = room.peers[member.me]  # type: ignore[index]
        assert (peer.name, peer.profile.metadata) == ("js0", {"colour": "blue"})
        assert peer.profile.no_tunnel
        [seen] = await member.ask("peers")
        assert (seen["id"], seen["name"], seen["relayed"]) == (room.me, "py0", False)
        for mode in MODES:
            room.channel(mode, Ping, mode=mode)
            await member.ask("channel", mode, mode, True)
            assert await member.ask("send", mode, 0, COUNT) == 0
            ordered = mode in ("reliable", "unreliable_ordered")
            there = await numbers(room, mode, member.me, COUNT)  # loopback loses nothing
            assert (there if ordered else sorted(there)) == list(range(COUNT))
            for sequence in range(COUNT):
                room.channel(mode, Ping).send_nowait(Ping(sequence, 0.5, "héllo", b"\x00\xff"))
            here = await member.ask("numbers", mode, room.me, COUNT)
            assert (here if ordered else sorted(here)) == list(range(COUNT))
        departure = Departure([room], member.me)
        await member.tell("leave")
        assert await departure.reasons() == {"left"}
        assert room.peers == {}


@pytest.mark.parametrize("kind", STACKS)
async def test_what_comes_before_its_channel_is_declared_is_kept(built: Path, kind: str) -> None:
    async with open_party(built, (kind,)) as ([room], [member], _url):
        for sequence in range(COUNT):
            await room.channel("early", Ping).send(Ping(sequence, 0.0, "", b""))
        await member.ask("nap", 0.2)
        await member.ask("channel", "early", "reliable", True)
        assert await member.ask("numbers", "early", room.me, COUNT) == list(range(COUNT))


@pytest.mark.parametrize("kind", STACKS)
async def test_a_player_that_is_killed_is_known_to_be_gone(built: Path, kind: str) -> None:
    async with open_party(built, (kind,), python=2) as (rooms, [member], _url):
        departure = Departure(rooms, member.me)
        await member.kill()
        assert await departure.reasons() == {"timeout"}


async def test_a_python_player_that_vanishes_and_one_that_leaves(built: Path) -> None:
    async with open_party(built, ("node",), python=2) as (rooms, [member], _url):
        await rooms[1].leave()
        assert (await member.ask("waitEvent", "peerLeft", rooms[1].me))[2] == "left"
        assert [peer["id"] for peer in await member.ask("peers")] == [rooms[0].me]


@pytest.mark.slow  # one in six closed tabs is told as "timeout": what a page sends while it goes is not always sent
@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_a_tab_that_is_closed_has_left(built: Path, kind: str) -> None:
    async with open_party(built, (kind,), python=2) as (rooms, [member], _url):
        departure = Departure(rooms, member.me)
        await member.tell("goAway")
        assert await departure.reasons() == {"left"}


async def test_seats_are_the_same_for_all(built: Path) -> None:
    async with open_party(built, ("node", "node"), python=2) as (rooms, members, _url):
        with trio.fail_after(20):
            while True:
                seen = [{peer.id: peer.seat for peer in room.peers.values()} for room in rooms]
                seen += [{peer["id"]: peer["seat"] for peer in await member.ask("peers")} for member in members]
                merged: dict[str, set[int | None]] = {}
                for view in seen:
                    for peer, seat in view.items():
                        merged.setdefault(peer, set()).add(seat)
                taken = [seat for seats in merged.values() for seat in seats]
                if len(merged) == len(set(taken)) == 4 and None not in taken:
                    return
                await trio.sleep(0.1)


async def test_a_page_that_stands_still_for_a_second_is_not_gone(built: Path) -> None:
    async with open_party(built, ("node",), python=2) as (rooms, [member], _url):
        await member.ask("block", 1.0)
        await trio.sleep(2.5)
        assert all(member.me in room.peers for room in rooms)
        assert not [told for told in await member.ask("told") if told[0] == "peerLeft"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_others_may_stand_still_for_longer_than_a_search_for_a_path(built: Path, kind: str) -> None:
    """Firefox ends a connection five seconds into a restart of ICE that nobody answers; and who is back has missed nothing."""
    count = 30 * 20
    async with open_party(built, (kind, kind), python=2) as (rooms, members, _url):
        heard: dict[tuple[str, str], list[int]] = {}
        for room in rooms:
            room.channel("words", Ping)
        for member in members:
            await member.ask("channel", "words", "reliable", True)

        async def read(room: Room) -> None:
            async for peer, message in room.channel("words"):
                heard.setdefault((room.me, peer.id), []).append(message.sequence)

        async def play(room: Room) -> None:
            for sequence in range(count):
                room.channel("words").send_nowait(Ping(sequence, 0.5, "", b""))
                await trio.sleep(1 / 30)

        async with trio.open_nursery() as nursery:
            for room in rooms:
                nursery.start_soon(read, room)
            async with trio.open_nursery() as players:
                for room in rooms:
                    players.start_soon(play, room)
                for member in members:
                    players.start_soon(member.play, ["words"], count, 30)
                await trio.sleep(3)
                time.sleep(STILL_S)  # noqa: ASYNC251 - both Python players
            everybody = [*(room.me for room in rooms), *(member.me for member in members)]
            with trio.fail_after(GONE_S):
                for member in members:
                    for other in everybody:
                        if other != member.me:
                            heard[member.me, other] = await member.ask("numbers", "words", other, count)
                while not all(
                    len(heard.get((room.me, other), ())) >= count
                    for room in rooms
                    for other in everybody
                    if other != room.me
                ):
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        assert all(there == list(range(count)) for there in heard.values())
        assert len(heard) == 12


async def test_another_version_of_the_game_is_told_by_its_field(built: Path) -> None:
    class Other(Message, tag="Ping"):
        sequence: int

    async with open_party(built, ("node",)) as ([room], [member], _url):
        await member.ask("channel", "pings", "reliable", True)
        room.channel("pings", Other).send_nowait(Other(1))
        assert "Ping.x is missing" in (await member.ask("waitEvent", "messageRefused", room.me))[2]


@pytest.mark.slow
async def test_eight_players_of_three_stacks_play(built: Path) -> None:
    """Everybody sends to everybody, at 30 Hz: reliable messages all come, in order, and positions nearly all."""
    count = 30 * MIXED_S
    async with open_party(built, ("chromium", "chromium", "firefox", "firefox"), python=4) as (rooms, members, _url):
        for name, mode in (("words", "reliable"), ("positions", "unreliable")):
            for room in rooms:
                room.channel(name, Ping, mode=mode)
            for member in members:
                await member.ask("channel", name, mode, True)
        heard: dict[tuple[str, str, str], list[int]] = {}

        async def read(room: Room, name: str) -> None:
            async for peer, message in room.channel(name):
                assert isinstance(message, Ping)
                heard.setdefault((room.me, name, peer.id), []).append(message.sequence)

        async def play(room: Room) -> None:
            for sequence in range(count):
                for name in ("words", "positions"):
                    room.channel(name).send_nowait(Ping(sequence, 0.5, "", b""))
                await trio.sleep(1 / 30)

        async with trio.open_nursery() as nursery:
            for room in rooms:
                for name in ("words", "positions"):
                    nursery.start_soon(read, room, name)
            async with trio.open_nursery() as players:
                for room in rooms:
                    players.start_soon(play, room)
                for member in members:
                    players.start_soon(member.play, ["words", "positions"], count, 30)
            await trio.sleep(3)  # what is under way
            nursery.cancel_scope.cancel()
        everybody = [*(room.me for room in rooms), *(member.me for member in members)]
        for member in members:
            for name in ("words", "positions"):
                for sender in everybody:
                    if sender != member.me:
                        heard[member.me, name, sender] = await member.ask("numbers", name, sender, 0)
        pairs = [(hearer, sender) for hearer in everybody for sender in everybody if hearer != sender]
        kind = dict.fromkeys((room.me for room in rooms), "python") | {member.me: member.kind for member in members}
        words = {pair: heard[pair[0], "words", pair[1]] for pair in pairs}
        wrong = [
            f"{kind[sender]} to {kind[hearer]}: {len(there)} of {count}, the first {there[:1]}, the last {there[-1:]}"
            for (hearer, sender), there in words.items()
            if there != list(range(count))
        ]
        told = [[said for said in await member.ask("told") if said[0] not in QUIET] for member in members if wrong]
        assert not wrong, told
        came = {pair: len(heard[pair[0], "positions", pair[1]]) / count for pair in pairs}
        # A machine that does not suffice for four browsers makes positions stale; then Python's own pairs are the measure.
        own = min(part for (hearer, sender), part in came.items() if kind[hearer] == kind[sender] == "python")
        bar = 0.99 if own >= 0.99 else own - 0.05
        few = [f"{kind[sender]} to {kind[hearer]}: {part:.3f}" for (hearer, sender), part in came.items() if part < bar]
        assert not few


async def test_a_page_enters_by_the_code_of_a_room_and_says_which_rooms_it_cannot_enter(built: Path) -> None:
    """A room that is named by its code only; one with a password; one for the invited."""
    needs("node")
    async with open_server("127.0.0.1", 0, config=ServerConfig(origins=frozenset("*"))) as server:
        async with (
            create_room("duel", policy="code", signaling=server.url, max_players=4) as room,
            open_member("node", built) as member,
        ):
            await member.join("", server.url, code=room.code)
            with trio.fail_after(30):
                await room.wait_connected(1)
            assert await member.ask("code") == room.code
            assert list(room.peers) == [member.me]
        for locked, wanted in (
            ({"policy": "password", "password": "open sesame"}, "WrongPassword"),
            ({"policy": "invite"}, "NotInvited"),
        ):
            async with (
                create_room("duel", signaling=server.url, max_players=4, **locked) as room,
                open_member("node", built) as member,
            ):
                with pytest.raises(AssertionError, match=f"{wanted}: .*pages cannot"):
                    await member.join("", server.url, code=room.code)
                with pytest.raises(AssertionError, match="UnknownCode"):
                    await member.join("", server.url, code="ZZZZ-ZZZZ")
