"""Binding requests and answers as bytes: what checks consent on a pair that ICE has found, without objects in between.

ICE's own checks are aioice's; these two messages are nearly constant, and an idle mesh consists of them.
"""

from __future__ import annotations

import binascii
import hmac
import socket
import struct
from typing import Final

from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.stun_guard import (
    BINDING,
    FINGERPRINT,
    FINGERPRINT_XOR,
    MAGIC_COOKIE,
    MESSAGE_INTEGRITY,
    REQUEST,
    SUCCESS,
    XOR_MAPPED_ADDRESS,
)

_INTEGRITY_HEAD: Final = struct.pack("!HH", MESSAGE_INTEGRITY, 20)
_FINGERPRINT_HEAD: Final = struct.pack("!HH", FINGERPRINT, 4)
_INTEGRITY_BYTES: Final = 24
_FINGERPRINT_BYTES: Final = 8
_HEADER: Final = struct.Struct("!HH4s12s")
_MAPPED_4: Final = struct.Struct("!HHBBH4s")
_MAPPED_6: Final = struct.Struct("!HHBBH16s")
_COOKIE: Final = int.from_bytes(MAGIC_COOKIE, "big")


def binding_request(transaction_id: bytes, attributes: bytes, key: bytes) -> bytes:
    """attributes: all but MESSAGE-INTEGRITY and FINGERPRINT, encoded. key: the password of who shall answer."""
    return _sealed(REQUEST | BINDING, transaction_id, attributes, key)


def binding_answer(transaction_id: bytes, address: Address, key: bytes) -> bytes:
    """The answer to a request that came from `address` (RFC 8489 section 7.3.1.1). key: the password of who answers."""
    host, port = address
    xor_port = port ^ (_COOKIE >> 16)
    if ":" in host:
        packed = _xor(socket.inet_pton(socket.AF_INET6, host), transaction_id)
        attribute = _MAPPED_6.pack(XOR_MAPPED_ADDRESS, 20, 0, 2, xor_port, packed)
    else:
        packed = _xor(socket.inet_pton(socket.AF_INET, host), transaction_id)
        attribute = _MAPPED_4.pack(XOR_MAPPED_ADDRESS, 8, 0, 1, xor_port, packed)
    return _sealed(SUCCESS | BINDING, transaction_id, attribute, key)


def mapped_address(value: bytes, transaction_id: bytes) -> Address:
    """The address in an XOR-MAPPED-ADDRESS that `check_stun_untrusted` has found well-formed."""
    port = int.from_bytes(value[2:4], "big") ^ (_COOKIE >> 16)
    family = socket.AF_INET if len(value) == 8 else socket.AF_INET6
    return socket.inet_ntop(family, _xor(value[4:], transaction_id)), port


def _xor(packed: bytes, transaction_id: bytes) -> bytes:
    """RFC 8489 section 14.2: with the cookie, and beyond its four bytes with the transaction id."""
    size = len(packed)
    mask = (MAGIC_COOKIE + transaction_id)[:size]
    return (int.from_bytes(packed, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


def _sealed(kind: int, transaction_id: bytes, attributes: bytes, key: bytes) -> bytes:
    """With MESSAGE-INTEGRITY and FINGERPRINT; each covers a header whose length counts it (RFC 8489 section 14.5, 14.7)."""
    size = len(attributes) + _INTEGRITY_BYTES
    covered = _HEADER.pack(kind, size, MAGIC_COOKIE, transaction_id) + attributes
    integrity = _INTEGRITY_HEAD + hmac.digest(key, covered, "sha1")
    message = _HEADER.pack(kind, size + _FINGERPRINT_BYTES, MAGIC_COOKIE, transaction_id) + attributes + integrity
    return message + _FINGERPRINT_HEAD + (binascii.crc32(message) ^ FINGERPRINT_XOR).to_bytes(4, "big")
