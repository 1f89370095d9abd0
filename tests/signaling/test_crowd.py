"""The real client and server over a virtual stream: crowds that look for a match, and clusters that agree on it."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import AsyncExitStack

import attrs
import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import RoomFull, SignalingError, SignalingLost, WrongPassword
from psyne_mesh.identity import Identity
from psyne_mesh.signaling.backplane import MemoryBackplane
from psyne_mesh.signaling.client import SignalingClient, connect_signaling
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.joining import JoinRequest, RoomQuery, SeekRequest
from psyne_mesh.signaling.locks import password_keys
from psyne_mesh.signaling.manifest import Manifest, new_code, sign
from psyne_mesh.signaling.requests import checked_join, request_into

from .test_cluster_servers import cluster
from .worlds import QUICK, open_network, player


def signed(identity: Identity, rng: random.Random, name: str = "fps", **fields: object) -> JoinRequest:
    manifest = Manifest(code=new_code(rng))
    request = checked_join(JoinRequest(name, **{"manifest": manifest, **fields}))  # type: ignore[arg-type]
    return attrs.evolve(request, manifest=sign(request.manifest, request, identity))


async def match(client: SignalingClient, number: int, players: int) -> RoomInfo:
    """The room in which we are then."""
    request = signed(player(number), random.Random(number), max_players=players)
    info = await client.seek(SeekRequest(join=request, players=players))
    return (await client.join(request_into(info, request))).info


async def test_a_hundred_players_within_a_second_are_twenty_five_full_rooms(autojump_clock: MockClock) -> None:
    async with open_network() as network, trio.open_nursery() as nursery:
        nursery.start_soon(network.server.place_waiting)
        seated: dict[int, tuple[float, RoomInfo]] = {}
        done = trio.Event()
        ready = 0

        async def play(number: int) -> None:
            nonlocal ready
            async with network.connect(number) as client:
                ready += 1
                while ready < 100:
                    await trio.sleep(0.1)
                await trio.sleep(number / 100)
                asked_at = trio.current_time()
                seated[number] = (trio.current_time() - asked_at, await match(client, number, 4))
                if len(seated) == 100:
                    done.set()
                await done.wait()

        began = trio.current_time()
        for number in range(100):
            nursery.start_soon(play, number)
        with trio.fail_after(30):
            await done.wait()
        assert trio.current_time() - began <= 4.1, "a second for the last to come, and three more"
        rooms = Counter(info.room for _, info in seated.values())
        assert (len(rooms), set(rooms.values())) == (25, {4})
        listing = network.server._switchboard.registry.list_rooms(RoomQuery(name="fps"))  # while all are still there
        assert all(info.players in (0, 4) for info in listing.rooms)
        nursery.cancel_scope.cancel()


async def test_who_waits_is_told_when_the_server_is_lost(autojump_clock: MockClock) -> None:
    async with open_network() as network, trio.open_nursery() as nursery:
        nursery.start_soon(network.server.place_waiting)
        async with network.connect(1) as client:

            async def wait() -> None:
                with pytest.raises(SignalingLost):
                    await match(client, 1, 2)

            async with trio.open_nursery() as waiting:
                waiting.start_soon(wait)
                await trio.sleep(100)
                network.cut()
            assert not network.server._switchboard._placing.is_waiting(player(1).peer_id)
        nursery.cancel_scope.cancel()


async def test_who_no_longer_waits_withdraws(autojump_clock: MockClock) -> None:
    async with open_network() as network, trio.open_nursery() as nursery:
        nursery.start_soon(network.server.place_waiting)
        async with network.connect(1) as ada, network.connect(2) as bob:
            with trio.move_on_after(5):
                await match(ada, 1, 2)
            with trio.move_on_after(5):
                await match(bob, 2, 2)
                raise AssertionError("ada waits no more")
        nursery.cancel_scope.cancel()


async def test_wrong_passwords_slow_down_who_sends_them_and_nobody_else(autojump_clock: MockClock) -> None:
    keys = password_keys("swordfish", bytes(16))
    manifest = Manifest(code="K7QM3FHT", policy="password", lock=keys.lock)
    request = attrs.evolve(signed(player(1), random.Random(1), manifest=manifest), instance="K7QM3FHT", door=keys.door)
    async with open_network() as network, network.connect(1) as host, network.connect(2) as thief:
        await host.join(request)
        tried = 0
        with trio.move_on_after(60):
            while True:
                with pytest.raises((WrongPassword, SignalingError)):
                    await thief.join(attrs.evolve(request, door="AAAA"))
                tried += 1
        assert tried <= 30, "as fast as a server reads it would be 2,400"
        async with network.connect(3) as friend:
            began = trio.current_time()
            assert (await friend.join(request)).info.players == 2
            assert trio.current_time() - began < 0.1
        assert thief.is_connected


async def test_servers_of_a_cluster_fill_the_same_rooms() -> None:
    async with cluster(MemoryBackplane()) as servers, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect_signaling(servers[number % 3].url, player(number), config=QUICK))
            for number in range(1, 5)
        ]
        rooms: list[str] = []

        async def play(number: int) -> None:
            rooms.append((await match(clients[number - 1], number, 2)).room)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(1, 5):
                    nursery.start_soon(play, number)
            assert sorted(Counter(rooms).values()) == [2, 2]
            found = []
            for number, client in enumerate(clients, 1):  # whichever server is asked
                asked = signed(player(number), random.Random(100 + number), "duel", max_players=2)
                info = await client.seek(SeekRequest(join=asked))
                found.append((await client.join(request_into(info, asked))).room)
            assert found[0] == found[1] != found[2] == found[3]
            code = found[2].rpartition("#")[2]
            with pytest.raises(RoomFull):
                await clients[0].join(JoinRequest("duel", instance=code, create="never"))
            for client in clients:
                assert [info.room for info in (await client.list_rooms(RoomQuery(code=code))).rooms] == [found[2]]
