"""Setting up (RFC 9260 section 5): collisions, losses, cookies, restarts, and who may speak to whom (section 8)."""

from __future__ import annotations

import attrs
import pytest

from psyne_mesh.errors import ClosedError
from psyne_mesh.webrtc.sctp import Closed, Established, Restarted, SctpConfig, State, wire
from tests.sctp.link import LinkConfig, LossyLink, assert_drained, chunk_types
from tests.sctp.raw import TAG, RawPeer, sacks


def exchange(link: LossyLink) -> None:
    """A message each way, to show that the association works."""
    before_a, before_b = len(link.a.data), len(link.b.data)
    link.a.association.send(1, 51, b"to b", link.now)
    link.b.association.send(1, 51, b"to a", link.now)
    assert link.run_until(lambda: len(link.a.data) > before_a and len(link.b.data) > before_b, 60)
    assert (link.a.data[-1], link.b.data[-1]) == (b"to a", b"to b")


@pytest.mark.parametrize("both", [False, True])
def test_it_takes_two_round_trips_and_established_comes_once(both: bool) -> None:
    link = LossyLink(LinkConfig(latency_s=0.05))
    link.connect(both=both)
    assert link.now - 1000.0 <= 0.2 + 1e-6
    exchange(link)
    link.run(1)
    assert [type(event) for event in link.a.events + link.b.events].count(Established) == 2
    assert_drained(link)


def test_the_first_message_travels_with_the_cookie_echo() -> None:
    link = LossyLink(LinkConfig(latency_s=0.05))
    link.a.association.send(1, 51, b"early", link.now)
    link.connect(both=False)
    assert link.run_until(lambda: link.b.data == [b"early"], 0.0)
    assert link.now - 1000.0 <= 0.2 + 1e-6
    exchange(link)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("lost", [{1}, {2}, {3}, {4}, {1, 2}, {2, 3}, {1, 2, 3, 4}])
def test_every_handshake_packet_may_be_lost(both: bool, side: str, lost: set[int]) -> None:
    """Trap 9."""
    link = LossyLink(LinkConfig(latency_s=0.02))
    link.drop = lambda name, packet, serial: name == side and serial in lost
    link.a.association.send(1, 51, b"early a", link.now)
    link.b.association.send(1, 51, b"early b", link.now)
    link.connect(both=both)
    assert link.run_until(lambda: link.a.data == [b"early b"] and link.b.data == [b"early a"], 20)
    exchange(link)
    link.run(5)
    assert_drained(link)


@pytest.mark.parametrize("seed", range(10))
def test_simultaneous_open_under_heavy_loss(seed: int) -> None:
    link = LossyLink(LinkConfig(latency_s=0.02, jitter_s=0.05, loss=0.3, duplication=0.3), seed=seed)
    link.connect(timeout_s=120)
    exchange(link)


def test_nobody_answers() -> None:
    link = LossyLink(LinkConfig(loss=1.0))
    link.a.association.connect(link.now)
    assert link.run_until(lambda: link.a.has(Closed), 600)
    (closed,) = link.a.events
    assert closed == Closed("the peer does not answer the handshake", by_peer=False)
    assert link.counts["a"] == 9  # RFC 9260 section 16: Max.Init.Retransmits is 8
    assert link.a.association.next_timeout() is None
    with pytest.raises(ClosedError):
        link.a.association.connect(link.now)


def test_connect_twice_is_once() -> None:
    link = LossyLink()
    link.a.association.connect(link.now)
    link.connect(both=False)
    link.a.association.connect(link.now)
    assert link.a.association.is_established


