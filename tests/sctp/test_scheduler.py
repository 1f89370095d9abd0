"""Who sends next."""

from __future__ import annotations

from collections import Counter

from psyne_mesh.webrtc.sctp.send_queue import Message, SendQueue, SendStream


def queue(*, interleaving: bool) -> SendQueue:
    q = SendQueue()
    q.interleaving = interleaving
    return q


def push(q: SendQueue, stream: int, size: int, *, weight: int = 256) -> SendStream:
    s = q.stream(stream)
    s.weight = weight
    q.push(s, Message(stream, 51, bytes(size), False, None, None, 0.0))
    return s


def serve(q: SendQueue, pieces: int) -> list[int]:
    """Let `pieces` fragments of up to 1000 bytes leave; returns the streams in order."""
    order = []
    for _ in range(pieces):
        stream = q.scheduler.pick()
        if stream is None:
            break
        message = stream.messages[0]
        size = min(1000, message.size - message.offset)
        message.offset += size
        q.sent(stream, size)
        order.append(stream.id)
    return order


def test_a_short_message_passes_a_long_one_at_once_under_interleaving() -> None:
    q = queue(interleaving=True)
    push(q, 1, 100_000)
    assert serve(q, 5) == [1] * 5
    push(q, 2, 60)
    assert serve(q, 1) == [2]


def test_without_interleaving_a_message_that_began_ends_first() -> None:
    q = queue(interleaving=False)
    push(q, 1, 3000)
    push(q, 1, 3000)
    serve(q, 1)
    push(q, 2, 60)
    assert serve(q, 6) == [1, 1, 2, 1, 1, 1]


def test_equal_streams_share_equally() -> None:
    q = queue(interleaving=True)
    for stream in (1, 2, 3):
        push(q, stream, 100_000)
    assert serve(q, 9) == [1, 2, 3] * 3


def test_priorities_are_weights() -> None:
    q = queue(interleaving=True)
    push(q, 1, 1_000_000, weight=128)
    push(q, 2, 1_000_000, weight=512)
    push(q, 3, 1_000_000, weight=256)
    served = Counter(serve(q, 700))
    assert abs(served[1] - 100) <= 2
    assert abs(served[2] - 400) <= 2
    assert abs(served[3] - 200) <= 2


def test_no_stream_starves_behind_a_row_of_short_messages() -> None:
    q = queue(interleaving=False)
    push(q, 1, 5000)
    order = []
    for _ in range(40):
        push(q, 2, 500)
        order += serve(q, 1)
    assert 1 in order


def test_a_stream_that_comes_back_has_no_credit_from_its_absence() -> None:
    q = queue(interleaving=True)
    push(q, 1, 1_000_000)
    serve(q, 500)
    push(q, 2, 100_000)
    assert Counter(serve(q, 20)) == {1: 10, 2: 10}


def test_buffered_bytes_follow_every_way_out() -> None:
    q = queue(interleaving=True)
    s = push(q, 1, 2500)
    push(q, 1, 10)
    s.low_threshold = 1000
    assert (s.buffered, q.buffered) == (2510, 2510)
    serve(q, 1)
    assert (s.buffered, q.low_streams) == (1510, [])
    q.discard(s)  # the rest of the first message
    assert (s.buffered, q.low_streams) == (10, [1])
    serve(q, 1)
    assert (s.buffered, q.buffered) == (0, 0)
    assert q.scheduler.pick() is None
    assert q.low_streams == [1]  # told once, on the way down


def test_streams_that_the_peer_does_not_take_are_emptied() -> None:
    q = queue(interleaving=True)
    push(q, 1, 10)
    push(q, 7, 10)
    push(q, 7, 10)
    q.clear_from(5)
    assert q.buffered == 10
    assert q.stream(7).abandoned_unsent == 2


def test_the_oldest_message_is_known() -> None:
    q = queue(interleaving=True)
    assert q.oldest_queued_at() is None
    q.push(q.stream(1), Message(1, 51, b"x", False, None, None, 5.0))
    q.push(q.stream(2), Message(2, 51, b"x", False, None, None, 3.0))
    assert q.oldest_queued_at() == 3.0
