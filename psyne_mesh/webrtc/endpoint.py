"""One place on the network: its UDP ports, its certificate, its clock, and the peers that share them."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from psyne_mesh.blocks import async_block
from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import ClosedError, PsyneMeshError
from psyne_mesh.in_trio import check_in_trio
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.webrtc import dtls, ice
from psyne_mesh.webrtc.ladder import Tunnel
from psyne_mesh.webrtc.link import Link
from psyne_mesh.webrtc.loop_lag import LoopLag, frame_interval_s
from psyne_mesh.webrtc.peer import PeerConnection
from psyne_mesh.webrtc.stack import StackEvent

_LEAVE_S = 3.0  # the longest that the end of an endpoint waits for its peers to let go of it


@uninterrupted
class Endpoint:
    """Made by `open_endpoint`. Every peer of it uses the same ports, the same certificate, one timer and one flusher.

    certificate: its fingerprint stands in every offer and answer of this endpoint.
    """

    def __init__(self, gateway: ice.IceGateway, certificate: dtls.Certificate, rng: random.Random) -> None:
        self.config = gateway.config
        self.certificate = certificate
        self.gateway = gateway
        self._rng = rng
        self._peers: dict[PeerConnection, None] = {}  # in the order of their opening
        self._no_peers = trio.Event()
        self._closed = False
        self.interval_s = 0.0  # between the frames of a game that may leave
        self.loop_lag = LoopLag()
        self.slowness = LoopLag(lasting=True)
        self._due = math.inf
        self._timer = trio.CancelScope()
        self._to_flush: list[Link] = []
        self._flusher: trio.lowlevel.Task | None = None  # while it has nothing to do

    @property
    def peers(self) -> tuple[PeerConnection, ...]:
        """Those whose `open_peer` block is not over."""
        return tuple(self._peers)

    @asynccontextmanager
    async def open_peer(
        self,
        *,
        offerer: bool,
        name: str = "",
        on_events: Callable[[list[StackEvent]], None] | None = None,
        tunnel: Tunnel | None = None,
    ) -> AsyncIterator[PeerConnection]:
        """A connection to one peer. Leaving the block ends it, with all its tasks; what fails in it fails here only.
        Between two endpoints one connection can stand at a time: a second one ends the first with `Superseded`.

        offerer: exactly one of the two sides makes the offer. name: for error messages.
        on_events: gets all events of the stack, instead of `incoming_channels` and `DataChannel`. Called synchronously
            and often inside other calls; what it sends is bundled. What it raises comes out of this block.
        tunnel: another way for the datagrams, used while ICE has none.
        """
        if self._closed:
            raise ClosedError("the endpoint is closed")
        peer = PeerConnection(
            self.gateway,
            self.certificate,
            self,
            offerer=offerer,
            rng=random.Random(self._rng.getrandbits(64)),
            name=name,
            on_events=on_events,
            tunnel=tunnel,
        )
        self._peers[peer] = None
        try:
            with unwrapped():
                async with trio.open_nursery() as nursery:
                    try:
                        await nursery.start(peer.connection.run)
                        yield peer
                    except PsyneMeshError as error:
                        if peer.connection.bug is None or error is not peer.error:
                            raise  # else a mere consequence of the bug, which the nursery is about to raise
                    finally:
                        peer.close()
        finally:
            del self._peers[peer]
            if not self._peers and self._closed:
                self._no_peers.set()

    # --------------------------------------------------------------------------------------- the scheduler of the links

    def flush_soon(self, link: Link) -> None:
        self._to_flush.append(link)
        if self._flusher is not None:
            trio.lowlevel.reschedule(self._flusher)
            self._flusher = None

    def lag_s(self, now: float) -> float:
        return self.slowness.seconds(now)

    def note_lag(self, late_s: float, now: float) -> None:
        """A timer of our loop fired so late."""
        self.loop_lag.note(late_s, now)
        self.slowness.note(late_s, now)
        interval_s = frame_interval_s(self.loop_lag.seconds(now))
        if interval_s != self.interval_s:
            self.interval_s = interval_s
            for peer in self._peers:
                peer.connection.stack.set_express_interval(interval_s)

    def wake_at(self, deadline: float) -> None:
        if deadline < self._timer.deadline:
            self._timer.deadline = deadline
            self._due = max(deadline, trio.current_time())

    async def _run_flusher(self) -> None:
        """Sends what several tasks of one scheduler tick left behind after the first."""
        task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._flusher = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            if not self._to_flush:
                self._flusher = task
                await trio.lowlevel.wait_task_rescheduled(abort)
            links, self._to_flush = self._to_flush, []
            for link in links:
                try:
                    link.flush_queued()
                except Exception as bug:  # noqa: BLE001 - the peer that owns the link raises it; the others go on
                    link.fault(bug)

    async def _run_timer(self) -> None:
        """The deadlines of all peers, on one sleeper: an input only ever moves it forward, and a pass over the peers finds
        the next. That pass costs less than a microsecond a peer, a heap would cost more on every datagram."""
        while True:
            soonest = min((peer.connection.next_timeout() for peer in self._peers), default=math.inf)
            self._timer = trio.CancelScope(deadline=soonest)
            self._due = max(soonest, trio.current_time())
            with self._timer:
                await trio.sleep_forever()
            now = trio.current_time()
            self.note_lag(now - self._due, now)
            for peer in list(self._peers):
                if peer.connection.next_timeout() <= now:
                    try:
                        peer.connection.handle_timeout(now)
                    except Exception as bug:  # noqa: BLE001 - that peer raises it; the timer of the others goes on
                        peer.connection.fault(bug)

    async def _close(self) -> None:
        self._closed = True
        for peer in self.peers:
            peer.close()
        if self._peers:
            with trio.move_on_after(_LEAVE_S, shield=True):
                await self._no_peers.wait()


@async_block()
async def open_endpoint(
    config: WebRTCConfig | None = None,
    *,
    sockets: ice.SocketFactory | None = None,
    certificate: dtls.Certificate | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Endpoint]:
    """Open the UDP ports of one endpoint; leaving the block closes them and every peer, and leaves nothing behind.

    sockets: opens other sockets than the kernel's, for tests. rng: seeds what need not be secret: tags, ids, jitter.
    Raises `InvalidConfig` when no socket can be opened as configured.
    """
    check_in_trio()
    with unwrapped():
        async with ice.open_gateway(config or WebRTCConfig(), sockets=sockets) as gateway:
            endpoint = Endpoint(gateway, certificate or dtls.Certificate.generate(), rng or random.SystemRandom())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(endpoint._run_timer)
                nursery.start_soon(endpoint._run_flusher)
                try:
                    yield endpoint
                finally:
                    await endpoint._close()
                    nursery.cancel_scope.cancel()