class TestCookie:
    def test_an_init_leaves_no_trace(self) -> None:
        peer = RawPeer.__new__(RawPeer)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RawPeer, "establish", lambda self: None)
            peer.__init__()  # type: ignore[misc]
        association = peer.association
        for tag in range(1, 1000):
            init = bytearray(peer.init)
            init[4:8] = wire.U32.pack(tag)
            peer.send_packet(0, bytes(init))
        answers = peer.read_packets()
        assert 1 <= len(answers) <= 16  # a flood is answered up to a limit
        assert association.state is State.CLOSED
        assert association._inbound is None
        assert association.next_timeout() is None
        peer.establish()

    @pytest.mark.parametrize("position", [0, 20, 40, -1])
    def test_a_changed_cookie_is_refused(self, position: int) -> None:
        peer = RawPeer()
        other = RawPeer(seed=9)
        cookie = bytearray(peer.init_ack.cookie)
        cookie[position] ^= 1
        for forged in (bytes(cookie), other.init_ack.cookie, b"", b"x" * 500):
            peer.send(wire.chunk(wire.COOKIE_ECHO, 0, forged))
            assert peer.read() == []
        assert peer.association.is_established

    def test_a_stale_cookie_is_named_as_such(self) -> None:
        peer = RawPeer()
        peer.now += 61
        peer.send(wire.chunk(wire.COOKIE_ECHO, 0, peer.init_ack.cookie))
        ((kind, _, body),) = peer.read()
        assert kind == wire.ERROR
        assert body[4:6] == bytes((0, wire.CAUSE_STALE_COOKIE))

    def test_an_initiator_begins_anew_on_a_stale_cookie(self) -> None:
        link = LossyLink(LinkConfig(latency_s=0.01), config_a=SctpConfig(cookie_lifetime_s=1.0))
        held: list[bytes] = []

        def hold_cookie_echo(name: str, packet: bytes, serial: int) -> bool:
            if wire.COOKIE_ECHO in chunk_types(packet) and link.now < 1002.0:
                held.append(packet)
                return True
            return False

        link.drop = hold_cookie_echo
        link.connect(both=False, timeout_s=30)
        assert held
        exchange(link)

    def test_its_repetition_is_answered_and_changes_nothing(self) -> None:
        peer = RawPeer()
        peer.send(peer.data(b"one"))
        peer.read()
        peer.send(wire.chunk(wire.COOKIE_ECHO, 0, peer.init_ack.cookie))
        assert peer.read_kinds() == [wire.COOKIE_ACK]
        peer.send(peer.data(b"two", ssn=1))
        peer.wait(1.0)
        assert sacks(peer.read())[0].cumulative_tsn == peer.tsn - 1


