"""Shutdown, abort, and peers that fall silent (RFC 9260 sections 8 and 9)."""

from __future__ import annotations

import pytest

from psyne_mesh.errors import ClosedError
from psyne_mesh.webrtc.sctp import Association, Closed, SctpConfig, State, wire
from tests.sctp.link import LinkConfig, LossyLink
from tests.sctp.raw import RawPeer, data_tsns


def closed_events(link: LossyLink) -> list[list[Closed]]:
    return [[event for event in side.events if isinstance(event, Closed)] for side in (link.a, link.b)]


@pytest.mark.parametrize("loss", [0.0, 0.3])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_shutdown_delivers_everything_first(loss: float, both: bool, seed: int) -> None:
    link = LossyLink(LinkConfig(latency_s=0.02, loss=loss), seed=seed)
    link.connect()
    for i in range(20):
        link.a.association.send(1, 51, b"%2d" % i + bytes(5000), link.now)
        link.b.association.send(1, 51, b"%2d" % i + bytes(5000), link.now)
    link.a.association.shutdown(link.now)
    with pytest.raises(ClosedError):
        link.a.association.send(1, 51, b"x", link.now)
    if both:
        link.b.association.shutdown(link.now)
    assert link.run_until(lambda: link.a.has(Closed) and link.b.has(Closed), 300)
    assert [data[:2] for data in link.b.data] == [b"%2d" % i for i in range(20)]
    assert [data[:2] for data in link.a.data] == [b"%2d" % i for i in range(20)]
    for side, events in zip((link.a, link.b), closed_events(link), strict=True):
        assert len(events) == 1
        assert side.events[-1] == events[0]
        assert side.association.state is State.CLOSED
        assert side.association.next_timeout() is None
        assert side.association._inbound is None
    if not both and not loss:
        assert [events[0].by_peer for events in closed_events(link)] == [False, True]


def test_data_in_shutdown_sent_is_answered_with_sack_and_shutdown() -> None:
    peer = RawPeer()
    peer.association.shutdown(peer.now)
    assert peer.read_kinds() == [wire.SHUTDOWN]
    peer.send(peer.data(b"late"))
    assert peer.read_kinds() == [wire.SACK, wire.SHUTDOWN]
    assert peer.events[-1].data == b"late"  # type: ignore[union-attr]
    peer.send(wire.chunk(wire.SHUTDOWN_ACK, 0, b""))
    assert peer.read_kinds() == [wire.SHUTDOWN_COMPLETE]


def test_a_shutdown_of_the_peer_acknowledges_data() -> None:
    peer = RawPeer()
    peer.association.send(1, 51, b"x", peer.now)
    (tsn,) = data_tsns(peer.read())
    peer.send(wire.chunk(wire.SHUTDOWN, 0, wire.U32.pack(tsn)))
    assert peer.read_kinds() == [wire.SHUTDOWN_ACK]
    peer.wait(1)
    assert wire.SHUTDOWN_ACK in peer.read_kinds()
    peer.send(wire.chunk(wire.SHUTDOWN_COMPLETE, 0, b""))
    peer.read()
    assert peer.events[-1] == Closed("shut down", by_peer=True)


def test_a_cookie_echo_during_the_end_says_that_it_is_the_end() -> None:
    peer = RawPeer()
    peer.send(wire.chunk(wire.SHUTDOWN, 0, wire.U32.pack((peer.their_tsn - 1) & 0xFFFFFFFF)))
    peer.read()
    peer.send_packet(0, peer.init)
    assert peer.read_kinds() == [wire.SHUTDOWN_ACK]


def test_nobody_answers_the_shutdown() -> None:
    link = LossyLink(config_a=SctpConfig(association_retransmits_max=None))
    link.connect()
    link.run(1)
    link.drop = lambda name, packet, serial: True
    link.a.association.shutdown(link.now)
    assert link.run_until(lambda: link.a.has(Closed), 3600)


def test_abort_tells_the_peer_why() -> None:
    link = LossyLink()
    link.connect()
    link.a.association.send(1, 51, bytes(1_000_000), link.now)
    link.a.association.abort(link.now, "enough")
    link.run(1)
    assert closed_events(link) == [
        [Closed("enough", by_peer=False)],
        [Closed("aborted by the peer: cause 12: enough", by_peer=True)],
    ]
    assert link.a.association.total_buffered_amount == 0


