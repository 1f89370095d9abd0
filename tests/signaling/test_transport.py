"""What every `SignalingTransport` does: the same tests for the hub in memory and for the server on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from psyne_mesh.errors import (
    ClosedError,
    InvalidConfig,
    InvalidUri,
    MessageTooLarge,
    PeerGone,
    RoomExists,
    RoomFull,
    RoomMismatch,
    RoomNotFound,
    SignalingLost,
)
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.events import (
    Lost,
    PeerJoined,
    PeerLeft,
    SignalingEvent,
    SignalReceived,
    SignalRefused,
)
from psyne_mesh.signaling.joining import JoinRequest, RoomQuery
from psyne_mesh.signaling.memory import open_memory_signaling
from psyne_mesh.signaling.messages import MAX_ENVELOPE_CHARS
from psyne_mesh.signaling.server import open_server
from psyne_mesh.signaling.transport import SignalingTransport

from .worlds import QUICK, player

Connect = Callable[[int], AbstractAsyncContextManager[SignalingTransport]]
World = Callable[[], AbstractAsyncContextManager[Connect]]


@asynccontextmanager
async def memory_world() -> AsyncIterator[Connect]:
    async with open_memory_signaling() as hub:
        yield lambda number: hub.connect(player(number).peer_id)


@asynccontextmanager
async def socket_world() -> AsyncIterator[Connect]:
    async with open_server(port=0) as server:
        yield lambda number: connect_signaling(server.url, player(number), config=QUICK)
        assert server.stats.internal_errors == 0


@pytest.fixture(params=[memory_world, socket_world])
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.param
    return made


async def event(client: SignalingTransport) -> SignalingEvent:
    with trio.fail_after(5):
        return await client.next_event()


async def test_meet_in_a_room_signal_and_leave(world: World) -> None:
    async with world() as connect, connect(1) as a, connect(2) as b:
        first = await a.join(
            JoinRequest("lobby", app_id="chess", region="eu", max_players=4, record="ra", metadata={"map": "dust"})
        )
        assert (first.room, first.created, first.peers, first.index) == ("chess/eu/lobby", True, (), 0)
        second = await b.join(JoinRequest("lobby", app_id="chess", region="eu", record="rb"))
        assert (second.room, second.created, second.index) == (first.room, False, 1)
        assert (second.info.max_players, second.info.metadata, second.info.state) == (4, {"map": "dust"}, "active")
        assert [(p.peer_id, p.record) for p in second.peers] == [(a.peer_id, "ra")]
        arrival = await event(a)
        assert isinstance(arrival, PeerJoined)
        assert (arrival.room, arrival.peer.peer_id, arrival.peer.record) == (first.room, b.peer_id, "rb")
        b.send_signal(a.peer_id, first.room, "offer")
        a.send_signal(b.peer_id, first.room, "answer")
        assert await event(a) == SignalReceived(b.peer_id, first.room, "offer")
        assert await event(b) == SignalReceived(a.peer_id, first.room, "answer")
        await b.leave(first.room, record="bye")
        assert await event(a) == PeerLeft(first.room, b.peer_id, "left", "bye")
        await b.leave(first.room)
        await b.leave("//nowhere")


async def test_refusals_are_typed_and_leave_the_client_in_order(world: World) -> None:
    async with world() as connect, connect(1) as a, connect(2) as b:
        await a.join(JoinRequest("duel", max_players=1, skill_range=(1200, 1400)))
        with pytest.raises(RoomMismatch):
            await b.join(JoinRequest("duel", skill_range=(1, 2)))
        with pytest.raises(RoomFull):
            await b.join(JoinRequest("duel"))
        with pytest.raises(RoomExists):
            await b.join(JoinRequest("duel", create="only"))
        with pytest.raises(RoomNotFound):
            await b.join(JoinRequest("nowhere", create="never"))
        assert (await b.join(JoinRequest("lobby"))).created


async def test_bad_arguments_are_refused_before_anything_is_sent(world: World) -> None:
    bad: list[dict[str, object]] = [
        {"name": ""},
        {"name": "a\nb"},
        {"app_id": "a/b"},
        {"max_players": 0},
        {"skill_range": (2, 1)},
        {"skill_range": (float("nan"), 1.0)},
        {"skill_range": (float("-inf"), 1.0)},
        {"create": "maybe"},
        {"record": "x" * 3000},
        {"metadata": {"x": object()}},
        {"metadata": {"x": "y" * 3000}},
        {"name": "\ud800"},
    ]
    async with world() as connect, connect(1) as a:
        for arguments in bad:
            with pytest.raises(InvalidConfig):
                await a.join(JoinRequest(**{"name": "r", **arguments}))  # type: ignore[arg-type]
        with pytest.raises(InvalidConfig):
            await a.list_rooms(RoomQuery(limit=0))
        with pytest.raises(InvalidConfig):
            a.set_record("//r", "x" * 3000)
        with pytest.raises(MessageTooLarge):
            a.send_signal(a.peer_id, "//r", "x" * (MAX_ENVELOPE_CHARS + 1))
        assert (await a.list_rooms()).rooms == ()


async def test_rooms_are_listed_by_their_properties(world: World) -> None:
    async with world() as connect, connect(1) as a:
        await a.join(JoinRequest("one", region="eu", max_players=1))
        await a.join(JoinRequest("two", region="us", skill_range=(1, 2), metadata={"mode": "ctf"}))
        listing = await a.list_rooms()
        assert [(i.name, i.region, i.players, i.state) for i in listing.rooms] == [
            ("one", "eu", 1, "waiting"),
            ("two", "us", 1, "waiting"),
        ]
        assert listing.rooms[1].metadata == {"mode": "ctf"}
        assert [i.name for i in (await a.list_rooms(RoomQuery(region="us"))).rooms] == ["two"]
        assert [i.name for i in (await a.list_rooms(RoomQuery(only_open=True))).rooms] == ["two"]
        assert [i.name for i in (await a.list_rooms(RoomQuery(skill_range=(3, 4)))).rooms] == ["one"]
        cut = await a.list_rooms(RoomQuery(limit=1))
        assert (len(cut.rooms), cut.truncated) == (1, True)


async def test_signals_reach_only_members_of_the_same_room(world: World) -> None:
    async with world() as connect, connect(1) as a, connect(2) as b:
        joined = await a.join(JoinRequest("lobby"))
        await b.join(JoinRequest("elsewhere"))
        for room, to in ((joined.room, b.peer_id), ("//elsewhere", b.peer_id), ("//nowhere", a.peer_id)):
            a.send_signal(to, room, "psst")
            refusal = await event(a)
            assert isinstance(refusal, SignalRefused)
            assert (refusal.to, refusal.room, type(refusal.error)) == (to, room, PeerGone)


async def test_leaving_the_block_is_a_goodbye_and_the_end_of_events(world: World) -> None:
    async with world() as connect, connect(1) as a:
        await a.join(JoinRequest("lobby"))
        async with connect(2) as b:
            await b.join(JoinRequest("lobby"))
            assert isinstance(await event(a), PeerJoined)
        assert isinstance(await event(a), PeerLeft)
        with pytest.raises(ClosedError):
            await b.next_event()
        with pytest.raises(ClosedError):
            await b.join(JoinRequest("lobby"))
        assert [e async for e in b.events] == []
        assert not b.is_connected


async def test_the_newest_connection_of_an_identity_wins(world: World) -> None:
    async with world() as connect, connect(1) as watcher, connect(2) as old:
        await watcher.join(JoinRequest("lobby", max_players=2))
        await old.join(JoinRequest("lobby"))
        assert isinstance(await event(watcher), PeerJoined)
        async with connect(2) as new:
            lost = await event(old)
            assert isinstance(lost, Lost)
            assert not lost.retrying
            with pytest.raises(SignalingLost):
                await old.join(JoinRequest("lobby"))
            with pytest.raises(ClosedError):
                await event(old)
            assert await event(watcher) == PeerLeft("//lobby", old.peer_id, "superseded")
            await new.join(JoinRequest("lobby", record="after the crash"))
            back = await event(watcher)
            assert isinstance(back, PeerJoined)
            assert (back.peer.peer_id, back.peer.record, back.rejoined) == (new.peer_id, "after the crash", True)
        assert isinstance(await event(watcher), PeerLeft)


async def test_events_are_an_iterator_too(world: World) -> None:
    async with world() as connect, connect(1) as a, connect(2) as b:
        await a.join(JoinRequest("lobby"))
        await b.join(JoinRequest("lobby"))
        await b.leave("//lobby")
        seen = []
        with trio.fail_after(5):
            async for something in a.events:
                seen.append(type(something))
                if isinstance(something, PeerLeft):
                    break
        assert seen == [PeerJoined, PeerLeft]


async def test_the_exception_of_a_block_leaves_it_as_it_is(world: World) -> None:
    async with world() as connect:
        with pytest.raises(KeyError, match="mine"):
            async with connect(1):
                raise KeyError("mine")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b", "[::1", "host:99999"])
async def test_a_url_that_nobody_can_be_reached_at_is_refused(host: str) -> None:
    with pytest.raises(InvalidUri):
        async with connect_signaling(f"ws://{host}/", player(1)):
            pass
