"""Certificates, fingerprints, and what a session makes of a peer that shows the wrong one."""

from __future__ import annotations

import datetime
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import FingerprintMismatch, ProtocolError
from psyne_mesh.webrtc.dtls import Certificate, Closed, Failed, Fingerprint, HandshakeCompleted
from psyne_mesh.webrtc.dtls.records import CHANGE_CIPHER_SPEC
from psyne_mesh.webrtc.dtls.session12 import Session12
from tests.dtls.pair import CLIENT, SERVER, WAYS, Pair, PlainPeer

WRONG = Certificate.generate().fingerprint


def test_a_certificate_is_self_signed_ecdsa_for_30_days_under_a_random_name() -> None:
    certificate = Certificate.generate().certificate
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert certificate.issuer == certificate.subject != Certificate.generate().certificate.subject
    certificate.verify_directly_issued_by(certificate)
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime == datetime.timedelta(days=31)
    assert certificate.not_valid_before_utc < datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=23)


def test_a_fingerprint_is_the_hash_of_the_der_form() -> None:
    assert CLIENT.fingerprint.algorithm == "sha-256"
    assert CLIENT.fingerprint.value.replace(":", "").lower() == hashlib.sha256(CLIENT.der).hexdigest()
    assert Fingerprint.parse_untrusted(str(CLIENT.fingerprint)) == CLIENT.fingerprint
    assert Fingerprint.parse_untrusted(str(CLIENT.fingerprint).swapcase()) == CLIENT.fingerprint


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-384", "sha-512"])
def test_a_fingerprint_matches_its_certificate_only(algorithm: str) -> None:
    fingerprint = Fingerprint.of(CLIENT.der, algorithm)
    assert fingerprint.matches(CLIENT.der)
    assert not fingerprint.matches(SERVER.der)
    assert not fingerprint.matches(b"")


def test_a_weak_or_unknown_algorithm_is_read_and_never_matches() -> None:
    sha1, md5 = hashlib.sha1(CLIENT.der).digest().hex(":"), hashlib.md5(CLIENT.der).digest().hex(":")
    for text in (f"sha-1 {sha1}", f"md5 {md5}", "sha3-256 AA:BB"):
        assert not Fingerprint.parse_untrusted(text).matches(CLIENT.der)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha-256",
        "sha-256 ",
        "sha-256 AA:BB",
        "sha-256 " + "AA" * 32,
        "sha-256 " + ":".join(["AA"] * 33),
        "sha-256 " + ":".join(["GG"] * 32),
        "sha-256 " + ":".join(["AA"] * 32) + ":",
        "sha-256 " + ":".join(["AA"] * 32) + " AA",
        "\u017fha-256 " + ":".join(["AA"] * 32),
        "sha-512 " + ":".join(["AA"] * 32),
        "x" * 300,
    ],
)
def test_a_malformed_fingerprint_is_a_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError):
        Fingerprint.parse_untrusted(text)


@given(st.text(max_size=300) | st.from_regex(r"sha-(256|384|512|1) [0-9a-fA-F:]{0,200}"))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        fingerprint = Fingerprint.parse_untrusted(text)
    except ProtocolError:
        return
    assert Fingerprint.parse_untrusted(str(fingerprint)) == fingerprint
    assert not fingerprint.matches(CLIENT.der)


@pytest.mark.parametrize("algorithm", ["sha-384", "sha-512"])
def test_longer_hashes_serve_as_well(algorithm: str) -> None:
    Pair(client={"remote_fingerprints": [Fingerprint.of(SERVER.der, algorithm)]}).connect()


def test_one_of_several_fingerprints_is_enough() -> None:
    several = [WRONG, Fingerprint.of(WRONG.value.encode(), "sha-512"), SERVER.fingerprint]
    Pair(client={"remote_fingerprints": several}).connect()


@pytest.mark.parametrize("way", ["short", "fast"])
@pytest.mark.parametrize("wrong", ["client", "server"])
@pytest.mark.parametrize("listed", [[], [WRONG], [WRONG, Fingerprint.of(WRONG.value.encode(), "sha-384")]])
def test_with_no_matching_fingerprint_nothing_goes_up(wrong: str, listed: list[Fingerprint], way: str) -> None:
    pair = Pair(way=way, **{wrong: {"remote_fingerprints": listed}})
    other = "server" if wrong == "client" else "client"
    pair.server.start(0.0)
    pair.client.start(0.0)
    while not pair.events[other]:
        pair.run(0.01)
        pair.now += 0.01
    if pair.side(other).state == "established":
        pair.send(other, b"secret")
    pair.run()
    [event] = pair.events[wrong]
    assert isinstance(event, Failed)
    assert isinstance(event.error, FingerprintMismatch)
    assert pair.packets[wrong] == []
    assert pair.side(wrong).send([b"x"]) == []
    assert pair.events[other][-1] == Closed(by_peer=True)  # it was told so
    assert pair.side(wrong).next_timeout() is None


