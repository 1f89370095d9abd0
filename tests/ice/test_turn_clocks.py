"""The clocks of TURN in virtual time: permissions of 300 s, allocations, channels and nonces of 600 s, and what goes wrong
while they are renewed. A server in memory drops whatever was not renewed in time."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.webrtc.ice import Disconnected, GatheringComplete, IceGateway, open_gateway
from psyne_mesh.webrtc.ice.candidates import Found
from tests.ice.fake_net import FakeNet
from tests.ice.helpers import DATA, IN_MEMORY, Side, introduce, selected
from tests.ice.turn_net import DELAY_S, TurnOnNet

A, B = ("192.0.2.1", 1001), ("192.0.2.2", 1002)


@pytest.fixture
async def server(autojump_clock: MockClock) -> AsyncGenerator[TurnOnNet, None]:
    net = FakeNet()
    async with trio.open_nursery() as nursery:
        server = TurnOnNet(net)
        nursery.start_soon(server.run)
        yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def relayed_pair(server: TurnOnNet) -> AsyncGenerator[tuple[Side, Side], None]:
    """Two players who meet over one relay each."""
    config = attrs.evolve(IN_MEMORY, turn_servers=(server.entry(),), relay_only=True)
    factory = server._net.factory
    async with (
        open_gateway(config, sockets=factory(A)) as left,
        open_gateway(config, sockets=factory(B)) as right,
        trio.open_nursery() as nursery,
    ):
        a, b = Side(left, controlling=True), Side(right, controlling=False)
        for side in (a, b):
            await nursery.start(side.transport.run)
            await side.event(GatheringComplete)
        introduce(a, b)
        await selected(a, b)
        yield a, b
        a.transport.close()
        b.transport.close()


async def talk(a: Side, b: Side, seconds: float, every_s: float = 1.0) -> list[int]:
    """Both send numbered data for so long; how many each got."""
    before = [len(a.received), len(b.received)]
    rounds = int(seconds / every_s)
    for _ in range(rounds):
        a.transport.send([DATA])
        b.transport.send([DATA])
        await trio.sleep(every_s)
    return [len(a.received) - before[0], len(b.received) - before[1]]


def relays(gateway: IceGateway) -> list[Found]:
    return [found for found, _ in gateway.found if found.kind == "relay"]


async def test_an_hour_of_relayed_play_loses_nothing(autojump_clock: MockClock, server: TurnOnNet) -> None:
    async with relayed_pair(server) as (a, b):
        assert await talk(a, b, 3600) == [3600, 3600]
        assert not server.dropped
        assert server.requests["ALLOCATE"] == 2
        assert server.refused[438] >= 2 * 3600 // 600 - 2  # nonces expired all along
        assert server.requests["CHANNEL_BIND"] >= 2 * 3600 // 300
        assert not a.all(Disconnected)


async def test_without_renewal_the_server_of_this_test_ends_it(
    autojump_clock: MockClock, server: TurnOnNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the test above would prove nothing."""
    monkeypatch.setattr("psyne_mesh.webrtc.ice.gather.CHANNEL_REFRESH_S", 1e9)
    async with relayed_pair(server) as (a, b):
        assert (await talk(a, b, 400))[0] < 305
        assert server.dropped["no permission"]


async def test_renewals_that_get_lost_are_repeated_in_time(autojump_clock: MockClock, server: TurnOnNet) -> None:
    dice = random.Random(3)
    async with relayed_pair(server) as (a, b):
        server.lose = lambda method: dice.random() < 0.3
        assert await talk(a, b, 3600) == [3600, 3600]
        assert server.requests["ALLOCATE"] == 2


async def test_players_who_say_little_keep_their_channel(autojump_clock: MockClock, server: TurnOnNet) -> None:
    """Only the checks of consent go over it: a game in its lobby."""
    async with relayed_pair(server) as (a, b):
        await trio.sleep(3600)
        assert await talk(a, b, 10) == [10, 10]
        assert not server.dropped


async def test_the_channels_of_many_peers_are_renewed_together(autojump_clock: MockClock, server: TurnOnNet) -> None:
    config = attrs.evolve(IN_MEMORY, turn_servers=(server.entry(),), relay_only=True)
    async with open_gateway(config, sockets=server._net.factory(A)) as gateway:
        with trio.fail_after(5):
            while not relays(gateway):
                await trio.sleep(0.1)
        relay: Any = gateway.found[-1][1]
        for number in range(200):
            relay.send_batch([DATA], ("192.0.2.77", 1000 + number))
        await trio.sleep(1)
        assert server.requests["CHANNEL_BIND"] == 200
        began = trio.current_time()
        await gateway.run_in_loop(relay.refresh)
        assert server.requests["CHANNEL_BIND"] == 400
        assert trio.current_time() - began < 200 * DELAY_S / 10


@pytest.mark.parametrize("entry", ["restarted", "idle"])
async def test_an_allocation_that_the_server_forgot_is_replaced(
    autojump_clock: MockClock, server: TurnOnNet, entry: str
) -> None:
    """It answers 437 from then on (RFC 8656 section 7.3), and Binding requests as ever: only asking for the allocation
    tells that it is gone."""
    config = attrs.evolve(IN_MEMORY, turn_servers=(server.entry(),), relay_only=True)
    async with open_gateway(config, sockets=server._net.factory(A)) as gateway, trio.open_nursery() as nursery:
        a = Side(gateway, controlling=True)
        await nursery.start(a.transport.run)
        await a.event(GatheringComplete)
        old = relays(gateway)
        server.restart()
        if entry == "restarted":
            await a.transport.restart()
            await a.event(GatheringComplete, 2)
        else:
            await trio.sleep(30)
        assert len(relays(gateway)) == 1
        assert relays(gateway) != old
        a.transport.close()


async def test_credentials_that_end_in_the_middle_of_a_game_are_named(
    autojump_clock: MockClock, server: TurnOnNet
) -> None:
    """The server refuses to renew: the problem is told at once, and the relay carries for as long as it was granted."""
    async with relayed_pair(server) as (a, b):
        server.key = b"another"
        assert await talk(a, b, 280) == [280, 280]
        for side in (a, b):
            assert "refuses the user name" in next(iter(side.transport._gateway.problems.values()))
            assert len(relays(side.transport._gateway)) == 1
        await talk(a, b, 400)
        for side in (a, b):
            assert side.all(Disconnected)
            assert not relays(side.transport._gateway)
