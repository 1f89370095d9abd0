"""Stream reset (RFC 6525)."""

from __future__ import annotations

import pytest

from psyne_mesh.errors import ClosedError
from psyne_mesh.webrtc.sctp import SctpConfig, StreamsReset, StreamsResetByPeer, wire
from psyne_mesh.webrtc.sctp.reset import REPEATED_WITHIN_S
from tests.sctp.link import LinkConfig, LossyLink, assert_drained
from tests.sctp.raw import INITIAL_TSN, RawPeer

PERFORMED, DENIED, IN_PROGRESS, BAD_NUMBER = 1, 2, 6, 5


def outgoing(number: int, last_tsn: int, *streams: int) -> bytes:
    value = wire.U32.pack(number) + bytes(4) + wire.U32.pack(last_tsn) + b"".join(map(wire.U16.pack, streams))
    return wire.chunk(wire.RE_CONFIG, 0, wire.parameter(wire.PARAM_OUTGOING_RESET, value))


def response(number: int, result: int) -> bytes:
    value = wire.U32.pack(number) + wire.U32.pack(result)
    return wire.chunk(wire.RE_CONFIG, 0, wire.parameter(wire.PARAM_RECONFIG_RESPONSE, value))


def responses(chunks: list[tuple[int, int, bytes]]) -> list[tuple[int, int]]:
    found = []
    for kind, _, body in chunks:
        if kind == wire.RE_CONFIG:
            for parameter, value in wire.parse_parameters_untrusted(body, 4, len(body)):
                if parameter == wire.PARAM_RECONFIG_RESPONSE:
                    found.append((wire.U32.unpack_from(value)[0], wire.U32.unpack_from(value, 4)[0]))
    return found


def requests(chunks: list[tuple[int, int, bytes]]) -> list[tuple[int, int, list[int]]]:
    """(number, last TSN, streams) of each outgoing reset request."""
    found = []
    for kind, _, body in chunks:
        if kind == wire.RE_CONFIG:
            for parameter, value in wire.parse_parameters_untrusted(body, 4, len(body)):
                if parameter == wire.PARAM_OUTGOING_RESET:
                    streams = [stream for (stream,) in wire.U16.iter_unpack(value[12:])]
                    found.append((wire.U32.unpack_from(value)[0], wire.U32.unpack_from(value, 8)[0], streams))
    return found


def test_both_sides_close_within_a_round_trip_each() -> None:
    """Trap 4, as far as it is SCTP's: our reset, the peer's own, and both ends know."""
    link = LossyLink(LinkConfig(latency_s=0.05))
    link.connect()
    link.run(1)

    def answer(side: object, event: object) -> None:
        if side is link.b and isinstance(event, StreamsResetByPeer):
            link.b.association.reset_streams(event.stream_ids, link.now)

    link.on_event = answer
    start = link.now
    link.a.association.reset_streams([4], link.now)
    link.flush(link.a)
    assert link.run_until(lambda: StreamsResetByPeer((4,)) in link.a.events and StreamsReset((4,)) in link.b.events, 5)
    assert StreamsReset((4,)) in link.a.events
    assert link.now - start <= 0.2 + 1e-6