class TestInit:
    @pytest.mark.parametrize("field", ["outbound", "inbound"])
    def test_zero_streams_are_refused(self, field: str) -> None:
        peer = RawPeer()
        streams = {"outbound": 5, "inbound": 5, field: 0}
        init = wire.init_chunk(wire.INIT, 77, 1, streams["outbound"], streams["inbound"], 5, [])
        peer.send_packet(0, init)
        (packet,) = peer.read_packets()
        assert chunk_types(packet) == [wire.ABORT]
        assert wire.parse_packet_untrusted(packet).tag == 77

    def test_a_zero_tag_is_dropped(self) -> None:
        """Trap 9."""
        peer = RawPeer()
        peer.send_packet(0, wire.init_chunk(wire.INIT, 0, 1, 5, 5, 5, []))
        assert peer.read() == []
        assert peer.association.stats.discarded == {"init": 1}

    def test_an_init_must_stand_alone_under_tag_zero(self) -> None:
        peer = RawPeer()
        peer.send_packet(0, peer.init, wire.chunk(wire.COOKIE_ACK, 0, b""))
        peer.send(peer.init)
        assert peer.read() == []
        assert peer.association.stats.discarded == {"tag": 2}

    def test_unknown_parameters_are_reported_back(self) -> None:
        """Trap 2 at its SCTP end: an unknown extension is no reason to fail."""
        peer = RawPeer(parameters=(wire.parameter(0xC0FE, b"snap"), wire.parameter(0x80FE, b"quiet")))
        ack = next(iter([peer.init_ack]))
        assert ack.unrecognized == ()  # the report itself is not an unknown parameter
        assert peer.association.is_established

    def test_fewer_streams_are_accepted(self) -> None:
        peer = RawPeer(streams=3)
        peer.association.send(2, 51, b"x", peer.now)
        with pytest.raises(Exception, match="out of range"):
            peer.association.send(3, 51, b"x", peer.now)

    def test_messages_for_streams_that_the_peer_lacks_are_dropped(self) -> None:
        link = LossyLink(config_a=SctpConfig(), config_b=SctpConfig(streams_max=3))
        link.a.association.send(5, 51, b"nowhere", link.now)
        link.a.association.send(2, 51, b"there", link.now)
        link.connect()
        link.run(1)
        assert link.b.data == [b"there"]
        assert_drained(link)

    def test_an_init_ack_without_a_cookie_ends_the_attempt(self) -> None:
        link = LossyLink()
        link.a.association.connect(link.now)
        (init,) = link.a.association.packets_to_send(link.now)
        tag = wire.parse_init_untrusted(init, *wire.parse_packet_untrusted(init).chunks[0][2:]).tag
        ack = wire.init_chunk(wire.INIT_ACK, 5, 1, 5, 5, 5, [])
        header = wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(tag)
        link.a.association.receive(wire.seal(header, [ack]), link.now)
        (abort,) = link.a.association.packets_to_send(link.now)
        assert chunk_types(abort) == [wire.ABORT]
        assert [type(event) for event in link.a.association.take_events()] == [Closed]

    def test_without_extensions_it_works_as_plain_sctp(self) -> None:
        peer = RawPeer(extensions=())
        assert not peer.association.stats.interleaving
        peer.association.reset_streams([1], peer.now)
        peer.read()
        assert [type(e).__name__ for e in peer.events] == ["Established", "StreamsReset"]
        assert peer.events[-1].error  # type: ignore[union-attr]


class TestRestart:
    def test_a_peer_that_lost_its_memory_is_taken_back(self) -> None:
        link = LossyLink()
        link.connect()
        exchange(link)
        link.a.association.send(1, 51, bytes(300_000), link.now)
        link.flush(link.a)
        reborn = LossyLink(seed=99, config_a=link.b.association._config)
        link.b.association = reborn.b.association
        link.b.events.clear()
        link._in_flight.clear()
        link.b.association.connect(link.now)
        assert link.run_until(lambda: link.a.has(Restarted) and link.b.has(Established), 10)
        assert link.a.association.total_buffered_amount == 0
        link.a.events.clear()
        exchange(link)
        link.run(2)
        assert_drained(link)
        assert [type(event) for event in link.a.events].count(Established) == 0

    def test_tie_tags_must_be_those_of_the_standing_association(self) -> None:
        peer = RawPeer()
        old_tag = peer.their_tag
        peer.send_packet(0, wire.init_chunk(wire.INIT, 0x777, 1 << 20, 10, 10, 50, []))
        (packet,) = peer.read_packets()
        parsed = wire.parse_packet_untrusted(packet)
        ack = wire.parse_init_untrusted(packet, *parsed.chunks[0][2:])
        assert parsed.tag == 0x777
        assert ack.tag != old_tag
        peer.send(peer.data(b"the old one still lives"))
        peer.read()
        peer.send_packet(ack.tag, wire.chunk(wire.COOKIE_ECHO, 0, ack.cookie))
        peer.read()
        assert Restarted() in peer.events
        # A second run of the same cookie finds other tags and is a repetition, no second restart
        peer.send_packet(ack.tag, wire.chunk(wire.COOKIE_ECHO, 0, ack.cookie))
        assert peer.read_kinds() == [wire.COOKIE_ACK]
        assert peer.events.count(Restarted()) == 1
        # And a cookie of the association before that one is refused
        peer.send(wire.chunk(wire.COOKIE_ECHO, 0, peer.init_ack.cookie))
        assert peer.read() == []


