"""The real signaling server dies and comes back, another answers what it likes: those who play notice an event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
from trio.testing import MockClock

from psyne_mesh.errors import WouldBlock
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.room import events
from psyne_mesh.room.mesh import Mesh, join_game_room, open_mesh
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.client import SignalingClient
from psyne_mesh.signaling.server import serve
from psyne_mesh.testing import open_network, open_world
from tests.room.players import LOOPBACK, PATIENCE_S, connected, first
from tests.signaling.rogue import DEAF, Rogue, open_rogue, placed_in, welcome_in

ROUNDS_S = 100.0  # several looks at who is listed


async def test_the_server_dies_play_goes_on_and_a_newcomer_joins_when_it_is_back() -> None:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            first_life = trio.CancelScope()

            async def live(port: int, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED) -> None:
                with first_life:
                    await serve("127.0.0.1", port, task_status=task_status)

            server = await nursery.start(live, 0)
            options = {"signaling": server.url, "config": LOOPBACK}
            async with (
                join_game_room("lobby", player_name="ada", **options) as ada,
                join_game_room("lobby", player_name="bob", **options) as bob,
            ):
                await connected(ada, bob)
                watch = ada.events()
                server.kill()
                first_life.cancel()
                while not isinstance(await anext(watch), events.SignalingDown):
                    pass
                await ada.channel("raw").send(b"still here")
                assert (await bob.channel("raw").receive())[1] == b"still here"
                await nursery.start(serve, "127.0.0.1", server.port)
                while not isinstance(await anext(watch), events.SignalingUp):
                    pass
                async with join_game_room("lobby", player_name="cid", **options) as cid:
                    await connected(ada, bob, cid)
                    await first(ada, events.PeerConnected)
            nursery.cancel_scope.cancel()


def honest(question: m.ClientMessage) -> object:
    if isinstance(question, m.Seek):
        return placed_in(question)
    return welcome_in(question) if isinstance(question, m.Join) else None


def refusing(code: str) -> object:
    return lambda question: m.Error(code=code, message="ha", ref=question.ref)


@asynccontextmanager
async def at_a_rogue() -> AsyncIterator[tuple[Rogue, SignalingClient, Mesh]]:
    """A player alone at a server that begins honestly."""
    ada = Identity.generate()
    async with open_network() as net, open_rogue(honest) as rogue, rogue.connect_as(ada) as client:
        host = net.host("ada")
        async with open_mesh(client, identity=ada, config=host.config, sockets=host.sockets) as mesh:
            yield rogue, client, mesh


async def test_a_server_that_refuses_a_second_look_ends_no_room(autojump_clock: MockClock) -> None:
    """Told once for all its refusals, and once when it lets us in again."""
    async with at_a_rogue() as (rogue, _, mesh):
        room = await mesh.join_game_room("lobby")
        watch = room.events()
        for code in ("peer_gone", "room_full"):
            rogue.answer = refusing(code)
            await trio.sleep(ROUNDS_S)
            rogue.answer = honest
            down = await anext(watch)
            assert isinstance(down, events.SignalingDown)
            assert "ha" in down.reason
            assert isinstance(await anext(watch), events.SignalingUp)


async def test_a_server_that_does_not_have_a_room_back_is_asked_again(autojump_clock: MockClock) -> None:
    async with at_a_rogue() as (rogue, _, mesh):
        room = await mesh.join_game_room("lobby")
        watch = room.events()
        rogue.answer = refusing("peer_gone")
        rogue.cut()
        lost, refused = await anext(watch), await anext(watch)
        assert isinstance(lost, events.SignalingDown)
        assert isinstance(refused, events.SignalingDown)
        assert "ha" in refused.reason
        rogue.answer = honest
        assert isinstance(await anext(watch), events.SignalingUp)


async def test_a_server_that_reads_nothing_more_ends_no_room(autojump_clock: MockClock) -> None:
    async with at_a_rogue() as (rogue, client, mesh), trio.open_nursery() as nursery:
        room = await mesh.join_game_room("lobby")
        watch = room.events()
        rogue.answer = lambda question: DEAF

        async def tunnel() -> None:
            while True:
                await trio.sleep(0.01)
                with suppress(WouldBlock):
                    client.send_signal(client.peer_id, "//lobby", "tunnel.AAAA")

        nursery.start_soon(tunnel)
        await trio.sleep(ROUNDS_S)
        assert client.is_connected
        down = await anext(watch)
        assert isinstance(down, events.SignalingDown)
        assert "full" in down.reason
        await room.leave()
        assert [event async for event in watch if isinstance(event, events.SignalingUp)] == []
        nursery.cancel_scope.cancel()


async def test_a_goodbye_that_is_refused_keeps_nobody(autojump_clock: MockClock) -> None:
    async with at_a_rogue() as (rogue, _, mesh):
        rooms = [await mesh.join_game_room(name) for name in ("one", "two", "three")]
        rogue.answer = refusing("room_not_found")
        watch = rooms[0].events()
        await rooms[0].leave()
        assert [type(event) async for event in watch] == [events.SignalingDown]
        # The others are left by the mesh, in order.
    assert {q.room for q in rogue.asked if isinstance(q, m.Leave)} == {"//one", "//two", "//three"}


async def test_whom_the_server_has_lost_newcomers_reach_over_the_mesh(autojump_clock: MockClock) -> None:
    """It says that the peer is gone; common peers know better, and carry the offer."""
    async with open_world(seed=1) as world:
        rooms = [await world.join("lobby", name) for name in ("ada", "bob", "cid")]
        with trio.fail_after(10):
            for room in rooms:
                await room.wait_connected(2)
        with world.net.cut_signaling("bob"):
            await trio.sleep(60)
            assert len(world.hub.registry.rooms_of(rooms[1].me)) == 0
            began = trio.current_time()
            dan = await world.join("lobby", "dan")
            with trio.fail_after(20):
                await dan.wait_connected(3)
        assert trio.current_time() - began < 4


async def test_a_server_that_refuses_every_signal_keeps_nobody_apart_for_long(autojump_clock: MockClock) -> None:
    """Only what goes over the mesh arrives: the first two meet while it is honest."""
    async with open_world(seed=2) as world:
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
        with trio.fail_after(10):
            await bob.wait_connected(1)
        cid = await world.join("lobby", "cid")
        refuse = world.hub._relay

        def relay(sender: PeerId, to: PeerId, room: str, envelope: str) -> None:
            if {sender, to} == {cid.me, bob.me}:
                room = "//elsewhere"
            refuse(sender, to, room, envelope)

        world.hub._relay = relay  # type: ignore[method-assign]
        with trio.fail_after(20):
            await cid.wait_connected(2)
        assert len(ada.connected) == 2
