"""Key exchange: x25519, P-256, and X25519MLKEM768, which resists a quantum computer (RFC 8446 section 4.2.8,
draft-ietf-tls-ecdhe-mlkem)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from psyne_mesh.webrtc.dtls.handshake13.wire import Alert, Refused

try:  # cryptography 48 and later, with an OpenSSL of 3.5 or later
    from cryptography.hazmat.primitives.asymmetric import mlkem
except ImportError:
    mlkem = None  # type: ignore[assignment]

X25519 = 0x001D
SECP256R1 = 0x0017
X25519_MLKEM768 = 0x11EC
NAMES = {X25519_MLKEM768: "X25519MLKEM768", X25519: "x25519", SECP256R1: "secp256r1"}
POST_QUANTUM = frozenset((X25519_MLKEM768,))

_X25519_BYTES = 32
_MLKEM_KEY_BYTES, _MLKEM_CIPHERTEXT_BYTES = 1184, 1088  # FIPS 203, table 3


class Exchange(Protocol):
    """One group, from the side that speaks first: its `share` goes to the peer, and the peer's answer to `finish`."""

    share: bytes

    def finish(self, answer: bytes) -> bytes:
        """The secret. Raises `Refused`."""


class X25519Exchange:
    __slots__ = ("_key", "share")

    def __init__(self, make_key: Callable[[], x25519.X25519PrivateKey]) -> None:
        self._key = make_key()
        self.share = self._key.public_key().public_bytes_raw()

    def finish(self, answer: bytes) -> bytes:
        if len(answer) != _X25519_BYTES:
            raise _bad_share()
        try:
            return self._key.exchange(x25519.X25519PublicKey.from_public_bytes(answer))
        except ValueError as error:  # RFC 7748 section 6.1: a point of small order gives zeros
            raise _bad_share() from error


class P256Exchange:
    __slots__ = ("_key", "share")

    def __init__(self, make_key: Callable[[], ec.EllipticCurvePrivateKey]) -> None:
        self._key = make_key()
        self.share = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def finish(self, answer: bytes) -> bytes:
        if len(answer) != 65 or answer[0] != 4:  # RFC 8446 section 4.2.8.2: uncompressed
            raise _bad_share()
        try:
            return self._key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), answer))
        except ValueError as error:  # not on the curve
            raise _bad_share() from error


class HybridExchange:
    """ML-KEM's part stands first, in the shares as in the secret. An x25519 exchange of the same hello lends its key."""

    __slots__ = ("_classic", "_key", "share")

    def __init__(self, make_key: Callable[[], Any], classic: X25519Exchange) -> None:
        self._classic = classic
        self._key = make_key()
        self.share = self._key.public_key().public_bytes_raw() + classic.share

    def finish(self, answer: bytes) -> bytes:
        if len(answer) != _MLKEM_CIPHERTEXT_BYTES + _X25519_BYTES:
            raise _bad_share()
        try:
            secret: bytes = self._key.decapsulate(answer[:_MLKEM_CIPHERTEXT_BYTES])
        except ValueError as error:
            raise _bad_share() from error
        return secret + self._classic.finish(answer[_MLKEM_CIPHERTEXT_BYTES:])


class KeyMaker:
    """Where private keys and randoms come from: the library, but for tests that want the same handshake again."""

    __slots__ = ()

    def x25519(self) -> x25519.X25519PrivateKey:
        return x25519.X25519PrivateKey.generate()

    def p256(self) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(ec.SECP256R1())

    def mlkem768(self) -> Any:
        return mlkem.MLKEM768PrivateKey.generate()

    def encapsulate(self, public_key: Any) -> tuple[bytes, bytes]:
        """Secret and ciphertext."""
        secret, ciphertext = public_key.encapsulate()
        return secret, ciphertext


def begin(groups: tuple[int, ...], keys: KeyMaker) -> dict[int, Exchange]:
    """The client's part for each group."""
    exchanges: dict[int, Exchange] = {}
    classic = X25519Exchange(keys.x25519) if {X25519, X25519_MLKEM768} & set(groups) else None
    for group in groups:
        if group == SECP256R1:
            exchanges[group] = P256Exchange(keys.p256)
        elif classic is not None:
            exchanges[group] = HybridExchange(keys.mlkem768, classic) if group == X25519_MLKEM768 else classic
    return exchanges


def answer(group: int, share: bytes, keys: KeyMaker) -> tuple[bytes, bytes]:
    """The server's part: its own share, and the secret. Raises `Refused`."""
    if group == SECP256R1:
        p256 = P256Exchange(keys.p256)
        return p256.share, p256.finish(share)
    classic = X25519Exchange(keys.x25519)
    if group == X25519:
        return classic.share, classic.finish(share)
    if len(share) != _MLKEM_KEY_BYTES + _X25519_BYTES:
        raise _bad_share()
    try:
        public_key = mlkem.MLKEM768PublicKey.from_public_bytes(share[:_MLKEM_KEY_BYTES])
        secret, ciphertext = keys.encapsulate(public_key)
    except ValueError as error:  # FIPS 203 section 7.2: coefficients out of range
        raise _bad_share() from error
    return ciphertext + classic.share, secret + classic.finish(share[_MLKEM_KEY_BYTES:])


def _bad_share() -> Refused:
    return Refused(Alert.ILLEGAL_PARAMETER, "a key share of the wrong size or value")


def _has_mlkem() -> bool:
    if mlkem is None:
        return False
    try:
        mlkem.MLKEM768PrivateKey.from_seed_bytes(bytes(64))
    except UnsupportedAlgorithm:
        return False
    return True


HAS_MLKEM = _has_mlkem()
GROUPS = (X25519_MLKEM768, X25519, SECP256R1) if HAS_MLKEM else (X25519, SECP256R1)  # in the order of preference
