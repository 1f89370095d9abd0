"""A middle that alters a hello of both versions, so that 1.2 is spoken where both sides take 1.3, gets no connection.

In 1.2 the client's signature and both Finished cover the hello as the client wrote it (RFC 5246 sections 7.4.8 and 7.4.9), the
offer of 1.3 included.
"""

from __future__ import annotations

from typing import Any

import pytest

from psyne_mesh.webrtc.dtls import DtlsSession, Failed
from psyne_mesh.webrtc.dtls.handshake13 import groups
from psyne_mesh.webrtc.dtls.handshake13.messages import ClientHello
from psyne_mesh.webrtc.dtls.handshake13.reassembly import encode_fragment
from psyne_mesh.webrtc.dtls.handshake13.wire import Extension, extension, numbers
from psyne_mesh.webrtc.dtls.record13 import plaintext_record
from psyne_mesh.webrtc.dtls.session12 import Session12
from tests.dtls.pair import Pair, Wire
from tests.dtls.pair13 import CLASSIC, talk

HANDSHAKE, CLIENT_HELLO, SERVER_HELLO = 22, 1, 2
DTLS_1_3, DTLS_1_2 = 0xFEFC, 0xFEFD
OFFERS_BOTH = extension(Extension.SUPPORTED_VERSIONS, numbers(1, (DTLS_1_3, DTLS_1_2)))
OFFERS_1_2_TWICE = extension(Extension.SUPPORTED_VERSIONS, numbers(1, (DTLS_1_2, DTLS_1_2)))


def is_message(datagram: bytes, kind: int) -> bool:
    """Whether a plaintext record of the handshake begins this datagram, with a message of this kind."""
    return datagram[0] == HANDSHAKE and datagram[3:5] == b"\0\0" and datagram[13] == kind


def with_versions(datagram: bytes, *versions: int) -> bytes:
    """A hello in one record of OpenSSL's 1.2, with the extension of 1.3 that it does not write itself."""
    body = datagram[25:]
    at = 34  # after legacy version and random; then session id, cookie, suites, compression, each after its length
    for length_bytes in (1, 1, 2, 1):
        at += length_bytes + int.from_bytes(body[at : at + length_bytes], "big")
    more = body[at + 2 :] + extension(Extension.SUPPORTED_VERSIONS, numbers(1, versions))
    hello = body[:at] + len(more).to_bytes(2, "big") + more
    sequence = int.from_bytes(datagram[17:19], "big")
    fragment = encode_fragment(CLIENT_HELLO, len(hello), sequence, 0, hello)
    return plaintext_record(HANDSHAKE, int.from_bytes(datagram[5:11], "big"), fragment)


def altering_hellos(alter: Any) -> Wire:
    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        is_hello = sender == "client" and is_message(datagram, CLIENT_HELLO)
        return [(0.0, alter(datagram) if is_hello else datagram)]

    return wire


class PairOfBoth(Pair):
    """A server that takes both versions; a client of 1.2, or of both as far as its hello tells."""

    @staticmethod
    def make(**settings: Any) -> Any:  # type: ignore[override]
        if settings["is_client"] and settings.pop("is_older", False):
            return Session12(**settings)
        return DtlsSession(**settings)


def refused(pair: Pair) -> None:
    """Neither side takes the handshake for complete. How long they may go on trying is for their owners to say."""
    pair.server.start(0.0)
    pair.client.start(0.0)
    pair.run(20.0)
    assert "established" not in (pair.client.state, pair.server.state)
    assert pair.packets == {"client": [], "server": []}


def test_an_offer_of_1_3_taken_out_of_a_hello_is_noticed_in_1_2() -> None:
    """To the server it looks like a client of 1.2, and it answers; what the client has signed is another hello."""
    strip = altering_hellos(lambda datagram: with_versions(datagram, DTLS_1_2))
    pair = PairOfBoth(strip, client={"is_older": True})
    refused(pair)
    [failed] = pair.events["server"]
    assert isinstance(failed, Failed)
    assert "signature" in str(failed.error)
    answers = [datagram for sender, datagram in pair.sent if sender == "server" and is_message(datagram, SERVER_HELLO)]
    assert answers  # so it was not for its form that the hello was refused


@pytest.fixture
def offers_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of 1.3 say that they would take 1.2, too, as browsers do."""
    encode = ClientHello.encode

    def encode_both(hello: ClientHello) -> bytes:
        return encode(hello._replace(versions=(DTLS_1_3, DTLS_1_2)))

    monkeypatch.setattr(ClientHello, "encode", encode_both)
    monkeypatch.setattr(groups, "GROUPS", CLASSIC)  # one datagram for the hello


@pytest.mark.usefixtures("offers_both")
def test_a_hello_of_both_versions_gets_1_3() -> None:
    pair = PairOfBoth().connect()
    assert OFFERS_BOTH in pair.sent[0][1]
    assert pair.server.stats.version == "DTLSv1.3"
    talk(pair)


@pytest.mark.usefixtures("offers_both")
def test_a_client_that_offered_1_3_takes_no_lower_answer() -> None:
    def strip(datagram: bytes) -> bytes:
        assert OFFERS_BOTH in datagram
        return datagram.replace(OFFERS_BOTH, OFFERS_1_2_TWICE)

    pair = PairOfBoth(altering_hellos(strip))
    refused(pair)
    assert any(isinstance(event, Failed) for event in pair.events["client"])


@pytest.mark.usefixtures("offers_both")
def test_an_offer_of_1_2_taken_out_of_a_hello_is_noticed_in_1_3() -> None:
    """The version spoken is the same, but the keys come from the transcript, and the middle has changed that."""
    only_1_3 = extension(Extension.SUPPORTED_VERSIONS, numbers(1, (DTLS_1_3, DTLS_1_3)))
    refused(PairOfBoth(altering_hellos(lambda datagram: datagram.replace(OFFERS_BOTH, only_1_3))))
