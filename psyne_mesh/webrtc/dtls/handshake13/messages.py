"""The messages of the handshake: read with every check that needs no state, and written (RFC 8446 section 4, RFC 9147
section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from psyne_mesh.webrtc.dtls.handshake13.wire import (
    DTLS_1_3,
    HELLO_RETRY_RANDOM,
    LEGACY_VERSION,
    RANDOM_BYTES,
    Alert,
    Extension,
    Reader,
    Refused,
    extension,
    numbers,
    u16,
    vector,
)

SRTP_AES128_CM_SHA1_80 = 1  # RFC 5764. Data needs none, but there are peers that end a handshake without one
_EXTENSIONS_MAX = 64  # a browser's hello has 20
_SHARES_MAX = 16
_UPDATE_REQUESTED = (b"\0", b"\1")  # RFC 8446 section 4.6.3


class Message(NamedTuple):
    """A whole message. Its transcript form has the header of TLS, without sequence number and fragment (RFC 9147 5.2)."""

    kind: int
    body: bytes

    @property
    def transcript(self) -> bytes:
        return bytes((self.kind,)) + vector(3, self.body)


class ClientHello(NamedTuple):
    random: bytes
    suites: tuple[int, ...]
    versions: tuple[int, ...]
    groups: tuple[int, ...]
    shares: tuple[tuple[int, bytes], ...]
    signature_algorithms: tuple[int, ...]
    srtp_profiles: tuple[int, ...] = ()
    cookie: bytes = b""

    def encode(self) -> bytes:
        # RFC 9147 section 5.3: an empty session id and an empty legacy cookie; then one compression method, null
        shares = b"".join(u16(group) + vector(2, share) for group, share in self.shares)
        extensions = [
            extension(Extension.SUPPORTED_VERSIONS, numbers(1, self.versions)),
            extension(Extension.SUPPORTED_GROUPS, numbers(2, self.groups)),
            extension(Extension.KEY_SHARE, vector(2, shares)),
            extension(Extension.SIGNATURE_ALGORITHMS, numbers(2, self.signature_algorithms)),
            extension(Extension.USE_SRTP, numbers(2, self.srtp_profiles) + b"\0"),
        ]
        if self.cookie:
            extensions.append(extension(Extension.COOKIE, vector(2, self.cookie)))
        head = LEGACY_VERSION + self.random + b"\0\0" + numbers(2, self.suites) + b"\1\0"
        return head + vector(2, b"".join(extensions))


class ServerHello(NamedTuple):
    """Also a HelloRetryRequest, whose `random` says so and whose `share` is empty. `group` is 0 if it names none."""

    random: bytes
    suite: int
    group: int
    share: bytes = b""
    cookie: bytes = b""

    @property
    def is_retry(self) -> bool:
        return self.random == HELLO_RETRY_RANDOM

    def encode(self) -> bytes:
        key_share = u16(self.group) + (b"" if self.is_retry else vector(2, self.share))
        extensions = extension(Extension.SUPPORTED_VERSIONS, u16(DTLS_1_3)) + extension(Extension.KEY_SHARE, key_share)
        return LEGACY_VERSION + self.random + b"\0" + u16(self.suite) + b"\0" + vector(2, extensions)


class CertificateRequest(NamedTuple):
    context: bytes
    signature_algorithms: tuple[int, ...]

    def encode(self) -> bytes:
        algorithms = extension(Extension.SIGNATURE_ALGORITHMS, numbers(2, self.signature_algorithms))
        return vector(1, self.context) + vector(2, algorithms)


class CertificateMessage(NamedTuple):
    """The end's certificate, DER; those after it that may vouch for it are of no interest."""

    context: bytes
    der: bytes

    def encode(self) -> bytes:
        return vector(1, self.context) + vector(3, vector(3, self.der) + b"\0\0")


class CertificateVerify(NamedTuple):
    algorithm: int
    signature: bytes

    def encode(self) -> bytes:
        return u16(self.algorithm) + vector(2, self.signature)


# ------------------------------------------------------------------------------------------------------------- reading


