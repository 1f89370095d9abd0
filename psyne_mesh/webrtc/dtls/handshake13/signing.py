"""CertificateVerify: who holds the certificate's key signs the transcript (RFC 8446 section 4.4.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from psyne_mesh.webrtc.dtls.handshake13.wire import Alert, Refused

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Sign: TypeAlias = Callable[[PrivateKey, bytes, int], bytes]  # key, message, algorithm

# RFC 8446 section 4.2.3, and the hash that belongs to each. RSA only as PSS: the older padding signs nothing in 1.3.
_ECDSA = {
    0x0403: ("secp256r1", hashes.SHA256()),
    0x0503: ("secp384r1", hashes.SHA384()),
    0x0603: ("secp521r1", hashes.SHA512()),
}
_RSA_PSS = {0x0804: hashes.SHA256(), 0x0805: hashes.SHA384(), 0x0806: hashes.SHA512()}
ALGORITHMS = (*_ECDSA, *_RSA_PSS)
_RSA_BITS = range(2048, 8193)  # below, anybody could forge; above, a check takes milliseconds


def signed_content(transcript_hash: bytes, *, by_client: bool) -> bytes:
    who = b"client" if by_client else b"server"
    return b" " * 64 + b"TLS 1.3, " + who + b" CertificateVerify\0" + transcript_hash


def choose_algorithm(key: PrivateKey, offered: tuple[int, ...]) -> int:
    """The first of ours that fits our key and that the peer takes."""
    for algorithm in ALGORITHMS:
        if algorithm in offered and _fits(key, algorithm):
            return algorithm
    raise Refused(Alert.HANDSHAKE_FAILURE, "the peer takes no signature that our certificate could make")


def sign(key: PrivateKey, content: bytes, algorithm: int) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm_hash = _RSA_PSS[algorithm]
        return key.sign(content, padding.PSS(padding.MGF1(algorithm_hash), padding.PSS.DIGEST_LENGTH), algorithm_hash)
    return key.sign(content, ec.ECDSA(_ECDSA[algorithm][1]))


def verify_untrusted(der: bytes, content: bytes, algorithm: int, signature: bytes) -> None:
    """Raises `Refused` unless the key of the certificate has signed `content` in a way that fits it."""
    key = _public_key_untrusted(der)
    if algorithm not in ALGORITHMS or not _fits(key, algorithm):
        raise Refused(Alert.ILLEGAL_PARAMETER, "a signature of a kind that was not offered or does not fit the key")
    try:
        if isinstance(key, rsa.RSAPublicKey):
            used = _RSA_PSS[algorithm]
            key.verify(signature, content, padding.PSS(padding.MGF1(used), padding.PSS.DIGEST_LENGTH), used)
        else:
            key.verify(signature, content, ec.ECDSA(_ECDSA[algorithm][1]))
    except InvalidSignature as error:
        raise Refused(Alert.DECRYPT_ERROR, "the peer's signature is not of its certificate's key") from error


def _public_key_untrusted(der: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Refused(Alert.BAD_CERTIFICATE, "the peer's certificate cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise Refused(
            Alert.UNSUPPORTED_CERTIFICATE, "the peer's certificate has a key of another kind than ECDSA and RSA"
        )
    return key


def _fits(key: PrivateKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey, algorithm: int) -> bool:
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return algorithm in _RSA_PSS and key.key_size in _RSA_BITS
    return algorithm in _ECDSA and key.curve.name == _ECDSA[algorithm][0]
