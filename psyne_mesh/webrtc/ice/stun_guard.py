"""The gate before aioice: which STUN packets from outside may enter its parser.

aioice 0.13 lets `struct.error` and `KeyError` out on short attributes and missing ones, and one such exception ends a
trio-asyncio loop. What passes here has whole attributes of the right sizes, and a request has been authenticated
with two C calls (about 5 us) before an asyncio task is spent on it.
"""

from __future__ import annotations

import binascii
import hmac
import struct
from typing import Final

from psyne_mesh.errors import ProtocolError

MAGIC_COOKIE: Final = b"\x21\x12\xa4\x42"  # RFC 8489 section 5
HEADER_BYTES: Final = 20
STUN_BYTES_MAX: Final = 1500  # a check has about 100 bytes; RFC 8489 section 6.1 wants them under the path MTU
ATTRIBUTES_MAX: Final = 32  # a check has 8; more is refused, so that 1500 bytes cannot cost 370 turns of a loop

REQUEST: Final = 0x000
SUCCESS: Final = 0x100
ERROR: Final = 0x110
BINDING: Final = 0x001

USERNAME: Final = 0x0006
MESSAGE_INTEGRITY: Final = 0x0008
ERROR_CODE: Final = 0x0009
XOR_MAPPED_ADDRESS: Final = 0x0020
PRIORITY: Final = 0x0024
USE_CANDIDATE: Final = 0x0025
FINGERPRINT: Final = 0x8028
ICE_CONTROLLED: Final = 0x8029
ICE_CONTROLLING: Final = 0x802A
# Ours, of the comprehension-optional range (RFC 8489 section 16.3): a heartbeat of a process whose loop stands still. Who does
# not know it answers the request as any other. 8 bytes: a number that grows.
HEARTBEAT: Final = 0xC0B5
HEARTBEAT_BYTES: Final = 8
# A datagram of DTLS, and which have come (draft-hancke-webrtc-sped-00). The draft calls the numbers provisional: these are
# Chromium's.
DTLS_DATA: Final = 0xC070
DTLS_ACK: Final = 0xC071
FINGERPRINT_XOR: Final = 0x5354554E
MAPPED_ADDRESS: Final = 0x0001
_USERNAME_BYTES_MAX: Final = 513  # RFC 8489 section 14.3: fewer than 509; two ICE ufrags of 256 and a colon

# What aioice unpacks with a fixed struct. CHANGE-REQUEST, LIFETIME, REQUESTED-TRANSPORT, PRIORITY, USE-CANDIDATE ...
_FIXED_SIZES: Final = {
    0x0003: 4,
    MESSAGE_INTEGRITY: 20,
    0x000C: 4,
    0x000D: 4,
    0x0019: 4,
    PRIORITY: 4,
    USE_CANDIDATE: 0,
    FINGERPRINT: 4,
    ICE_CONTROLLED: 8,
    ICE_CONTROLLING: 8,
}
# Addresses (MAPPED-, SOURCE-, CHANGED-, XOR-PEER-, XOR-RELAYED-, XOR-MAPPED-ADDRESS, RESPONSE-ORIGIN, OTHER-ADDRESS).
_ADDRESSES: Final = frozenset((MAPPED_ADDRESS, 0x0004, 0x0005, 0x0012, 0x0016, XOR_MAPPED_ADDRESS, 0x802B, 0x802C))
_TEXTS: Final = frozenset((USERNAME, 0x0014, 0x8022))  # USERNAME, REALM, SOFTWARE: UTF-8
_METHODS: Final = frozenset((0x1, 0x2, 0x3, 0x4, 0x6, 0x7, 0x8, 0x9))  # those that aioice names

_USERNAME_FIRST: Final = USERNAME.to_bytes(2, "big")
_HEADER: Final = struct.Struct("!HHI12s")
_ATTRIBUTE: Final = struct.Struct("!HH")


class StunHeader:
    """What routing needs to know of a STUN message whose structure was found sound.

    attributes: the values of those that MESSAGE-INTEGRITY covers, by their numbers, and its own.
    integrity_at: where MESSAGE-INTEGRITY begins; 0 when absent.
    """

    __slots__ = ("attributes", "integrity_at", "message_class", "method", "transaction_id")

    def __init__(
        self,
        message_class: int,
        method: int,
        transaction_id: bytes,
        attributes: dict[int, bytes],
        integrity_at: int,
    ) -> None:
        self.message_class = message_class
        self.method = method
        self.transaction_id = transaction_id
        self.attributes = attributes
        self.integrity_at = integrity_at

    @property
    def username(self) -> bytes:
        """Empty when absent."""
        return self.attributes.get(USERNAME, b"")

    @property
    def local_ufrag(self) -> bytes:
        """The receiver's ufrag: what stands before the colon (RFC 8445 section 7.2.2)."""
        return self.username.partition(b":")[0]


