"""What a SACK does to the table of sent chunks."""

from __future__ import annotations

from psyne_mesh.webrtc.sctp.outstanding import ABANDONED, ACKED, IN_FLIGHT, Chunk, Outstanding
from psyne_mesh.webrtc.sctp.send_queue import Message


def message(stream: int = 1, *, first: int = -1, last: int = -1, number: int = 0, unordered: bool = False) -> Message:
    made = Message(stream, 51, bytes(100), unordered, 0, None, 0.0)
    made.first_tsn, made.last_tsn, made.number = first, last, number
    return made


def table(count: int, initial: int = 100) -> Outstanding:
    """`count` chunks of ten bytes, each a message of its own on streams 0, 1, 2, ..."""
    out = Outstanding(initial)
    for tsn in range(initial, initial + count):
        owner = message(tsn - initial, first=tsn, last=tsn, number=tsn - initial)
        chunk = Chunk(tsn, b"", b"payload", 10, owner, 0.0)
        chunk.serial = tsn
        out.add(chunk)
        out.next_tsn = tsn + 1
    return out


def test_cumulative_and_gap_acknowledgement() -> None:
    out = table(10)
    result = out.acknowledge(101, [(2, 3), (5, 5)])
    assert result.bytes_acked == 50
    assert result.newest is not None
    assert result.newest.tsn == 106
    assert out.flight_bytes == 50
    assert sorted(out.chunks) == list(range(102, 110))
    assert [tsn for tsn, chunk in out.chunks.items() if chunk.state == ACKED] == [103, 104, 106]


def test_repeated_gaps_are_not_counted_twice() -> None:
    out = table(10)
    out.acknowledge(99, [(3, 4)])
    result = out.acknowledge(99, [(3, 6)])
    assert result.bytes_acked == 20
    result = out.acknowledge(105, [])
    assert result.bytes_acked == 20
    assert out.flight_bytes == 40
    assert not out._gap_acked


def test_a_lost_chunk_that_arrives_after_all_is_not_sent_again() -> None:
    out = table(3)
    chunk = out.chunks[100]
    out.mark_lost(chunk)
    assert (out.flight_bytes, out.lost_bytes) == (20, 10)
    out.acknowledge(100, [])
    assert (out.flight_bytes, out.lost_bytes) == (20, 0)
    assert chunk.state == ACKED


def test_the_lowest_is_repeated_first_also_when_it_is_lost_once_more() -> None:
    """RFC 9260 section 7.2.4 rule 3."""
    out = table(10)
    out.mark_lost_since(0.0)
    for tsn in (100, 101, 102):
        chunk = out.first_lost()
        assert chunk is not None
        assert chunk.tsn == tsn
        out.repeat_first(chunk, 1.0)
    out.mark_lost(out.chunks[101])
    out.mark_lost(out.chunks[100])
    out.acknowledge(99, [(5, 5)])  # 104
    order = []
    while (chunk := out.first_lost()) is not None:
        order.append(chunk.tsn)
        out.repeat_first(chunk, 2.0)
    assert order == [100, 101, 103, 105, 106, 107, 108, 109]


def test_a_peer_that_reneges_is_noticed_when_t3_expires() -> None:
    out = table(5)
    out.acknowledge(99, [(2, 5)])
    out.acknowledge(100, [])  # acknowledges the hole only, and forgets what it reported
    assert out.flight_bytes == 0
    assert [chunk.tsn for chunk in out.renege()] == [101, 102, 103, 104]
    assert out.flight_bytes == 40
    assert all(chunk.state == IN_FLIGHT for chunk in out.chunks.values())
    assert out.renege() == []


class TestAbandonment:
    def test_the_ack_point_moves_over_what_was_abandoned(self) -> None:
        out = table(4)
        out.abandon(out.chunks[101].message)
        assert not out.advance(10)
        out.abandon(out.chunks[100].message)
        assert out.advance(10)
        assert out.advanced_tsn == 101
        assert sorted(out.skipped()) == [(0, False, 0), (1, False, 1)]
        assert out.flight_bytes == 20

    def test_it_moves_over_what_has_arrived(self) -> None:
        out = table(6)
        out.acknowledge(99, [(2, 3)])
        out.abandon(out.chunks[100].message)
        out.abandon(out.chunks[103].message)
        assert out.advance(10)
        assert out.advanced_tsn == 103
        assert [stream for stream, _, _ in out.skipped()] == [0, 3]

    def test_an_acknowledged_hole_lets_it_move_on(self) -> None:
        out = table(3)
        out.abandon(out.chunks[101].message)
        assert not out.advance(10)
        out.acknowledge(100, [])
        assert out.advance(10)
        assert out.advanced_tsn == 101

    def test_all_fragments_of_the_message_go_and_none_of_others(self) -> None:
        out = Outstanding(10)
        big, small = message(1, first=10, last=14), message(2, first=12, last=12)
        for tsn in range(10, 15):
            out.add(Chunk(tsn, b"", b"xx", 2, small if tsn == 12 else big, 0.0))
            out.next_tsn = tsn + 1
        out.acknowledge(9, [(2, 2)])
        out.abandon(big)
        assert [out.chunks[tsn].state for tsn in range(10, 15)] == [ABANDONED, ACKED, IN_FLIGHT, ABANDONED, ABANDONED]
        assert out.flight_bytes == 2

    def test_the_unsent_rest_gets_a_tsn_of_its_own(self) -> None:
        out = Outstanding(10)
        big = message(1, first=10, last=10)
        out.add(Chunk(10, b"", b"xx", 2, big, 0.0))
        out.next_tsn = 11
        out.acknowledge(10, [])
        out.add_abandoned_end(big, 0.0)
        out.abandon(big)
        assert out.advance(10)
        assert (out.advanced_tsn, out.next_tsn) == (11, 12)

    def test_one_forward_tsn_names_a_limited_number_of_streams(self) -> None:
        out = table(20)
        for chunk in list(out.chunks.values()):
            out.abandon(chunk.message)
        assert out.advance(5)
        assert out.advanced_tsn == 104
        out.acknowledge(104, [])
        assert out.skipped() == []
        assert out.advance(5)
        assert out.advanced_tsn == 109

    def test_acknowledgement_forgets_what_was_skipped(self) -> None:
        out = table(3)
        out.abandon(out.chunks[100].message)
        out.advance(5)
        out.acknowledge(102, [])
        assert not out._skipped
        assert out.advanced_tsn == 102
        assert not out.chunks
        assert out.flight_bytes == 0
