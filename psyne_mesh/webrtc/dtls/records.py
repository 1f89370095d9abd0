"""DTLS 1.2 records as bytes (RFC 6347 section 4.1): cut datagrams into them, pack them into datagrams."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

CHANGE_CIPHER_SPEC = 20
ALERT = 21
HANDSHAKE = 22
APPLICATION_DATA = 23

HEADER_SIZE = 13
MAX_PLAINTEXT = 2**14  # RFC 6347 section 4.1
MAX_CIPHERTEXT = MAX_PLAINTEXT + 256  # the most that any AEAD may add (RFC 5246 section 6.2.3.3); ours add 16 or 24

_VERSIONS = (0xFEFD, 0xFEFF)  # DTLS 1.2, and the DTLS 1.0 that a ClientHello's record carries
_header = Struct("!BHHHIH")  # type, version, epoch, sequence number (16 + 32 bits), length
_handshake = Struct(
    "!BBHHBHBH"
)  # type, length (8 + 16), message_seq, fragment_offset (8 + 16), fragment_length (8 + 16)
_sequence = Struct("!HI")
_ALERTS = {  # RFC 5246 section 7.2: those that a handshake can end with, for people to read
    0: "close notify",
    10: "unexpected message",
    20: "bad record mac",
    40: "handshake failure",
    42: "bad certificate",
    43: "unsupported certificate",
    45: "certificate expired",
    46: "certificate unknown",
    47: "illegal parameter",
    48: "unknown ca",
    50: "decode error",
    51: "decrypt error",
    70: "protocol version",
    71: "insufficient security",
    80: "internal error",
    90: "user canceled",
}


def alert_name(description: int) -> str:
    return _ALERTS.get(description, str(description))


class Record:
    """One whole record: its header's fields and its bytes, header included."""

    __slots__ = ("content_type", "data", "epoch", "sequence")

    def __init__(self, content_type: int, epoch: int, sequence: int, data: bytes) -> None:
        self.content_type = content_type
        self.epoch = epoch
        self.sequence = sequence
        self.data = data

    @property
    def message_seq(self) -> int:
        """The handshake message that a plaintext record begins with; -1 for one that holds none."""
        if self.content_type != HANDSHAKE or self.epoch or len(self.data) < HEADER_SIZE + _handshake.size:
            return -1
        return int(_handshake.unpack_from(self.data, HEADER_SIZE)[3])


def split_untrusted(datagram: bytes) -> tuple[list[Record], bool]:
    """The datagram's records, and whether it was whole: all after the first bad length or version is dropped."""
    records: list[Record] = []
    offset, end = 0, len(datagram)
    while end - offset >= HEADER_SIZE:
        content_type, version, epoch, high, low, length = _header.unpack_from(datagram, offset)
        after = offset + HEADER_SIZE + length
        if version not in _VERSIONS or length > MAX_CIPHERTEXT or after > end:
            return records, False
        records.append(Record(content_type, epoch, high << 32 | low, datagram[offset:after]))
        offset = after
    return records, offset == end


def renumber(record: bytes, sequence: int) -> bytes:
    """A plaintext record under another sequence number, which nothing authenticates in epoch 0."""
    return record[:5] + _sequence.pack(sequence >> 32, sequence & 0xFFFFFFFF) + record[11:]


def pack(records: Sequence[bytes], mtu: int) -> list[bytes]:
    """Datagrams of at most `mtu` bytes that hold the records in order; a record above the mtu goes alone."""
    datagrams: list[bytes] = []
    room = 0
    for record in records:
        if len(record) <= room:
            datagrams[-1] += record
            room -= len(record)
        else:
            datagrams.append(record)
            room = mtu - len(record)
    return datagrams
