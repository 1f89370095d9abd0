"""HEARTBEAT on an idle path (RFC 9260 section 8.3), and the format of what a HEARTBEAT carries, probes included."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from psyne_mesh.webrtc.sctp import wire

if TYPE_CHECKING:
    from random import Random

_INFO = Struct("!QIH")  # nonce, serial number, size of the probe or 0


class Heartbeat:
    """1. `data_sent` per flush with data. 2. `chunk_to_send` per flush. 3. `acked_untrusted` per HEARTBEAT-ACK.
    4. `handle_timeout` at `deadline` says when one stayed unanswered."""

    __slots__ = ("_interval_s", "_nonce", "_pending", "_sent_at", "_serial", "_unanswered", "deadline", "is_due")

    def __init__(self, interval_s: float, rng: Random) -> None:
        self._interval_s = interval_s
        self._nonce = rng.getrandbits(64)  # an acknowledgement must carry it: it cannot be made up
        self.is_due = False
        self._serial = 0
        self._sent_at = 0.0
        self._pending = False
        self._unanswered = 0
        self.deadline: float | None = None

    def data_sent(self, now: float) -> None:
        """DATA measures the path as well as a HEARTBEAT does."""
        if not self._pending:
            self.deadline = now + self._interval_s

    def chunk_to_send(self, now: float, rto: float) -> bytes | None:
        if not self.is_due:
            return None
        self.is_due, self._pending = False, True
        self._serial = (self._serial + 1) & 0xFFFFFFFF
        self._sent_at = now
        self.deadline = now + rto * 2 ** min(self._unanswered, 8)
        return wire.chunk(wire.HEARTBEAT, 0, self._info(0))

    def probe(self, size: int) -> list[bytes]:
        """The chunks of a path MTU probe whose packet has exactly `size` bytes, rounded down to a multiple of four."""
        heartbeat = wire.chunk(wire.HEARTBEAT, 0, self._info(size))
        padding = ((size - wire.HEADER_BYTES) & ~3) - len(heartbeat) - 4
        return [heartbeat, wire.chunk(wire.PAD, 0, bytes(padding))]

    def acked_untrusted(self, packet: bytes, start: int, end: int, now: float) -> tuple[float | None, int]:
        """(RTT in seconds if the last HEARTBEAT is answered, size of the probe answered or 0). Raises ProtocolError."""
        for kind, value in wire.parse_parameters_untrusted(packet, start + 4, end):
            if kind == wire.PARAM_HEARTBEAT_INFO and len(value) == _INFO.size:
                nonce, serial, size = _INFO.unpack(value)
                if nonce == self._nonce and size:
                    return None, size
                if nonce == self._nonce and serial == self._serial and self._pending:
                    self._pending = False
                    self._unanswered = 0
                    self.deadline = now + self._interval_s
                    return now - self._sent_at, 0
        return None, 0

    def handle_timeout(self, now: float) -> bool:
        """True when the last HEARTBEAT stayed unanswered."""
        if self.deadline is None or now < self.deadline:
            return False
        self.deadline = None
        self.is_due = True
        if self._pending:
            self._unanswered += 1
        return self._pending

    def _info(self, size: int) -> bytes:
        return wire.parameter(wire.PARAM_HEARTBEAT_INFO, _INFO.pack(self._nonce, self._serial, size))
