"""DTLS 1.2 AES-128-GCM records of an open session, sealed and opened here instead of in OpenSSL (RFC 6347, RFC 5288).

Why: OpenSSL holds 60 KiB for each connection. A session that makes its own records lets go of it, and keeps 6.

**Nonces.** A GCM nonce is the direction's fixed IV and eight explicit bytes; one used for two records gives the key away.
OpenSSL starts the explicit bytes at random and counts up by one for each record, whatever its sequence number. We go
on where it stopped: the record after its last one takes the next sequence number and the next explicit bytes, and from then
on there is one counter, for OpenSSL is gone and writes no more. A Finished that was lost is sent again byte for byte,
never encrypted again.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL

from psyne_mesh.webrtc.dtls.protection import CLOSE_NOTIFY, wrong_size
from psyne_mesh.webrtc.dtls.records import ALERT, APPLICATION_DATA, HEADER_SIZE, MAX_PLAINTEXT, alert_name

OVERHEAD = 37  # header 13, explicit nonce 8, tag 16
REPLAY_WINDOW = 512  # records; OpenSSL's 64 are few when a drained batch of 64 datagrams overtakes another

_EPOCH_1 = 1 << 48
_LAST_NUMBER = _EPOCH_1 + 2**48 - 2  # RFC 6347 section 4.1: no wrapping; at 10^6 records a second after nine years
_64_BITS = 2**64 - 1
_WINDOW_MASK = (1 << REPLAY_WINDOW) - 1
_VERSION = 0xFEFD
_WARNING, _CLOSE_NOTIFY = 1, 0  # RFC 5246 section 7.2
_header = Struct("!BHQHQ").pack  # type, version, epoch and number, length, explicit nonce
_nonce = Struct("!4sQ").pack
_additional = Struct("!QBHH").pack  # RFC 5246 section 6.2.3.3: epoch and number, type, version, plaintext length
_number_of = Struct("!Q").unpack_from
_version_and_number = Struct("!HQ").unpack_from


class KeyBlock:
    """The keys and IVs of both directions (RFC 5246 section 6.3)."""

    __slots__ = ("client_iv", "client_key", "server_iv", "server_key")

    def __init__(self, master_key: bytes, client_random: bytes, server_random: bytes) -> None:
        block = prf(master_key, b"key expansion", server_random + client_random, 40)
        self.client_key, self.server_key = block[:16], block[16:32]
        self.client_iv, self.server_iv = block[32:36], block[36:40]


def prf(secret: bytes, label: bytes, seed: bytes, size: int) -> bytes:
    """The P_SHA256 of RFC 5246 section 5."""
    seed = label + seed
    a, out = seed, b""
    while len(out) < size:
        a = hmac.digest(secret, a, "sha256")
        out += hmac.digest(secret, a + seed, "sha256")
    return out[:size]


class AesGcmRecords:
    """Both directions of one open session. `last_sealed` is the last record that OpenSSL sealed under these keys."""

    __slots__ = ("_ahead", "_decrypt", "_encrypt", "_highest", "_next", "_read_iv", "_seen", "_write_iv", "overhead")

    def __init__(self, keys: KeyBlock, *, is_client: bool, last_sealed: bytes) -> None:
        client = (keys.client_key, keys.client_iv)
        server = (keys.server_key, keys.server_iv)
        (write_key, self._write_iv), (read_key, self._read_iv) = (client, server) if is_client else (server, client)
        self._encrypt = AESGCM(write_key).encrypt
        self._decrypt = AESGCM(read_key).decrypt
        last_number: int = _number_of(last_sealed, 3)[0]
        last_explicit: int = _number_of(last_sealed, HEADER_SIZE)[0]
        self._next = last_number + 1  # epoch and sequence number of the record to come
        self._ahead = last_explicit - last_number  # by so much is the explicit nonce ahead of these, modulo 2^64
        self._highest = _EPOCH_1
        self._seen = 1  # bit k: the record numbered `_highest - k` has come; number 0 is the peer's Finished
        self.overhead = OVERHEAD

    def seal(self, packets: Sequence[bytes]) -> list[bytes]:
        if self._next + len(packets) > _LAST_NUMBER:
            return []
        encrypt, iv, ahead = self._encrypt, self._write_iv, self._ahead
        sealed = []
        for packet in packets:
            size = len(packet)
            if not 0 < size <= MAX_PLAINTEXT:
                raise wrong_size(packet)
            number = self._next
            self._next = number + 1  # before the number is used: whatever happens then, it is never used twice
            explicit = number + ahead & _64_BITS
            additional = _additional(number, APPLICATION_DATA, _VERSION, size)
            header = _header(APPLICATION_DATA, _VERSION, number, size + 24, explicit)
            sealed.append(header + encrypt(_nonce(iv, explicit), packet, additional))
        return sealed

    def open(self, record: bytes) -> bytes | None:
        size = len(record) - OVERHEAD
        if size < 0:
            return None
        version, number = _version_and_number(record, 1)
        ahead = number - self._highest
        if ahead <= 0 and (ahead <= -REPLAY_WINDOW or self._seen >> -ahead & 1):
            return None
        # Type, version and epoch need no check of their own: the peer has authenticated what it meant.
        additional = _additional(number, record[0], version, size)
        body = record[21:] if size < 4096 else memoryview(record)[21:]  # a small copy is cheaper than a view
        try:
            plaintext = self._decrypt(self._read_iv + record[13:21], body, additional)
        except InvalidTag:
            return None
        if ahead <= 0:
            self._seen |= 1 << -ahead
        else:
            self._seen = (self._seen << ahead | 1) & _WINDOW_MASK if ahead < REPLAY_WINDOW else 1
            self._highest = number
        return plaintext

    def open_alert(self, record: bytes) -> str | None:
        alert = self.open(record)
        if alert is None or len(alert) != 2:
            return None
        level, description = alert
        if description == _CLOSE_NOTIFY:
            return CLOSE_NOTIFY
        return None if level == _WARNING else f"alert {alert_name(description)}"

    def close_notify(self) -> bytes:
        goodbye = self.seal_one(ALERT, bytes((_WARNING, _CLOSE_NOTIFY)))
        self._next = _LAST_NUMBER + 1
        return goodbye

    def seal_one(self, content_type: int, body: bytes) -> bytes:
        number = self._next
        self._next = number + 1
        explicit = number + self._ahead & _64_BITS
        additional = _additional(number, content_type, _VERSION, len(body))
        header = _header(content_type, _VERSION, number, len(body) + 24, explicit)
        return header + self._encrypt(_nonce(self._write_iv, explicit), body, additional)


def take_over(connection: SSL.Connection, *, is_client: bool, last_sealed: bytes | None) -> AesGcmRecords | None:
    """The records of a connection whose handshake is complete; it must write no more. None if they cannot be made here,
    and then it goes on by itself."""
    cipher = connection.get_cipher_name() or ""
    if not cipher.endswith("-AES128-GCM-SHA256") or connection.get_protocol_version() != _VERSION:
        return None
    secret, client, server = connection.master_key(), connection.client_random(), connection.server_random()
    if not (secret and client and server and last_sealed):
        return None
    return AesGcmRecords(KeyBlock(secret, client, server), is_client=is_client, last_sealed=last_sealed)
