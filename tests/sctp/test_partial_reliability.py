"""PR-SCTP (RFC 3758, RFC 7496): messages that are given up after retransmissions or time."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.webrtc.sctp import SctpConfig, wire
from tests.sctp.link import LinkConfig, LossyLink, assert_drained
from tests.sctp.raw import RawPeer, data_tsns, sacks

KINDS = pytest.mark.parametrize("interleaving", [False, True])


def lossy(seed: int, interleaving: bool, **link: float) -> LossyLink:
    made = LossyLink(LinkConfig(**link), seed=seed, config_a=SctpConfig(interleaving=interleaving))  # type: ignore[arg-type]
    made.connect()
    return made


@KINDS
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [100, 5000])
@pytest.mark.parametrize("unordered", [False, True])
def test_without_retransmission_some_are_lost_and_no_more(
    interleaving: bool, size: int, unordered: bool, seed: int
) -> None:
    link = lossy(seed, interleaving, latency_s=0.02, loss=0.1, jitter_s=0.002)
    sent = []
    for i in range(300):
        data = b"%08d" % i + bytes(size)
        sent.append(data)
        link.a.association.send(3, 51, data, link.now, unordered=unordered, max_retransmits=0)
        link.run(0.005)
    link.a.association.send(3, 51, b"last", link.now)  # reliable
    assert link.run_until(lambda: b"last" in link.b.data, 20)
    link.run(5)
    got = link.b.data
    assert set(got) <= {*sent, b"last"}
    assert len(got) == len(set(got))
    if not unordered:
        assert got == sorted(got)
        assert got[-1] == b"last"
    stats = link.a.association.stats
    assert 301 - len(got) <= stats.messages_abandoned_sent
    assert len(got) > 120
    assert_drained(link)


@KINDS
def test_few_messages_that_have_arrived_count_as_given_up(interleaving: bool) -> None:
    """Some do: their acknowledgement was lost, with one packet in ten. Over many seeds it is one in a hundred."""
    excess = []
    for seed in range(20):
        link = lossy(seed, interleaving, latency_s=0.02, loss=0.1, jitter_s=0.002)
        for i in range(300):
            link.a.association.send(3, 51, b"%08d" % i + bytes(5000), link.now, max_retransmits=0)
            link.run(0.005)
        link.run(5)
        excess.append(link.a.association.stats.messages_abandoned_sent - (300 - len(link.b.data)))
    assert min(excess) >= 0
    assert sum(excess) / len(excess) <= 4


@KINDS
def test_unordered_messages_never_wait_for_a_lost_one(interleaving: bool) -> None:
    link = lossy(1, interleaving, latency_s=0.05, loss=0.2)
    sent_at: dict[bytes, float] = {}
    arrived: dict[bytes, float] = {}
    link.on_event = lambda side, event: arrived.setdefault(getattr(event, "data", b""), link.now)
    for i in range(400):
        data = b"%d" % i
        sent_at[data] = link.now
        link.a.association.send(1, 51, data, link.now, unordered=True, max_retransmits=0)
        link.run(1 / 60)
    for data in link.b.data:
        assert arrived[data] - sent_at[data] == pytest.approx(0.05)


@KINDS
@pytest.mark.parametrize("perishable", [False, True])
def test_what_waited_through_a_break_is_not_handed_up_after_it(interleaving: bool, perishable: bool) -> None:
    """One message is lost, the next arrives, and then nothing more does for 20 s."""
    link = lossy(1, interleaving, latency_s=0.02)
    link.a.association.send(3, 51, b"first", link.now)
    link.run(1)
    if perishable:
        link.b.association.set_perishable(3)
    for data, is_lost in ((b"lost", True), (b"held", False)):
        link.drop = lambda name, packet, serial, is_lost=is_lost: name == "b" or is_lost
        link.a.association.send(3, 51, data, link.now, max_retransmits=0)
        link.run(0.05)
    link.drop = lambda name, packet, serial: True
    link.run(20)
    link.drop = None
    link.a.association.path_changed(link.now)
    link.a.association.send(3, 51, b"fresh", link.now, max_retransmits=0)
    link.run(5)
    assert link.b.data == [b"first", *[b"held"] * (not perishable), b"fresh"]
    assert_drained(link)


@KINDS
def test_ordered_messages_wait_little_more_than_a_round_trip_for_a_lost_one(interleaving: bool) -> None:
    link = lossy(1, interleaving, latency_s=0.05, loss=0.0)
    arrived: dict[bytes, float] = {}
    link.on_event = lambda side, event: arrived.setdefault(getattr(event, "data", b""), link.now)
    link.run(1)
    for i in range(60):
        link.a.association.send(1, 51, b"%d" % i, link.now, max_retransmits=0)
        link.drop = (lambda name, packet, serial: name == "a") if i == 20 else None
        sent = link.now
        link.run(1 / 60)
        if i == 21:
            waited_from = sent
    assert b"20" not in arrived
    # a SACK with the gap, at most a frame and a quarter RTT of patience, and the FORWARD-TSN back
    assert arrived[b"21"] - waited_from <= 0.1 + 0.05 + 0.025 + 1 / 60 + 0.001


@KINDS
@pytest.mark.parametrize("limit", [1, 3])
def test_the_count_of_retransmissions_is_kept(interleaving: bool, limit: int) -> None:
    link = lossy(1, interleaving, latency_s=0.01)
    link.run(1)
    sent = 0

    def drop_data(name: str, packet: bytes, serial: int) -> bool:
        nonlocal sent
        if name != "a" or b"precious" not in packet:
            return False
        sent += 1
        return True

    link.drop = drop_data
    link.a.association.send(1, 51, b"precious", link.now, max_retransmits=limit)
    link.run(30)
    assert sent == 1 + limit
    assert link.a.association.stats.messages_abandoned_sent == 1
    link.drop = None
    link.a.association.send(1, 51, b"next", link.now)
    link.run(1)
    assert link.b.data == [b"next"]
    assert_drained(link)


@KINDS
def test_a_lifetime_ends_messages_that_wait_and_messages_on_their_way(interleaving: bool) -> None:
    link = lossy(1, interleaving, latency_s=0.01)
    link.run(1)
    link.drop = lambda name, packet, serial: name == "a"
    for i in range(400):
        link.a.association.send(1, 51, b"%d" % i + bytes(1000), link.now, life_time=0.1)
    link.run(3)
    link.drop = None
    link.a.association.send(1, 51, b"reliable", link.now)
    assert link.run_until(lambda: link.b.data == [b"reliable"], 10)
    stats = link.a.association.stats
    assert stats.messages_abandoned_sent + stats.messages_abandoned_unsent == 400
    assert stats.messages_abandoned_unsent > 0
    assert stats.messages_abandoned_sent > 0
    unsent_and_sent = (stats.messages_abandoned_unsent, stats.messages_abandoned_sent)
    assert link.a.association.abandoned_messages(1) == unsent_and_sent
    assert link.a.association.abandoned_messages(2) == (0, 0)
    assert link.a.association.buffered_amount(1) == 0
    link.run(2)
    assert_drained(link)


def test_a_lifetime_of_zero_still_gets_its_one_chance() -> None:
    link = lossy(1, True)
    link.a.association.send(1, 51, b"now or never", link.now, life_time=0.0)
    link.flush(link.a)
    link.run(1)
    assert link.b.data == [b"now or never"]


@KINDS
def test_a_half_sent_message_is_given_up_whole(interleaving: bool) -> None:
    """Trap 8: FORWARD-TSN must not end inside a message whose rest was never sent."""
    link = lossy(1, interleaving, latency_s=0.01, mtu=1300)
    link.run(5)
    big = bytes(200_000)
    lost = 0

    def drop_third(name: str, packet: bytes, serial: int) -> bool:
        nonlocal lost
        lost += name == "a" and len(packet) > 1100
        return lost == 3

    link.drop = drop_third
    link.a.association.send(1, 51, big, link.now, max_retransmits=0)
    link.a.association.send(1, 51, b"after", link.now)
    assert link.run_until(lambda: b"after" in link.b.data, 10)
    assert link.b.data == [b"after"]
    assert link.a.association.stats.user_bytes_sent < 200_000  # the tail was never sent
    assert link.b.association._inbound.reassembly.violations == 0
    link.run(2)
    assert_drained(link)


@KINDS
def test_memory_stays_flat_under_steady_loss(interleaving: bool) -> None:
    link = lossy(3, interleaving, latency_s=0.05, loss=0.15, jitter_s=0.02)
    rng = random.Random(1)
    most = 0
    for _ in range(3000):
        link.a.association.send(1, 51, rng.randbytes(200), link.now, unordered=rng.random() < 0.5, max_retransmits=0)
        link.run(0.002)
        table = link.a.association._outbound.outstanding
        most = max(most, len(table.chunks), len(table.lost), len(link.a.association._outbound.rack._order))
    assert most < 1500
    link.run(5)
    assert_drained(link)
    assert not link.a.association._outbound.rack._order


def test_a_peer_without_partial_reliability_gets_everything() -> None:
    link = LossyLink(
        LinkConfig(latency_s=0.01, loss=0.2),
        config_a=SctpConfig(),
        config_b=SctpConfig(partial_reliability=False),
        seed=4,
    )
    link.connect()
    for i in range(100):
        link.a.association.send(1, 51, b"%d" % i + bytes(3000), link.now, max_retransmits=0)
    assert link.run_until(lambda: len(link.b.data) == 100, 120)
    link.run(5)
    assert_drained(link)


class TestForwardTsnOnTheWire:
    def test_it_names_only_ordered_streams_and_is_repeated_until_answered(self) -> None:
        peer = RawPeer()
        for i in range(6):
            peer.association.send(i % 3, 51, b"%d" % i + bytes(1000), peer.now, unordered=i % 3 == 2, max_retransmits=0)
        first, *_ = data_tsns(peer.read())
        peer.now += 0.1
        peer.send(peer.sack(first - 1, (6, 6)))
        peer.now += 0.1
        peer.association.handle_timeout(peer.now)
        chunks = peer.read()
        ((_, _, body),) = [chunk for chunk in chunks if chunk[0] == wire.FORWARD_TSN]
        tsn, skipped = wire.parse_forward_tsn_untrusted(body, 0, len(body))
        assert tsn == first + 4
        assert sorted(skipped) == [(0, False, 1), (1, False, 1)]
        peer.wait(5)
        assert wire.FORWARD_TSN in peer.read_kinds()
        peer.send(peer.sack(first + 5))
        peer.now += 20
        assert wire.FORWARD_TSN not in peer.read_kinds()

    def test_receiving_one_is_answered_at_once(self) -> None:
        peer = RawPeer()
        peer.send(peer.data(b"later", tsn=peer.tsn + 2, ssn=1))
        peer.read()
        peer.send(wire.forward_tsn_chunk(peer.tsn + 1, [(1, False, 0)], interleaving=False))
        ((_, _, body),) = peer.read()
        assert wire.parse_sack_untrusted(body, 0, len(body)).cumulative_tsn == peer.tsn + 2
        assert [getattr(event, "data", None) for event in peer.events][1:] == [b"later"]
        # and so is a repetition of it: our SACK may have been lost
        peer.send(wire.forward_tsn_chunk(peer.tsn + 1, [(1, False, 0)], interleaving=False))
        assert peer.read_kinds() == [wire.SACK]


@pytest.mark.parametrize("unordered", [False, True])
def test_the_end_before_the_begin_and_the_middle_lost(unordered: bool) -> None:
    """Trap 7: fragments come as end, then begin; the middle never does, and is then forwarded over. Nothing hangs, and
    the window is whole again."""
    peer = RawPeer()
    flag = wire.FLAG_UNORDERED if unordered else 0
    first = peer.tsn
    peer.send(peer.data(b"e" * 1000, tsn=first + 2, flags=flag | wire.FLAG_END))
    peer.send(peer.data(b"b" * 1000, tsn=first, flags=flag | wire.FLAG_BEGIN))
    before = sacks(peer.read())[-1]
    assert (before.cumulative_tsn, before.gaps) == (first, [(2, 2)])
    assert before.a_rwnd == 4 * 2**20 - 2000
    skipped = [] if unordered else [(1, False, 0)]
    peer.send(wire.forward_tsn_chunk(first + 1, skipped, interleaving=False))
    after = sacks(peer.read())[-1]
    assert (after.cumulative_tsn, after.gaps) == (first + 2, [])
    assert after.a_rwnd == 4 * 2**20
    peer.send(peer.data(b"next", tsn=first + 3, ssn=1, flags=flag | wire.FLAG_BEGIN | wire.FLAG_END))
    peer.read()
    assert peer.events[-1].data == b"next"  # type: ignore[union-attr]


def test_a_lost_end_of_what_is_not_repeated_costs_a_part_of_the_window() -> None:
    """T3-rtx finds it, as no probe may be sent; a window of one packet would hold up the next messages (RFC 9002 section
    7.6). When nobody answers for longer, or something is left to repeat, it falls as RFC 9260 section 7.2.3 says."""
    link = lossy(1, False, latency_s=0.1)
    association = link.a.association
    for _ in range(20):
        association.send(3, 51, bytes(40), link.now, unordered=True, max_retransmits=0)
        link.run(0.02)
    link.run(2)
    link.links["a"].loss = 1.0
    association.send(3, 51, bytes(40), link.now, unordered=True, max_retransmits=0)
    assert link.run_until(lambda: association.stats.timeouts == 1, 5)
    assert association.stats.cwnd_bytes >= 4 * SctpConfig().packet_bytes_base
    assert link.run_until(lambda: association.stats.timeouts == 2, 5)
    assert association.stats.cwnd_bytes == SctpConfig().packet_bytes_base
