"""When and what the receiving half acknowledges (RFC 9260 section 6.2)."""

from __future__ import annotations

import pytest

from psyne_mesh.webrtc.sctp import MessageReceived, SctpConfig, wire
from psyne_mesh.webrtc.sctp.inbound import GAP_BLOCKS_MAX, TSN_DISTANCE_MAX
from tests.sctp.raw import INITIAL_TSN, RawPeer, sacks


def warm() -> RawPeer:
    """An established peer whose first packet, which is acknowledged at once, is through."""
    peer = RawPeer()
    peer.send(peer.data())
    (sack,) = sacks(peer.read())
    assert sack.cumulative_tsn == INITIAL_TSN
    return peer


def test_every_second_packet_is_acknowledged_at_once() -> None:
    peer = warm()
    peer.send(peer.data(ssn=1))
    assert peer.read() == []
    peer.send(peer.data(ssn=2))
    (sack,) = sacks(peer.read())
    assert (sack.cumulative_tsn, sack.gaps) == (INITIAL_TSN + 2, [])


def test_a_single_packet_is_acknowledged_after_200_ms() -> None:
    peer = warm()
    peer.send(peer.data(ssn=1))
    assert peer.read() == []
    deadline = peer.association.next_timeout()
    assert deadline == pytest.approx(peer.now + 0.2)
    peer.wait(1.0)
    assert len(sacks(peer.read())) == 1


def test_one_acknowledgement_per_drained_batch() -> None:
    peer = warm()
    for ssn in range(1, 65):
        peer.send(peer.data(ssn=ssn))
    (sack,) = sacks(peer.read())
    assert sack.cumulative_tsn == INITIAL_TSN + 64


def test_an_acknowledgement_rides_along_with_data() -> None:
    peer = warm()
    peer.send(peer.data(ssn=1))
    peer.association.send(3, 51, b"answer", peer.now)
    assert peer.read_kinds() == [wire.SACK, wire.DATA]


def test_the_immediate_bit_is_obeyed() -> None:
    peer = warm()
    peer.send(peer.data(ssn=1, flags=wire.FLAG_BEGIN | wire.FLAG_END | wire.FLAG_IMMEDIATE))
    assert len(sacks(peer.read())) == 1


def test_a_gap_is_reported_at_once_and_so_is_its_end() -> None:
    peer = warm()
    peer.send(peer.data(tsn=INITIAL_TSN + 3, ssn=3))
    (sack,) = sacks(peer.read())
    assert (sack.cumulative_tsn, sack.gaps) == (INITIAL_TSN, [(3, 3)])
    peer.send(peer.data(tsn=INITIAL_TSN + 1, ssn=1))
    (sack,) = sacks(peer.read())
    assert (sack.cumulative_tsn, sack.gaps) == (INITIAL_TSN + 1, [(2, 2)])
    peer.send(peer.data(tsn=INITIAL_TSN + 2, ssn=2))
    (sack,) = sacks(peer.read())
    assert (sack.cumulative_tsn, sack.gaps) == (INITIAL_TSN + 3, [])
    assert [event.data for event in peer.events if isinstance(event, MessageReceived)] == [b"x"] * 4


def test_duplicates_are_reported_at_once_and_not_delivered() -> None:
    peer = warm()
    peer.send(peer.data(tsn=INITIAL_TSN))
    chunks = peer.read()
    (sack,) = sacks(chunks)
    assert sack.duplicates == (INITIAL_TSN,)
    assert len([event for event in peer.events if isinstance(event, MessageReceived)]) == 1
    assert peer.association.stats.duplicates_received == 1


def test_tsns_wrap() -> None:
    peer = RawPeer(initial_tsn=2**32 - 2)
    order = [0, 2, 1, 5, 4, 3]
    for ssn in order:
        peer.send(peer.data(b"%d" % ssn, tsn=2**32 - 2 + ssn, ssn=ssn))
    (sack,) = sacks(peer.read())
    assert (sack.cumulative_tsn, sack.gaps) == (3, [])
    assert [e.data for e in peer.events if isinstance(e, MessageReceived)] == [b"%d" % i for i in range(6)]


def test_a_tsn_that_no_gap_block_could_name_is_dropped() -> None:
    peer = warm()
    peer.send(peer.data(tsn=INITIAL_TSN + TSN_DISTANCE_MAX + 1))
    assert peer.read() == []
    peer.send(peer.data(tsn=INITIAL_TSN + 2**31 - 1))
    assert peer.association.stats.discarded == {"tsn_too_far": 2}


