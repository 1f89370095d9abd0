"""Plumtree on three or four hand-driven neighbours: how messages travel, are repaired and kept."""

from __future__ import annotations

import pytest

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip import codec
from psyne_mesh.gossip.broadcast_wire import FLAT, REPAIR, Have, Head
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import Withholding
from psyne_mesh.gossip.records import RoomKey
from tests.gossip.cluster import CheapIdentity, cheap_verify
from tests.gossip.neighbours import (
    CONFIG,
    ORIGIN,
    ROOM,
    A,
    B,
    C,
    delivered,
    link_up,
    message,
    receive,
    sent,
    tree,
)


def test_a_message_goes_on_to_eager_links_and_is_announced_to_lazy_ones() -> None:
    broadcast = tree(A, B, C)
    broadcast.prune_received(C)
    receive(broadcast, A, message(1), 0.0)
    assert sent(broadcast) == [(B, codec.GOSSIP)]
    assert delivered(broadcast) == [1]
    assert broadcast.deadline == pytest.approx(CONFIG.ihave_delay_s)
    broadcast.handle_timeout(broadcast.deadline)
    assert sent(broadcast) == [(C, codec.IHAVE)]


def test_identical_payloads_are_different_messages() -> None:
    broadcast = tree(A)
    for sequence in (1, 2, 3):
        receive(broadcast, A, message(sequence), 0.0)
    assert delivered(broadcast) == [1, 2, 3]


def test_an_announced_message_that_does_not_come_is_grafted_from_one_after_the_other() -> None:
    broadcast = tree(A, B, C)
    for peer in (B, C):
        broadcast.prune_received(peer)
        broadcast.ihave_received(broadcast.links[peer], [((ORIGIN.peer_id, 1, 1), 2)], 0.0)
    broadcast.handle_timeout(0.1)
    assert sent(broadcast) == [(B, codec.GRAFT)]
    assert B in broadcast.eager
    broadcast.handle_timeout(0.2)
    assert sent(broadcast) == [(C, codec.GRAFT)]
    broadcast.handle_timeout(broadcast.deadline)  # nobody is left to ask
    assert sent(broadcast) == []
    assert broadcast._missing == {}
    assert not any(neighbour.tree.awaited for neighbour in broadcast.links.values())


def test_who_announced_a_message_gets_no_copy_and_keeps_its_place_in_the_tree() -> None:
    """Else a graft that came a little too early would bring a copy back, be pruned for it, and so on with each message."""
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, 1, 1), 1)], 0.0)
    broadcast.handle_timeout(0.1)
    assert list(broadcast.eager) == [A, B]
    broadcast.effects.frames.clear()
    receive(broadcast, A, message(1), 0.11, hops=2)
    assert sent(broadcast) == []
    receive(broadcast, B, message(1), 0.15, flags=REPAIR)
    receive(broadcast, B, message(2), 5.0)
    receive(broadcast, A, message(2), 5.1)
    assert (list(broadcast.eager), list(broadcast.lazy)) == ([B], [A])


def test_those_who_kept_their_word_are_asked_first_and_those_who_broke_it_last() -> None:
    broadcast = tree(A, B, C)
    receive(broadcast, C, message(1), 0.0)
    broadcast.ihave_received(broadcast.links[A], [((ORIGIN.peer_id, 1, 9), 1)], 0.0)
    broadcast.handle_timeout(0.1)
    broadcast.handle_timeout(2.5)  # A did not send it
    broadcast.effects.frames.clear()
    for peer in (A, B, C):
        broadcast.ihave_received(broadcast.links[peer], [((ORIGIN.peer_id, 1, 2), 1)], 3.0)
    asked = []
    for at in (3.15, 3.3, 3.5):
        broadcast.handle_timeout(at)
        asked += [out.peer for out in broadcast.effects.frames]
        broadcast.effects.frames.clear()
    assert asked == [C, B, A]


def test_who_says_that_it_has_a_message_is_asked_before_who_only_sent_the_next() -> None:
    broadcast = tree(A, B)
    receive(broadcast, A, message(1), 0.0)
    receive(broadcast, A, message(3), 0.0)  # A has kept its word, and may have the second message
    broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, 1, 2), 1)], 0.01)  # B says that it has it
    broadcast.effects.frames.clear()
    broadcast.handle_timeout(0.11)
    assert [out.peer for out in broadcast.effects.frames] == [B]


