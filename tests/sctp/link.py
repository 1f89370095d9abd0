"""Two associations joined by a bad link in virtual time: every run with the same seed is the same run."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator

import attrs

from psyne_mesh.webrtc.sctp import (
    Association,
    Closed,
    Established,
    MessageReceived,
    SctpConfig,
    SctpEvent,
    wire,
)
from psyne_mesh.webrtc.sctp.pieces import MARK


@attrs.define(kw_only=True)
class LinkConfig:
    """One direction of the link, unless two are given."""

    latency_s: float = 0.01
    jitter_s: float = 0.0  # added uniformly: more than the gap between packets means reordering
    loss: float = 0.0
    duplication: float = 0.0
    mtu: int = 65_535  # SCTP packets above this vanish: a path MTU black hole
    bytes_per_s: float | None = None  # bottleneck rate; None is infinite
    queue_bytes: int = 1 << 30  # drop-tail queue before the bottleneck


class Bottleneck:
    """Where packets of one direction queue. Two links with the same one share it."""

    def __init__(self) -> None:
        self.busy_until = 0.0


class Side:
    """One association, its events, and a count of what it sent."""

    def __init__(self, name: str, config: SctpConfig, seed: int) -> None:
        self.name = name
        self.association = Association(config, rng=random.Random(seed))
        self.events: list[SctpEvent] = []
        self.largest_packet = 0
        self.sent_packets: list[bytes] = []
        self.keep_packets = False

    @property
    def messages(self) -> list[MessageReceived]:
        return [event for event in self.events if isinstance(event, MessageReceived)]

    @property
    def data(self) -> list[bytes]:
        return [message.data for message in self.messages]

    def has(self, kind: type[object]) -> bool:
        return any(isinstance(event, kind) for event in self.events)


class LossyLink:
    """Drives sides `a` and `b`.

    1. `connect()`, or drive the associations by hand. 2. `run(seconds)` or `run_until(condition)`.
    `drop(side name, packet, serial number of that side)` may swallow packets; `on_deliver(side)` sees every arrival.
    """

    def __init__(
        self,
        link: LinkConfig | None = None,
        *,
        seed: int = 0,
        config_a: SctpConfig | None = None,
        config_b: SctpConfig | None = None,
        back: LinkConfig | None = None,
    ) -> None:
        self.now = 1000.0
        self.rng = random.Random(seed)
        self.a = Side("a", config_a or SctpConfig(), seed * 2 + 1)
        self.b = Side("b", config_b or config_a or SctpConfig(), seed * 2 + 2)
        self.links = {"a": link or LinkConfig(), "b": back or link or LinkConfig()}
        self.bottlenecks = {"a": Bottleneck(), "b": Bottleneck()}
        self.drop: Callable[[str, bytes, int], bool] | None = None
        self.on_event: Callable[[Side, SctpEvent], None] | None = None
        self.counts = {"a": 0, "b": 0}
        self._in_flight: list[tuple[float, int, Side, bytes]] = []
        self._serial = 0

    def other(self, side: Side) -> Side:
        return self.b if side is self.a else self.a

    def connect(self, *, both: bool = True, timeout_s: float = 60.0) -> None:
        self.a.association.connect(self.now)
        if both:
            self.b.association.connect(self.now)
        assert self.run_until(lambda: self.a.has(Established) and self.b.has(Established), timeout_s)

    def flush(self, side: Side) -> None:
        """Do what an owner does after any input: send, then take events."""
        association = side.association
        for packet in association.packets_to_send(self.now):
            self._transmit(side, packet)
        for event in association.take_events():
            side.events.append(event)
            if self.on_event is not None:
                self.on_event(side, event)
                for packet in association.packets_to_send(self.now):  # the application may have answered
                    self._transmit(side, packet)

    def run(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def run_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until the condition holds (True) or the seconds are over (False)."""
        end = self.now + seconds
        self.flush(self.a)
        self.flush(self.b)
        while not condition():
            moment = self.next_moment()
            if moment is None or moment > end:
                self.now = end
                return condition()
            self.now = max(self.now, moment)
            touched = self._deliver_due()
            for side in (self.a, self.b):
                deadline = side.association.next_timeout()
                if deadline is not None and deadline <= self.now:
                    side.association.handle_timeout(self.now)
                    touched.add(side.name)
                if side.name in touched:
                    self.flush(side)
        return True

    def next_moment(self) -> float | None:
        moments = [side.association.next_timeout() for side in (self.a, self.b)]
        if self._in_flight:
            moments.append(self._in_flight[0][0])
        return min((moment for moment in moments if moment is not None), default=None)

    def _deliver_due(self) -> set[str]:
        """Give every packet that is due: a batch, as a socket drained in one go would be."""
        touched: set[str] = set()
        while self._in_flight and self._in_flight[0][0] <= self.now:
            _, _, side, packet = heapq.heappop(self._in_flight)
            side.association.receive(packet, self.now)
            touched.add(side.name)
        return touched

    def _transmit(self, side: Side, packet: bytes) -> None:
        self.counts[side.name] += 1
        if packet[0] == MARK or not is_probe(packet):
            assert len(packet) <= side.association.path_mtu
            side.largest_packet = max(side.largest_packet, len(packet))
        if side.keep_packets:
            side.sent_packets.append(packet)
        link = self.links[side.name]
        if self.drop is not None and self.drop(side.name, packet, self.counts[side.name]):
            return
        if len(packet) > link.mtu or self.rng.random() < link.loss:
            return
        at = self.now
        if link.bytes_per_s is not None:
            bottleneck = self.bottlenecks[side.name]
            start = max(self.now, bottleneck.busy_until)
            if (start - self.now) * link.bytes_per_s > link.queue_bytes:
                return
            at = bottleneck.busy_until = start + len(packet) / link.bytes_per_s
        copies = 2 if self.rng.random() < link.duplication else 1
        for _ in range(copies):
            self._serial += 1
            arrival = at + link.latency_s + self.rng.random() * link.jitter_s
            heapq.heappush(self._in_flight, (arrival, self._serial, self.other(side), packet))


def chunk_types(packet: bytes) -> list[int]:
    return [chunk[0] for chunk in wire.parse_packet_untrusted(packet).chunks]


def is_probe(packet: bytes) -> bool:
    return wire.PAD in chunk_types(packet)


def sides_of(link: LossyLink) -> Iterator[Side]:
    yield link.a
    yield link.b


def assert_drained(link: LossyLink) -> None:
    """Nothing is left behind in any structure that grows with traffic."""
    for side in sides_of(link):
        assert not side.has(Closed), side.events[-1]
        assert_association_drained(side.association)


def assert_association_drained(association: Association) -> None:
    table = association._outbound.outstanding
    assert not table.chunks
    assert not table.lost
    assert table.flight_bytes == table.lost_bytes == 0
    assert not table._skipped
    assert association.total_buffered_amount == 0
    assert association.outstanding_bytes == 0
    assert association._inbound is not None
    assert association._inbound.reassembly.is_empty
    assert not association._inbound._gaps
    assert not association._inbound._held_back
