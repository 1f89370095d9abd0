"""Per-origin order: each message of an origin's life is delivered once, in sequence, across gaps and restarts."""

from __future__ import annotations

import math

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.identity import PeerId

_STREAMS_MAX = 1024  # origins remembered; the one silent for longest is forgotten first
_PENDING_MAX = 512  # messages of one origin that wait for an earlier one; the newest is dropped, and repaired later


class Stream:
    """One life of one origin: `expected` is the sequence to deliver next."""

    __slots__ = ("active_at", "epoch", "expected", "pending", "stalled_at")

    def __init__(self, epoch: int, expected: int, now: float) -> None:
        self.epoch = epoch
        self.expected = expected
        self.pending: dict[int, bytes] = {}
        self.stalled_at = math.inf
        self.active_at = now

    @property
    def high(self) -> int:
        """The newest sequence that we hold."""
        return max(self.pending, default=self.expected - 1)


class Streams:
    """How to drive it: `accept` for each new message, `position` for what a neighbour said it has, `handle_timeout` at
    `deadline`; drain `delivered`: (origin, payload, sequence)."""

    def __init__(self, config: GossipConfig) -> None:
        self._gap_timeout_s = config.gap_timeout_s
        self._streams: dict[PeerId, Stream] = {}
        self.delivered: list[tuple[PeerId, bytes, int]] = []
        self.deadline = math.inf
        self.skipped = 0

    def get(self, origin: PeerId) -> Stream | None:
        return self._streams.get(origin)

    def is_new(self, origin: PeerId, epoch: int, sequence: int) -> bool:
        stream = self._streams.get(origin)
        if stream is None or epoch > stream.epoch:
            return True
        return epoch == stream.epoch and sequence >= stream.expected and sequence not in stream.pending

    def position(self, origin: PeerId, epoch: int, expected: int, now: float) -> Stream | None:
        """The stream of that life of `origin`, opened at `expected` if it is new; None for an older life."""
        stream = self._streams.get(origin)
        if stream is None or epoch > stream.epoch:
            self._streams.pop(origin, None)
            if len(self._streams) >= _STREAMS_MAX:
                del self._streams[next(iter(self._streams))]
            stream = self._streams[origin] = Stream(epoch, expected, now)
        return stream if stream.epoch == epoch else None

    def accept(
        self, origin: PeerId, epoch: int, sequence: int, floor: int, payload: bytes, now: float
    ) -> Stream | None:
        """Take a new message. `floor` is the oldest sequence that the origin thought could still be repaired."""
        stream = self.position(origin, epoch, floor, now)
        if stream is None or sequence < stream.expected:
            return None
        if len(stream.pending) >= _PENDING_MAX and sequence != stream.expected:
            return None
        stream.active_at = now
        stream.pending[sequence] = payload
        if stream.expected < floor:
            self._skip(origin, stream, floor)
        self._flush(origin, stream, now)
        return stream

    def recent(self, since: float) -> list[tuple[PeerId, Stream]]:
        """Streams that had a message since then."""
        return [(origin, stream) for origin, stream in self._streams.items() if stream.active_at >= since]

    def handle_timeout(self, now: float) -> None:
        if now < self.deadline:
            return
        for origin, stream in self._streams.items():
            if (
                stream.stalled_at + self._gap_timeout_s <= now
            ):  # the same sum as in `deadline`: rounding must not stall us
                self._skip(origin, stream, min(stream.pending))
                self._flush(origin, stream, now)
        self.deadline = min((s.stalled_at for s in self._streams.values()), default=math.inf) + self._gap_timeout_s

    def _skip(self, origin: PeerId, stream: Stream, to: int) -> None:
        """Nobody can give what lies before `to`."""
        for sequence in sorted(stream.pending):
            if sequence >= to:
                break
            self.delivered.append((origin, stream.pending.pop(sequence), sequence))
            self.skipped -= 1
        self.skipped += to - stream.expected
        stream.expected = to

    def _flush(self, origin: PeerId, stream: Stream, now: float) -> None:
        pending = stream.pending
        if stream.expected in pending:
            while stream.expected in pending:
                self.delivered.append((origin, pending.pop(stream.expected), stream.expected))
                stream.expected += 1
            stream.stalled_at = math.inf
        if pending and stream.stalled_at == math.inf:
            stream.stalled_at = now
            self.deadline = min(self.deadline, now + self._gap_timeout_s)