def test_a_message_in_time_cancels_the_graft() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, 1, 1), 2)], 0.0)
    receive(broadcast, A, message(1), 0.05)
    sent(broadcast)
    broadcast.handle_timeout(0.1)
    assert (B, codec.GRAFT) not in sent(broadcast)


@pytest.mark.parametrize(("srtt", "timeout"), [(0.0, 0.1), (0.01, 0.1), (0.1, 0.3), (2.0, 1.0)])
def test_the_graft_timeout_follows_the_round_trip_within_bounds(srtt: float, timeout: float) -> None:
    broadcast = tree(A)
    broadcast.links[A].tree.srtt = srtt
    broadcast.ihave_received(broadcast.links[A], [((ORIGIN.peer_id, 1, 1), 2)], 5.0)
    assert broadcast.deadline == pytest.approx(5.0 + timeout)


def test_a_graft_is_answered_from_the_cache_and_makes_the_link_eager() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    receive(broadcast, A, message(1), 0.0, hops=4)
    broadcast.effects.frames.clear()
    broadcast.graft_received(broadcast.links[B], [(ORIGIN.peer_id, 1, 1), (ORIGIN.peer_id, 1, 2)], 0, 2.5)
    [reply] = broadcast.effects.frames
    assert reply.peer == B
    assert wire.gossip_untrusted(reply.frame, 1000) == (Head(5, REPAIR, 2.5), message(1))
    assert B in broadcast.eager


def test_a_neighbour_that_asks_again_and_again_gets_two_caches_and_then_as_much_in_time() -> None:
    config = GossipConfig(cache_bytes=65_536)
    broadcast = tree(config=config)
    link_up(broadcast, A, 0.0)
    link_up(broadcast, B, 0.0)
    payload = bytes(16_000)
    for number in range(1, 5):
        receive(broadcast, A, message(number, payload=payload), 1.0)
    names = [(ORIGIN.peer_id, 1, number) for number in range(1, 5)]
    sent(broadcast)
    broadcast.graft_received(broadcast.links[B], names * 100, REPAIR, 1.0)
    assert sent(broadcast) == [(B, codec.GOSSIP)] * 4
    for _ in range(10):
        broadcast.graft_received(broadcast.links[B], names, REPAIR, 1.0)
    assert len(sent(broadcast)) == 5  # the last of them passes the line
    assert broadcast.stats.repairs_refused == 4 * 99 + 10 * 4 - 5
    broadcast.graft_received(broadcast.links[A], names, REPAIR, 1.0)
    assert len(sent(broadcast)) == 4  # another one's budget is its own
    broadcast.graft_received(broadcast.links[B], names, REPAIR, 1.0 + 0.5 * config.cache_s)
    assert len(sent(broadcast)) == 4


def test_in_a_full_mesh_the_origin_sends_to_all_and_nobody_forwards() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    broadcast.publish(message(1), 0.0, flat=True)
    assert sent(broadcast) == [(A, codec.GOSSIP), (B, codec.GOSSIP)]
    receiver = tree(B, C)
    receive(receiver, B, message(1), 0.0, flags=FLAT, flat=True)
    assert sent(receiver) == []
    switching = tree(B, C)  # a receiver that is in a partial mesh already passes it on
    receive(switching, B, message(1), 0.0, flags=FLAT)
    assert sent(switching) == [(C, codec.GOSSIP)]


def test_a_gap_is_asked_for_and_filled() -> None:
    broadcast = tree(A)
    receive(broadcast, A, message(1), 0.0)
    receive(broadcast, A, message(3), 0.0)
    assert delivered(broadcast) == [1]
    broadcast.effects.frames.clear()
    broadcast.handle_timeout(0.1)
    [graft] = broadcast.effects.frames
    assert wire.graft_untrusted(graft.frame)[1] == [(ORIGIN.peer_id, 1, 2)]
    receive(broadcast, A, message(2), 0.2, flags=REPAIR)
    assert delivered(broadcast) == [2, 3]


