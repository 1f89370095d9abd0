"""A hostile member of Python's kit in a room with TypeScript members, on real sockets: the honest play on, and part from it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from psyne_mesh import join_game_room
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.room.room import Room
from psyne_mesh.testing import hostile
from psyne_mesh.testing.hostile import Liar
from tests.js.members import Member, build
from tests.js.node import needs_node
from tests.js.test_rooms import Ping, numbers, open_party

pytestmark = [pytest.mark.interop, pytest.mark.slow]

RATE_BPS = 1e6
LIES_S = 3.0
SETTLED_S = (
    5.0  # who has just sat down may lose its seat to another newcomer; after three seconds to nobody who is not there
)
COUNT = 60
NET_S = (
    30.0  # under hangs, no measure: how soon it is parted from is measured in virtual time, `js/test/bounds.test.ts`
)
# Chunks of SCTP meet the browser's own stack or libdatachannel's, which is not ours to judge.
PLAYED_BESIDE: tuple[Any, ...] = (
    hostile.MadeUpMembers(), hostile.MadeUpMembers(n=40, ballots=True), hostile.TwoFaces(), hostile.Accusations(),
    hostile.Replays(), hostile.HavesFlood(), hostile.Questions(), hostile.MadeUpAuthors(), hostile.ManyBroadcasts(),
    hostile.Worst(), hostile.HeavyMessages(channel="words"), hostile.MadeUpChannels(), hostile.BulkForNobody(),
    hostile.Withholding(),
)  # fmt: skip
PARTED_FROM: tuple[Any, ...] = (hostile.BadSignatures(), hostile.Nonsense())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_node()
    return build(tmp_path_factory.mktemp("members"))


@asynccontextmanager
async def beside(behaviour: Any, url: str, members: list[Member]) -> AsyncIterator[Liar]:
    """It joins as an honest one does, and lies once it is connected to all."""
    async with (
        join_game_room("arena", signaling=url, player_name="mallory") as room,
        open_background_nursery() as nursery,
    ):
        with trio.fail_after(NET_S):
            await room.wait_connected(1 + len(members))
        liar = Liar(room, room._core.identity, random.Random(repr(behaviour)))
        nursery.start_soon(liar.lie, behaviour)
        yield liar


async def play(room: Room, members: list[Member]) -> None:
    """Reliable messages from each to each, and all come, in order."""
    for player in members:
        await player.ask("channel", "words", "reliable", True)
    room.channel("words", Ping)
    for sequence in range(COUNT):
        room.channel("words", Ping).send_nowait(Ping(sequence, 0.5, "", b""))
        await trio.sleep(LIES_S / COUNT)
    for player in members:
        assert await player.ask("numbers", "words", room.me, COUNT) == list(range(COUNT))
    await members[0].ask("send", "words", 0, COUNT)
    assert await numbers(room, "words", members[0].me, COUNT) == list(range(COUNT))
    assert await members[1].ask("numbers", "words", members[0].me, COUNT) == list(range(COUNT))


async def lost(honest: set[str], members: list[Member]) -> list[Any]:
    """Whom of the honest the TypeScript members called gone, and whether one of them lost its place. A busy machine is silent
    for a moment, too: virtual time has no such excuse, and allows none (`js/test/bounds.test.ts`)."""
    told = [said for player in members for said in await player.ask("told")]
    return [said for said in told if said[0] == "evicted" or (said[0] == "peerLeft" and said[1] in honest)]


@pytest.mark.parametrize("behaviour", PLAYED_BESIDE, ids=repr)
async def test_honest_players_play_on(built: Path, behaviour: Any) -> None:
    async with open_party(built, ("node", "node")) as ([room], members, url):
        await trio.sleep(SETTLED_S)
        honest, gone = {room.me, *(player.me for player in members)}, list[str]()
        room.on_peer_left(lambda peer, reason: gone.append(peer.id))
        async with beside(behaviour, url, members) as liar:
            await play(room, members)
            assert liar.told_bytes or isinstance(behaviour, hostile.Withholding)
            assert await lost(honest, members) == []
        assert not honest.intersection(gone)


@pytest.mark.parametrize("behaviour", PARTED_FROM, ids=repr)
async def test_who_is_over_its_budget_is_parted_from(built: Path, behaviour: Any) -> None:
    async with open_party(built, ("node", "node")) as ([room], members, url), beside(behaviour, url, members) as liar:
        with trio.fail_after(NET_S):
            while not liar.parted.keys() >= {player.me for player in members}:
                await trio.sleep(0.05)
        await play(room, members)
        assert await lost({room.me, *(player.me for player in members)}, members) == []