class TestTags:
    """RFC 9260 section 8.5."""

    def test_a_wrong_tag_is_dropped(self) -> None:
        peer = RawPeer()
        peer.send_packet(peer.their_tag ^ 1, peer.data())
        peer.send_packet(0, peer.data())
        assert peer.read() == []
        assert peer.association.stats.discarded == {"tag": 2}

    @pytest.mark.parametrize("kind", [wire.ABORT, wire.SHUTDOWN_COMPLETE])
    def test_the_t_bit_says_whose_tag_it_is(self, kind: int) -> None:
        peer = RawPeer()
        peer.send_packet(TAG, wire.chunk(kind, 0, b""))
        peer.send_packet(peer.their_tag, wire.chunk(kind, wire.FLAG_T, b""))
        assert peer.association.is_established
        peer.send_packet(TAG, wire.chunk(kind, wire.FLAG_T, b""))
        assert peer.association.is_established == (
            kind == wire.SHUTDOWN_COMPLETE
        )  # which means nothing before its time

    def test_wrong_ports_are_dropped(self) -> None:
        peer = RawPeer()
        header = wire.PARAM_HEADER.pack(5000, 5001) + wire.U32.pack(peer.their_tag)
        peer.association.receive(wire.seal(header, [wire.chunk(wire.ABORT, 0, b"")]), peer.now)
        assert peer.association.is_established
        assert peer.association.stats.discarded == {"ports": 1}


class TestOutOfTheBlue:
    """RFC 9260 section 8.4."""

    @pytest.mark.parametrize(
        ("kind", "answer"),
        [
            (wire.SACK, wire.ABORT),
            (wire.HEARTBEAT, wire.ABORT),
            (wire.SHUTDOWN_ACK, wire.SHUTDOWN_COMPLETE),
            (wire.ABORT, None),
            (wire.COOKIE_ACK, None),
            (wire.ERROR, None),
            (wire.SHUTDOWN_COMPLETE, None),
            (wire.COOKIE_ECHO, None),
        ],
    )
    def test_answers(self, kind: int, answer: int | None) -> None:
        link = LossyLink()
        header = wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(42)
        link.a.association.receive(wire.seal(header, [wire.chunk(kind, 0, bytes(12))]), link.now)
        packets = link.a.association.packets_to_send(link.now)
        if answer is None:
            assert packets == []
            return
        (packet,) = packets
        parsed = wire.parse_packet_untrusted(packet)
        assert parsed.tag == 42
        assert parsed.chunks[0][:2] == (answer, wire.FLAG_T)

    def test_after_the_end_an_init_is_refused(self) -> None:
        peer = RawPeer()
        peer.association.abort(peer.now)
        peer.read()
        peer.send_packet(0, peer.init)
        assert peer.read_kinds() == [wire.ABORT]


def test_ports_come_from_the_configuration() -> None:
    config = SctpConfig(local_port=6000, remote_port=7000)
    link = LossyLink(config_a=config, config_b=attrs.evolve(config, local_port=7000, remote_port=6000))
    link.connect()
    exchange(link)


def test_an_init_full_of_unknown_parameters_gets_a_short_answer() -> None:
    peer = RawPeer()
    unknown = [wire.parameter(0xC100 + i, bytes(60)) for i in range(7)] + [wire.parameter(0xC200, bytes(2000))]
    for parameters, echoed in ((unknown, 7), (unknown[::-1], 0)):
        peer.send_packet(0, wire.init_chunk(wire.INIT, 7, 1 << 20, 100, 100, 1, parameters))
        ((kind, _, body),) = peer.read()
        assert kind == wire.INIT_ACK
        assert body.count(wire.U16.pack(wire.PARAM_UNRECOGNIZED) + wire.U16.pack(68)) == echoed
        assert len(body) < 1191
