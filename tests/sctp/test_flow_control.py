"""The peer's window and our own: back-pressure, closed windows, buffered amounts."""

from __future__ import annotations

import pytest

from psyne_mesh.errors import ClosedError, LocalError, WouldBlock
from psyne_mesh.webrtc.sctp import BufferedAmountLow, Closed, MessageReceived, SctpConfig, wire
from tests.sctp.link import LinkConfig, LossyLink, Side, assert_drained
from tests.sctp.raw import RawPeer, data_tsns


def test_the_peer_window_is_respected() -> None:
    peer = RawPeer(a_rwnd=5000)
    for _ in range(20):
        peer.association.send(1, 51, bytes(1000), peer.now)
    sent = data_tsns(peer.read())
    assert len(sent) == 5
    peer.send(peer.sack(sent[1], a_rwnd=3000))  # three are in flight: nothing more fits
    assert data_tsns(peer.read()) == []
    peer.send(peer.sack(sent[4], a_rwnd=2500))
    assert len(data_tsns(peer.read())) == 2


def test_a_closed_window_is_probed_with_one_chunk() -> None:
    peer = RawPeer(a_rwnd=2000)
    for _ in range(6):
        peer.association.send(1, 51, bytes(1000), peer.now)
    sent = data_tsns(peer.read())
    peer.send(peer.sack(sent[-1], a_rwnd=0))
    probe = data_tsns(peer.read())
    assert len(probe) == 1
    answered = 0
    while answered < 30:  # the peer stays alive, says so, and never has room: no reason to give it up
        peer.now = peer.association.next_timeout() or 0.0
        peer.association.handle_timeout(peer.now)
        tsns = data_tsns(peer.read())
        if tsns:
            answered += 1
            assert tsns == probe
            peer.send(peer.sack(probe[0] - 1, a_rwnd=0))
    assert peer.association.is_established
    peer.send(peer.sack(probe[0] - 1, a_rwnd=1 << 20))
    assert data_tsns(peer.read())[0] == probe[0]  # at once, not when a timer of seconds expires
    peer.send(peer.sack(probe[0] + 3, a_rwnd=1 << 20))
    peer.read()
    assert peer.association.outstanding_bytes == 0


def test_a_peer_that_is_dead_behind_a_closed_window_is_given_up() -> None:
    peer = RawPeer(a_rwnd=2000)
    for _ in range(6):
        peer.association.send(1, 51, bytes(1000), peer.now)
    sent = data_tsns(peer.read())
    peer.send(peer.sack(sent[-1], a_rwnd=0))
    peer.wait(900)
    assert any(isinstance(event, Closed) for event in peer.events)


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_slow_reader_holds_the_sender_back_and_loses_nothing(loss: float) -> None:
    config = SctpConfig(receive_window_bytes=100_000)
    link = LossyLink(LinkConfig(latency_s=0.01, loss=loss), config_a=config, seed=2)
    link.connect()
    unread = 0
    most = 0

    def hold(side: Side, event: object) -> None:
        nonlocal unread, most
        if side is link.b and isinstance(event, MessageReceived):
            unread += len(event.data)
            most = max(most, unread)
            link.b.association.set_unread(unread, link.now)

    link.on_event = hold
    for i in range(100):
        link.a.association.send(1, 51, b"%3d" % i + bytes(9997), link.now)
    for _ in range(400):
        link.run(0.1)
        unread = max(0, unread - 20_000)
        link.b.association.set_unread(unread, link.now)
        link.flush(link.b)
    assert [data[:3] for data in link.b.data] == [b"%3d" % i for i in range(100)]
    assert most <= 200_000  # the window, and what a batch brought before the owner could say that it is unread
    link.run(5)
    assert_drained(link)


def test_the_reader_stops_for_minutes_and_comes_back() -> None:
    link = LossyLink(LinkConfig(latency_s=0.01), config_a=SctpConfig(receive_window_bytes=100_000))
    link.connect()
    link.b.association.set_unread(100_000, link.now)
    link.flush(link.b)
    for _ in range(50):
        link.a.association.send(1, 51, bytes(5000), link.now)
    link.run(600)
    assert link.b.data == []
    link.b.association.set_unread(0, link.now)
    link.flush(link.b)
    start = link.now
    assert link.run_until(lambda: len(link.b.data) == 50, 10)
    assert link.now - start < 2.0
    link.run(5)
    assert_drained(link)