def test_data_in_the_same_datagram_as_the_finished_does_not_slip_through() -> None:
    """Nor does data that came before it, and was kept."""
    session = Pair(client={"remote_fingerprints": [WRONG]}).client
    peer = PlainPeer(SERVER, is_client=False)
    session.start(0.0)
    for _ in range(2):
        for datagram in session.datagrams_to_send(0.0):
            peer.connection.bio_write(datagram)
        peer.shake()
        output = peer.read_output()
        if output[0] == CHANGE_CIPHER_SPEC:
            assert session.receive(peer.send(b"early"), 0.0) == []
            output += peer.send(b"secret")
        assert session.receive(output, 0.0) == []
    assert session.state == "failed"
    assert session.receive(peer.send(b"late"), 0.0) == []
    assert session.stats.records_received == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_peer_with_an_rsa_key(way: str) -> None:
    certificate = Certificate.generate(rsa.generate_private_key(65537, 2048))
    pair = Pair(
        way=way,
        client={"remote_fingerprints": [certificate.fingerprint]},
        server={"certificate": certificate, "remote_fingerprints": [CLIENT.fingerprint]},
    )
    pair.client = Pair(way=way, client={"certificate": CLIENT, "remote_fingerprints": [certificate.fingerprint]}).client
    pair.connect()
    assert pair.events["client"] == [HandshakeCompleted("ECDHE-RSA-AES128-GCM-SHA256", "DTLSv1.2", "x25519")]
    pair.send("server", b"hello")
    assert pair.run().packets["client"] == [b"hello"]


def test_a_client_with_an_rsa_key() -> None:
    certificate = Certificate.generate(rsa.generate_private_key(65537, 2048))
    pair = Pair(client={"certificate": certificate}, server={"remote_fingerprints": [certificate.fingerprint]})
    assert pair.connect().events["client"] == [
        HandshakeCompleted("ECDHE-ECDSA-AES128-GCM-SHA256", "DTLSv1.2", "x25519")
    ]


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_a_peer_with_another_curve(curve: ec.EllipticCurve) -> None:
    certificate = Certificate.generate(ec.generate_private_key(curve))
    Pair(server={"certificate": certificate}, client={"remote_fingerprints": [certificate.fingerprint]}).connect()


def exchange_until_the_end(peer: PlainPeer, session: Session12) -> None:
    """A flight that cannot be right may be anybody's, so it is doubted for a while before it is believed."""
    now = 0.0
    peer.exchange(session, now)
    while session.state == "handshaking":
        now = session.next_timeout() or now
        session.handle_timeout(now)
        peer.exchange(session, now)


def test_a_peer_without_a_certificate_is_refused() -> None:
    session = Pair().server
    peer = PlainPeer(None, is_client=True)
    exchange_until_the_end(peer, session)
    [event] = session.take_events()
    assert isinstance(event, Failed)
    assert isinstance(event.error, ProtocolError)
    assert "peer did not return a certificate" in str(event.error)
    assert "handshake failure" in (peer.error or "") or "certificate required" in (peer.error or "")


def test_no_common_cipher_ends_in_words_on_our_side() -> None:
    session = Pair().server
    peer = PlainPeer(CLIENT, is_client=True, ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")
    exchange_until_the_end(peer, session)
    [event] = session.take_events()
    assert isinstance(event, Failed)
    assert "no shared cipher" in str(event.error)
    assert "handshake failure" in (peer.error or "")
    assert session.state == "failed"
    assert session.next_timeout() is None


def test_no_common_cipher_is_only_a_hint_on_the_client_side() -> None:
    """The peer's alert comes in plaintext, where anybody can write one."""
    session = Pair().client
    session.start(0.0)
    PlainPeer(SERVER, is_client=False, ciphers="ECDHE-ECDSA-AES256-GCM-SHA384").exchange(session)
    assert session.state == "handshaking"
    assert session.take_events() == []
    assert session.stats.peer_alert == "handshake failure"


@pytest.mark.parametrize("way", ["short", "fast"])
def test_chacha_when_the_peer_insists(way: str) -> None:
    session = Pair(way=way).server
    peer = PlainPeer(CLIENT, is_client=True, ciphers="ECDHE-ECDSA-CHACHA20-POLY1305")
    peer.exchange(session)
    assert session.take_events() == [HandshakeCompleted("ECDHE-ECDSA-CHACHA20-POLY1305", "DTLSv1.2", "x25519")]
    assert session.receive(peer.send(b"hello"), 0.0) == [b"hello"]
    [datagram] = session.send([b"hello"])
    assert len(datagram) == 5 + session.overhead == 5 + 29
    assert peer.receive(datagram) == b"hello"
