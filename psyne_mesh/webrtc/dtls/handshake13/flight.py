"""Our messages on their way: cut, packed, sealed, repeated until they are acknowledged (RFC 9147 sections 5.8 and 7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from psyne_mesh.webrtc.dtls.handshake13.messages import Message
from psyne_mesh.webrtc.dtls.handshake13.reassembly import encode_fragment
from psyne_mesh.webrtc.dtls.handshake13.wire import HANDSHAKE_HEADER_BYTES
from psyne_mesh.webrtc.dtls.record13 import OVERHEAD, SealingKeys, plaintext_record
from psyne_mesh.webrtc.dtls.records import HANDSHAKE, HEADER_SIZE

INITIAL_TIMEOUT_S = (
    0.15  # where no round trip is known; RFC 9147 section 5.8.2 asks for less than 1 s where latency matters
)
MIN_TIMEOUT_S = 0.05  # libwebrtc's floor: below it the peer's own work counts
MAX_TIMEOUT_S = 2.0  # a game's connect deadline is about 15 s
MIN_RESEND_INTERVAL_S = 0.05  # nobody makes us repeat ourselves faster by repeating itself in plaintext
MIN_ANSWER_INTERVAL_S = 0.005  # nor by ACKs under keys: those of one burst are answered once
SMALL_MTU = 540  # what every path carries: 576 bytes (RFC 791) less 28 of headers and 8 of a relay
SMALL_AFTER_TIMEOUTS = 2
_REMEMBERED_MAX = 64  # records whose fragments are remembered for ACKs; the oldest are forgotten
_USEFUL_BYTES = 64  # a smaller rest of a datagram is left empty rather than filled with a fragment

RecordNumber = tuple[int, int]  # epoch, number in it


def timeout_for(rtt_s: float | None) -> float:
    """Until a flight is first repeated: RFC 9147 section 5.8.2 wants one and a half of the round trip that ICE measured."""
    return INITIAL_TIMEOUT_S if rtt_s is None else min(max(1.5 * rtt_s, MIN_TIMEOUT_S), MAX_TIMEOUT_S)


class Ledger:
    """What all flights of one session share: the row of record numbers of epoch 0, how often any was repeated, whether one
    had to go in small datagrams, and whether a larger one came."""

    __slots__ = ("fell", "has_heard_large", "n_repeated", "next")

    def __init__(self) -> None:
        self.next = 0
        self.n_repeated = 0
        self.fell = self.has_heard_large = False

    @property
    def is_path_small(self) -> bool:
        """Large datagrams came through in neither direction. Timeouts alone may also mean loss, or a long way."""
        return self.fell and not self.has_heard_large

    def seal(self, content_type: int, content: bytes) -> tuple[bytes, int]:
        number, self.next = self.next, self.next + 1
        return plaintext_record(content_type, number, content), number


class Outgoing(NamedTuple):
    """A message with its place: the epoch that it is sent in, None for epoch 0, and its message_seq."""

    keys: SealingKeys | None
    message: Message
    sequence: int


class _Piece(NamedTuple):
    """An encoded fragment."""

    keys: SealingKeys | None
    data: bytes


class Flight:
    """One flight of ours.

    1. `start(messages, now)`, then send what it returns.
    2. At `deadline`: `retransmit(now)`. When the peer repeats itself: `resend(now)`. Both return datagrams.
    3. `acknowledge(numbers)` with each ACK: true once all has been acknowledged. `finish()` when the peer's next flight
       is there, which acknowledges all of ours.

    timeout_s: until the first repetition; then it doubles.
    """

    __slots__ = (
        "_acknowledged",
        "_ledger",
        "_messages",
        "_mtu",
        "_n_timeouts",
        "_pieces",
        "_remembered",
        "_sent_at",
        "_timeout",
        "deadline",
    )

    def __init__(self, mtu: int, ledger: Ledger, timeout_s: float) -> None:
        self._mtu = mtu
        self._ledger = ledger
        self._timeout = timeout_s
        self._messages: list[Outgoing] = []
        self._n_timeouts = 0
        self._pieces: list[_Piece] = []
        self._acknowledged: set[int] = set()
        self._remembered: dict[RecordNumber, tuple[int, ...]] = {}  # which pieces a record held
        self._sent_at = 0.0
        self.deadline: float | None = None

    @property
    def timeout_s(self) -> float:
        return self._timeout

    @property
    def is_outstanding(self) -> bool:
        return len(self._acknowledged) < len(self._pieces)

    def start(self, messages: Iterable[Outgoing], now: float) -> list[bytes]:
        if self._ledger.is_path_small:
            self._mtu = min(self._mtu, SMALL_MTU)
        self._messages = list(messages)
        self._pieces = self._cut(self._messages)
        return self._send(now)

    def retransmit(self, now: float) -> list[bytes]:
        """What has not been acknowledged, and twice the time until the next. In epoch 0 all of it: anybody can write an ACK
        there."""
        self._timeout = min(2 * self._timeout, MAX_TIMEOUT_S)
        self._n_timeouts += 1
        if self._n_timeouts == SMALL_AFTER_TIMEOUTS and self._mtu > SMALL_MTU:
            # RFC 9147 section 4.4: perhaps the path carries less. What was acknowledged goes again, in other pieces
            self._mtu = SMALL_MTU
            self._ledger.fell = True
            self._pieces = self._cut(self._messages)
            self._acknowledged.clear()
            self._remembered.clear()
        self._acknowledged -= {at for at, piece in enumerate(self._pieces) if piece.keys is None}
        self._ledger.n_repeated += 1
        return self._send(now)

    def resend(self, now: float, *, is_authentic: bool = False) -> list[bytes]:
        """What has not been acknowledged, because the peer shows that it misses something; nothing if that was just done."""
        interval = MIN_ANSWER_INTERVAL_S if is_authentic else MIN_RESEND_INTERVAL_S
        if not self.is_outstanding or now - self._sent_at < interval:
            return []
        self._ledger.n_repeated += 1
        return self._send(now)

    def acknowledge(self, numbers: Iterable[RecordNumber]) -> bool:
        for number in numbers:
            self._acknowledged.update(self._remembered.get(number, ()))
        if self.is_outstanding:
            return False
        if all(piece.keys is not None for piece in self._pieces):  # else anybody may have written the ACK
            self.deadline = None
        return True

    def finish(self) -> None:
        self.deadline = None
        self._messages = []
        self._pieces = []
        self._acknowledged.clear()
        self._remembered.clear()

    def _send(self, now: float) -> list[bytes]:
        self._sent_at = now
        self.deadline = now + self._timeout
        return self._pack([at for at in range(len(self._pieces)) if at not in self._acknowledged])

    def _cut(self, messages: Iterable[Outgoing]) -> list[_Piece]:
        """Fragments that fill datagrams when they are packed in this order."""
        pieces: list[_Piece] = []
        room, in_record = self._mtu, False
        keys: SealingKeys | None = None
        for outgoing in messages:
            kind, body = outgoing.message
            offset = 0
            in_record = in_record and outgoing.keys is keys
            keys = outgoing.keys
            while True:
                head = HANDSHAKE_HEADER_BYTES + (0 if in_record else _record_bytes(keys))
                if room - head < min(_USEFUL_BYTES, len(body) - offset) or room <= head:
                    room, in_record = self._mtu, False
                    continue
                part = body[offset : offset + room - head]
                pieces.append(_Piece(keys, encode_fragment(kind, len(body), outgoing.sequence, offset, part)))
                room -= head + len(part)
                in_record = True
                offset += len(part)
                if offset >= len(body):
                    break
        return pieces

    def _pack(self, chosen: Sequence[int]) -> list[bytes]:
        """Datagrams with these pieces; neighbours of one epoch share a record."""
        datagrams: list[bytes] = []
        current = b""
        group: list[int] = []
        size = 0
        for at in chosen:
            piece = self._pieces[at]
            same = bool(group) and self._pieces[group[0]].keys is piece.keys
            head = 0 if same else _record_bytes(piece.keys)
            if group and not same:
                current += self._seal(group)
                group = []
            if size + head + len(piece.data) > self._mtu and size:
                current += self._seal(group) if group else b""
                datagrams.append(current)
                current, group, size = b"", [], 0
                head = _record_bytes(piece.keys)
            group.append(at)
            size += head + len(piece.data)
        if group:
            datagrams.append(current + self._seal(group))
        return datagrams

    def _seal(self, group: list[int]) -> bytes:
        keys = self._pieces[group[0]].keys
        content = b"".join(self._pieces[at].data for at in group)
        if keys is None:
            record, number = self._ledger.seal(HANDSHAKE, content)
            self._remember((0, number), group)
        else:
            self._remember((keys.epoch, keys.number), group)
            record = keys.seal_one(HANDSHAKE, content)
        return record

    def _remember(self, number: RecordNumber, group: list[int]) -> None:
        if len(self._remembered) >= _REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[number] = tuple(group)


def _record_bytes(keys: SealingKeys | None) -> int:
    return HEADER_SIZE if keys is None else OVERHEAD
