"""How an open session protects its records: by OpenSSL, called the short way or the public way.

A datagram of 1.2 kB costs 0.8 us each way through cffi calls into the library that pyOpenSSL itself wraps, and 2.5 to
2.9 us through pyOpenSSL's methods, which allocate, copy twice and raise for "no data". The short way uses names that
are private to pyOpenSSL: `tests/dtls/test_contract.py` names each; where one is missing the public way is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from OpenSSL import SSL

from psyne_mesh.errors import LocalError, MessageTooLarge
from psyne_mesh.webrtc.dtls.records import MAX_PLAINTEXT

CLOSE_NOTIFY = "close notify"
_BUFFER_BYTES = 32_768  # above the largest record, 13 + 2^14 + 256


class RecordProtection(Protocol):
    """What a session needs once its handshake is complete."""

    overhead: int

    def seal(self, packets: Sequence[bytes]) -> list[bytes]:
        """One record of application data for each packet of 1 to 2^14 bytes; `LocalError` for any other. Fewer records
        than packets come back when no more can be made, ever."""

    def open(self, record: bytes) -> bytes | None:
        """The plaintext of an application data record; None for one that is forged, replayed or of another epoch."""

    def open_alert(self, record: bytes) -> str | None:
        """The name of an authentic alert that ends the connection, `CLOSE_NOTIFY` among them, else None."""

    def close_notify(self) -> bytes:
        """The record that says goodbye; nothing can be sealed after it."""


class PublicOpenSslRecords:
    """The public way: `bio_write`, `recv`, `send`, `bio_read`."""

    __slots__ = ("_connection", "overhead")

    def __init__(self, connection: SSL.Connection, overhead: int) -> None:
        self._connection = connection
        self.overhead = overhead

    def seal(self, packets: Sequence[bytes]) -> list[bytes]:
        sealed = []
        for packet in packets:
            if not 0 < len(packet) <= MAX_PLAINTEXT:
                raise wrong_size(packet)
            try:
                self._connection.send(packet)
                sealed.append(self._connection.bio_read(_BUFFER_BYTES))
            except SSL.Error:
                break
        return sealed

    def open(self, record: bytes) -> bytes | None:
        self._connection.bio_write(record)
        try:
            return self._connection.recv(_BUFFER_BYTES)
        except SSL.Error:
            return None

    def open_alert(self, record: bytes) -> str | None:
        self._connection.bio_write(record)
        try:
            self._connection.recv(_BUFFER_BYTES)
        except SSL.WantReadError:
            return None  # not authentic, or only a warning
        except SSL.ZeroReturnError:
            return CLOSE_NOTIFY
        except SSL.Error as error:
            return reason_of(error)
        return None

    def close_notify(self) -> bytes:
        try:
            self._connection.shutdown()
            return self._connection.bio_read(_BUFFER_BYTES)
        except SSL.Error:
            return b""


class OpenSslRecords(PublicOpenSslRecords):
    """The short way. `buffer` is shared by all sessions of a context: nothing stays in it between two calls."""

    __slots__ = ("_buffer", "_into", "_out_of", "_ssl", "_view")

    def __init__(self, connection: SSL.Connection, overhead: int, buffer: Any) -> None:
        super().__init__(connection, overhead)
        private: Any = connection
        self._ssl, self._into, self._out_of = private._ssl, private._into_ssl, private._from_ssl
        self._buffer, self._view = buffer, _ffi.buffer(buffer)

    def seal(self, packets: Sequence[bytes]) -> list[bytes]:
        ssl, out_of, buffer, view = self._ssl, self._out_of, self._buffer, self._view
        sealed = []
        for packet in packets:
            size = len(packet)
            if not 0 < size <= MAX_PLAINTEXT:
                raise wrong_size(packet)
            if _ssl_write(ssl, packet, size) != size:
                _clear_error()
                break
            sealed.append(view[0 : _bio_read(out_of, buffer, _BUFFER_BYTES)])
        return sealed

    def open(self, record: bytes) -> bytes | None:
        _bio_write(self._into, record, len(record))
        size = _ssl_read(self._ssl, self._buffer, _BUFFER_BYTES)
        if size > 0:
            plaintext: bytes = self._view[0:size]
            return plaintext
        _clear_error()  # the queue of errors belongs to the thread: what stays in it would be laid to another session
        return None


def make_buffer() -> Any:
    """The scratch buffer of a context, or None where the short way is barred."""
    return _ffi.new("char[]", _BUFFER_BYTES) if SHORT_WAY else None


def openssl_records(connection: SSL.Connection, overhead: int, buffer: Any) -> RecordProtection:
    if buffer is None:
        return PublicOpenSslRecords(connection, overhead)
    return OpenSslRecords(connection, overhead, buffer)


def wrong_size(packet: bytes) -> LocalError:
    if packet:
        return MessageTooLarge(len(packet), MAX_PLAINTEXT)
    return LocalError("an empty packet makes no record")


def reason_of(error: SSL.Error) -> str:
    """OpenSSL's own words, such as "no shared cipher"."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in entries) or repr(error)


_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)
_ATTRIBUTES = ("_ssl", "_into_ssl", "_from_ssl")
_ssl_write: Any = getattr(_lib, "SSL_write", None)
_ssl_read: Any = getattr(_lib, "SSL_read", None)
_bio_write: Any = getattr(_lib, "BIO_write", None)
_bio_read: Any = getattr(_lib, "BIO_read", None)
_clear_error: Any = getattr(_lib, "ERR_clear_error", None)


def _short_way_is_open() -> bool:
    if _ffi is None or not all((_ssl_write, _ssl_read, _bio_write, _bio_read, _clear_error)):
        return False
    probe = SSL.Connection(SSL.Context(SSL.DTLS_METHOD), None)
    return all(getattr(probe, attribute, None) is not None for attribute in _ATTRIBUTES)


SHORT_WAY = _short_way_is_open()
