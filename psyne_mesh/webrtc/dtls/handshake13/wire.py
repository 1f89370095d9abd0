"""Numbers of the handshake (RFC 8446 appendix B, RFC 9147), a reader that raises one error, and that error with its alert."""

from __future__ import annotations

import enum
from struct import pack, unpack

from psyne_mesh.errors import ProtocolError

DTLS_1_3 = 0xFEFC
LEGACY_VERSION = b"\xfe\xfd"  # DTLS 1.2, in every hello: the version proper is an extension
HANDSHAKE_HEADER_BYTES = 12
RANDOM_BYTES = 32
HELLO_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")  # RFC 8446 4.1.3


class MessageType(enum.IntEnum):
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    CERTIFICATE_REQUEST = 13
    CERTIFICATE_VERIFY = 15
    FINISHED = 20
    KEY_UPDATE = 24


class Extension(enum.IntEnum):
    SUPPORTED_GROUPS = 10
    SIGNATURE_ALGORITHMS = 13
    USE_SRTP = 14
    SUPPORTED_VERSIONS = 43
    COOKIE = 44
    KEY_SHARE = 51


class Alert(enum.IntEnum):
    """RFC 8446 section 6."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    ILLEGAL_PARAMETER = 47
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INTERNAL_ERROR = 80
    USER_CANCELED = 90
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    CERTIFICATE_REQUIRED = 116


class Refused(ProtocolError):
    """What the peer sent cannot be accepted, and the alert that tells it so."""

    def __init__(self, alert: Alert, reason: str) -> None:
        super().__init__(f"the DTLS handshake failed: {reason}")
        self.alert = alert


class Reader:
    """Reads from the front; `Refused` with decode_error when there is too little."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def has_more(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise Refused(Alert.DECODE_ERROR, "a message is shorter than it says")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, length_size: int) -> bytes:
        """Bytes after their length, which has `length_size` bytes."""
        return self.take(self.number(length_size))

    def numbers(self, length_size: int) -> tuple[int, ...]:
        """A vector of 16-bit numbers."""
        data = self.vector(length_size)
        if not data or len(data) % 2:
            raise Refused(Alert.DECODE_ERROR, "a list of numbers is empty or cut off")
        return unpack(f"!{len(data) // 2}H", data)

    def end(self) -> None:
        if self.has_more:
            raise Refused(Alert.DECODE_ERROR, "a message is longer than it says")


def vector(length_size: int, data: bytes) -> bytes:
    return len(data).to_bytes(length_size, "big") + data


def u16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def extension(kind: Extension, data: bytes) -> bytes:
    return u16(kind) + vector(2, data)


def numbers(length_size: int, values: tuple[int, ...]) -> bytes:
    return vector(length_size, pack(f"!{len(values)}H", *values))
