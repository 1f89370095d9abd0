"""Which version of DTLS two peers speak: by roles, descriptions and configuration; and what a middle can do about it."""

from __future__ import annotations

import attrs
import pytest

from psyne_mesh.config import DataChannelConfig, WebRTCConfig
from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.webrtc.negotiation import Negotiated, Negotiation
from psyne_mesh.webrtc.sdp import DtlsVersion
from psyne_mesh.webrtc.stack import StackConfig
from tests.webrtc.dial import LOOPBACK, introduce, two_peers
from tests.webrtc.pair import Pair
from tests.webrtc.test_snap import FINGERPRINT, answer_of, init_of, offer_of

BOTH: tuple[DtlsVersion, ...] = ("1.3", "1.2")


def side(versions: tuple[DtlsVersion, ...], *, offerer: bool) -> Negotiation:
    return Negotiation(
        offerer=offerer,
        fingerprint=FINGERPRINT,
        max_message_size=65_536,
        max_datagram_size=0,
        sctp_init=init_of(offerer),
        dtls_versions=versions,
        session_id=1,
    )


def as_stranger(text: str) -> str:
    return text.replace("a=psyne-dtls:", "a=x-unknown:")


@pytest.mark.parametrize(
    ("offers", "answers", "spoken"),
    [
        (BOTH, BOTH, "1.3"),
        (BOTH, ("1.2",), "1.2"),
        (("1.2",), BOTH, "1.2"),
        (("1.3",), BOTH, "1.3"),
        (("1.2", "1.3"), BOTH, "1.3"),
    ],
)
def test_peers_of_our_own_kind_speak_the_highest_common_one_and_the_answerer_is_client(
    offers: tuple[DtlsVersion, ...], answers: tuple[DtlsVersion, ...], spoken: DtlsVersion
) -> None:
    offerer, answerer = side(offers, offerer=True), side(answers, offerer=False)
    answerer.accept_offer(offer_of(offerer))
    offerer.accept_answer(answer_of(answerer))
    assert answerer.negotiated == Negotiated(True, (spoken,))
    assert offerer.negotiated == Negotiated(False, (spoken,))  # what is lower is not accepted: no middle gets it


def test_no_common_version_is_an_error_of_the_description() -> None:
    offerer, answerer = side(("1.3",), offerer=True), side(("1.2",), offerer=False)
    with pytest.raises(ProtocolError, match="dtls_versions"):
        answerer.accept_offer(offer_of(offerer))


def test_versions_of_a_later_program_are_passed_over() -> None:
    answerer = side(BOTH, offerer=False)
    offer = offer_of(side(BOTH, offerer=True)).replace("a=psyne-dtls:1.3 1.2", "a=psyne-dtls:1.4 1.3 what")
    assert answerer.accept_offer(offer).dtls_versions == ("1.3",)


@pytest.mark.parametrize("setup", ["actpass", "active"])
def test_a_stranger_becomes_the_client_and_its_hello_says_the_version(setup: str) -> None:
    answerer = side(BOTH, offerer=False)
    answerer.accept_offer(as_stranger(offer_of(side(BOTH, offerer=True))).replace("setup:actpass", f"setup:{setup}"))
    assert answerer.negotiated == Negotiated(False, BOTH, is_reversed=setup == "actpass")
    assert "a=setup:passive" in answer_of(answerer)


def test_a_stranger_that_insists_on_being_the_server_is_spoken_to_in_1_2() -> None:
    answerer = side(BOTH, offerer=False)
    answerer.accept_offer(as_stranger(offer_of(side(BOTH, offerer=True))).replace("setup:actpass", "setup:passive"))
    assert answerer.negotiated == Negotiated(True, ("1.2",))
    offerer = side(BOTH, offerer=True)
    offer_of(offerer)
    other = side(("1.2",), offerer=False)
    other.accept_offer(offer_of(side(BOTH, offerer=True)))
    offerer.accept_answer(as_stranger(answer_of(other)).replace("setup:active", "setup:passive"))
    assert offerer.negotiated == Negotiated(True, ("1.2",))


def test_a_configuration_of_1_2_alone_is_as_it_was_before() -> None:
    answerer = side(("1.2",), offerer=False)
    answerer.accept_offer(as_stranger(offer_of(side(BOTH, offerer=True))))
    assert answerer.negotiated == Negotiated(True, ("1.2",))


def test_roles_stay_over_a_restart() -> None:
    answerer, offerer = side(BOTH, offerer=False), side(BOTH, offerer=True)
    for _ in range(2):
        answerer.accept_offer(as_stranger(offer_of(offerer)))
        assert "a=setup:passive" in answer_of(answerer)


@pytest.mark.parametrize("wrong", [(), ("1.1",), "1.3", ("1.3", "1.3"), None, (1.3,)])
def test_a_wrong_configuration_names_the_field(wrong: object) -> None:
    with pytest.raises(InvalidConfig, match="dtls_versions"):
        WebRTCConfig(dtls_versions=wrong)  # type: ignore[arg-type]


async def test_peers_tell_what_they_speak() -> None:
    async with two_peers() as (offerer, answerer):
        channel = offerer.create_channel(DataChannelConfig(label="x"))
        assert offerer.stats().dtls is None
        await introduce(offerer, answerer)
        await channel.send("x")
        for peer in (offerer, answerer):
            dtls = peer.stats().dtls
            assert dtls is not None
            assert (dtls.version, dtls.cipher) == ("DTLSv1.3", "TLS_AES_128_GCM_SHA256")
            assert dtls.is_post_quantum is (dtls.group == "X25519MLKEM768")


async def test_peers_of_1_2_tell_it_too() -> None:
    async with two_peers(attrs.evolve(LOOPBACK, dtls_versions=("1.2",))) as (offerer, answerer):
        await introduce(offerer, answerer)
        dtls = offerer.stats().dtls
        assert dtls is not None
        assert (dtls.version, dtls.is_post_quantum) == ("DTLSv1.2", False)


@pytest.mark.parametrize(("client", "server", "spoken"), [(BOTH, BOTH, "1.3"), (("1.2",), BOTH, "1.2")])
def test_the_hello_decides(client: tuple[DtlsVersion, ...], server: tuple[DtlsVersion, ...], spoken: str) -> None:
    pair = Pair(config=StackConfig(dtls_versions=client), server_config=StackConfig(dtls_versions=server)).connect()
    for each in (pair.client, pair.server):
        dtls = each.stack.stats().dtls
        assert dtls is not None
        assert dtls.version == f"DTLSv{spoken}"
    pair.open()


def test_a_server_that_knows_better_does_not_step_down() -> None:
    """The peer said in its signed description that it speaks 1.3. A hello of 1.2 is then somebody else's."""
    pair = Pair(
        config=StackConfig(dtls_versions=("1.2",)), server_config=StackConfig(dtls_versions=("1.3",)), start=True
    )
    pair.run(10)
    assert pair.server.stack.phase != "connected"
    assert pair.client.stack.phase != "connected"
