"""DTLS 1.2 AES-128-GCM records of an open session, sealed and opened here instead of in OpenSSL (RFC 6347, RFC 5288).

Why: OpenSSL holds 70 KiB for each connection; a session that has its own records lets go of that.

**Nonces.** A GCM nonce is the direction's fixed IV and the record's epoch and sequence number, so no number may ever be
used for two records. There is one counter: it starts above every number that OpenSSL has used in epoch 1 (its
Finished), and from then on OpenSSL writes nothing, for it is gone. A lost Finished is sent again byte for byte, never
encrypted again.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from psyne_mesh.errors import LocalError
from psyne_mesh.webrtc.dtls.protection import CLOSE_NOTIFY, wrong_size
from psyne_mesh.webrtc.dtls.records import ALERT, APPLICATION_DATA, MAX_PLAINTEXT, alert_name

OVERHEAD = 37  # header 13, explicit nonce 8, tag 16
REPLAY_WINDOW = 512  # records; OpenSSL's 64 are few when a drained batch of 64 datagrams overtakes another

_EPOCH_1 = 1 << 48
_LAST_NUMBER = _EPOCH_1 + 2**48 - 2  # RFC 6347 section 4.1: no wrapping; at 10^6 records a second after nine years
_WINDOW_MASK = (1 << REPLAY_WINDOW) - 1
_VERSION = 0xFEFD
_WARNING, _CLOSE_NOTIFY = 1, 0  # RFC 5246 section 7.2
_header = Struct("!BHQHQ").pack  # type, version, epoch and number, length, explicit nonce: epoch and number again
_nonce = Struct("!4sQ").pack
_additional = Struct("!QBHH").pack  # RFC 5246 section 6.2.3.3: epoch and number, type, version, plaintext length
_number_of = Struct("!Q").unpack_from
_length = Struct("!H").pack


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
    """Both directions of one open session.

    next_number: the first sequence number to write with; everything below may have been used already.
    """

    __slots__ = ("_decrypt", "_encrypt", "_highest", "_next", "_read_iv", "_seen", "_write_iv", "overhead")

    def __init__(self, keys: KeyBlock, *, is_client: bool, next_number: int) -> None:
        write_key, self._write_iv = (
            (keys.client_key, keys.client_iv) if is_client else (keys.server_key, keys.server_iv)
        )
        read_key, self._read_iv = (keys.server_key, keys.server_iv) if is_client else (keys.client_key, keys.client_iv)
        self._encrypt = AESGCM(write_key).encrypt
        self._decrypt = AESGCM(read_key).decrypt
        self._next = _EPOCH_1 | next_number
        self._highest = _EPOCH_1
        self._seen = 0  # bit k: the record numbered `_highest - k` was accepted
        self.overhead = OVERHEAD

    def seal(self, packets: Sequence[bytes]) -> list[bytes]:
        if self._next + len(packets) > _LAST_NUMBER:
            raise LocalError("this DTLS connection has used up its sequence numbers")
        encrypt, iv = self._encrypt, self._write_iv
        sealed = []
        for packet in packets:
            size = len(packet)
            if not 0 < size <= MAX_PLAINTEXT:
                raise wrong_size(packet)
            number = self._next
            self._next = number + 1  # before the number is used: whatever happens then, it is never used twice
            additional = _additional(number, APPLICATION_DATA, _VERSION, size)
            header = _header(APPLICATION_DATA, _VERSION, number, size + 24, number)
            sealed.append(header + encrypt(_nonce(iv, number), packet, additional))
        return sealed

    def open(self, record: bytes) -> bytes | None:
        if len(record) < OVERHEAD:
            return None
        number: int = _number_of(record, 3)[0]
        ahead = number - self._highest
        if ahead <= 0 and (ahead <= -REPLAY_WINDOW or self._seen >> -ahead & 1):
            return None
        # Type, version and epoch need no check of their own: they are authenticated, and this key knows one epoch.
        additional = record[3:11] + record[:3] + _length(len(record) - OVERHEAD)
        try:
            plaintext = self._decrypt(self._read_iv + record[13:21], record[21:], additional)
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
        number = self._next
        self._next = _LAST_NUMBER
        alert = bytes((_WARNING, _CLOSE_NOTIFY))
        sealed = self._encrypt(_nonce(self._write_iv, number), alert, _additional(number, ALERT, _VERSION, 2))
        return _header(ALERT, _VERSION, number, 26, number) + sealed


def fits(cipher: str) -> bool:
    """Can the records of this cipher suite be made here?"""
    return cipher.endswith("-AES128-GCM-SHA256")
