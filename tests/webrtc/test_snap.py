"""SNAP: SCTP's INITs travel with offer and answer, and the association stands as soon as DTLS does
(draft-hancke-tsvwg-snap)."""

from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import LocalError, ProtocolError
from psyne_mesh.webrtc import sctp
from psyne_mesh.webrtc.negotiation import Negotiation
from psyne_mesh.webrtc.sctp import Handshake, SctpConfig, read_init_untrusted
from psyne_mesh.webrtc.sdp import DtlsVersion, parse_sdp_untrusted
from psyne_mesh.webrtc.stack import StackConfig
from tests.webrtc.dial import dialled, two_peers
from tests.webrtc.pair import Pair

ONE_WAY_S = 0.05
CHROMIUM_INIT = base64.b64decode("AQAAHgG8frMAUAAA/////xE4g3/AAAAEgAgABoLA")  # of Chromium 156
FINGERPRINT = "sha-256 " + ":".join(["AB"] * 32)


def init_of(seed: int) -> bytes:
    return Handshake(SctpConfig(), random.Random(seed)).init_chunk()


def negotiation(*, offerer: bool) -> Negotiation:
    return Negotiation(
        offerer=offerer,
        fingerprint=FINGERPRINT,
        max_message_size=65_536,
        max_datagram_size=0,
        sctp_init=init_of(offerer),
        dtls_versions=("1.2",),
        session_id=1,
    )


def offer_of(side: Negotiation) -> str:
    return side.make_offer("uFrg", "p" * 22, (), complete=True)


def answer_of(side: Negotiation) -> str:
    return side.make_answer("uFrg", "p" * 22, (), complete=True)


def with_init(text: str, value: str) -> str:
    lines = [line for line in text.split("\r\n") if not line.startswith("a=sctp-init:")]
    return "\r\n".join([*lines[:-1], f"a=sctp-init:{value}", ""])


# ---------------------------------------------------------------------------------------------------- offer and answer


def test_between_our_own_both_descriptions_carry_it() -> None:
    offerer, answerer = negotiation(offerer=True), negotiation(offerer=False)
    assert answerer.accept_offer(offer_of(offerer)).sctp_init == init_of(True)
    assert offerer.accept_answer(answer_of(answerer)).sctp_init == init_of(False)


def test_later_descriptions_repeat_it() -> None:
    offerer, answerer = negotiation(offerer=True), negotiation(offerer=False)
    for _ in range(2):
        answerer.accept_offer(offer_of(offerer))
        assert offerer.accept_answer(answer_of(answerer)).sctp_init == init_of(False)


def test_an_offer_without_it_is_answered_without_it() -> None:
    offerer, answerer = negotiation(offerer=True), negotiation(offerer=False)
    answerer.accept_offer(offer_of(offerer).replace("a=sctp-init:", "a=x-unknown:"))
    assert "sctp-init" not in answer_of(answerer)


def test_what_is_given_back_unread_is_no_consent() -> None:
    """libdatachannel's issue 1620: it echoed what it did not know."""
    offerer, answerer = negotiation(offerer=True), negotiation(offerer=False)
    answerer.accept_offer(offer_of(offerer))
    echoed = with_init(answer_of(answerer), base64.b64encode(init_of(True)).decode())
    echoed = echoed.replace("a=sctp-init", "a=psyne-max-datagram-size:65507\r\na=psyne-express:1\r\na=sctp-init")
    said = offerer.accept_answer(echoed)
    assert (said.sctp_init, said.dtls_versions, said.max_datagram_size, said.express) == (b"", (), 0, 0)


@pytest.mark.parametrize(
    "value",
    [
        "", "?", "AQAAAFU=", "\N{SNOWMAN}", "AQAAHg", base64.b64encode(bytes(20)).decode(),
        base64.b64encode(init_of(0)[:4] + bytes(4) + init_of(0)[8:]).decode(),  # tag 0
        base64.b64encode(b"\2" + init_of(0)[1:]).decode(),  # an INIT-ACK
        base64.b64encode(init_of(0) + init_of(0)).decode(), "A" * 2_736,
    ],
)  # fmt: skip
def test_nonsense_means_none_and_is_no_error(value: str) -> None:
    answerer = negotiation(offerer=False)
    assert answerer.accept_offer(with_init(offer_of(negotiation(offerer=True)), value)).sctp_init == b""
    assert "sctp-init" not in answer_of(answerer)


def test_what_chromium_writes_is_read() -> None:
    text = with_init(offer_of(negotiation(offerer=True)), base64.b64encode(CHROMIUM_INIT).decode())
    assert parse_sdp_untrusted(text).sctp_init == CHROMIUM_INIT
    init = read_init_untrusted(CHROMIUM_INIT)
    assert (init.tag, init.forward_tsn, sorted(init.extensions)) == (0x01BC7EB3, True, [0x82, 0xC0])


@given(st.binary(max_size=2_100) | st.binary(max_size=60).map(lambda rest: CHROMIUM_INIT[:20] + rest))
def test_any_bytes_give_an_init_or_the_one_error(chunk: bytes) -> None:
    try:
        init = read_init_untrusted(chunk)
    except ProtocolError:
        return
    assert init.tag
    assert init.inbound_streams
    assert init.outbound_streams


# ------------------------------------------------------------------------------------------------------ the association


