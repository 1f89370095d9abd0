"""DTLS handshakes inside ICE's checks (SPED, draft-hancke-webrtc-sped-00): what each check and each answer carries.

Two attributes of STUN: DATA is one datagram of the handshake, ACK the CRC-32 of those that have come, four at most, the newest
last; an empty ACK says only that its writer understands. Datagrams that were acknowledged are not carried again.
"""

from __future__ import annotations

import binascii
import struct

from psyne_mesh.webrtc.dtls.records import CHANGE_CIPHER_SPEC, HANDSHAKE

OPTION = "sped"  # in a=ice-options
MTU = 900  # bytes of a datagram of the handshake, so that a check with it fits any path; libwebrtc's figure
ACKS_MAX = 4  # in one message, as the draft has it
# Of one flight: a hello with ML-KEM has 2 datagrams, a server's flight 3, and 2 more when certificates are large. What comes
# beyond goes directly once there is a path, as without all this.
HELD_MAX = 8
_FLIGHT_BYTES_MIN = (
    128  # what is smaller is no flight of a handshake with two certificates: an ACK, or the wish for another hello
)
_CRC = struct.Struct("!I")


class Embedding:
    """What one side has to say in its checks, until both have said all.

    1. `hold(datagrams)` whatever DTLS wants to send while the handshake goes on; a new flight takes the place of the one
       before. 2. `attributes()` for each check and answer that leaves. 3. `receive_untrusted(ack, data)` for each authentic
       one that comes; it returns the datagram for DTLS, if there is a new one. 4. `finish()` when the handshake is over on
       both sides.
    """

    __slots__ = ("_heard", "_held", "_next", "is_over", "n_carried", "n_received")

    def __init__(self) -> None:
        self._held: dict[int, bytes] = {}  # by CRC-32, oldest first
        self._next = 0  # whose turn it is
        self._heard: dict[int, None] = {}
        self.is_over = False
        self.n_carried = self.n_received = 0

    def hold(self, datagrams: list[bytes]) -> None:
        """Those of a handshake; what else is among them is not for checks."""
        flight = [datagram for datagram in datagrams if is_handshake(datagram) and len(datagram) <= MTU]
        if self.is_over or not flight:
            return
        held = {binascii.crc32(datagram): datagram for datagram in flight}
        if sum(map(len, flight)) < _FLIGHT_BYTES_MIN:
            held = self._held | held
        self._held = dict(list(held.items())[:HELD_MAX])
        self._next = 0

    @property
    def waiting(self) -> list[bytes]:
        """What has not been acknowledged."""
        return list(self._held.values())

    def attributes(self) -> tuple[bytes, bytes] | None:
        """The values of ACK and DATA, empty without one; None once there is nothing more to carry."""
        if self.is_over:
            return None
        ack = b"".join(_CRC.pack(crc) for crc in list(self._heard)[-ACKS_MAX:])
        if not self._held:
            return ack, b""
        data = list(self._held.values())[self._next % len(self._held)]
        self._next += 1
        self.n_carried += 1
        return ack, data

    def receive_untrusted(self, ack: bytes | None, data: bytes) -> bytes | None:
        """Of an authentic check or answer; ack is None where it had none. Nothing in it can do more than a datagram that came
        by itself."""
        if self.is_over:
            return None
        for at in range(0, min(len(ack or b""), 4 * ACKS_MAX) - 3, 4):
            self._held.pop(_CRC.unpack_from(ack or b"", at)[0], None)
        if not data or not 20 <= data[0] <= 63:
            return None
        new = self.note_received(data)
        self.n_received += new
        return data if new else None

    def note_received(self, datagram: bytes) -> bool:
        """A datagram has come, in a check or by itself: whether it is the first time."""
        crc = binascii.crc32(datagram)
        if crc in self._heard:
            return False
        self._heard[crc] = None
        while len(self._heard) > 4 * HELD_MAX:
            del self._heard[next(iter(self._heard))]
        return True

    def finish(self) -> None:
        self.is_over = True
        self._held, self._heard = {}, {}


def is_handshake(datagram: bytes) -> bool:
    """Whether it begins with a record of a handshake: in plaintext, or under keys of 1.3 (epoch 2, RFC 9147 section 6.1)."""
    first = datagram[0] if datagram else 0
    return first in (HANDSHAKE, CHANGE_CIPHER_SPEC) or (first & 0xE0 == 0x20 and first & 0x03 == 2)