def test_what_neighbours_have_is_compared_and_missing_ends_are_repaired() -> None:
    one, two = tree(A), tree(B)
    for sequence in (1, 2, 3):
        receive(one, A, message(sequence), 0.0)
    receive(two, B, message(1), 0.0)
    assert two.haves(1.0) == [Have(ORIGIN.peer_id, 1, 1, 1, 1.0)]
    two.effects.frames.clear()
    two.answer_haves(two.links[B], one.haves(1.0), 1.0)
    assert two.effects.frames == []
    one.effects.frames.clear()
    one.answer_haves(one.links[A], two.haves(1.0), 1.0)
    [answer] = one.effects.frames
    assert wire.haves_untrusted(answer.frame) == (0, [Have(ORIGIN.peer_id, 1, 3, 1, 1.0)])
    two.haves_received(two.links[B], one.haves(1.0), 1.0)
    two.effects.frames.clear()
    two.handle_timeout(1.1)
    [graft] = two.effects.frames
    assert wire.graft_untrusted(graft.frame)[1] == [(ORIGIN.peer_id, 1, 2), (ORIGIN.peer_id, 1, 3)]


def test_for_a_newcomer_what_was_before_is_history() -> None:
    broadcast = tree()
    link_up(broadcast, A, 100.0)
    broadcast.haves_received(broadcast.links[A], [Have(ORIGIN.peer_id, 1, 7, 1, 5.0)], 100.1)
    assert broadcast.deadline == float("inf")  # nothing there is worth asking for
    receive(broadcast, A, message(8, floor=6), 102.0)
    assert delivered(broadcast) == []
    broadcast.handle_timeout(102.1)  # the gap is asked for
    receive(broadcast, A, message(6, floor=1), 102.2, flags=REPAIR, age=9.0)
    receive(broadcast, A, message(7, floor=1), 102.2, flags=REPAIR, age=7.0)
    assert delivered(broadcast) == [8]


@pytest.mark.parametrize("announced", [False, True])
def test_what_was_not_asked_for_as_history_is_none(announced: bool) -> None:
    """Ages are not signed: a hostile neighbour that is first to pass a message on must not make us swallow it."""
    broadcast = tree()
    link_up(broadcast, A, 100.0)
    link_up(broadcast, B, 100.0)
    if announced:
        broadcast.ihave_received(broadcast.links[A], [((ORIGIN.peer_id, 1, 1), 1)], 101.0)
        broadcast.handle_timeout(101.1)
    receive(broadcast, A, message(1), 101.2, flags=REPAIR, age=600.0)
    receive(broadcast, A, message(2), 101.3, age=600.0)
    assert delivered(broadcast) == [1, 2]


def test_a_newcomer_does_not_wait_long_for_history() -> None:
    broadcast = tree()
    link_up(broadcast, A, 100.0)
    receive(broadcast, A, message(8, floor=6), 102.0)
    while broadcast.deadline <= 102.5:
        broadcast.handle_timeout(broadcast.deadline)
    assert delivered(broadcast) == [8]


def test_a_newcomer_that_has_begun_waits_for_a_gap_like_anybody() -> None:
    broadcast = tree()
    link_up(broadcast, A, 100.0)
    receive(broadcast, A, message(1), 101.0)
    receive(broadcast, A, message(3), 102.0)
    while broadcast.deadline <= 104.0:
        broadcast.handle_timeout(broadcast.deadline)
    assert delivered(broadcast) == [1]
    receive(broadcast, A, message(2), 104.5, flags=REPAIR)
    assert delivered(broadcast) == [2, 3]


def test_history_does_not_live_on_in_the_caches_of_newcomers() -> None:
    broadcast = tree()
    link_up(broadcast, A, 100.0)
    receive(broadcast, A, message(1), 110.0, flags=REPAIR, age=28.0)
    assert broadcast.haves(110.0) == [Have(ORIGIN.peer_id, 1, 1, 1, 28.0)]
    assert broadcast.haves(113.0) == []


def test_what_neighbours_say_they_have_is_no_proof() -> None:
    broadcast = tree(A)
    broadcast.haves_received(broadcast.links[A], [Have(ORIGIN.peer_id, 1, 1_000_000, 999_000, 0.0)], 50.0)
    receive(broadcast, A, message(7, floor=7), 51.0)
    receive(broadcast, A, message(8, floor=7), 51.0)
    assert delivered(broadcast) == [7, 8]