def test_a_sack_never_outgrows_a_base_packet() -> None:
    peer = warm()
    for i in range(2 * GAP_BLOCKS_MAX):
        peer.send(peer.data(tsn=INITIAL_TSN + 2 + 2 * i, flags=7))
        peer.send(peer.data(tsn=INITIAL_TSN, flags=7))
    (packet,) = peer.read_packets()
    assert len(packet) <= 1191
    (_, _, start, end) = wire.parse_packet_untrusted(packet).chunks[0]
    sack = wire.parse_sack_untrusted(packet, start, end)
    assert len(sack.gaps) == GAP_BLOCKS_MAX
    assert sack.gaps[0] == (2, 2)


def test_streams_out_of_range_are_reported_and_acknowledged() -> None:
    peer = RawPeer(SctpConfig(streams_max=10))
    peer.send(peer.data(stream=10), peer.data(stream=9))
    chunks = peer.read()
    assert sacks(chunks)[0].cumulative_tsn == INITIAL_TSN + 1
    ((_, _, error),) = [chunk for chunk in chunks if chunk[0] == wire.ERROR]
    assert error[4:] == bytes((0, wire.CAUSE_INVALID_STREAM, 0, 8, 0, 10, 0, 0))
    assert [event.stream_id for event in peer.events if isinstance(event, MessageReceived)] == [9]


class TestReceiveWindow:
    def test_unread_bytes_shrink_it(self) -> None:
        peer = warm()
        peer.association.set_unread(1_000_000, peer.now)
        peer.send(peer.data(ssn=1), peer.data(ssn=2))
        peer.send(peer.data(ssn=3))
        (sack,) = sacks(peer.read())
        assert sack.a_rwnd == 4 * 2**20 - 1_000_000

    def test_a_full_window_drops_new_data_and_says_so(self) -> None:
        peer = warm()
        peer.association.set_unread(4 * 2**20, peer.now)
        peer.send(peer.data(ssn=1))
        (sack,) = sacks(peer.read())
        assert (sack.cumulative_tsn, sack.a_rwnd) == (INITIAL_TSN, 0)
        assert peer.association.stats.discarded == {"window_full": 1}

    def test_reading_opens_it_with_an_update(self) -> None:
        peer = warm()
        peer.association.set_unread(4 * 2**20, peer.now)
        peer.send(peer.data(ssn=1))
        peer.read()
        peer.association.set_unread(4 * 2**20 - 100, peer.now)
        assert peer.read() == []  # no silly window
        peer.association.set_unread(4 * 2**20 - 5000, peer.now)
        (sack,) = sacks(peer.read())
        assert sack.a_rwnd == 5000
        peer.association.set_unread(0, peer.now)
        (sack,) = sacks(peer.read())
        assert sack.a_rwnd == 4 * 2**20

    def test_half_messages_cannot_outgrow_it(self) -> None:
        config = SctpConfig(receive_window_bytes=65_536, path_mtu_discovery=False)
        peer = RawPeer(config)
        for i in range(2000):
            peer.send(peer.data(bytes(1000), tsn=INITIAL_TSN + 1 + 2 * i, stream=i % 50, flags=wire.FLAG_BEGIN))
        reassembly = peer.association._inbound.reassembly
        assert reassembly.held_bytes <= 65_536 + 1000
        assert sacks(peer.read())[0].a_rwnd == 0

    def test_many_tiny_fragments_cannot_outgrow_it(self) -> None:
        peer = RawPeer(SctpConfig(receive_window_bytes=65_536, path_mtu_discovery=False))
        for i in range(2000):
            peer.send(peer.data(b"x", tsn=INITIAL_TSN + 1 + 2 * i, flags=0))
        assert len(peer.association._inbound.reassembly._by_start) < 300

    def test_the_next_chunk_is_still_taken_when_held_data_fills_it(self) -> None:
        peer = RawPeer(SctpConfig(receive_window_bytes=65_536, path_mtu_discovery=False))
        for i in range(1, 80):
            peer.send(peer.data(bytes(1000), tsn=INITIAL_TSN + i, ssn=i))
        assert sacks(peer.read())[0].a_rwnd == 0
        peer.send(peer.data(bytes(1000), tsn=INITIAL_TSN, ssn=0))
        (sack,) = sacks(peer.read())
        assert sack.a_rwnd == 65_536
        assert sack.cumulative_tsn > INITIAL_TSN + 40
