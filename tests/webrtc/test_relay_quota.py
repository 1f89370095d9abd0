"""Peer connections over relays that drop what is above their quota, in virtual time: bulk gives way to positions."""

from __future__ import annotations

import statistics
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import attrs
import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.config import DataChannelConfig, WebRTCConfig
from psyne_mesh.webrtc.data_channel import DataChannel
from psyne_mesh.webrtc.endpoint import Endpoint, open_endpoint
from psyne_mesh.webrtc.ice.events import Address
from tests.ice.fake_net import FakeNet
from tests.ice.turn_net import TurnOnNet
from tests.webrtc.dial import introduce

QUOTA = 128_000
FRAME_S = 1 / 60
PLAY_S = 10.0
HUB: Address = ("192.0.2.1", 1001)
OTHERS: tuple[Address, ...] = (("192.0.2.2", 1002), ("192.0.2.3", 1003))
POSITIONS = DataChannelConfig(label="positions", ordered=False, max_retransmits=0)
BULK = DataChannelConfig(label="bulk")


@pytest.fixture
async def server(autojump_clock: MockClock) -> AsyncGenerator[TurnOnNet, None]:
    async with trio.open_nursery() as nursery:
        server = TurnOnNet(FakeNet())
        server.quota = QUOTA
        nursery.start_soon(server.run)
        yield server
        nursery.cancel_scope.cancel()


class Play:
    """Positions at 60 Hz and bulk as fast as it goes from one peer to another; how long the positions took."""

    def __init__(self) -> None:
        self.sent = self.bulk_bytes = 0
        self.latencies_s: list[float] = []

    async def run(self, sender: Endpoint, receiver: Endpoint, task_status: trio.TaskStatus[Self]) -> None:
        async with (
            sender.open_peer(offerer=True) as ours,
            receiver.open_peer(offerer=False) as theirs,
            trio.open_nursery() as nursery,
        ):
            channels = [ours.create_channel(config) for config in (POSITIONS, BULK)]
            await introduce(ours, theirs)
            for _ in channels:
                incoming = await anext(theirs.incoming_channels)
                nursery.start_soon(self._note if incoming.label == POSITIONS.label else self._count, incoming)
            for channel, send in zip(channels, (self._position, self._bulk)):
                nursery.start_soon(send, channel)
            task_status.started(self)

    @property
    def p99_s(self) -> float:
        return statistics.quantiles(self.latencies_s, n=100)[98]

    async def _position(self, channel: DataChannel) -> None:
        while True:
            channel.send_nowait(str(trio.current_time()))
            self.sent += 1
            await trio.sleep(FRAME_S)

    async def _bulk(self, channel: DataChannel) -> None:
        while True:
            await channel.send(bytes(16_384))

    async def _note(self, channel: DataChannel) -> None:
        async for message in channel:
            self.latencies_s.append(trio.current_time() - float(message))

    async def _count(self, channel: DataChannel) -> None:
        async for message in channel:
            self.bulk_bytes += len(message)


def relayed(server: TurnOnNet, quota: float | None) -> WebRTCConfig:
    return WebRTCConfig(turn_servers=(server.entry(max_bytes_per_s=quota),), relay_only=True)


@asynccontextmanager
async def played(
    server: TurnOnNet, hub: WebRTCConfig, others: WebRTCConfig, count: int, *, inward: bool = False
) -> AsyncIterator[list[Play]]:
    """The hub plays with so many others; `inward`: they send, and it receives."""
    async with AsyncExitStack() as stack:
        net = server._net
        middle = await stack.enter_async_context(open_endpoint(hub, sockets=net.factory(HUB)))
        around = [
            await stack.enter_async_context(open_endpoint(others, sockets=net.factory(address)))
            for address in OTHERS[:count]
        ]
        async with trio.open_nursery() as nursery:
            pairs = [(other, middle) if inward else (middle, other) for other in around]
            plays = [await nursery.start(Play().run, *pair) for pair in pairs]
            await trio.sleep(PLAY_S)
            yield plays
            nursery.cancel_scope.cancel()


async def test_a_quota_that_is_not_told_is_paid_by_the_positions(autojump_clock: MockClock, server: TurnOnNet) -> None:
    """What the tests below would otherwise be."""
    config = relayed(server, None)
    async with played(server, config, config, 1) as (play,):
        assert server.dropped["quota"] > 50
        assert len(play.latencies_s) < 0.95 * play.sent or play.p99_s > 0.5


async def test_told_it_costs_them_nothing(autojump_clock: MockClock, server: TurnOnNet) -> None:
    config = relayed(server, QUOTA)
    async with played(server, config, config, 1) as (play,):
        assert not server.dropped
        assert len(play.latencies_s) >= play.sent - 10  # under way
        assert play.p99_s < 0.1  # 60 ms of it are the network's
        assert 0.7 * QUOTA < play.bulk_bytes / PLAY_S < QUOTA


async def test_all_peers_over_one_allocation_share_it(autojump_clock: MockClock, server: TurnOnNet) -> None:
    config = relayed(server, QUOTA)
    async with played(server, config, config, 2) as plays:
        assert not server.dropped
        shares = [play.bulk_bytes / PLAY_S for play in plays]
        assert 0.6 * QUOTA < sum(shares) < QUOTA
        assert min(shares) > 0.25 * max(shares)
        for play in plays:
            assert len(play.latencies_s) >= play.sent - 10
            # 60 ms are the network's; a chunk of the other's bulk, 10 ms of the budget, may go before, and two in a bad moment
            assert play.p99_s < 0.06 + 0.02 + 2 * FRAME_S


async def test_what_is_sent_to_the_relay_of_a_peer_is_limited_too(autojump_clock: MockClock, server: TurnOnNet) -> None:
    """The sender has a public address and no relay of its own in use: only the receiver's quota is at stake."""
    hidden, public = relayed(server, QUOTA), attrs.evolve(relayed(server, QUOTA), relay_only=False)
    async with played(server, hidden, public, 1, inward=True) as (play,):
        assert not server.dropped["quota"]
        assert 0.7 * QUOTA < play.bulk_bytes / PLAY_S < QUOTA
        assert len(play.latencies_s) >= play.sent - 10
        assert play.p99_s < 0.1