def read_client_hello_untrusted(body: bytes) -> ClientHello:
    """A hello that does not offer 1.3 is read, too, without demands on what 1.3 needs: `versions` then lacks it."""
    reader = Reader(body)
    legacy_version, random = reader.take(2), reader.take(RANDOM_BYTES)
    reader.vector(1)  # a session id, which is never echoed (RFC 9147 section 5)
    legacy_cookie, suites, compression = reader.vector(1), reader.numbers(2), reader.vector(1)
    found = _extensions_untrusted(reader) if reader.has_more else {}
    versions = _numbers_untrusted(found, Extension.SUPPORTED_VERSIONS, 1)
    if DTLS_1_3 not in versions:
        return ClientHello(random, suites, versions, (), (), ())
    if legacy_version != LEGACY_VERSION or legacy_cookie or compression != b"\0":
        raise Refused(Alert.ILLEGAL_PARAMETER, "a hello of 1.3 with the cookie, version or compression of another")
    needed = (Extension.SUPPORTED_GROUPS, Extension.KEY_SHARE, Extension.SIGNATURE_ALGORITHMS)
    if not all(kind in found for kind in needed):
        raise Refused(Alert.MISSING_EXTENSION, "a hello without groups, key share or signature algorithms")
    groups = _numbers_untrusted(found, Extension.SUPPORTED_GROUPS, 2)
    shares = _shares_untrusted(found[Extension.KEY_SHARE], groups)
    cookie = b""
    if Extension.COOKIE in found:
        cookie_reader = Reader(found[Extension.COOKIE])
        cookie = cookie_reader.vector(2)
        cookie_reader.end()
    return ClientHello(
        random,
        suites,
        versions,
        groups,
        shares,
        _numbers_untrusted(found, Extension.SIGNATURE_ALGORITHMS, 2),
        _srtp_untrusted(found),
        cookie,
    )


def read_server_hello_untrusted(body: bytes) -> ServerHello:
    """RFC 8446 sections 4.1.3 and 4.1.4, RFC 9147 section 5.4."""
    reader = Reader(body)
    version, random = reader.take(2), reader.take(RANDOM_BYTES)
    session_id, suite, compression = reader.vector(1), reader.number(2), reader.number(1)
    found = _extensions_untrusted(reader) if reader.has_more else {}
    if found.get(Extension.SUPPORTED_VERSIONS) != u16(DTLS_1_3):
        raise Refused(Alert.PROTOCOL_VERSION, "the peer answered with another version than 1.3")
    if version != LEGACY_VERSION or session_id or compression:
        raise Refused(Alert.ILLEGAL_PARAMETER, "the peer's hello has a version, session id or compression of its own")
    is_retry = random == HELLO_RETRY_RANDOM
    allowed = {Extension.SUPPORTED_VERSIONS, Extension.KEY_SHARE} | ({Extension.COOKIE} if is_retry else set())
    if not found.keys() <= allowed:
        raise Refused(Alert.UNSUPPORTED_EXTENSION, "the peer's hello has an extension that was not asked for")
    group, share, cookie = 0, b"", b""
    if Extension.KEY_SHARE in found:
        share_reader = Reader(found[Extension.KEY_SHARE])
        group = share_reader.number(2)
        share = b"" if is_retry else share_reader.vector(2)
        share_reader.end()
    elif not is_retry:
        raise Refused(Alert.MISSING_EXTENSION, "the peer's hello has no key share")
    if Extension.COOKIE in found:
        cookie_reader = Reader(found[Extension.COOKIE])
        cookie = cookie_reader.vector(2)
        cookie_reader.end()
    return ServerHello(random, suite, group, share, cookie)


def check_encrypted_extensions_untrusted(body: bytes) -> None:
    """RFC 8446 section 4.3.1: only what answers our hello and may stand there."""
    reader = Reader(body)
    found = _extensions_untrusted(reader)
    if not found.keys() <= {Extension.SUPPORTED_GROUPS, Extension.USE_SRTP}:
        raise Refused(Alert.UNSUPPORTED_EXTENSION, "an encrypted extension that was not asked for")


