"""The OpenSSL context that all sessions of one certificate share: versions, ciphers, options."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from psyne_mesh.webrtc.dtls.protection import make_buffer

DTLS_1_2 = 0xFEFD
CIPHERS = (  # forward secrecy and AEAD only (RFC 8827 section 6.5 asks for the first); RSA for peers with an RSA key
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
# Data needs no SRTP, but aiortc ends a handshake that has not agreed on a profile; this one everybody has (RFC 5764).
SRTP_PROFILE = b"SRTP_AES128_CM_SHA1_80"


class SharedContext:
    """What the sessions of one certificate share, in both roles: OpenSSL's context, and a scratch buffer in which
    nothing stays between two calls. So they all belong to one thread."""

    __slots__ = ("buffer", "openssl")

    def __init__(
        self, private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, certificate: x509.Certificate
    ) -> None:
        self.openssl = _make_context(private_key, certificate)
        self.buffer = make_buffer()


def _make_context(
    private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, certificate: x509.Certificate
) -> SSL.Context:
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_min_proto_version(DTLS_1_2)
    context.set_max_proto_version(DTLS_1_2)  # 1.3 has other records and other flights: it wants tests of its own first
    context.set_cipher_list(":".join(CIPHERS).encode())
    # No resumption: a session is never worth its memory, and a ticket would let a peer skip showing its certificate.
    # No renegotiation: the certificate that was checked stays the one. The mtu is ours to say. A server's own order of
    # ciphers: AES has its instructions on nearly every machine, and its records are those that we can make ourselves.
    options = SSL.OP_NO_TICKET | SSL.OP_NO_QUERY_MTU | SSL.OP_CIPHER_SERVER_PREFERENCE
    context.set_options(options | getattr(SSL, "OP_NO_RENEGOTIATION", 0))
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle session need not hold 10 KiB of them
    # Any certificate will do here: the fingerprint decides, as soon as the handshake is through.
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    context.set_tlsext_use_srtp(SRTP_PROFILE)
    context.use_certificate(certificate)
    context.use_privatekey(private_key)
    return context
