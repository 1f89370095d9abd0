"""OpenSSL's DTLS handshake between two memory BIOs: no socket, no thread, and its timer only when asked."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.dtls.context import SharedContext
from psyne_mesh.webrtc.dtls.protection import reason_of

_DRAIN_BYTES = 65_536  # more than any flight: a certificate message is at most 32 kB


class OpenSslHandshake:
    """One handshake.

    1. `advance()` once on the client's side, then `advance(record)` with each handshake record of the peer: true once
       the handshake is complete; `ProtocolError` when it has failed for good.
    2. After each call: `drain()`, whose bytes go to the peer, also after a failure (they hold the alert).
    """

    __slots__ = ("connection",)

    def __init__(self, context: SharedContext, *, is_client: bool, mtu: int) -> None:
        self.connection = SSL.Connection(context.openssl, None)
        self.connection.set_ciphertext_mtu(mtu)
        if is_client:
            self.connection.set_connect_state()
        else:
            self.connection.set_accept_state()

    def advance(self, record: bytes | None = None) -> bool:
        if record is not None:
            self.connection.bio_write(record)
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise ProtocolError(f"the DTLS handshake failed: {reason_of(error)}") from error
        return True

    def repeat_flight(self) -> None:
        """Lets OpenSSL repeat its flight, encrypted anew, if its own real clock says so."""
        try:
            self.connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            raise ProtocolError(f"the DTLS handshake failed: {reason_of(error)}") from error

    def drain(self) -> bytes:
        try:
            return self.connection.bio_read(_DRAIN_BYTES)
        except SSL.WantReadError:
            return b""

    def peer_certificate(self) -> bytes:
        """DER. A context that demands a certificate has completed no handshake without one."""
        certificate = self.connection.get_peer_certificate(as_cryptography=True)
        return b"" if certificate is None else certificate.public_bytes(serialization.Encoding.DER)

    @property
    def cipher(self) -> str:
        return self.connection.get_cipher_name() or ""

    @property
    def group(self) -> str | None:
        """Of the key exchange; None where pyOpenSSL cannot tell."""
        name = getattr(self.connection, "get_group_name", None)
        return None if name is None else name()

    @property
    def version(self) -> str:
        return self.connection.get_protocol_version_name()
