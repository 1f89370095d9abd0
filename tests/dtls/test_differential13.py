"""Against OpenSSL's own DTLS 1.3, from the day on which the wheel of `cryptography` has it (OpenSSL 4.1).

Until then `test_it_sleeps` holds, and the others are not collected. On that day it fails: then look at these tests, take it
away, and ask again whether the handshake should be OpenSSL's (docs/decisions/02-dtls-by-openssl.md).
"""

from __future__ import annotations

import contextlib

import pytest
from OpenSSL import SSL

from psyne_mesh.webrtc.dtls.session13 import Session13
from tests.dtls.pair import CLIENT, SERVER

DTLS_1_3 = 0xFEFC


def openssl_has_it() -> bool:
    try:
        SSL.Context(SSL.DTLS_METHOD).set_max_proto_version(DTLS_1_3)
    except SSL.Error:
        return False
    return True


AWAKE = openssl_has_it()


def test_it_sleeps() -> None:
    assert not AWAKE, "OpenSSL has learnt DTLS 1.3: the tests of this file run now. Read its first lines."


if AWAKE:

    @pytest.mark.parametrize("is_client", [True, False], ids=["we are client", "we are server"])
    def test_openssl_at_the_other_end(is_client: bool) -> None:
        ours, theirs = (CLIENT, SERVER) if is_client else (SERVER, CLIENT)
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_min_proto_version(DTLS_1_3)
        context.set_options(SSL.OP_NO_QUERY_MTU)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.use_certificate(theirs.certificate)
        context.use_privatekey(theirs.private_key)  # type: ignore[arg-type]
        peer = SSL.Connection(context, None)
        peer.set_ciphertext_mtu(1200)
        if is_client:
            peer.set_accept_state()
        else:
            peer.set_connect_state()
        session = Session13(ours, is_client=is_client, remote_fingerprints=[theirs.fingerprint])
        session.start(0.0)
        for _ in range(20):
            for datagram in session.datagrams_to_send(0.0):
                peer.bio_write(datagram)
            with contextlib.suppress(SSL.WantReadError):
                peer.do_handshake()
            try:
                session.receive(peer.bio_read(65_536), 0.0)
            except SSL.WantReadError:
                continue
        assert session.state == "established"
        assert session._last_flight is None
        for size in (1, 100, 1_191, 16_384):
            [sealed] = session.send([bytes(size)])
            peer.bio_write(sealed)
            assert peer.recv(65_536) == bytes(size)
            peer.send(bytes(size))
            assert session.receive(peer.bio_read(65_536), 1.0) == [bytes(size)]
