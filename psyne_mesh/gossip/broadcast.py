"""Broadcast with ids (origin, epoch, sequence): each message once, in the order of its origin."""

from __future__ import annotations

import math

import attrs

from psyne_mesh.gossip import codec
from psyne_mesh.gossip.codec import Reader, raw_of, sized, varint
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.identity import SIGNATURE_BYTES, PeerId

BROADCAST_DOMAIN = b"psyne-broadcast"
_PENDING_MAX = 256  # messages of one origin that wait for an earlier one; the newest beyond that is dropped


@attrs.frozen
class Message:
    """One broadcast: `body` is everything but the hop count, as it travels."""

    origin: PeerId
    epoch: int
    sequence: int
    payload: bytes
    signed: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


class Stream:
    """What we have of one origin's life."""

    __slots__ = ("epoch", "expected", "pending", "stalled_at")

    def __init__(self, epoch: int, expected: int) -> None:
        self.epoch = epoch
        self.expected = expected
        self.pending: dict[int, bytes] = {}
        self.stalled_at = math.inf


class Broadcast:
    """Delivers messages in per-origin order. How to drive it: `accept(message, now)` for each verified message,
    `handle_timeout(now)` at `deadline`; drain `delivered`."""

    def __init__(self, config: GossipConfig) -> None:
        self._config = config
        self._streams: dict[PeerId, Stream] = {}
        self.delivered: list[tuple[PeerId, bytes, int]] = []
        self.deadline = math.inf
        self.duplicates = 0
        self.skipped = 0

    def is_new(self, origin: PeerId, epoch: int, sequence: int) -> bool:
        stream = self._streams.get(origin)
        if stream is None or epoch > stream.epoch:
            return True
        return epoch == stream.epoch and sequence >= stream.expected and sequence not in stream.pending

    def accept(self, message: Message, now: float) -> None:
        stream = self._streams.get(message.origin)
        if stream is None or message.epoch > stream.epoch:
            stream = self._streams[message.origin] = Stream(message.epoch, message.sequence)
        if len(stream.pending) >= _PENDING_MAX and message.sequence != stream.expected:
            return
        stream.pending[message.sequence] = message.payload
        self._flush(message.origin, stream, now)

    def forget(self, origin: PeerId) -> None:
        self._streams.pop(origin, None)

    def handle_timeout(self, now: float) -> None:
        for origin, stream in self._streams.items():
            if now - stream.stalled_at >= self._config.gap_timeout_s:
                first = min(stream.pending)
                self.skipped += first - stream.expected
                stream.expected = first
                self._flush(origin, stream, now)
        self.deadline = (
            min((s.stalled_at for s in self._streams.values()), default=math.inf) + self._config.gap_timeout_s
        )

    def _flush(self, origin: PeerId, stream: Stream, now: float) -> None:
        while stream.expected in stream.pending:
            self.delivered.append((origin, stream.pending.pop(stream.expected), stream.expected))
            stream.expected += 1
            stream.stalled_at = math.inf
        if stream.pending and stream.stalled_at == math.inf:
            stream.stalled_at = now
            self.deadline = min(self.deadline, now + self._config.gap_timeout_s)


def signed_part(origin: PeerId, epoch: int, sequence: int, payload: bytes) -> bytes:
    return b"".join((raw_of(origin), varint(epoch), varint(sequence), sized(payload)))


def gossip(hops: int, body: bytes) -> bytes:
    return codec.head(codec.GOSSIP) + bytes((min(hops, 255),)) + body


def gossip_untrusted(frame: bytes, payload_max: int) -> tuple[int, Message]:
    """(hops, message); the signature is NOT yet checked."""
    reader = Reader(frame)
    hops = reader.u8_untrusted()
    start = reader.offset
    origin, epoch, sequence = reader.peer_untrusted(), reader.varint_untrusted(), reader.varint_untrusted()
    payload = reader.sized_untrusted(payload_max)
    signed = frame[start : reader.offset]
    signature = reader.take_untrusted(SIGNATURE_BYTES)
    reader.done_untrusted()
    return hops, Message(origin, epoch, sequence, payload, signed, signature, frame[start:])
