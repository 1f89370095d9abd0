"""Who loses its own place in a room hears so; if it cannot stay, the room ends for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import ClosedError
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.identity import Identity
from psyne_mesh.room import events
from psyne_mesh.room.mesh import Mesh, open_mesh
from psyne_mesh.room.room import inside
from psyne_mesh.testing.world import World, open_world

ADA = Identity.from_seed(bytes(32))


@asynccontextmanager
async def process_of_ada(world: World, machine: str) -> AsyncIterator[Mesh]:
    host = world.net.host(machine)
    async with world.hub.connect(ADA.peer_id) as transport:
        async with open_mesh(transport, identity=ADA, config=host.config, sockets=host.sockets) as mesh:
            yield mesh


async def test_of_two_processes_with_one_key_the_older_one_ends_and_says_so(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world, process_of_ada(world, "old") as old:
        bob = await world.join("lobby", "bob")
        room, other = await old.join_game_room("lobby"), await old.join_game_room("other")
        await room.wait_connected(1)
        await trio.sleep(60)
        watch, channel = room.events(), room.channel("raw")
        told: list[str] = []
        room.on(events.Evicted, lambda event: told.append(event.reason))
        async with process_of_ada(world, "new") as new:
            again = await new.join_game_room("lobby")
            with trio.fail_after(2):
                *_, last = [event async for event in watch]
                assert [message async for message in channel] == []
            assert last == events.Evicted("superseded")
            await trio.testing.wait_all_tasks_blocked()
            assert told == ["superseded"]
            for use in (room.topology, lambda: room.channel("more")):
                with pytest.raises(ClosedError, match="elsewhere"):
                    use()
            with pytest.raises(ClosedError, match="elsewhere"):
                await room.wait_connected()
            with pytest.raises(ClosedError, match="elsewhere"):
                other.channel("nobody can come here any more")
            assert world.hub.registry.is_member(ADA.peer_id, "//lobby"), "the goodbye of the older is not the newer's"
            await again.wait_connected(1)
            await trio.sleep(60)
            assert [peer.id for peer in bob.connected] == [ADA.peer_id], "the newer one plays on"


async def test_who_is_expelled_from_one_room_stays_in_the_others(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world, process_of_ada(world, "ada") as mesh:
        bob = await world.join("lobby", "bob")
        room, other = await mesh.join_game_room("lobby"), await mesh.join_game_room("other")
        await room.wait_connected(1)
        watch = room.events()
        inside(room).on_gossip(gossip_events.Evicted("kicked"))
        *_, last = [event async for event in watch]
        assert last == events.Evicted("kicked")
        with pytest.raises(ClosedError, match="expelled"):
            room.channel("raw")
        other.channel("raw").send_nowait(b"")
        await trio.sleep(10)
        assert not bob.connected
        assert not world.hub.registry.is_member(ADA.peer_id, "//lobby")
        assert world.hub.registry.is_member(ADA.peer_id, "//other")


async def test_a_seat_lost_is_told_and_ends_nothing_and_all_count_the_seats_of_the_creator(
    autojump_clock: MockClock,
) -> None:
    async with open_world(seed=1) as world, process_of_ada(world, "ada") as mesh:
        cid = await world.join("crowd", "cid", max_players=32)
        room = await mesh.join_game_room("crowd", max_players=2)
        assert room.max_players == cid.max_players == 32
        watch = room.events()
        with trio.fail_after(10):
            await room.wait_connected(1)
        inside(room).on_gossip(gossip_events.Evicted("capacity"))
        assert room.channel("raw").send_nowait(b"").sent == 1
        await room.leave()
        assert [event async for event in watch].count(events.Evicted("capacity")) == 1