@pytest.mark.parametrize("action", [Association.shutdown, Association.abort])
def test_ending_what_never_began(action: object) -> None:
    link = LossyLink()
    action(link.a.association, link.now)  # type: ignore[operator]
    link.flush(link.a)
    assert [type(event) for event in link.a.events] == [Closed]
    assert link.counts["a"] == 0
    action(link.a.association, link.now)  # type: ignore[operator]
    link.flush(link.a)
    assert len(link.a.events) == 1


@pytest.mark.parametrize("traffic", ["data", "idle"])
def test_a_silent_peer_is_given_up(traffic: str) -> None:
    link = LossyLink(LinkConfig(latency_s=0.02))
    link.connect()
    link.run(3)
    link.drop = lambda name, packet, serial: True
    if traffic == "data":
        link.a.association.send(1, 51, b"x", link.now)
    assert link.run_until(lambda: link.a.has(Closed), 2000)
    assert link.a.events[-1] == Closed("the peer does not answer", by_peer=False)


def test_no_limit_means_no_limit() -> None:
    link = LossyLink(LinkConfig(latency_s=0.02), config_a=SctpConfig(association_retransmits_max=None))
    link.connect()
    link.drop = lambda name, packet, serial: True
    link.a.association.send(1, 51, b"patience", link.now)
    link.run(3000)
    link.drop = None
    assert link.run_until(lambda: link.b.data == [b"patience"], 130)


def test_the_retransmission_timeout_is_capped() -> None:
    """Trap 13: RTO.Max is the caller's."""
    link = LossyLink(LinkConfig(latency_s=0.02), config_a=SctpConfig(rto_max_s=3.0, association_retransmits_max=None))
    link.connect()
    link.drop = lambda name, packet, serial: True
    link.a.association.send(1, 51, b"x", link.now)
    link.run(100)
    link.drop = None
    assert link.run_until(lambda: link.b.data == [b"x"], 3.1)


def test_an_idle_association_is_kept_by_heartbeats() -> None:
    link = LossyLink(LinkConfig(latency_s=0.05), config_a=SctpConfig(heartbeat_interval_s=5.0))
    link.connect()
    link.run(3)
    before = link.counts["a"]
    link.run(100)
    assert 15 <= link.counts["a"] - before <= 50
    assert link.a.association.srtt == pytest.approx(0.1)
    assert link.a.association.is_established


def test_an_rtt_of_800_ms_is_no_reason_to_end() -> None:
    """Trap 12, at the SCTP end."""
    link = LossyLink(LinkConfig(latency_s=0.4))
    link.connect()
    for i in range(600):
        link.a.association.send(1, 51, b"%d" % i, link.now)
        link.run(0.1)
    link.run(3)
    assert len(link.b.data) == 600
    assert link.b.association.stats.duplicates_received <= 5


def test_a_peer_that_never_stops_sending_is_left_in_the_end() -> None:
    """RFC 9260 section 9.2, T5-shutdown-guard: data is answered by SHUTDOWN again and again, but not for ever."""
    link = LossyLink(config_a=SctpConfig(rto_max_s=2.0))
    link.connect()
    link.run(1)
    header = link.b.association._header
    tsn = link.b.association._outbound.outstanding.next_tsn
    link.drop = lambda name, packet, serial: name == "b"  # its SHUTDOWN-ACK never comes, only data
    link.a.association.shutdown(link.now)
    start = link.now
    while not link.a.has(Closed) and link.now - start < 60:
        fields = wire.I_DATA_FIELDS.pack(tsn & 0xFFFFFFFF, 1, 0, tsn & 0xFF, 51)
        flags = wire.FLAG_BEGIN | wire.FLAG_END | wire.FLAG_UNORDERED
        packet = wire.seal(header, [wire.chunk(wire.I_DATA, flags, fields + b"more")])
        link.a.association.receive(packet, link.now)
        link.flush(link.a)
        tsn += 1
        link.run(0.1)
    assert 23.9 <= link.now - start <= 24.3
    [closed] = [event for event in link.a.events if isinstance(event, Closed)]
    assert not closed.by_peer