class TestSend:
    def test_buffered_amounts_count_what_has_not_left(self) -> None:
        peer = RawPeer(a_rwnd=3000)
        association = peer.association
        association.send(1, 51, bytes(1000), peer.now)
        association.send(2, 51, bytes(4000), peer.now)
        assert (association.buffered_amount(1), association.buffered_amount(2)) == (1000, 4000)
        assert association.total_buffered_amount == 5000
        peer.read()
        assert association.buffered_amount(1) == 0
        assert association.buffered_amount(2) == association.total_buffered_amount > 0
        assert association.outstanding_bytes == 5000 - association.total_buffered_amount
        assert association.buffered_amount(77) == 0

    def test_low_is_told_on_the_way_down_only(self) -> None:
        peer = RawPeer(a_rwnd=3000)
        association = peer.association
        association.set_buffered_amount_low_threshold(1, 5000)
        for _ in range(8):
            association.send(1, 51, bytes(1000), peer.now)
        sent = data_tsns(peer.read())
        assert BufferedAmountLow(1) in peer.events
        peer.send(peer.sack(sent[-1]))
        peer.read()
        assert peer.events.count(BufferedAmountLow(1)) == 1

    def test_refusals_change_nothing(self) -> None:
        peer = RawPeer(SctpConfig(send_buffer_bytes_max=1000, path_mtu_discovery=False))
        association = peer.association
        with pytest.raises(LocalError):
            association.send(1, 51, b"", peer.now)
        with pytest.raises(LocalError):
            association.send(65_535, 51, b"x", peer.now)
        with pytest.raises(LocalError):
            association.send(-1, 51, b"x", peer.now)
        association.send(1, 51, bytes(5000), peer.now)  # alone, a message may be larger than the buffer
        with pytest.raises(WouldBlock):
            association.send(1, 51, b"x", peer.now)
        assert association.total_buffered_amount == 5000
        for priority in (0, 65_536):
            with pytest.raises(LocalError):
                association.set_priority(1, priority)
        association.abort(peer.now)
        with pytest.raises(ClosedError):
            association.send(1, 51, b"x", peer.now)
        with pytest.raises(ClosedError):
            association.reset_streams([1], peer.now)
        assert association.total_buffered_amount == 0

    def test_a_message_that_fits_a_packet_is_not_split(self) -> None:
        peer = RawPeer()
        for _ in range(5):
            peer.association.send(1, 51, bytes(700), peer.now)
        chunks = peer.read()
        assert [flags for kind, flags, _ in chunks if kind == wire.DATA] == [wire.FLAG_BEGIN | wire.FLAG_END] * 5

    def test_large_messages_fill_packets_evenly(self) -> None:
        """Packets of one size leave in one system call (UDP_SEGMENT)."""
        peer = RawPeer()
        for _ in range(3):
            peer.association.send(1, 51, bytes(3500), peer.now)
        sizes = [len(packet) for packet in peer.read_packets()]
        assert set(sizes[:-1]) == {1188}

    def test_small_messages_share_packets_and_wait_for_nobody(self) -> None:
        """Trap 13: no Nagle, no coupling to acknowledgements."""
        peer = RawPeer()
        for _ in range(100):
            peer.association.send(1, 51, bytes(100), peer.now, unordered=True, max_retransmits=0)
        assert len(peer.read_packets()) == 10
        for _ in range(20):  # unacknowledged, one by one, and each leaves at once
            peer.now += 1 / 60
            peer.association.send(1, 51, bytes(100), peer.now)
            assert len(data_tsns(peer.read())) == 1


def test_many_long_messages_at_once_never_fill_the_window_with_halves() -> None:
    """Thirty streams of interleaved messages, together twice the window: each must be able to end."""
    link = LossyLink(LinkConfig(latency_s=0.01), seed=5)
    link.connect()
    for number in range(60):
        link.a.association.send(number % 30, 53, bytes([number]) * 250_000, link.now)
    link.flush(link.a)
    assert link.run_until(lambda: len(link.b.messages) == 60, 60)
    assert sorted(link.b.data) == sorted(bytes([number]) * 250_000 for number in range(60))
    for number in range(4):  # a short one still passes
        link.a.association.send(number, 53, bytes(250_000), link.now)
    link.a.association.send(31, 53, b"short", link.now)
    link.flush(link.a)
    assert link.run_until(lambda: len(link.b.messages) == 65, 5)
    assert link.b.data[60] == b"short"
    link.run(5)
    assert_drained(link)


def test_a_window_that_opens_and_closes_all_the_time_costs_little() -> None:
    """Each opening made us look through all that is outstanding, and a packet holds a thousand of them."""
    peer = RawPeer(a_rwnd=1 << 30)
    association, first = peer.association, peer.their_tsn
    table = association._outbound.outstanding
    for _ in range(8000):
        association.send(1, 51, b"x" * 40, peer.now)
    for _ in range(100):
        peer.now += 0.01
        peer.read()
        peer.send(peer.sack(first - 1, (2, table.next_tsn - first), a_rwnd=1 << 30))
    assert len(table.chunks) == 8000

    def fill(opened: int) -> int:
        for i in range(opened * 2):
            peer.send(peer.sack(first - 1, a_rwnd=(1 << 30) * (i % 2)))
        return data_tsns(peer.read()).count(first)

    peer.now += 1
    assert fill(500) == 1  # the first chunk is overdue: once is enough
    assert fill(500) == 0  # and not again in the same instant
    peer.send(peer.sack(first - 1, a_rwnd=0))
    peer.now += 1
    assert fill(1) == 1