@pytest.mark.parametrize("interleaving", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_a_reused_stream_never_shows_old_data(interleaving: bool, seed: int) -> None:
    """Traps 5 and 6: close with unsent and unacknowledged data under loss, then use the id again, many times."""
    link = LossyLink(
        LinkConfig(latency_s=0.02, jitter_s=0.02, loss=0.2, duplication=0.1),
        seed=seed,
        config_a=SctpConfig(interleaving=interleaving),
    )
    link.connect()
    log: list[object] = []
    link.on_event = lambda side, event: log.append(getattr(event, "data", event)) if side is link.b else None
    want: list[object] = []
    for generation in range(6):
        for i in range(20):
            data = b"%d.%d" % (generation, i) + bytes(i * 300)
            want.append(data)
            link.a.association.send(1, 51, data, link.now)
        want.append(StreamsResetByPeer((1,)))
        link.a.association.reset_streams([1], link.now)
        with pytest.raises(ClosedError):
            link.a.association.send(1, 51, b"too late", link.now)
        assert link.run_until(lambda: StreamsReset((1,)) in link.a.events, 120)
        link.a.events.remove(StreamsReset((1,)))
    assert log[-len(want) :] == want
    link.run(10)
    assert_drained(link)


def test_other_streams_go_on_meanwhile() -> None:
    link = LossyLink(LinkConfig(latency_s=0.05))
    link.connect()
    link.a.association.send(1, 51, bytes(1_000_000), link.now)
    link.a.association.reset_streams([1, 2], link.now)
    link.a.association.send(3, 51, b"lively", link.now)
    assert link.run_until(lambda: b"lively" in link.b.data, 1)
    assert link.run_until(lambda: StreamsReset((1,)) in link.a.events, 10)
    assert StreamsReset((2,)) in link.a.events  # it had nothing to wait for
    assert len(link.b.data) == 2


def test_a_request_waits_for_queued_data_and_then_names_its_last_tsn() -> None:
    peer = RawPeer(a_rwnd=1000)
    peer.association.send(1, 51, bytes(900), peer.now)
    peer.association.send(1, 51, bytes(900), peer.now)
    peer.association.reset_streams([1, 1], peer.now)
    assert requests(peer.read()) == []
    peer.send(peer.sack(peer.their_tsn))
    chunks = peer.read()
    assert requests(chunks) == [(peer.their_tsn, peer.their_tsn + 1, [1])]
    peer.send(response(peer.their_tsn, PERFORMED))
    peer.read()
    assert StreamsReset((1,)) in peer.events


def test_an_unanswered_request_is_repeated_as_it_is() -> None:
    peer = RawPeer()
    peer.association.reset_streams([7], peer.now)
    first = requests(peer.read())
    peer.wait(2)
    assert requests(peer.read()) == first * 2  # after 0.5 s and, backed off, 1 s more
    peer.send(response(first[0][0], PERFORMED), response(first[0][0], PERFORMED))
    peer.read()
    assert peer.events.count(StreamsReset((7,))) == 1
    assert not peer.association._resets.is_waiting


def test_in_progress_means_ask_again_with_the_next_number() -> None:
    """dcSCTP answers a number that comes again as it did before, and looks again at the next one only."""
    peer = RawPeer()
    peer.association.send(7, 51, b"data", peer.now)
    peer.read()
    peer.association.reset_streams([7], peer.now)
    ((number, last_tsn, streams),) = requests(peer.read())
    peer.send(response(number, IN_PROGRESS))
    peer.send(peer.sack(peer.their_tsn))
    assert requests(peer.read()) == []  # it may still say by itself that it is done
    peer.wait(0.6)
    assert set(map(repr, requests(peer.read()))) == {repr((number + 1, last_tsn, streams))}
    peer.send(
        response(number, PERFORMED)
    )  # an answer that was under way: the peer has yet to deal with the second request
    peer.read()
    assert peer.association._resets.is_waiting
    peer.send(response(number + 1, PERFORMED))
    peer.read()
    assert peer.events[-1] == StreamsReset((7,))
    peer.association.reset_streams([8], peer.now)
    assert requests(peer.read())[0][0] == number + 2


def test_done_after_in_progress_needs_no_other_request() -> None:
    """usrsctp and we say so unasked, once the last data has come."""
    peer = RawPeer()
    peer.association.send(7, 51, b"data", peer.now)
    peer.read()
    peer.association.reset_streams([7], peer.now)
    ((number, _, _),) = requests(peer.read())
    peer.send(response(number, IN_PROGRESS))
    peer.read()
    peer.send(peer.sack(peer.their_tsn), response(number, PERFORMED))
    peer.read()
    assert peer.events[-1] == StreamsReset((7,))
    peer.wait(5)
    assert requests(peer.read()) == []


def test_a_peer_that_is_busy_for_a_minute_is_not_dead() -> None:
    """RFC 6525 section 5.2.7: an answer "in progress" is no error."""
    peer = RawPeer(SctpConfig(path_mtu_discovery=False, heartbeat_interval_s=3600, association_retransmits_max=10))
    peer.association.reset_streams([7], peer.now)
    numbers = []
    for _ in range(60):
        numbers += [number for number, _, _ in requests(peer.read())]
        peer.send(response(numbers[-1], IN_PROGRESS))
        peer.wait(1)
    assert peer.association.is_established
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_the_next_life_of_a_stream_is_not_skipped_for_what_the_last_one_gave_up() -> None:
    link = LossyLink()
    link.connect()
    link.run(1)
    ours, theirs = link.a.association, link.b.association
    losing: set[str] = set()

    def is_lost(side: str, packet: bytes, serial: int) -> bool:
        kinds = [chunk[0] for chunk in wire.parse_packet_untrusted(packet).chunks]
        return (side == "a" and "data" in losing and wire.I_DATA in kinds) or (
            side == "b" and "sacks" in losing and wire.SACK in kinds and wire.RE_CONFIG not in kinds
        )

    link.drop = is_lost
    for _ in range(15):
        ours.send(5, 51, b"old", link.now, max_retransmits=0)
    link.run(0.5)
    losing.add("data")
    ours.send(5, 51, b"given up", link.now, max_retransmits=0)
    link.run(0.001)
    losing.symmetric_difference_update({"data", "sacks"})
    table = ours._outbound.outstanding
    assert link.run_until(lambda: table.advanced_tsn > table.cumulative_tsn, 5)
    link.run(0.03)
    assert theirs._inbound.cumulative_tsn & 0xFFFFFFFF == table.advanced_tsn & 0xFFFFFFFF
    ours.reset_streams([5], link.now)
    assert link.run_until(lambda: link.a.has(StreamsReset), 1)
    assert table.cumulative_tsn < table.advanced_tsn  # it does not know yet that the peer has skipped
    losing.add("data")
    ours.send(9, 51, b"given up as well", link.now, max_retransmits=0)  # so that another FORWARD-TSN leaves
    link.run(0.001)
    losing.remove("data")
    for i in range(20):
        ours.send(5, 51, b"new %d" % i, link.now)
    link.run(3)
    losing.clear()
    link.run(20)
    assert [data for data in link.b.data if data.startswith(b"new")] == [b"new %d" % i for i in range(20)]


def test_one_request_at_a_time() -> None:
    peer = RawPeer()
    peer.association.reset_streams([1], peer.now)
    ((number, _, _),) = requests(peer.read())
    peer.association.reset_streams([2], peer.now)
    peer.association.reset_streams([3], peer.now)
    assert requests(peer.read()) == []
    peer.send(response(number, PERFORMED))
    assert [(n, streams) for n, _, streams in requests(peer.read())] == [(number + 1, [2, 3])]


@pytest.mark.parametrize(("result", "text"), [(DENIED, "denied"), (BAD_NUMBER, "bad sequence number"), (77, "77")])
def test_a_refusal_ends_the_request(result: int, text: str) -> None:
    peer = RawPeer()
    peer.association.reset_streams([1], peer.now)
    ((number, _, _),) = requests(peer.read())
    peer.send(response(number, result))
    peer.read()
    event = peer.events[-1]
    assert isinstance(event, StreamsReset)
    assert text in event.error
    peer.association.send(1, 51, b"still open", peer.now)


def test_thousands_of_streams_take_several_requests() -> None:
    link = LossyLink(LinkConfig(latency_s=0.01, mtu=1191))
    link.connect()
    link.a.association.reset_streams(range(2000), link.now)
    assert link.run_until(
        lambda: sum(len(event.stream_ids) for event in link.a.events if isinstance(event, StreamsReset)) == 2000, 10
    )


class TestPeerResets:
    def test_at_once_when_all_data_is_here(self) -> None:
        peer = RawPeer()
        peer.send(peer.data(b"one"), outgoing(INITIAL_TSN, INITIAL_TSN, 1))
        chunks = peer.read()
        assert responses(chunks) == [(INITIAL_TSN, PERFORMED)]
        assert peer.events[-1] == StreamsResetByPeer((1,))
        peer.send(peer.data(b"new generation", ssn=0))
        peer.read()
        assert peer.events[-1].data == b"new generation"  # type: ignore[union-attr]

    def test_deferred_until_the_last_chunk_has_come(self) -> None:
        peer = RawPeer()
        one, two, three = peer.data(b"one", ssn=0), peer.data(b"two", ssn=1), peer.data(b"three", ssn=0)
        peer.send(one, outgoing(INITIAL_TSN, INITIAL_TSN + 1, 1))
        assert responses(peer.read()) == [(INITIAL_TSN, IN_PROGRESS)]
        peer.send(outgoing(INITIAL_TSN, INITIAL_TSN + 1, 1))
        assert responses(peer.read()) == [(INITIAL_TSN, IN_PROGRESS)]
        peer.send(three)  # of the next generation: held back
        peer.read()
        assert [getattr(event, "data", None) for event in peer.events][1:] == [b"one"]
        peer.send(two)
        assert responses(peer.read()) == [(INITIAL_TSN, PERFORMED)]  # told without being asked again
        assert [getattr(event, "data", event) for event in peer.events][1:] == [
            b"one",
            b"two",
            StreamsResetByPeer((1,)),
            b"three",
        ]
        assert peer.association._inbound.reassembly.is_empty

    def test_asked_again_under_the_next_number_it_is_made_once(self) -> None:
        """dcSCTP does not know yet that it is done, and the stream may belong to a new channel by now."""
        peer = RawPeer()
        one, two = peer.data(b"one", ssn=0), peer.data(b"two", ssn=1)
        peer.send(one, outgoing(INITIAL_TSN, INITIAL_TSN + 1, 1))
        peer.read()
        peer.send(two)
        assert responses(peer.read()) == [(INITIAL_TSN, PERFORMED)]
        for _ in range(2):
            peer.send(outgoing(INITIAL_TSN + 1, INITIAL_TSN + 1, 1))
            assert responses(peer.read()) == [(INITIAL_TSN + 1, PERFORMED)]
        assert peer.events.count(StreamsResetByPeer((1,))) == 1
        peer.send(peer.data(b"three", ssn=0), outgoing(INITIAL_TSN + 2, INITIAL_TSN + 2, 1))
        assert responses(peer.read()) == [(INITIAL_TSN + 2, PERFORMED)]
        assert peer.events.count(StreamsResetByPeer((1,))) == 2

    def test_a_later_reset_of_a_stream_that_carried_nothing_is_another(self) -> None:
        """A negotiated channel that was opened anew and closed without a word."""
        peer = RawPeer()
        one, two = peer.data(b"one", ssn=0), peer.data(b"two", ssn=1)
        peer.send(one, outgoing(INITIAL_TSN, INITIAL_TSN + 1, 1))
        peer.read()
        peer.send(two)
        peer.read()
        peer.wait(REPEATED_WITHIN_S + 1)
        peer.send(outgoing(INITIAL_TSN + 1, INITIAL_TSN + 1, 1))
        assert responses(peer.read()) == [(INITIAL_TSN + 1, PERFORMED)]
        assert peer.events.count(StreamsResetByPeer((1,))) == 2

    def test_asked_again_while_it_is_deferred_it_is_made_once(self) -> None:
        peer = RawPeer()
        one, two = peer.data(b"one", ssn=0), peer.data(b"two", ssn=1)
        peer.send(one, outgoing(INITIAL_TSN, INITIAL_TSN + 1, 1))
        peer.send(outgoing(INITIAL_TSN + 1, INITIAL_TSN + 1, 1))
        assert responses(peer.read()) == [(INITIAL_TSN, IN_PROGRESS), (INITIAL_TSN + 1, IN_PROGRESS)]
        peer.send(two)
        assert responses(peer.read()) == [(INITIAL_TSN + 1, PERFORMED)]
        assert peer.events.count(StreamsResetByPeer((1,))) == 1

    def test_an_old_request_does_not_hit_the_new_generation(self) -> None:
        """Trap 5."""
        peer = RawPeer()
        request = outgoing(INITIAL_TSN, INITIAL_TSN - 1, 1)
        peer.send(request)
        peer.read()
        peer.send(peer.data(b"new", ssn=0))
        peer.read()
        peer.send(request)
        assert responses(peer.read()) == [(INITIAL_TSN, PERFORMED)]
        assert peer.events.count(StreamsResetByPeer((1,))) == 1
        peer.send(peer.data(b"newer", ssn=1))
        peer.read()
        assert peer.events[-1].data == b"newer"  # type: ignore[union-attr]

    def test_a_wrong_number_is_refused(self) -> None:
        peer = RawPeer()
        peer.send(outgoing(INITIAL_TSN + 1, INITIAL_TSN - 1, 1))
        assert responses(peer.read()) == [(INITIAL_TSN + 1, BAD_NUMBER)]
        assert len(peer.events) == 1

    def test_no_stream_listed_means_all(self) -> None:
        peer = RawPeer()
        peer.send(peer.data(stream=4), peer.data(stream=9), outgoing(INITIAL_TSN, INITIAL_TSN + 1))
        peer.read()
        assert StreamsResetByPeer((4, 9)) in peer.events

    def test_it_may_ask_us_to_reset_our_side(self) -> None:
        peer = RawPeer()
        peer.association.send(5, 51, b"x", peer.now)
        peer.read()
        value = wire.U32.pack(INITIAL_TSN) + wire.U16.pack(5) + wire.U16.pack(6)
        peer.send(wire.chunk(wire.RE_CONFIG, 0, wire.parameter(wire.PARAM_INCOMING_RESET, value)))
        chunks = peer.read()
        assert responses(chunks) == [(INITIAL_TSN, PERFORMED)]
        ((number, _, streams),) = requests(chunks)
        assert streams == [5]  # nothing was ever sent on 6
        peer.send(response(number, PERFORMED))
        peer.read()
        assert peer.events[-1] == StreamsReset((5,))

    @pytest.mark.parametrize("kind", [wire.PARAM_TSN_RESET, wire.PARAM_ADD_OUTGOING, wire.PARAM_ADD_INCOMING])
    def test_what_we_do_not_do_is_denied(self, kind: int) -> None:
        peer = RawPeer()
        peer.send(wire.chunk(wire.RE_CONFIG, 0, wire.parameter(kind, wire.U32.pack(INITIAL_TSN) + bytes(4))))
        assert responses(peer.read()) == [(INITIAL_TSN, DENIED)]

    @pytest.mark.parametrize("kind", [13, 14, 15, 16, 17])
    def test_short_parameters_are_dropped(self, kind: int) -> None:
        peer = RawPeer()
        peer.send(wire.chunk(wire.RE_CONFIG, 0, wire.parameter(kind, b"\0\0")))
        assert peer.read() == []
        assert peer.association.stats.discarded == {"malformed": 1}
