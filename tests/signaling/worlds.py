"""Places to test in: identities from numbers, and a server reached through memory streams under a virtual clock."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, lockstep_stream_pair, memory_stream_pair

from psyne_mesh.identity import Identity
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.signaling.client import SignalingClient, connect_signaling
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.link import SignalingConfig
from psyne_mesh.signaling.server import SignalingServer

# On real sockets: come back at once, and fail within the time that a person would wait for a test.
QUICK = SignalingConfig(backoff_first_s=0.01, backoff_max_s=0.05)


def player(number: int) -> Identity:
    return Identity.from_seed(bytes([number]) * 32)


class Gate:
    def __init__(self) -> None:
        self._opened = trio.Event()
        self.open()

    def open(self) -> None:
        self._opened.set()

    def shut(self) -> None:
        self._opened = trio.Event()

    async def pass_through(self) -> None:
        await self._opened.wait()


class _Gated(trio.abc.ReceiveStream):
    def __init__(self, inner: trio.abc.ReceiveStream, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._inner.receive_some(max_bytes)
        await self._gate.pass_through()
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()


class Network:
    """A `SignalingServer` without a port: `dial` is what a client gets instead of TCP."""

    def __init__(self, nursery: trio.Nursery, config: ServerConfig) -> None:
        self._nursery = nursery
        self.server = SignalingServer(attrs.evolve(config, public_names=config.public_names | {"server"}))
        # The date goes with the clock of the test: by the real one, a busy machine makes what two clients are told of it differ
        began_ms, began = time.time_ns() // 1_000_000, trio.current_time()
        self.server.wall_ms = lambda: began_ms + round(1000 * (trio.current_time() - began))
        self.is_up = True
        self.dials = 0
        self.client_ends: list[trio.StapledStream[MemorySendStream, MemoryReceiveStream]] = []

    async def dial(self) -> trio.abc.Stream:
        self.dials += 1
        await trio.lowlevel.checkpoint()
        if not self.is_up:
            raise ConnectionRefusedError("the network is down")
        ours, theirs = memory_stream_pair()
        self.client_ends.append(ours)
        self._nursery.start_soon(self.server.handle, theirs)
        return ours

    def connect_slowly(self, number: int, gate: Gate) -> AbstractAsyncContextManager[SignalingClient]:
        """A client that reads while `gate` is open only; what it has not read is not sent."""

        async def dial() -> trio.abc.Stream:
            ours, theirs = lockstep_stream_pair()
            self._nursery.start_soon(self.server.handle, theirs)
            await trio.lowlevel.checkpoint()
            return trio.StapledStream(ours.send_stream, _Gated(ours.receive_stream, gate))

        return connect_signaling("ws://server", player(number), rng=random.Random(number), dial=dial)

    def cut(self) -> None:
        """Every standing connection breaks."""
        for end in self.client_ends:
            end.send_stream.close()
            end.receive_stream.close()
        self.client_ends.clear()

    def connect(
        self, number: int, config: SignalingConfig | None = None
    ) -> AbstractAsyncContextManager[SignalingClient]:
        rng = random.Random(number)
        return connect_signaling("ws://server", player(number), config=config, rng=rng, dial=self.dial)


@asynccontextmanager
async def open_network(config: ServerConfig | None = None) -> AsyncIterator[Network]:
    async with open_background_nursery() as nursery:
        network = Network(nursery, config or ServerConfig())
        yield network
        assert network.server.stats.internal_errors == 0