def asked_ufrag_untrusted(data: bytes) -> bytes | None:
    """Whose a Binding request wants to be, at the price of a fraction of a microsecond and with nothing else checked:
    most stacks put USERNAME first. `None` where something else stands first."""
    return data[24 : data.find(b":", 24)] if data[20:22] == _USERNAME_FIRST else None


def check_stun_untrusted(data: bytes) -> StunHeader:
    """Whether `data` is a STUN message that aioice can parse without stumbling. Raises `ProtocolError` when not."""
    size = len(data)
    if not HEADER_BYTES <= size <= STUN_BYTES_MAX or data[4:8] != MAGIC_COOKIE:
        raise ProtocolError("not a STUN message")
    kind, length, _, transaction_id = _HEADER.unpack_from(data)
    if kind > 0x3FFF or length != size - HEADER_BYTES or length % 4:
        raise ProtocolError("STUN header: wrong type or length")
    message_class, method = kind & 0x0110, kind & 0x3EEF
    if method not in _METHODS:
        raise ProtocolError("STUN header: unknown method")
    seen: dict[int, bytes] = {}
    integrity_at = count = 0
    at = HEADER_BYTES
    while at < size:
        attribute, length = _ATTRIBUTE.unpack_from(data, at)
        end = at + 4 + length
        count += 1
        if end > size or count > ATTRIBUTES_MAX:
            raise ProtocolError("STUN attributes: longer than their message, or too many")
        if attribute == FINGERPRINT:
            _check_fingerprint(data, at, length)
        elif not integrity_at:  # RFC 8489 section 14.5: what follows MESSAGE-INTEGRITY is ignored
            value = data[at + 4 : end]
            _check_attribute(attribute, value)
            seen[attribute] = value
            if attribute == MESSAGE_INTEGRITY:
                integrity_at = at
        at = end + (-length & 3)
    if message_class == REQUEST:
        _check_request(method, seen)
    elif message_class == SUCCESS and method == BINDING and not (XOR_MAPPED_ADDRESS in seen or MAPPED_ADDRESS in seen):
        raise ProtocolError("Binding response without XOR-MAPPED-ADDRESS and MAPPED-ADDRESS")
    elif message_class == ERROR and ERROR_CODE not in seen:
        raise ProtocolError("STUN error response without ERROR-CODE")
    return StunHeader(message_class, method, transaction_id, seen, integrity_at)


def is_authentic(data: bytes, header: StunHeader, key: bytes) -> bool:
    """Whether MESSAGE-INTEGRITY was made with `key` (RFC 8489 section 14.5)."""
    at = header.integrity_at
    if not at:
        return False
    covered = data[:2] + (at + 24 - HEADER_BYTES).to_bytes(2, "big") + data[4:at]
    return hmac.compare_digest(hmac.digest(key, covered, "sha1"), data[at + 4 : at + 24])


def _check_attribute(attribute: int, value: bytes) -> None:
    expected = _FIXED_SIZES.get(attribute)
    if expected is not None:
        if len(value) != expected:
            raise ProtocolError(f"STUN attribute 0x{attribute:04x}: {len(value)} bytes instead of {expected}")
    elif attribute in _ADDRESSES:
        if (len(value), value[1:2]) not in ((8, b"\x01"), (20, b"\x02")):
            raise ProtocolError(f"STUN attribute 0x{attribute:04x}: not an address")
    elif attribute in _TEXTS:
        if len(value) > _USERNAME_BYTES_MAX * 2:
            raise ProtocolError(f"STUN attribute 0x{attribute:04x}: too long")
        _check_utf8(value)
    elif attribute == ERROR_CODE:
        if len(value) < 4:
            raise ProtocolError("ERROR-CODE: shorter than 4 bytes")
        _check_utf8(value[4:])


def _check_utf8(value: bytes) -> None:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError("STUN attribute: not UTF-8") from error


def _check_fingerprint(data: bytes, at: int, length: int) -> None:
    # RFC 8489 section 14.7: the last attribute, so the length in the header is already the right one.
    if length != 4 or at + 8 != len(data):
        raise ProtocolError("FINGERPRINT: wrong size or not last")
    if int.from_bytes(data[at + 4 :], "big") != binascii.crc32(data[:at]) ^ FINGERPRINT_XOR:
        raise ProtocolError("FINGERPRINT does not match")


def _check_request(method: int, seen: dict[int, bytes]) -> None:
    # Nothing but a connectivity check may ask anything of us, and RFC 8445 section 7.1 says what one carries.
    if method != BINDING:
        raise ProtocolError("STUN request: not a Binding request")
    for attribute, name in (
        (USERNAME, "USERNAME"),
        (MESSAGE_INTEGRITY, "MESSAGE-INTEGRITY"),
        (PRIORITY, "PRIORITY"),
    ):
        if attribute not in seen:
            raise ProtocolError(f"Binding request without {name}")
    if (ICE_CONTROLLED in seen) == (ICE_CONTROLLING in seen):
        raise ProtocolError("Binding request: exactly one of ICE-CONTROLLED and ICE-CONTROLLING belongs in it")
