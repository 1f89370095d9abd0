"""Who a player is: an ed25519 key, and the `PeerId` that is a hash of its public half.

Everything a peer says about itself (records, offers, answers) is signed under a domain, so that a signature made for
one purpose can never be shown for another.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import attrs

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.key_file import claim_seed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
_PEER_ID_BYTES = 16  # 128 bits: no second preimage within reach, and short enough to read aloud in parts


class PeerId(str):
    """32 lower-case hex digits: the first 16 bytes of SHA-256("psyne-peer" || public key).

    A `PeerId` is a `str`, so it sorts, hashes and travels as one. `PeerId.of(public_key)` makes it,
    `PeerId.parse_untrusted(text)` accepts it from outside.
    """

    __slots__ = ()

    @classmethod
    def of(cls, public_key: bytes) -> PeerId:
        return cls(hashlib.sha256(b"psyne-peer" + public_key).hexdigest()[: 2 * _PEER_ID_BYTES])

    @classmethod
    def parse_untrusted(cls, text: object) -> PeerId:
        """Raises `ProtocolError` for anything but 32 lower-case hex digits."""
        if isinstance(text, str) and len(text) == 2 * _PEER_ID_BYTES and set(text) <= set("0123456789abcdef"):
            return cls(text)
        raise ProtocolError("a peer id is 32 lower-case hex digits")

    @property
    def raw(self) -> bytes:
        """The same id as 16 bytes, for binary frames."""
        return bytes.fromhex(self)

    @classmethod
    def from_raw_untrusted(cls, raw: bytes) -> PeerId:
        if len(raw) != _PEER_ID_BYTES:
            raise ProtocolError("a raw peer id is 16 bytes")
        return cls(raw.hex())

    @property
    def short(self) -> str:
        """The first 8 digits, for people."""
        return str(self[:8])


@lru_cache(maxsize=1)
def _ed25519() -> ModuleType:
    """Loaded with the first signature: ids alone do without, as in a page, where the member in TypeScript holds the keys."""
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return ed25519


@attrs.frozen
class Identity:
    """An ed25519 key pair and the peer id that follows: `Identity.generate()`, `Identity.from_seed(32 bytes)` or,
    kept on disk, `Identity.load_or_create(path)`."""

    _key: Ed25519PrivateKey = attrs.field(repr=False)
    public_key: bytes
    peer_id: PeerId

    @classmethod
    def generate(cls) -> Identity:
        return cls._of(_ed25519().Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The same 32 secret bytes give the same player again: keep them to keep a seat."""
        if len(seed) != 32:
            raise InvalidConfig(f"an identity seed is 32 bytes, not {len(seed)}")
        return cls._of(_ed25519().Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load_or_create(cls, path: str | Path) -> Identity:
        """The same player at each start: the key in that file, made at the first one. A second window that is open at
        once gets a key of its own (the same each time, in `NAME-2`), as one key can be in a room only once. Keep the
        file secret.

        Raises `InvalidConfig` for a file that is none of ours, or cannot be read or written.
        """
        return cls.from_seed(claim_seed(Path(path), lambda: cls.generate().seed))

    @classmethod
    def _of(cls, key: Ed25519PrivateKey) -> Identity:
        public = key.public_key().public_bytes_raw()
        return cls(key, public, PeerId.of(public))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes; never send them."""
        return self._key.private_bytes_raw()

    def sign(self, domain: bytes, payload: bytes) -> bytes:
        """64 bytes over `domain` and `payload`; `domain` is a short constant such as b"psyne-offer"."""
        return self._key.sign(_framed(domain, payload))


def verify_untrusted(public_key: bytes, domain: bytes, payload: bytes, signature: bytes) -> PeerId:
    """The id of the peer who signed `payload` under `domain`, or `ProtocolError`."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise ProtocolError("a public key is 32 bytes and a signature 64")
    from cryptography.exceptions import InvalidSignature

    try:
        _ed25519().Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _framed(domain, payload))
    except (InvalidSignature, ValueError) as error:
        raise ProtocolError("the signature does not match") from error
    return PeerId.of(public_key)


def _framed(domain: bytes, payload: bytes) -> bytes:
    return len(domain).to_bytes(2, "big") + domain + payload
