"""The cipher suites of DTLS 1.3, and HKDF-Expand-Label (RFC 8446 section 7.1, RFC 9147 sections 4.2.3 and 5.9)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

if TYPE_CHECKING:
    from hashlib import _Hash

# The first 16 bytes of each of some ciphertexts, joined -> as many bytes, of whose each 16 the first two hide a number
Mask: TypeAlias = Callable[[bytes], bytes]

AEAD_OVERHEAD = 16  # the tag of each of these suites
NONCE_BYTES = 12
_PREFIX = b"dtls13"


class Suite(NamedTuple):
    """One cipher suite. records_max: how many records one key may seal (RFC 8446 section 5.5); for ChaCha20-Poly1305, which
    has no such limit of its own, the same, so that there is one rule."""

    number: int
    name: str
    hash_name: str
    key_bytes: int
    aead: Callable[[bytes], AESGCM | ChaCha20Poly1305]
    mask: Callable[[bytes], Mask]

    @property
    def hash_bytes(self) -> int:
        return 48 if self.hash_name == "sha384" else 32

    def transcript(self) -> _Hash:
        return hashlib.new(self.hash_name)

    def digest(self, data: bytes) -> bytes:
        return hashlib.new(self.hash_name, data).digest()

    def mac(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, self.hash_name)

    def extract(self, salt: bytes, secret: bytes) -> bytes:
        """HKDF-Extract (RFC 5869 section 2.2), which is one HMAC."""
        return hmac.digest(salt, secret, self.hash_name)

    def expand_label(self, secret: bytes, label: bytes, context: bytes, size: int, prefix: bytes = _PREFIX) -> bytes:
        """prefix: another one is for the published vectors of TLS 1.3."""
        info = _label_info(prefix + label, len(context), size) + context
        return HKDFExpand(_HASHES[self.hash_name], size, info).derive(secret)


@cache
def _label_info(label: bytes, context_bytes: int, size: int) -> bytes:
    """The HkdfLabel up to its context; there are a dozen of them."""
    return size.to_bytes(2, "big") + bytes((len(label),)) + label + bytes((context_bytes,))


def aes_mask(key: bytes) -> Mask:
    """RFC 9147 section 4.2.3: AES-ECB over the sample."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update


def chacha20_mask(key: bytes) -> Mask:
    """RFC 9147 section 4.2.3: the sample is block counter (little endian) and nonce, as `cryptography` takes them."""

    def mask(samples: bytes) -> bytes:
        if len(samples) == 16:
            return Cipher(algorithms.ChaCha20(key, samples), None).encryptor().update(bytes(16))
        return b"".join([mask(samples[at : at + 16]) for at in range(0, len(samples), 16)])

    return mask


_HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}
AES_128_GCM = Suite(0x1301, "TLS_AES_128_GCM_SHA256", "sha256", 16, AESGCM, aes_mask)
AES_256_GCM = Suite(0x1302, "TLS_AES_256_GCM_SHA384", "sha384", 32, AESGCM, aes_mask)
CHACHA20_POLY1305 = Suite(0x1303, "TLS_CHACHA20_POLY1305_SHA256", "sha256", 32, ChaCha20Poly1305, chacha20_mask)

# In the order of preference. AES has its instructions on nearly every machine; 128 bits are what RFC 8446 section 9.1 asks
# everybody to have, and resist a quantum computer well enough: Grover's search does not run in parallel.
SUITES = (AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305)
