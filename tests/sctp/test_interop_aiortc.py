"""Our association against the SCTP of aiortc, back to back without DTLS: somebody else's reading of the RFCs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from psyne_mesh.webrtc.sctp import (
    Association,
    Closed,
    Established,
    MessageReceived,
    SctpConfig,
    SctpEvent,
    StreamsReset,
    StreamsResetByPeer,
)

aiortc_sctp = pytest.importorskip("aiortc.rtcsctptransport")

pytestmark = pytest.mark.interop


class Wire:
    """Stands where aiortc expects its DTLS transport, and drives our association on the other end."""

    state = "connected"
    _role = "client"

    def __init__(self, loss: float, seed: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.rng = random.Random(seed)
        self.loss = loss
        self.ours = Association(SctpConfig(), rng=random.Random(seed))
        self.events: list[SctpEvent] = []
        self.changed = asyncio.Event()
        self.theirs: Any = None
        self.received: list[tuple[int, int, bytes]] = []
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None

    def _register_data_receiver(self, receiver: Any) -> None:
        self.theirs = receiver

    def _unregister_data_receiver(self, receiver: Any) -> None:
        pass

    async def _send_data(self, data: bytes) -> None:
        if self.rng.random() >= self.loss:
            self.loop.call_soon(self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        self.ours.receive(data, self.loop.time())
        self.flush()

    def _expire(self) -> None:
        self.ours.handle_timeout(self.loop.time())
        self.flush()

    def flush(self) -> None:
        for packet in self.ours.packets_to_send(self.loop.time()):
            if self.rng.random() >= self.loss:
                self._inbox.put_nowait(packet)
        self.events += self.ours.take_events()
        self.changed.set()
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.ours.next_timeout()
        self._timer = self.loop.call_at(deadline, self._expire) if deadline is not None else None

    async def pump(self) -> None:
        """aiortc's receive loop."""
        while True:
            await self.theirs._handle_data(await self._inbox.get())
            self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def data(self) -> list[tuple[int, int, bytes]]:
        return [(e.stream_id, e.ppid, e.data) for e in self.events if isinstance(e, MessageReceived)]


async def converse(loss: float, seed: int, size: int) -> None:
    wire = Wire(loss, seed)
    transport = aiortc_sctp.RTCSctpTransport(wire)
    wire.theirs = transport

    async def receive(stream_id: int, ppid: int, data: bytes) -> None:
        wire.received.append((stream_id, ppid, data))
        wire.changed.set()

    transport._receive = receive
    pump = asyncio.create_task(wire.pump())
    try:
        wire.ours.connect(wire.loop.time())
        wire.flush()
        await transport.start(aiortc_sctp.RTCSctpCapabilities(maxMessageSize=1 << 20), 5000)
        await wire.until(lambda: Established() in wire.events and transport._association_state.name == "ESTABLISHED")
        stats = wire.ours.stats
        assert (stats.interleaving, stats.zero_checksum_out) == (False, False)

        wanted = [(1, 53, bytes([i]) * (size * i + 1)) for i in range(10)]
        for stream, ppid, data in wanted:
            wire.ours.send(stream, ppid, data, wire.loop.time())
            await transport._send(stream, ppid, data)
        wire.flush()
        await wire.until(lambda: len(wire.received) == len(wire.data()) == len(wanted))
        assert wire.received == wire.data() == wanted

        for i in range(50):
            wire.ours.send(3, 51, b"%d" % i, wire.loop.time(), unordered=True, max_retransmits=0)
            wire.flush()
        wire.ours.send(1, 51, b"the end", wire.loop.time())
        wire.flush()
        await wire.until(lambda: (1, 51, b"the end") in wire.received)
        if not loss:
            assert len(wire.received) == len(wanted) + 51

        wire.ours.reset_streams([1], wire.loop.time())
        wire.flush()
        await wire.until(lambda: StreamsReset((1,)) in wire.events)
        transport._reconfig_queue.append(1)
        await transport._transmit_reconfig()
        await wire.until(lambda: StreamsResetByPeer((1,)) in wire.events)
        wire.ours.send(1, 51, b"a new life", wire.loop.time())
        wire.flush()
        await wire.until(lambda: (1, 51, b"a new life") in wire.received)

        await transport.stop()
        await wire.until(lambda: any(isinstance(event, Closed) for event in wire.events))
    finally:
        pump.cancel()
        if wire._timer is not None:
            wire._timer.cancel()


def test_a_conversation() -> None:
    asyncio.run(converse(0.0, 1, 20_000))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_conversation_with_losses(seed: int) -> None:
    asyncio.run(converse(0.03, seed, 2000))
