"""Leaving a room: the last words, the next room, and what ends on this side."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import ClosedError, PeerGone
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.identity import Identity
from psyne_mesh.room import events
from psyne_mesh.room.mesh import Mesh, open_mesh
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, World, open_world
from psyne_mesh.testing.wire import connect_host


@asynccontextmanager
async def mesh_of(world: World, name: str) -> AsyncIterator[Mesh]:
    """A machine whose player may be in several rooms."""
    host = world.hosts.setdefault(name, world.net.host(name))
    identity = Identity.from_seed(hashlib.sha256(name.encode()).digest())
    async with (
        connect_host(world._nursery, world.hub, host, identity.peer_id) as transport,
        open_mesh(
            transport, identity=identity, player_name=name, config=host.config, sockets=host.sockets,
            rng=random.Random(name), wall_ms=world.wall_ms,
        ) as mesh,
    ):  # fmt: skip
        yield mesh


async def collect(room: Room, into: list[events.RoomEvent]) -> None:
    async for event in room.events():
        into.append(event)


@pytest.mark.parametrize("latency_s", [0.001, 0.01, 0.03])
async def test_players_go_from_one_room_to_the_next_together(autojump_clock: MockClock, latency_s: float) -> None:
    """Nobody takes the end of the old room for a goodbye in the new one, and no link is lost on the way."""
    async with (
        open_world(seed=1, quality=Quality(latency_s=latency_s)) as world,
        mesh_of(world, "ada") as ada, mesh_of(world, "bob") as bob, mesh_of(world, "cid") as cid,
        trio.open_nursery() as nursery,
    ):  # fmt: skip
        meshes, seen = (ada, bob, cid), []
        lobby = [await mesh.join_game_room("lobby") for mesh in meshes]
        for room in lobby:
            await room.wait_connected(2)
        links = [dict(mesh._core.driver.links) for mesh in meshes]

        async def move(mesh: Mesh, old: Room) -> None:
            await old.leave()
            room = await mesh.join_game_room("game")
            nursery.start_soon(collect, room, seen)
            chat = room.channel("chat")
            await room.wait_connected(2)
            await chat.send(b"here I am")
            assert [(await chat.receive())[1] for _ in range(2)] == 2 * [b"here I am"]

        with trio.fail_after(20):
            async with trio.open_nursery() as moving:
                for mesh, old in zip(meshes, lobby, strict=True):
                    moving.start_soon(move, mesh, old)
        await trio.sleep(20)
        assert not [event for event in seen if isinstance(event, events.PeerLeft)]
        assert links == [mesh._core.driver.links for mesh in meshes]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("latency_s", [0.001, 0.03])
async def test_players_who_leave_and_come_back_at_once_are_together_again(
    autojump_clock: MockClock, latency_s: float
) -> None:
    async with (
        open_world(seed=1, quality=Quality(latency_s=latency_s)) as world,
        mesh_of(world, "ada") as ada, mesh_of(world, "bob") as bob,
    ):  # fmt: skip
        meshes = (ada, bob)
        rooms = [await mesh.join_game_room("lobby") for mesh in meshes]
        for room in rooms:
            await room.wait_connected(1)
        again: list[Room] = []

        async def come_back(mesh: Mesh, room: Room) -> None:
            await room.leave()
            again.append(await mesh.join_game_room("lobby"))

        async with trio.open_nursery() as nursery:
            for mesh, room in zip(meshes, rooms, strict=True):
                nursery.start_soon(come_back, mesh, room)
        await trio.sleep(10)
        assert [len(room.connected) for room in again] == [1, 1]
        with trio.fail_after(5):
            await again[0].channel("chat").send(b"again")
            assert (await again[1].channel("chat").receive())[1] == b"again"


async def test_a_link_that_no_room_wants_any_more_is_closed_after_a_while(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world, mesh_of(world, "ada") as ada, mesh_of(world, "bob") as bob:
        rooms = [await mesh.join_game_room("lobby") for mesh in (ada, bob)]
        for room in rooms:
            await room.wait_connected(1)
        await rooms[0].leave()
        await trio.sleep(1)
        assert ada._core.driver.links
        assert not rooms[1].peers
        await trio.sleep(3)
        assert not ada._core.driver.links
        assert not bob._core.driver.links


@pytest.mark.parametrize(("players", "loss"), [(2, 0.0), (2, 0.05), (7, 0.0)])
async def test_the_last_words_arrive(autojump_clock: MockClock, players: int, loss: float) -> None:
    """In a full mesh and in a partial one: what was sent reliably comes before the goodbye."""
    gossip = GossipConfig(max_players=64, full_mesh_max=4, full_mesh_hysteresis=1, active_view=3, links_max=6)
    async with open_world(seed=2, quality=Quality(latency_s=0.03, loss=loss)) as world:
        others = [await world.join("lobby", f"p{i}", max_players=64, gossip=gossip) for i in range(players - 1)]
        channels = [room.channel("result") for room in others]
        async with world.joining("lobby", "ada", max_players=64, gossip=gossip) as ada:
            for room in (ada, *others):
                await room.wait_connected(players - 1)
            await trio.sleep(5)
            for number in range(5):
                await ada.channel("result").send(b"%d" % number + bytes(15_000))
        await trio.sleep(10)
        for channel in channels:
            assert [channel.receive_nowait()[1][:1] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("how", ["left", "cancelled", "raised"])
async def test_however_the_block_ends_it_says_goodbye_behind_its_last_words(
    autojump_clock: MockClock, how: str
) -> None:
    """Cancelling the nursery around a player is the usual way to stop in Trio."""
    async with open_world(seed=1, quality=Quality(latency_s=0.03, loss=0.05)) as world:
        ada, seen = await world.join("lobby", "ada"), []
        score = ada.channel("score")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, ada, seen)
            with trio.CancelScope() as game:
                try:
                    async with world.joining("lobby", "bob") as bob:
                        await bob.wait_connected(1)
                        await trio.sleep(1)
                        for _ in range(100):
                            await bob.channel("score").send(bytes(1000))
                        if how == "cancelled":
                            game.cancel()
                            await trio.sleep(1)
                        elif how == "raised":
                            raise KeyError
                except KeyError:
                    pass
            assert game.cancelled_caught == (how == "cancelled")
            await trio.sleep(0.2)
            assert [event.reason for event in seen if isinstance(event, events.PeerLeft)] == ["left"]
            assert len([score.receive_nowait() for _ in range(100)]) == 100
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["block", "leave", "cancelled"])
async def test_whoever_waits_outside_the_block_is_told_of_the_end(autojump_clock: MockClock, how: str) -> None:
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        ended: set[str] = set()
        bob = await world.join("lobby", "bob")
        async with world.joining("lobby", "ada") as ada:
            await ada.wait_connected(1)
            chat = ada.channel("chat")

            async def read() -> None:
                async for _ in chat:
                    pass
                ended.add("channel")

            async def watch() -> None:
                async for _ in ada.events():
                    pass
                ended.add("events")

            async def wait() -> None:
                with pytest.raises(ClosedError):
                    await ada.wait_connected(5)
                ended.add("wait")

            for task in (read, watch, wait):
                nursery.start_soon(task)
            await trio.sleep(1)
            if how == "leave":
                await ada.leave()
            elif how == "cancelled":
                world.hub.kill()  # so the goodbye to it takes a while
                with trio.move_on_after(0.001):
                    await ada.leave()
        with trio.fail_after(5):
            while ended != {"channel", "events", "wait"} or bob.peers:
                await trio.sleep(0.1)
        with pytest.raises(ClosedError):
            chat.send_nowait(b"too late")


async def test_who_left_this_room_gets_nothing_over_the_link_of_another(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world, mesh_of(world, "ada") as ada, mesh_of(world, "bob") as bob:
        ours = [await ada.join_game_room(name) for name in ("one", "two")]
        theirs = [await bob.join_game_room(name) for name in ("one", "two")]
        for room in (*ours, *theirs):
            await room.wait_connected(1)
        await theirs[1].leave()
        await trio.sleep(1)
        with pytest.raises(PeerGone):
            await ours[1].channel("chat").send(b"anybody?", to=bob.me)
        assert (await ours[0].channel("chat").send(b"you are here", to=bob.me)).sent == 1


async def test_a_send_that_waits_while_the_room_is_left_says_so(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        bob = await world.join("lobby", "bob")
        bob.channel("bulk")
        async with world.joining("lobby", "ada") as ada, trio.open_nursery() as nursery:
            await ada.wait_connected(1)

            async def send() -> None:
                with pytest.raises(ClosedError):
                    while True:
                        await ada.channel("bulk").send(bytes(65_536))

            nursery.start_soon(send)
            await trio.sleep(5)
            await ada.leave()


@pytest.mark.parametrize(
    "moments", [[(passes, 0.0) for passes in range(40)], [(0, step / 1000) for step in range(0, 80, 2)]]
)
async def test_cancelled_at_any_moment_of_its_entering_it_comes_out_again(
    autojump_clock: MockClock, moments: list[tuple[int, float]]
) -> None:
    """Also at the very last: who waits for a block that a cancellation does not reach must not wait for its end."""
    how_far = set()
    for passes, seconds in moments:
        async with open_world(seed=1) as world:
            entered = False
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def give_up(passes: int, seconds: float, scope: trio.CancelScope) -> None:
                        await trio.sleep(seconds)
                        for _ in range(passes):
                            await trio.lowlevel.cancel_shielded_checkpoint()
                        scope.cancel()

                    nursery.start_soon(give_up, passes, seconds, scope)
                    async with world.joining("lobby", "ada"):
                        entered = True
                        await trio.sleep_forever()
            assert scope.cancelled_caught
            how_far.add(entered)
    assert False in how_far


async def test_who_leaves_before_it_has_a_link_is_gone_at_once(autojump_clock: MockClock) -> None:
    """Its goodbye travels through signaling: nobody waits for a player that changed its mind."""
    async with open_world(seed=1) as world, mesh_of(world, "bob") as bob, mesh_of(world, "cid") as cid:
        ada, seen = await world.join("lobby", "ada"), []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, ada, seen)
            for mesh in (bob, cid):
                room = await mesh.join_game_room("lobby")
                await room.leave()
            await trio.sleep(5)
            assert not ada.peers
            gone = [event for event in seen if isinstance(event, events.PeerLeft)]
            assert [(event.peer.name, event.reason) for event in gone] == [("bob", "left"), ("cid", "left")]
            assert not [event for event in seen if isinstance(event, events.PeerConnected)]
            nursery.cancel_scope.cancel()


async def test_who_changes_its_mind_while_it_joins_is_gone_at_once(autojump_clock: MockClock) -> None:
    """The server had let it in, and the others had heard of it: the goodbye follows, though the join never returned."""
    async with open_world(seed=1, quality=Quality(latency_s=0.05)) as world, mesh_of(world, "bob") as bob:
        ada, seen = await world.join("lobby", "ada"), []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, ada, seen)
            with trio.move_on_after(0.17) as scope:  # a round trip for a place, and half of one for the seat
                await bob.join_game_room("lobby")
            await trio.sleep(5)
            assert scope.cancelled_caught
            assert not ada.peers
            told = [event for event in seen if isinstance(event, events.PeerDiscovered | events.PeerLeft)]
            assert [type(event) for event in told] == [events.PeerDiscovered, events.PeerLeft]
            back = await bob.join_game_room("lobby")  # and it may change its mind again
            await back.wait_connected(1)
            await trio.sleep(5)
            assert [peer.name for peer in ada.peers.values()] == ["bob"]
            nursery.cancel_scope.cancel()


async def test_a_goodbye_that_only_the_server_hears_comes_before_the_verdict_of_gossip(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a page: the browser ends its links with it, and what it said over them last may not have left."""
    async with open_world(seed=1) as world, mesh_of(world, "bob") as bob, trio.open_nursery() as nursery:
        ada, cid = await world.join("lobby", "ada"), await world.join("lobby", "cid")
        room, seen = await bob.join_game_room("lobby"), list[events.RoomEvent]()
        nursery.start_soon(collect, ada, seen)
        await room.wait_connected(2)
        node = room._joined().node
        say_goodbye = node.leave

        def leave_unheard(now: float, **reason: Any) -> None:
            say_goodbye(now, **reason)
            node.take_outputs()

        monkeypatch.setattr(node, "leave", leave_unheard)
        began = trio.current_time()
        nursery.start_soon(room.leave)
        with trio.fail_after(20):
            await ada.wait_left(ada.peers[room.me])
            assert trio.current_time() - began < 2
            while room.me in cid.peers:
                await trio.sleep(0.1)
        assert [event.reason for event in seen if isinstance(event, events.PeerLeft)] == ["left"]
        nursery.cancel_scope.cancel()
