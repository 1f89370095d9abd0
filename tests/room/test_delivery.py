"""What was sent reliably arrives once and in order, whoever comes, goes, restarts or falls silent meanwhile."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.identity import Identity
from psyne_mesh.room.channel import Channel
from psyne_mesh.room.mesh import Mesh, open_mesh
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import Peer
from psyne_mesh.testing import Quality, World, open_world
from psyne_mesh.testing.wire import connect_host


class Blob(Message):
    number: int
    data: bytes = b""


async def collect(channel: Channel[Blob], into: list[int]) -> None:
    async for _, blob in channel:
        into.append(blob.number)


@asynccontextmanager
async def machine(world: World, name: str) -> AsyncIterator[Mesh]:
    """A new machine of the player, with the same key as the last."""
    host = world.hosts[name] = world.net.host(name)
    identity = Identity.from_seed(hashlib.sha256(name.encode()).digest())
    async with (
        connect_host(world._nursery, world.hub, host, identity.peer_id) as transport,
        open_mesh(transport, identity=identity, player_name=name, config=host.config, sockets=host.sockets,
                  rng=random.Random(name), wall_ms=world.wall_ms) as mesh,
    ):  # fmt: skip
        yield mesh


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_broadcast_that_waits_while_a_player_falls_silent_and_comes_back(
    autojump_clock: MockClock, seed: int
) -> None:
    """Who was missing when it began to wait is there when it leaves, and the other way round."""
    async with open_world(seed=seed) as world, trio.open_nursery() as nursery:
        ada, bob, cid = [await world.join("lobby", name) for name in ("ada", "bob", "cid")]
        for room in (ada, bob, cid):
            await room.wait_connected(2)
        # As with jumbo frames: a datagram of 60 KB would fill the queue by itself, and every probe behind it be lost.
        narrow, wide = Quality(bytes_per_s=300_000, queue_s=0.2), Quality(bytes_per_s=2_000_000, queue_s=0.1)
        world.net.set_quality("ada", "cid", attrs.evolve(narrow, datagram_bytes_max=8972), both_ways=False)
        world.net.set_quality("ada", "bob", attrs.evolve(wide, datagram_bytes_max=8972), both_ways=False)
        got: list[int] = []
        nursery.start_soon(collect, bob.channel("blobs", Blob), got)
        nursery.start_soon(collect, cid.channel("blobs", Blob), [])
        gone: list[str] = []
        ada.on_peer_left(lambda peer, reason: gone.append(reason))
        blobs, number, waited = ada.channel("blobs", Blob), 0, 0.0
        with trio.move_on_after(20) as scope:

            async def cut() -> None:
                await trio.sleep(4)
                world.hub.kill()
                with world.net.cut(("ada", "bob"), ("bob", "ada"), ("cid", "bob"), ("bob", "cid")):
                    await trio.sleep(8)

            nursery.start_soon(cut)
            while True:
                began = trio.current_time()
                await blobs.send(Blob(number, bytes(60_000)))
                number += 1
                waited = max(waited, trio.current_time() - began)
                await trio.sleep(0.1 if number < 60 else 0.001)
        assert scope.cancelled_caught
        assert gone == ["timeout"]
        assert waited > 1  # a broadcast waited across it
        await trio.sleep(30)
        assert got == list(range(number))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("cut_s", [15, 25])
async def test_a_cut_of_a_busy_path_loses_nothing(autojump_clock: MockClock, cut_s: float) -> None:
    """The full queue makes the path look impaired before its peer seems gone: the link sleeps all the same."""
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        ada, bob, cid = [await world.join("lobby", name) for name in ("ada", "bob", "cid")]
        for room in (ada, bob, cid):
            await room.wait_connected(2)
        for name in ("bob", "cid"):
            world.net.set_quality("ada", name, Quality(bytes_per_s=100_000, queue_s=0.5), both_ways=False)
        got: dict[str, list[int]] = {"bob": [], "cid": []}
        for room in (bob, cid):
            nursery.start_soon(collect, room.channel("blobs", Blob), got["bob" if room is bob else "cid"])
        blobs, number = ada.channel("blobs", Blob), 0

        async def cut() -> None:
            await trio.sleep(10)
            with world.net.partition(["bob"], ["ada", "cid"], signaling=False):
                await trio.sleep(cut_s)

        nursery.start_soon(cut)
        with trio.move_on_after(30 + cut_s):
            while True:
                await blobs.send(Blob(number, bytes(20_000)))
                number += 1
                await trio.sleep(0.15)
        await trio.sleep(60)
        assert got == {"bob": list(range(number)), "cid": list(range(number))}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("shared", [["lobby"], ["lobby", "game"]])
@pytest.mark.parametrize("gap_s", [0.0, 0.3, 1.0])
async def test_who_restarts_is_greeted_on_its_new_link(
    autojump_clock: MockClock, gap_s: float, shared: list[str]
) -> None:
    """The link of the life before is still there when the new one is discovered, and carries nothing to it."""
    async with open_world(seed=1) as world, trio.open_nursery() as nursery, machine(world, "ada") as ada_s:
        rooms = [await ada_s.join_game_room(room) for room in shared]
        ada = rooms[0]
        greetings = ada.channel("greetings", Blob)

        async def play(rooms: list[str], *, task_status: trio.TaskStatus[Channel[Blob]]) -> None:
            async with machine(world, "bob") as mesh:
                entered = [await mesh.join_game_room(room) for room in rooms]
                task_status.started(entered[0].channel("greetings", Blob))
                await trio.sleep_forever()

        await nursery.start(play, shared)
        for room in rooms:
            await room.wait_connected(1)
        await trio.sleep(1)

        def greet(peer: Peer) -> None:
            greetings.send_nowait(Blob(len(sent)), to=peer)
            sent.append(peer.name)

        sent: list[str] = []
        ada.on_peer_connected(greet)  # at once for the one who is there
        await trio.sleep(0.1)
        world.crash("bob")
        await trio.sleep(gap_s)
        inbox = await nursery.start(play, shared[:1])
        await trio.sleep(20)
        assert sent == ["bob", "bob"]
        assert inbox.receive_nowait()[1].number == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("gap_s", [0.0, 0.6, 2.0])
async def test_who_restarts_and_enters_one_room_after_another_keeps_its_link(
    autojump_clock: MockClock, gap_s: float
) -> None:
    """The second room hears of the new life when the first one already uses its link."""
    async with open_world(seed=1) as world, trio.open_nursery() as nursery, machine(world, "ada") as ada_s:
        lobby, game = [await ada_s.join_game_room(room) for room in ("lobby", "game")]
        got: list[int] = []
        nursery.start_soon(collect, lobby.channel("blobs", Blob), got)

        async def play(*, task_status: trio.TaskStatus[None]) -> None:
            async with machine(world, "bob") as mesh:
                for room in ("lobby", "game"):
                    await mesh.join_game_room(room)
                task_status.started()
                await trio.sleep_forever()

        await nursery.start(play)
        for room in (lobby, game):
            await room.wait_connected(1)
        await trio.sleep(1)
        world.crash("bob")
        await trio.sleep(0.3)
        async with machine(world, "bob") as mesh:
            first = await mesh.join_game_room("lobby")
            await first.wait_connected(1)

            async def speak() -> None:
                for number in range(60):
                    await first.channel("blobs", Blob).send(Blob(number))
                    await trio.sleep(0.05)

            nursery.start_soon(speak)
            await trio.sleep(gap_s)
            second = await mesh.join_game_room("game")
            await trio.sleep(20)
            assert got == list(range(60))
            for room in (first, second, lobby, game):
                assert len(room.connected) == 1
        nursery.cancel_scope.cancel()


async def test_the_last_broadcast_is_everywhere_before_the_goodbye(autojump_clock: MockClock) -> None:
    """It goes down the tree, hop by hop, and the goodbye over every link at once."""
    gossip = GossipConfig(max_players=64, full_mesh_max=4, full_mesh_hysteresis=1, active_view=3, links_max=6)
    async with (
        open_world(seed=1, quality=Quality(latency_s=0.02, jitter_s=0.02)) as world,
        trio.open_nursery() as nursery,
    ):
        got: list[list[int]] = []
        for i in range(12):
            room = await world.join("lobby", f"p{i}", max_players=64, gossip=gossip)
            got.append([])
            nursery.start_soon(collect, room.channel("blobs", Blob), got[-1])
        for visit in range(4):
            async with world.joining("lobby", f"x{visit}", max_players=64, gossip=gossip) as guest:
                await guest.wait_connected(12)
                await trio.sleep(5)
                for number in range(3):
                    await guest.channel("blobs", Blob).send(Blob(10 * visit + number))
            await trio.sleep(5)
        assert got == [[10 * visit + number for visit in range(4) for number in range(3)]] * 12
        nursery.cancel_scope.cancel()
