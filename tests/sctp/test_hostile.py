"""Whatever arrives: nothing raises, nothing loops, and only an authentic ABORT ends the association."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyne_mesh.webrtc.sctp import Closed, SctpConfig, wire
from psyne_mesh.webrtc.sctp.outbound import TSNS_OUTSTANDING_MAX
from tests.sctp.link import LinkConfig, LossyLink, assert_drained
from tests.sctp.raw import INITIAL_TSN, RawPeer, data_tsns, sacks


def with_data_in_flight(**options: object) -> tuple[RawPeer, list[int]]:
    peer = RawPeer(**options)  # type: ignore[arg-type]
    for _ in range(5):
        peer.association.send(1, 51, bytes(1000), peer.now)
    return peer, data_tsns(peer.read())


class TestSacks:
    """Trap 10."""

    @pytest.mark.parametrize(
        ("cumulative", "gaps"),
        [
            (5, []),  # beyond what was sent
            (2**31 - 2, []),
            (-1, [(2, 7)]),  # a gap beyond it
            (-1, [(60_000, 65_535)]),
            (4, [(2, 2)]),
            (-1, [(2, 2), (4, 65_535)]),
        ],
    )
    def test_of_what_was_never_sent_are_dropped(self, cumulative: int, gaps: list[tuple[int, int]]) -> None:
        peer, sent = with_data_in_flight()
        peer.send(peer.sack((sent[0] + cumulative) & 0xFFFFFFFF, *gaps))
        assert peer.association.stats.discarded == {"sack": 1}
        assert peer.association.outstanding_bytes == 5000
        peer.send(peer.sack(sent[-1]))
        assert peer.association.outstanding_bytes == 0

    def test_of_the_past_change_nothing(self) -> None:
        peer, sent = with_data_in_flight()
        peer.send(peer.sack(sent[2]))
        for back in (1, 1000, 2**31 - 3):
            peer.send(peer.sack((sent[2] - back) & 0xFFFFFFFF, (1, 1), a_rwnd=0))
        assert peer.association.outstanding_bytes == 2000
        assert peer.association.stats.a_rwnd_remote_bytes == 1 << 20

    def test_whose_counts_lie_are_dropped(self) -> None:
        peer, sent = with_data_in_flight()
        chunk = bytearray(peer.sack(sent[-1]))
        chunk[12:14] = b"\xff\xff"
        peer.send(bytes(chunk))
        assert peer.association.stats.discarded == {"malformed": 1}

    def test_with_thousands_of_gap_blocks_are_cheap(self) -> None:
        link = LossyLink(LinkConfig(latency_s=0.01))
        link.connect()
        link.run(1)
        association = link.a.association
        association._outbound.congestion.cwnd = 1 << 30
        for _ in range(9000):
            association.send(1, 51, b"x", link.now, unordered=True)
        association.packets_to_send(link.now)
        table = association._outbound.outstanding
        sack = wire.parse_sack_untrusted(
            *(lambda chunk: (chunk, 0, len(chunk)))(
                wire.sack_chunk(table.cumulative_tsn, 1 << 20, [(i, i) for i in range(2, 8000, 2)])
            )
        )
        for _ in range(20):
            assert association._outbound.sack_received(sack, link.now + 0.01)
        assert table.flight_bytes + table.lost_bytes == min(9000, TSNS_OUTSTANDING_MAX) - 3999


class TestForwardTsn:
    """Trap 10."""

    def test_without_agreement_it_is_ignored(self) -> None:
        peer = RawPeer(SctpConfig(partial_reliability=False, path_mtu_discovery=False))
        peer.send(wire.forward_tsn_chunk(INITIAL_TSN + 5, [], interleaving=False))
        peer.send(peer.data())
        assert sacks(peer.read())[0].cumulative_tsn == INITIAL_TSN
        assert peer.association.stats.discarded == {"unexpected_forward_tsn": 1}

    def test_the_wrong_kind_is_ignored(self) -> None:
        peer = RawPeer()
        peer.send(wire.forward_tsn_chunk(INITIAL_TSN + 5, [], interleaving=True))
        assert peer.read() == []

    @pytest.mark.parametrize("distance", [0, -1, -1000, -(2**31) + 2])
    def test_backward_it_is_only_answered(self, distance: int) -> None:
        peer = RawPeer()
        peer.send(peer.data())
        peer.read()
        peer.send(wire.forward_tsn_chunk(INITIAL_TSN + distance, [(1, False, 60_000)], interleaving=False))
        assert sacks(peer.read())[0].cumulative_tsn == INITIAL_TSN

    def test_far_forward_it_costs_nothing(self) -> None:
        peer = RawPeer()
        peer.send(
            wire.forward_tsn_chunk(INITIAL_TSN + 2**31 - 2, [(99, False, 5), (65_535, False, 9)], interleaving=False)
        )
        assert sacks(peer.read())[0].cumulative_tsn == INITIAL_TSN + 2**31 - 2
        assert peer.association.is_established

    def test_a_packet_full_of_them_is_cut_short(self) -> None:
        peer = RawPeer()
        for i in range(3000):
            peer.send(peer.data(b"x", tsn=INITIAL_TSN + 1 + 2 * i, flags=0))
        flood = [wire.forward_tsn_chunk(INITIAL_TSN + i, [], interleaving=False) for i in range(1500)]
        peer.send(*flood)
        assert sacks(peer.read())[0].cumulative_tsn == INITIAL_TSN + 7
        assert peer.association.stats.discarded["too_many_control_chunks"] == 1


class TestChunks:
    def test_an_oversized_heartbeat_is_not_echoed(self) -> None:
        peer = RawPeer()
        peer.send(wire.chunk(wire.HEARTBEAT, 0, wire.parameter(1, bytes(1100))))
        assert peer.read_kinds() == [wire.HEARTBEAT_ACK]
        peer.send(wire.chunk(wire.HEARTBEAT, 0, wire.parameter(1, bytes(1400))))
        assert peer.read() == []

    def test_a_heartbeat_ack_that_nobody_asked_for_is_no_measurement(self) -> None:
        peer = RawPeer(SctpConfig())
        info = wire.parameter(wire.PARAM_HEARTBEAT_INFO, bytes(12) + wire.U16.pack(16_384))
        peer.send(wire.chunk(wire.HEARTBEAT_ACK, 0, info))
        assert peer.association.path_mtu == 1191
        assert peer.association.srtt is None

    @pytest.mark.parametrize(
        ("kind", "is_reported", "goes_on"),
        [(0x30, False, False), (0x70, True, False), (0xB0, False, True), (0xF0, True, True)],
    )
    def test_unknown_chunks_follow_their_two_high_bits(self, kind: int, is_reported: bool, goes_on: bool) -> None:
        peer = RawPeer()
        peer.send(wire.chunk(kind, 0, b"what?"), wire.chunk(wire.HEARTBEAT, 0, wire.parameter(1, b"x")))
        kinds = peer.read_kinds()
        assert (wire.ERROR in kinds) == is_reported
        assert (wire.HEARTBEAT_ACK in kinds) == goes_on

    def test_answers_of_one_flush_are_limited(self) -> None:
        peer = RawPeer()
        for _ in range(50):
            peer.send(*[wire.chunk(0xF0, 0, bytes(1000))], *[wire.chunk(wire.HEARTBEAT, 0, bytes(20))] * 20)
        assert len(peer.read()) <= 17

    def test_padding_is_skipped(self) -> None:
        peer = RawPeer()
        peer.send(wire.chunk(wire.PAD, 0, bytes(500)), wire.chunk(wire.HEARTBEAT, 0, b""))
        assert peer.read_kinds() == [wire.HEARTBEAT_ACK]

    def test_the_kind_of_data_that_was_not_agreed_on_is_dropped(self) -> None:
        peer = RawPeer()
        value = wire.I_DATA_FIELDS.pack(INITIAL_TSN, 1, 0, 0, 51) + b"x"
        peer.send(wire.chunk(wire.I_DATA, 3, value))
        assert peer.read() == []
        assert peer.association.stats.discarded == {"unexpected_data": 1}

    def test_an_abort_with_an_unknown_cause_is_still_an_abort(self) -> None:
        for body in (wire.parameter(0xBEEF, b"?"), b"\0\0\0\0", wire.parameter(12, b"goodbye")):
            peer = RawPeer()
            peer.send(wire.chunk(wire.ABORT, 0, body))
            peer.read()
            closed = peer.events[-1]
            assert isinstance(closed, Closed)
            assert closed.by_peer
        assert "goodbye" in closed.reason


def establish() -> LossyLink:
    link = LossyLink(LinkConfig(latency_s=0.01), seed=7)
    link.a.keep_packets = link.b.keep_packets = True
    link.connect()
    for i in range(6):
        link.a.association.send(i % 3, 51, bytes(700 * i + 1), link.now, unordered=i % 2 == 0, max_retransmits=i % 3)
        link.b.association.send(i % 3, 51, bytes(700 * i + 1), link.now)
    link.run(0.015)
    return link


def still_works(link: LossyLink) -> None:
    for side in (link.a, link.b):
        assert not side.has(Closed), side.events[-1]
    link.a.events.clear()
    link.b.events.clear()
    for i in range(3):
        link.a.association.send(30 + i, 51, b"after the attack", link.now)
    assert link.run_until(lambda: link.b.data.count(b"after the attack") == 3, 60)


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=5))
@settings(max_examples=60)
def test_random_bytes_do_no_harm(packets: list[bytes]) -> None:
    link = establish()
    for packet in packets:
        link.a.association.receive(packet, link.now)
        link.a.association.receive(memoryview(bytes(8) + packet), link.now)
    still_works(link)
    link.run(10)
    assert_drained(link)


_ENDING = {wire.ABORT, wire.SHUTDOWN, wire.SHUTDOWN_ACK, wire.SHUTDOWN_COMPLETE}
_HARMLESS_TO_DATA = [
    wire.HEARTBEAT,
    wire.HEARTBEAT_ACK,
    wire.ERROR,
    wire.COOKIE_ACK,
    wire.INIT_ACK,
    wire.PAD,
    0x3F,
    0xC1,
]


@given(st.lists(st.tuples(st.sampled_from(_HARMLESS_TO_DATA), st.binary(max_size=80)), min_size=1, max_size=6))
@settings(max_examples=60)
def test_authentic_nonsense_in_control_chunks_does_no_harm(chunks: list[tuple[int, bytes]]) -> None:
    """The right tag and checksum, but bodies at random."""
    link = establish()
    association = link.a.association
    header = wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(association._handshake.tag)
    association.receive(wire.seal(header, [wire.chunk(kind, 0, body) for kind, body in chunks]), link.now)
    still_works(link)
    link.run(10)
    assert_drained(link)


@given(st.integers(0, 2**32), st.integers(1, 6))
@settings(max_examples=150)
def test_mutated_packets_neither_raise_nor_end_it(seed: int, flips: int) -> None:
    """Real packets with changed bytes and a right checksum: the worst that a buggy peer can send. Data may be lost by
    that (a forged SACK acknowledges what never came), the association and its promises to the caller may not."""
    rng = random.Random(seed)
    link = establish()
    association = link.a.association
    for packet in rng.sample(link.b.sent_packets, min(6, len(link.b.sent_packets))):
        mutated = bytearray(packet)
        for _ in range(flips):
            mutated[rng.randrange(8, len(mutated))] = rng.randrange(256)
        body = bytes(mutated[12:])
        sealed = wire.seal(bytes(mutated[:4]) + wire.U32.pack(association._handshake.tag), [body])
        try:
            kinds = {chunk[0] for chunk in wire.parse_packet_untrusted(sealed).chunks}
        except wire.ProtocolError:
            kinds = set()
        if kinds & _ENDING:
            continue
        association.receive(sealed, link.now)
        for answer in association.packets_to_send(link.now):
            assert wire.parse_packet_untrusted(answer)
        association.take_events()
        deadline = association.next_timeout()
        assert deadline is None or deadline > 0
    assert association.is_established
    assert not any(isinstance(event, Closed) for event in association.take_events())