@pytest.mark.parametrize(
    ("version", "snap", "took_s"), [("1.2", False, 0.4), ("1.2", True, 0.25), ("1.3", False, 0.35), ("1.3", True, 0.2)]
)
def test_it_takes_one_and_a_half_round_trips_less(version: DtlsVersion, snap: bool, took_s: float) -> None:
    """From an ICE pair until both sides have heard a message of the other, at a round trip of 100 ms."""
    pair = Pair(delay_s=ONE_WAY_S, snap=snap, config=StackConfig(dtls_versions=(version,)), start=False)
    for side in (pair.client, pair.server):
        side.stack.create_channel(DataChannelConfig(label="game", negotiated=True, id=0), pair.now)
    pair.start()
    told: set[object] = set()

    def talk() -> bool:
        for side in (pair.client, pair.server):
            if side.channels and side not in told:
                told.add(side)
                pair.send(side, side.channel("game"), "first")
        return bool(pair.client.messages() and pair.server.messages())

    assert pair.run_until(talk) == pytest.approx(took_s)


def test_no_handshake_of_sctp_travels_and_both_sides_stand() -> None:
    pair = Pair(snap=True)
    pair.open()
    for side in (pair.client, pair.server):
        assert side.kinds()[:2] == ["DtlsConnected", "SctpConnected"]
        assert side.stack.stats().sctp.packets_sent <= 3
    pair.send(pair.server, pair.server.channel("game"), "down")
    pair.run_until(lambda: pair.client.messages() == ["down"])


def test_nothing_leaves_and_nothing_opens_before_dtls_is_through() -> None:
    pair = Pair(snap=True, start=False)
    channel = pair.client.stack.create_channel(DataChannelConfig(label="a"), pair.now)
    pair.start()
    late = pair.client.stack.create_channel(DataChannelConfig(label="b"), pair.now)
    assert (channel.state, late.state) == ("connecting", "connecting")
    assert pair.client.kinds() == []
    assert pair.client.stack.stats().sctp.packets_sent == 0
    pair.run_until(lambda: {c.label for c in pair.server.channels} == {"a", "b"})


def test_the_side_whose_dtls_ends_later_answers_no_packet_with_abort() -> None:
    """Its peer stands first and sends at once, so its packets come in the very batch that ends the handshake."""
    sent = []
    pair = Pair(delay_s=0.01, snap=True, start=False)
    pair.server.stack.create_channel(DataChannelConfig(label="early"), pair.now)
    pair.server.on_event = lambda event: sent.append(type(event).__name__)
    pair.start()
    pair.run_until(lambda: bool(pair.client.channels))
    pair.run(5)
    assert pair.client.stack.phase == pair.server.stack.phase == "connected"
    assert pair.client.stack.stats().sctp.discarded == {}


@pytest.mark.parametrize("seed", range(10))
def test_it_stands_through_loss_and_reordering(seed: int) -> None:
    pair = Pair(seed, loss=0.3, duplicate=0.1, jitter_s=0.03, snap=True).connect()
    pair.open()
    assert "StackClosed" not in pair.client.kinds() + pair.server.kinds()


def test_a_peer_that_shakes_hands_after_all_is_let_in() -> None:
    """It lost our INIT, or forgot it: its own INIT meets an association that was only agreed on."""
    ours, theirs = (Handshake(SctpConfig(), random.Random(seed)) for seed in (1, 2))
    agreed = sctp.Association(SctpConfig(), rng=random.Random(3), handshake=ours)
    classic = sctp.Association(SctpConfig(), rng=random.Random(4), handshake=theirs)
    agreed.agree(read_init_untrusted(theirs.init_chunk()), 0.0)
    assert (agreed.is_established, agreed.next_timeout(), agreed.packets_to_send(0.0)) == (False, None, [])
    classic.connect(0.0)
    for _ in range(3):
        for sender, receiver in ((classic, agreed), (agreed, classic)):
            for packet in sender.packets_to_send(0.0):
                receiver.receive(packet, 0.0)
    assert agreed.is_established
    assert classic.is_established
    classic.send(0, 51, b"x", 1.0)
    for packet in classic.packets_to_send(1.0):
        agreed.receive(packet, 1.0)
    assert [event for event in agreed.take_events() if isinstance(event, sctp.MessageReceived)]


def test_partial_reliability_interleaving_and_streams_are_agreed_on() -> None:
    ours = sctp.Association(SctpConfig(), rng=random.Random(1))
    init = read_init_untrusted(CHROMIUM_INIT)
    ours.agree(init._replace(inbound_streams=7), 0.0)
    ours.connect(0.0)
    assert ours.stats.interleaving is False
    with pytest.raises(LocalError, match="out of range: the association has 7"):
        ours.send(7, 51, b"x", 0.0)


async def test_two_peers_of_ours_agree_by_themselves() -> None:
    async with dialled(channel=DataChannelConfig(label="x")) as call:
        await call.ours.send("hello")
        assert await call.theirs.receive() == "hello"
        assert [peer.stats().phase_s["sctp"] for peer in (call.offerer, call.answerer)] == [0, 0]


async def test_an_answer_of_a_peer_that_does_not_know_it_leads_to_the_usual_handshake() -> None:
    async with two_peers() as (offerer, answerer):
        channel = offerer.create_channel(DataChannelConfig(label="x"))
        offer = (await offerer.create_offer()).replace("a=sctp-init:", "a=x-unknown:")
        await offerer.set_answer(await answerer.create_answer(offer))
        await offerer.wait_connected()
        await channel.send("hello")
        theirs = await anext(answerer.incoming_channels)
        assert await theirs.receive() == "hello"


def test_the_stack_offers_one_init_for_its_whole_life() -> None:
    pair = Pair(config=StackConfig(), snap=True, start=False)
    before = pair.client.stack.sctp_init
    pair.start()
    pair.connect()
    assert pair.client.stack.sctp_init == before
