"""CRC32c, and its absence (RFC 9653). Trap 3."""

from __future__ import annotations

import pytest

from psyne_mesh.webrtc.sctp import SctpConfig, wire
from tests.sctp.link import LinkConfig, LossyLink, Side, assert_drained, chunk_types
from tests.sctp.raw import RawPeer

ZERO_CHECKSUM = wire.parameter(wire.PARAM_ZERO_CHECKSUM, wire.U32.pack(wire.ZERO_CHECKSUM_DTLS))


def checksums(side: Side) -> dict[bool, set[int]]:
    """Whether packets of a side carried zero, by whether they belong to the handshake."""
    found: dict[bool, set[int]] = {False: set(), True: set()}
    for packet in side.sent_packets:
        is_handshake = bool({wire.INIT, wire.INIT_ACK, wire.COOKIE_ECHO} & set(chunk_types(packet)))
        zero = packet[8:12] == bytes(4)
        assert zero or wire.checksum_is_right(packet)
        found[is_handshake].add(zero)
    return found


@pytest.mark.parametrize("a_offers", [False, True])
@pytest.mark.parametrize("b_offers", [False, True])
def test_each_direction_is_negotiated_alone(a_offers: bool, b_offers: bool) -> None:
    link = LossyLink(
        LinkConfig(latency_s=0.01, loss=0.05),
        config_a=SctpConfig(zero_checksum=a_offers),
        config_b=SctpConfig(zero_checksum=b_offers),
    )
    link.a.keep_packets = link.b.keep_packets = True
    link.connect()
    for _ in range(20):
        link.a.association.send(1, 51, bytes(5000), link.now)
        link.b.association.send(1, 51, bytes(5000), link.now)
    assert link.run_until(lambda: len(link.a.data) == len(link.b.data) == 20, 20)
    link.run(5)
    uses_zero = a_offers and b_offers  # our side sends without one only when it offers that itself
    for side in (link.a, link.b):
        assert checksums(side) == {True: {False}, False: {uses_zero}}
        assert side.association.stats.zero_checksum_out == uses_zero
    assert_drained(link)


def test_a_peer_may_send_zero_although_we_may_not() -> None:
    peer = RawPeer()
    assert not peer.association.stats.zero_checksum_out
    peer.association.send(1, 51, b"x", peer.now)
    assert all(wire.checksum_is_right(packet) for packet in peer.read_packets())
    header = wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(peer.their_tag)
    peer.association.receive(wire.seal_without_checksum(header, [peer.data(b"zero")]), peer.now)
    peer.read()
    assert peer.events[-1].data == b"zero"  # type: ignore[union-attr]


def test_zero_is_refused_where_we_did_not_offer_it() -> None:
    peer = RawPeer(SctpConfig(zero_checksum=False, path_mtu_discovery=False), parameters=(ZERO_CHECKSUM,))
    header = wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(peer.their_tag)
    peer.association.receive(wire.seal_without_checksum(header, [peer.data()]), peer.now)
    assert peer.read() == []
    assert peer.association.stats.discarded == {"checksum": 1}


@pytest.mark.parametrize("kind", ["init", "cookie"])
def test_what_opens_an_association_needs_its_checksum(kind: str) -> None:
    peer = RawPeer(parameters=(ZERO_CHECKSUM,))
    tag, chunk = {
        "init": (0, peer.init),
        "cookie": (peer.their_tag, wire.chunk(wire.COOKIE_ECHO, 0, peer.init_ack.cookie)),
    }[kind]
    header = wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(tag)
    peer.association.receive(wire.seal_without_checksum(header, [chunk]), peer.now)
    assert peer.read() == []
    assert peer.association.stats.discarded == {"checksum": 1}


def test_another_error_detection_method_is_not_ours() -> None:
    peer = RawPeer(parameters=(wire.parameter(wire.PARAM_ZERO_CHECKSUM, wire.U32.pack(2)),))
    assert not peer.association.stats.zero_checksum_out


def test_a_wrong_checksum_is_dropped() -> None:
    peer = RawPeer()
    header = wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(peer.their_tag)
    packet = bytearray(wire.seal(header, [peer.data()]))
    packet[8] ^= 1
    peer.association.receive(bytes(packet), peer.now)
    assert peer.read() == []
    assert peer.association.stats.discarded == {"checksum": 1}