def encode_encrypted_extensions(srtp_profiles: Sequence[int]) -> bytes:
    """The profile that the peer's hello named first, if it named any: who asks for SRTP may insist on an answer."""
    chosen = SRTP_AES128_CM_SHA1_80 if SRTP_AES128_CM_SHA1_80 in srtp_profiles else next(iter(srtp_profiles), None)
    answer = b"" if chosen is None else extension(Extension.USE_SRTP, numbers(2, (chosen,)) + b"\0")
    return vector(2, answer)


def read_certificate_request_untrusted(body: bytes) -> CertificateRequest:
    """RFC 8446 section 4.3.2."""
    reader = Reader(body)
    context = reader.vector(1)
    found = _extensions_untrusted(reader)
    if Extension.SIGNATURE_ALGORITHMS not in found:
        raise Refused(Alert.MISSING_EXTENSION, "the peer's request for a certificate names no signature algorithms")
    return CertificateRequest(context, _numbers_untrusted(found, Extension.SIGNATURE_ALGORITHMS, 2))


def read_certificate_untrusted(body: bytes) -> CertificateMessage:
    """RFC 8446 section 4.4.2. An empty one is refused: both sides show theirs (RFC 8827 section 6.5)."""
    reader = Reader(body)
    context = reader.vector(1)
    entries = Reader(reader.vector(3))
    reader.end()
    if not entries.has_more:
        raise Refused(Alert.CERTIFICATE_REQUIRED, "the peer shows no certificate")
    der = entries.vector(3)
    entries.vector(2)
    while entries.has_more:
        entries.vector(3)
        entries.vector(2)
    if not der:
        raise Refused(Alert.DECODE_ERROR, "an empty certificate")
    return CertificateMessage(context, der)


def read_certificate_verify_untrusted(body: bytes) -> CertificateVerify:
    reader = Reader(body)
    algorithm, signature = reader.number(2), reader.vector(2)
    reader.end()
    return CertificateVerify(algorithm, signature)


def read_key_update_untrusted(body: bytes) -> bool:
    """Whether the peer asks for new keys in the other direction, too."""
    if body not in _UPDATE_REQUESTED:
        alert = Alert.ILLEGAL_PARAMETER if len(body) == 1 else Alert.DECODE_ERROR
        raise Refused(alert, "a KeyUpdate that asks for neither yes nor no")
    return body == b"\1"


def _extensions_untrusted(reader: Reader) -> dict[int, bytes]:
    """The last thing in a message. Each may stand there once (RFC 8446 section 4.2)."""
    extensions = Reader(reader.vector(2))
    reader.end()
    found: dict[int, bytes] = {}
    while extensions.has_more:
        kind = extensions.number(2)
        if kind in found or len(found) >= _EXTENSIONS_MAX:
            raise Refused(Alert.ILLEGAL_PARAMETER, "an extension comes twice, or there are too many")
        found[kind] = extensions.vector(2)
    return found


def _numbers_untrusted(found: dict[int, bytes], kind: Extension, length_size: int) -> tuple[int, ...]:
    if kind not in found:
        return ()
    reader = Reader(found[kind])
    read = reader.numbers(length_size)
    reader.end()
    return read


def _shares_untrusted(data: bytes, groups: tuple[int, ...]) -> tuple[tuple[int, bytes], ...]:
    """RFC 8446 section 4.2.8: each of another group, all of them named before. None at all asks for a retry."""
    reader = Reader(data)
    entries = Reader(reader.vector(2))
    reader.end()
    shares: dict[int, bytes] = {}
    while entries.has_more:
        group, share = entries.number(2), entries.vector(2)
        if group in shares or group not in groups or not share or len(shares) >= _SHARES_MAX:
            raise Refused(Alert.ILLEGAL_PARAMETER, "key shares that do not fit the groups of their hello")
        shares[group] = share
    return tuple(shares.items())


def _srtp_untrusted(found: dict[int, bytes]) -> tuple[int, ...]:
    if Extension.USE_SRTP not in found:
        return ()
    reader = Reader(found[Extension.USE_SRTP])
    profiles = reader.numbers(2)
    reader.vector(1)  # a key identifier
    reader.end()
    return profiles