def test_who_announces_what_it_does_not_send_is_reported_once() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    for sequence in range(1, 6):
        broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, 1, sequence), 1)], float(sequence))
    while broadcast.deadline < 20.0:
        broadcast.handle_timeout(broadcast.deadline)
    assert broadcast.effects.wishes == [Withholding((B,))]
    kept = tree(A, B)
    kept.prune_received(B)
    for sequence in range(1, 6):
        kept.ihave_received(kept.links[B], [((ORIGIN.peer_id, 1, sequence), 1)], float(sequence))
        kept.handle_timeout(sequence + 0.1)
        receive(kept, B, message(sequence), sequence + 1.5, flags=REPAIR)  # slow, but it comes
    while kept.deadline < 20.0:
        kept.handle_timeout(kept.deadline)
    assert kept.effects.wishes == []


def test_what_a_flood_made_us_forget_is_taken_and_passed_on_no_second_time() -> None:
    broadcast = tree(A, B)
    receive(broadcast, A, message(1), 1.0)
    broadcast.streams.forget(ORIGIN.peer_id)
    sent(broadcast)
    receive(broadcast, B, message(1), 1.1)
    broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, 1, 1), 3)], 1.1)
    broadcast.haves_received(broadcast.links[B], [wire.Have(ORIGIN.peer_id, 1, 1, 1, 0.0)], 1.1)
    broadcast.handle_timeout(3.0)
    assert delivered(broadcast) == [1]
    assert sent(broadcast) == [(B, codec.PRUNE)]
    receive(broadcast, A, message(2), 3.0, hops=64)
    assert sent(broadcast) == []


def test_a_lying_announcer_fills_no_table() -> None:
    broadcast = tree(A, B)
    for number in range(10):
        broadcast.ihave_received(
            broadcast.links[A], [((CheapIdentity(9).peer_id, 1, 1 + number * 1000 + i), 1) for i in range(1000)], 0.0
        )
    assert len(broadcast._missing) == 1024
    broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, 1, 1), 1)], 0.0)
    assert len(broadcast._missing) == 1025


def test_the_cache_is_bounded_by_age_and_bytes() -> None:
    broadcast = tree(config=GossipConfig(cache_bytes=65_536, cache_s=10.0))
    link_up(broadcast, A, 0.0)
    for sequence in range(1, 101):
        receive(broadcast, A, message(sequence, payload=bytes(1000)), 0.0)
    assert broadcast._cache_bytes <= 65_536
    assert 50 < len(broadcast._cache) < 66
    receive(broadcast, A, message(101), 11.0)
    assert len(broadcast._cache) == 1


def test_own_sequences_and_floors() -> None:
    broadcast = tree(A)
    assert [broadcast.next_sequence(now) for now in (0.0, 1.0, 2.0)] == [(1, 1), (2, 1), (3, 1)]
    assert broadcast.next_sequence(31.5) == (4, 3)  # the first two are older than the cache
    assert broadcast.next_sequence(100.0) == (5, 5)


def test_a_forged_message_is_refused() -> None:
    good = message(1)
    _, bent = wire.gossip_untrusted(wire.encode_gossip(Head(0, 0), good.body[:-1] + b"\0"), 1000)
    with pytest.raises(ProtocolError):
        wire.verify_message_untrusted(bent, ROOM, cheap_verify)
    with pytest.raises(ProtocolError):
        wire.verify_message_untrusted(good, RoomKey.of(b"elsewhere"), cheap_verify)
    wire.verify_message_untrusted(good, ROOM, cheap_verify)
    with pytest.raises(ProtocolError):
        wire.gossip_untrusted(wire.encode_gossip(Head(0, 0), good.body), 3)


def test_golden_gossip() -> None:
    frame = wire.encode_gossip(Head(2, FLAT, 2.56), message(300, payload=b"hi").body)
    assert (
        frame[:-64].hex()
        == "020a02010100" + ORIGIN.public_key.hex() + "00" * 9 + "01" + "ac02" + "14" + "02" + b"hi".hex()
    )
