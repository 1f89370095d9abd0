"""The self-signed certificate of an endpoint, and the fingerprints that stand for certificates in signaling (RFC 8122).

Nobody vouches for these certificates: a fingerprint that came by a signed offer or answer does.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
from functools import cached_property

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from psyne_mesh.errors import ProtocolError
from psyne_mesh.frozen import Frozen
from psyne_mesh.webrtc.dtls.context import SharedContext

_HASHES = {"sha-256": hashlib.sha256, "sha-384": hashlib.sha384, "sha-512": hashlib.sha512}
_MAX_TEXT = 256  # "sha-512 " and 64 octets take 199
_TOKEN = re.compile(r"[a-z0-9-]{1,16}")
_HEX = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2})*")
_BACKDATED = datetime.timedelta(days=1)  # for peers whose clock is behind
_LIFETIME = datetime.timedelta(days=30)  # what browsers use


class Fingerprint(Frozen):
    """A hash over a DER certificate: `algorithm` in lower case ("sha-256"), `value` in upper case hex with colons."""

    algorithm: str
    value: str

    @classmethod
    def parse_untrusted(cls, text: str) -> Fingerprint:
        """Reads the value of an `a=fingerprint:` line. An algorithm that we do not use is accepted and never matches,
        for an offer may list several. Raises `ProtocolError`."""
        parts = text.split() if isinstance(text, str) and len(text) <= _MAX_TEXT else []
        if len(parts) != 2:
            raise ProtocolError("a fingerprint is an algorithm and a value: 'sha-256 AA:BB:..'")
        algorithm, value = parts[0].lower(), parts[1].upper()
        if not _TOKEN.fullmatch(algorithm) or not _HEX.fullmatch(value):
            raise ProtocolError("a fingerprint's value is hex octets with colons between them (RFC 8122 section 5)")
        known = _HASHES.get(algorithm)
        if known is not None and len(value) != 3 * known().digest_size - 1:
            raise ProtocolError(f"a {algorithm} fingerprint has {known().digest_size} octets")
        return cls(algorithm, value)

    @classmethod
    def of(cls, der: bytes, algorithm: str = "sha-256") -> Fingerprint:
        """The fingerprint of a DER certificate. `KeyError` for an algorithm outside sha-256, sha-384, sha-512."""
        return cls(algorithm, _HASHES[algorithm](der).digest().hex(":").upper())

    def matches(self, der: bytes) -> bool:
        """Is this the certificate? Compared in constant time; always false for sha-1, md5 and unknown algorithms."""
        if self.algorithm not in _HASHES:
            return False
        return hmac.compare_digest(Fingerprint.of(der, self.algorithm).value.encode(), self.value.encode())

    def __str__(self) -> str:
        return f"{self.algorithm} {self.value}"


@attrs.frozen(eq=False)
class Certificate:
    """An endpoint's private key and certificate. One serves every peer of the endpoint, and so does the OpenSSL context
    that is built from it at its first session: a certificate and its sessions belong to one thread.
    """

    private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = attrs.field(repr=False)
    certificate: x509.Certificate = attrs.field(repr=False)
    der: bytes = attrs.field(init=False, repr=False)
    fingerprint: Fingerprint = attrs.field(init=False)

    @der.default
    def _encode(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @fingerprint.default
    def _hash(self) -> Fingerprint:
        return Fingerprint.of(self.der)

    @cached_property
    def context(self) -> SharedContext:
        return SharedContext(self.private_key, self.certificate)

    @classmethod
    def generate(cls, private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> Certificate:
        """Self-signed, valid for 30 days, under a random name (so that two are never linked), for ECDSA P-256 unless
        another key is given. Takes about 0.1 ms."""
        key = ec.generate_private_key(ec.SECP256R1()) if private_key is None else private_key
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{x509.random_serial_number():x}")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + _LIFETIME)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)
