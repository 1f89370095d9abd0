"""Plumtree on three or four hand-driven neighbours, and per-origin order."""

from __future__ import annotations

import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip import codec
from psyne_mesh.gossip.broadcast import Broadcast
from psyne_mesh.gossip.broadcast_wire import BESIDE, FLAT, REPAIR, Have, Head, Message
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.records import RoomKey
from psyne_mesh.gossip.streams import Stream, Streams
from psyne_mesh.identity import PeerId
from tests.gossip.cluster import CheapIdentity, cheap_verify

ROOM = RoomKey.of(b"room")
ORIGIN = CheapIdentity(0)
A, B, C, D = (CheapIdentity(n).peer_id for n in (1, 2, 3, 4))
CONFIG = GossipConfig()


def message(sequence: int, floor: int | None = None, epoch: int = 1, payload: bytes = b"same bytes") -> Message:
    return wire.sign_message(ROOM, ORIGIN, epoch, sequence, floor or max(1, sequence - 20), payload)


def another(sequence: int, origin: int = 9) -> Message:
    """Of another origin."""
    return wire.sign_message(ROOM, CheapIdentity(origin), 1, sequence, 1, b"")


def sign(number: int) -> wire.Keep:
    return wire.sign_keep(ROOM, ORIGIN, number)


def tree(*links: PeerId) -> Broadcast:
    broadcast = Broadcast(CONFIG)
    for peer in links:
        broadcast.link_up(peer, 0.0)
    return broadcast


def sent(broadcast: Broadcast) -> list[tuple[PeerId, int]]:
    """(to, frame type), drained."""
    frames = [(out.peer, out.frame[1]) for out in broadcast.outbox]
    broadcast.outbox.clear()
    return frames


def receive(
    broadcast: Broadcast, peer: PeerId, msg: Message, now: float, hops: int = 0, flags: int = 0, *,
    flat: bool = False, age: float = 0.0,
) -> None:  # fmt: skip
    if broadcast.wants(msg):
        broadcast.gossip_received(peer, msg, Head(hops, flags, age), now, flat=flat)
    else:
        broadcast.duplicate_received(peer, msg, flags, now)


def delivered(broadcast: Broadcast) -> list[int]:
    sequences = [sequence for _, _, sequence, _ in broadcast.streams.delivered]
    broadcast.streams.delivered.clear()
    return sequences


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


def test_a_duplicate_prunes_its_link_but_never_the_last_and_not_too_often() -> None:
    broadcast = tree(A, B)
    receive(broadcast, A, message(1), 0.0)
    sent(broadcast)
    receive(broadcast, B, message(1), 0.0)
    receive(broadcast, B, message(1), 0.1)
    assert sent(broadcast) == [(B, codec.PRUNE)]
    assert (list(broadcast.eager), list(broadcast.lazy)) == ([A], [B])
    receive(broadcast, A, message(1), 2.0)
    assert sent(broadcast) == []
    assert broadcast.stats.duplicates == 3


def test_repairs_and_flat_copies_do_not_shape_the_tree() -> None:
    broadcast = tree(A, B)
    receive(broadcast, A, message(1), 0.0)
    sent(broadcast)
    receive(broadcast, B, message(1), 0.0, flags=REPAIR)
    receive(broadcast, B, message(1), 0.0, flags=FLAT)
    assert sent(broadcast) == []
    assert list(broadcast.eager) == [A, B]


def test_an_announced_message_that_does_not_come_is_grafted_from_one_after_the_other() -> None:
    broadcast = tree(A, B, C)
    for peer in (B, C):
        broadcast.prune_received(peer)
        broadcast.ihave_received(peer, [((ORIGIN.peer_id, 1, 1), 2)], 0.0)
    broadcast.handle_timeout(0.1)
    assert sent(broadcast) == [(B, codec.GRAFT)]
    assert B in broadcast.eager
    broadcast.handle_timeout(0.2)
    assert sent(broadcast) == [(C, codec.GRAFT)]
    broadcast.handle_timeout(broadcast.deadline)  # nobody is left to ask
    assert sent(broadcast) == []
    assert broadcast._missing == {}
    assert broadcast._missing_of == {}


def test_who_announced_a_message_gets_no_copy_and_keeps_its_place_in_the_tree() -> None:
    """Else a graft that came a little too early would bring a copy back, be pruned for it, and so on with each message."""
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    broadcast.ihave_received(B, [((ORIGIN.peer_id, 1, 1), 1)], 0.0)
    broadcast.handle_timeout(0.1)
    assert list(broadcast.eager) == [A, B]
    broadcast.outbox.clear()
    receive(broadcast, A, message(1), 0.11, hops=2)
    assert sent(broadcast) == []
    receive(broadcast, B, message(1), 0.15, flags=REPAIR)
    receive(broadcast, B, message(2), 5.0)
    receive(broadcast, A, message(2), 5.1)
    assert (list(broadcast.eager), list(broadcast.lazy)) == ([B], [A])


def test_those_who_kept_their_word_are_asked_first_and_those_who_broke_it_last() -> None:
    broadcast = tree(A, B, C)
    receive(broadcast, C, message(1), 0.0)
    broadcast.ihave_received(A, [((ORIGIN.peer_id, 1, 9), 1)], 0.0)
    broadcast.handle_timeout(0.1)
    broadcast.handle_timeout(2.5)  # A did not send it
    broadcast.outbox.clear()
    for peer in (A, B, C):
        broadcast.ihave_received(peer, [((ORIGIN.peer_id, 1, 2), 1)], 3.0)
    asked = []
    for at in (3.15, 3.3, 3.5):
        broadcast.handle_timeout(at)
        asked += [out.peer for out in broadcast.outbox]
        broadcast.outbox.clear()
    assert asked == [C, B, A]


def test_who_says_that_it_has_a_message_is_asked_before_who_only_sent_the_next() -> None:
    broadcast = tree(A, B)
    receive(broadcast, A, message(1), 0.0)
    receive(broadcast, A, message(3), 0.0)  # A has kept its word, and may have the second message
    broadcast.ihave_received(B, [((ORIGIN.peer_id, 1, 2), 1)], 0.01)  # B says that it has it
    broadcast.outbox.clear()
    broadcast.handle_timeout(0.11)
    assert [out.peer for out in broadcast.outbox] == [B]


def test_a_message_in_time_cancels_the_graft() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    broadcast.ihave_received(B, [((ORIGIN.peer_id, 1, 1), 2)], 0.0)
    receive(broadcast, A, message(1), 0.05)
    sent(broadcast)
    broadcast.handle_timeout(0.1)
    assert (B, codec.GRAFT) not in sent(broadcast)


@pytest.mark.parametrize(("srtt", "timeout"), [(0.0, 0.1), (0.01, 0.1), (0.1, 0.3), (2.0, 1.0)])
def test_the_graft_timeout_follows_the_round_trip_within_bounds(srtt: float, timeout: float) -> None:
    broadcast = tree(A)
    broadcast.note_rtt(A, srtt)
    broadcast.ihave_received(A, [((ORIGIN.peer_id, 1, 1), 2)], 5.0)
    assert broadcast.deadline == pytest.approx(5.0 + timeout)


def test_a_graft_is_answered_from_the_cache_and_makes_the_link_eager() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    receive(broadcast, A, message(1), 0.0, hops=4)
    broadcast.outbox.clear()
    broadcast.graft_received(B, [(ORIGIN.peer_id, 1, 1), (ORIGIN.peer_id, 1, 2)], 0, 2.5)
    [reply] = broadcast.outbox
    assert reply.peer == B
    assert wire.gossip_untrusted(reply.frame, 1000) == (Head(5, REPAIR, 2.5), message(1))
    assert B in broadcast.eager


def test_a_much_shorter_lazy_link_takes_the_place_of_the_eager_one() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    broadcast.ihave_received(B, [((ORIGIN.peer_id, 1, 1), 2)], 0.0)
    receive(broadcast, A, message(1), 0.05, hops=6)
    assert sent(broadcast) == [(B, codec.GRAFT), (A, codec.PRUNE)]
    assert list(broadcast.eager) == [B]


@pytest.mark.parametrize("alone", [True, False])
def test_who_alone_speaks_may_have_the_tree_shorter(alone: bool) -> None:
    broadcast = tree(A, B)
    if not alone:
        receive(broadcast, A, another(1), 0.0)
        broadcast.handle_timeout(0.2)
        sent(broadcast)
    broadcast.prune_received(B)
    broadcast.ihave_received(B, [((ORIGIN.peer_id, 1, 1), 2)], 5.0)
    receive(broadcast, A, message(1), 5.05, hops=4)
    assert list(broadcast.eager) == [B if alone else A]


def test_while_many_send_at_once_the_tree_is_not_shortened_for_each_in_turn() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    for number in (5, 6, 7):
        other = CheapIdentity(number)
        receive(broadcast, A, wire.sign_message(ROOM, other, 1, 1, 1, b"at once"), 0.0)
    broadcast.ihave_received(B, [((ORIGIN.peer_id, 1, 1), 2)], 0.0)
    receive(broadcast, A, message(1), 0.05, hops=9)
    assert list(broadcast.eager) == [A]
    drawn = next(number for number in range(2, 200) if broadcast._shapes(message(number), 0.15))
    broadcast.ihave_received(B, [((ORIGIN.peer_id, 1, drawn), 2)], 0.1)
    receive(broadcast, A, message(drawn), 0.15, hops=10)  # but what is much too long is too long for everybody
    assert list(broadcast.eager) == [B]


def test_what_was_under_way_when_we_pruned_does_not_bring_the_link_back() -> None:
    broadcast = tree(A, B)
    receive(broadcast, A, message(1), 0.0)
    receive(broadcast, B, message(1), 0.0)
    receive(broadcast, B, message(2), 0.1)
    assert list(broadcast.eager) == [A]
    receive(broadcast, B, message(3), 2.0)  # it goes on sending: it must have reasons
    assert list(broadcast.eager) == [A, B]


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


def flags(broadcast: Broadcast) -> list[int]:
    """Of the messages that it sends."""
    frames = [out.frame for out in broadcast.outbox if out.frame[1] == codec.GOSSIP]
    return [wire.gossip_untrusted(frame, 1000)[0].flags for frame in frames]


def busy(broadcast: Broadcast, now: float) -> None:
    """Eight messages of two others within an eighth of a second: hardly one message in a hundred shapes the tree then."""
    for number in range(8):
        receive(broadcast, A, another(1 + number // 2, 10 + int(now) + number % 2), now + number / 64)
    broadcast.handle_timeout(now + 0.15)
    broadcast.outbox.clear()


def test_where_several_speak_a_message_takes_links_beside_the_tree_too() -> None:
    broadcast = tree(A, B, C, D)
    for peer in (B, C, D):
        broadcast.prune_received(peer)
    assert broadcast.publish(message(1), 0.0, flat=False) == [A]  # one source: the tree takes its shape
    assert sent(broadcast) == [
        (A, codec.GOSSIP),
        *((peer, codec.IHAVE) for peer in (B, C, D)),
    ]  # and they see it at once
    beside = []
    for sequence in (2, 3, 4):
        busy(broadcast, 10.0 * sequence)
        targets = broadcast.publish(message(sequence), 10.0 * sequence + 0.15, flat=False)
        assert flags(broadcast) == [BESIDE] * 3
        assert targets[0] == A
        beside.append(targets[1:])
        broadcast.outbox.clear()
        broadcast.handle_timeout(broadcast.deadline)
        assert {peer for peer, _ in sent(broadcast)} == {B, C, D} - set(targets)  # who got it needs no announcement
    assert beside == [[C, D], [B, C], [D, B]]
    assert broadcast.publish(message(5), 99.0, flat=False) == [A]


def test_a_message_that_came_beside_the_tree_leaves_it_as_it_is() -> None:
    broadcast = tree(A, B, C)
    broadcast.prune_received(A)
    receive(broadcast, A, message(1), 0.0, flags=BESIDE)  # from its origin, which has many such links
    assert A in broadcast.lazy
    assert flags(broadcast) == [BESIDE] * 2
    sent(broadcast)
    receive(broadcast, B, message(1), 0.0, hops=4, flags=BESIDE)
    assert sent(broadcast) == []
    receive(broadcast, B, message(1), 0.0, hops=4)
    assert sent(broadcast) == [(B, codec.PRUNE)]


def test_where_several_speak_few_messages_shape_the_tree_and_the_same_ones_for_everybody() -> None:
    """Else two messages in flight would prune one cycle at two places."""
    nodes = [tree(A, B), tree(C, B)]
    pruned: list[list[int]] = []
    for broadcast in nodes:
        first = next(iter(broadcast.eager))
        pruned.append([])
        for number in range(400):  # ten a second for 40 s
            msg = another(1 + number // 4, 4 + number % 4)
            at = number / 10
            receive(broadcast, first, msg, at)
            receive(broadcast, B, msg, at + 0.01)
            if (B, codec.PRUNE) in sent(broadcast):
                pruned[-1].append(number)
                broadcast.graft_received(B, [], 0, at)
    assert pruned[0] == pruned[1]
    assert 10 <= len(pruned[0]) <= 30  # about one in two seconds


def test_a_gap_is_asked_for_and_filled() -> None:
    broadcast = tree(A)
    receive(broadcast, A, message(1), 0.0)
    receive(broadcast, A, message(3), 0.0)
    assert delivered(broadcast) == [1]
    broadcast.outbox.clear()
    broadcast.handle_timeout(0.1)
    [graft] = broadcast.outbox
    assert wire.graft_untrusted(graft.frame)[1] == [(ORIGIN.peer_id, 1, 2)]
    receive(broadcast, A, message(2), 0.2, flags=REPAIR)
    assert delivered(broadcast) == [2, 3]


def test_what_neighbours_have_is_compared_and_missing_ends_are_repaired() -> None:
    one, two = tree(A), tree(B)
    for sequence in (1, 2, 3):
        receive(one, A, message(sequence), 0.0)
    receive(two, B, message(1), 0.0)
    assert two.haves(1.0) == [Have(ORIGIN.peer_id, 1, 1, 1, 1.0)]
    two.outbox.clear()
    two.answer_haves(B, one.haves(1.0), 1.0)
    assert two.outbox == []
    one.outbox.clear()
    one.answer_haves(A, two.haves(1.0), 1.0)
    [answer] = one.outbox
    assert wire.haves_untrusted(answer.frame) == (0, [Have(ORIGIN.peer_id, 1, 3, 1, 1.0)])
    two.haves_received(B, one.haves(1.0), 1.0)
    two.outbox.clear()
    two.handle_timeout(1.1)
    [graft] = two.outbox
    assert wire.graft_untrusted(graft.frame)[1] == [(ORIGIN.peer_id, 1, 2), (ORIGIN.peer_id, 1, 3)]


def test_for_a_newcomer_what_was_before_is_history() -> None:
    broadcast = Broadcast(CONFIG)
    broadcast.link_up(A, 100.0)
    broadcast.haves_received(A, [Have(ORIGIN.peer_id, 1, 7, 1, 5.0)], 100.1)
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
    broadcast = Broadcast(CONFIG)
    broadcast.link_up(A, 100.0)
    broadcast.link_up(B, 100.0)
    if announced:
        broadcast.ihave_received(A, [((ORIGIN.peer_id, 1, 1), 1)], 101.0)
        broadcast.handle_timeout(101.1)
    receive(broadcast, A, message(1), 101.2, flags=REPAIR, age=600.0)
    receive(broadcast, A, message(2), 101.3, age=600.0)
    assert delivered(broadcast) == [1, 2]


def test_a_newcomer_does_not_wait_long_for_history() -> None:
    broadcast = Broadcast(CONFIG)
    broadcast.link_up(A, 100.0)
    receive(broadcast, A, message(8, floor=6), 102.0)
    while broadcast.deadline <= 102.5:
        broadcast.handle_timeout(broadcast.deadline)
    assert delivered(broadcast) == [8]


def test_a_newcomer_that_has_begun_waits_for_a_gap_like_anybody() -> None:
    broadcast = Broadcast(CONFIG)
    broadcast.link_up(A, 100.0)
    receive(broadcast, A, message(1), 101.0)
    receive(broadcast, A, message(3), 102.0)
    while broadcast.deadline <= 104.0:
        broadcast.handle_timeout(broadcast.deadline)
    assert delivered(broadcast) == [1]
    receive(broadcast, A, message(2), 104.5, flags=REPAIR)
    assert delivered(broadcast) == [2, 3]


def test_history_does_not_live_on_in_the_caches_of_newcomers() -> None:
    broadcast = Broadcast(CONFIG)
    broadcast.link_up(A, 100.0)
    receive(broadcast, A, message(1), 110.0, flags=REPAIR, age=28.0)
    assert broadcast.haves(110.0) == [Have(ORIGIN.peer_id, 1, 1, 1, 28.0)]
    assert broadcast.haves(113.0) == []


def test_what_neighbours_say_they_have_is_no_proof() -> None:
    broadcast = tree(A)
    broadcast.haves_received(A, [Have(ORIGIN.peer_id, 1, 1_000_000, 999_000, 0.0)], 50.0)
    receive(broadcast, A, message(7, floor=7), 51.0)
    receive(broadcast, A, message(8, floor=7), 51.0)
    assert delivered(broadcast) == [7, 8]


def test_a_link_that_neither_end_needs_starts_lazy() -> None:
    broadcast = tree(A)
    broadcast.link_spare(A)
    assert list(broadcast.eager) == [A]  # but never the last
    broadcast.link_up(B, 1.0)
    broadcast.link_spare(B)
    assert (list(broadcast.eager), list(broadcast.lazy)) == ([A], [B])


def test_who_announces_what_it_does_not_send_is_reported_once() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    for sequence in range(1, 6):
        broadcast.ihave_received(B, [((ORIGIN.peer_id, 1, sequence), 1)], float(sequence))
    while broadcast.deadline < 20.0:
        broadcast.handle_timeout(broadcast.deadline)
    assert broadcast.withholding == [B]
    kept = tree(A, B)
    kept.prune_received(B)
    for sequence in range(1, 6):
        kept.ihave_received(B, [((ORIGIN.peer_id, 1, sequence), 1)], float(sequence))
        kept.handle_timeout(sequence + 0.1)
        receive(kept, B, message(sequence), sequence + 1.5, flags=REPAIR)  # slow, but it comes
    while kept.deadline < 20.0:
        kept.handle_timeout(kept.deadline)
    assert kept.withholding == []


def test_a_lying_announcer_fills_no_table() -> None:
    broadcast = tree(A, B)
    for number in range(10):
        broadcast.ihave_received(
            A, [((CheapIdentity(9).peer_id, 1, 1 + number * 1000 + i), 1) for i in range(1000)], 0.0
        )
    assert len(broadcast._missing) == 1024
    broadcast.ihave_received(B, [((ORIGIN.peer_id, 1, 1), 1)], 0.0)
    assert len(broadcast._missing) == 1025


def test_the_cache_is_bounded_by_age_and_bytes() -> None:
    broadcast = Broadcast(GossipConfig(cache_bytes=65_536, cache_s=10.0))
    broadcast.link_up(A, 0.0)
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


def test_the_keeper_shapes_and_mends_the_tree() -> None:
    broadcast = tree(A, B, C)
    broadcast.keep_received(A, sign(5), 0, 0.0)
    assert sent(broadcast) == [(B, codec.KEEP), (C, codec.KEEP)]
    assert not broadcast.wants_keep(sign(5), 0.0)
    broadcast.keep_repeated(B, sign(5), 0.0)
    assert sent(broadcast) == [(B, codec.PRUNE)]
    broadcast.ihave_received(B, [((ORIGIN.peer_id, wire.KEEP_EPOCH, 6), 1)], 1.0)
    broadcast.handle_timeout(1.2)
    assert sent(broadcast) == [(B, codec.GRAFT)]
    broadcast.graft_received(B, [(ORIGIN.peer_id, wire.KEEP_EPOCH, 5), (C, wire.KEEP_EPOCH, 5)], 0, 2.0)
    assert sent(broadcast) == [(B, codec.KEEP)]  # of C's it knows nothing


def test_a_keepers_sign_that_was_announced_long_before_it_came_moves_the_branch() -> None:
    broadcast = tree(A, B, C)
    broadcast.prune_received(B)
    broadcast.prune_received(C)
    broadcast.ihave_received(B, [((ORIGIN.peer_id, wire.KEEP_EPOCH, 5), 3)], 0.0)
    broadcast.keep_received(A, sign(5), 0, 0.005)
    assert list(broadcast.eager) == [A]  # about as quick
    broadcast.ihave_received(C, [((ORIGIN.peer_id, wire.KEEP_EPOCH, 6), 3)], 10.0)
    broadcast.keep_received(A, sign(6), 0, 10.05)
    assert list(broadcast.eager) == [A, C]  # at no moment without a branch
    broadcast.keep_received(C, sign(7), 3, 20.0)
    broadcast.keep_repeated(A, sign(7), 20.05)
    assert (list(broadcast.eager), list(broadcast.lazy)) == ([C], [B, A])


def test_while_somebody_broadcasts_a_branch_moves_for_a_large_gain_only_and_at_once() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    receive(broadcast, A, message(1), 9.0)
    for number, gain in ((5, 0.03), (6, 0.05)):
        broadcast.ihave_received(B, [((ORIGIN.peer_id, wire.KEEP_EPOCH, number), 3)], 10.0)
        broadcast.keep_received(A, sign(number), 0, 10.0 + gain)
        assert list(broadcast.eager) == ([A] if number == 5 else [B])


def test_the_keepers_numbers_outlive_its_process() -> None:
    broadcast = tree(A)
    first = broadcast.next_keep(ORIGIN.peer_id, 1000)
    broadcast.keep(sign(first), 0.0)
    second = broadcast.next_keep(ORIGIN.peer_id, 1000)
    assert first < second < tree(A).next_keep(ORIGIN.peer_id, 1001)


def test_a_sign_is_wanted_when_it_is_new_and_no_flood() -> None:
    broadcast = tree(A, B)
    assert broadcast.wants_keep(sign(5), 1.0)
    broadcast.keep_received(A, sign(5), 0, 1.0)
    sent(broadcast)
    assert not broadcast.wants_keep(sign(5), 2.0)
    assert not broadcast.wants_keep(sign(6), 1.1)
    broadcast.keep_repeated(A, sign(6), 1.1)
    assert sent(broadcast) == []  # dropped, but no cycle
    assert broadcast.wants_keep(sign(6), 1.25)
    others = [wire.sign_keep(ROOM, CheapIdentity(100 + n), 1) for n in range(16)]
    for other in others[:15]:
        assert broadcast.wants_keep(other, 1.5)
        broadcast.keep_received(A, other, 0, 1.5)
    assert not broadcast.wants_keep(others[15], 1.6)
    assert broadcast.wants_keep(others[15], 2.1)  # ORIGIN has been quiet


def test_a_forged_sign_of_the_keeper_is_refused() -> None:
    good = sign(1 << 40)
    for body in (good.body[:-1] + b"\0", good.body[:32] + codec.varint(7) + good.body[-64:]):
        _, bent = wire.keep_untrusted(wire.encode_keep(0, body))
        with pytest.raises(ProtocolError):
            wire.verify_keep_untrusted(bent, ROOM, cheap_verify)
    hops, same = wire.keep_untrusted(wire.encode_keep(3, good.body))
    wire.verify_keep_untrusted(same, ROOM, cheap_verify)
    assert (hops, same) == (3, good)


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
    assert frame[:-64].hex() == "010a02010100" + ORIGIN.public_key.hex() + "01" + "ac02" + "14" + "02" + b"hi".hex()


# ------------------------------------------------------------------------------------------------------------ order


@attrs.frozen
class Numbered:
    origin: PeerId
    epoch: int
    sequence: int
    floor: int
    payload: bytes = b""


def accept(streams: Streams, origin: PeerId, epoch: int, sequence: int, floor: int, now: float) -> Stream | None:
    return streams.accept(Numbered(origin, epoch, sequence, floor), now, now)


def test_fifo_steps_over_what_nobody_can_give() -> None:
    streams = Streams(GossipConfig(gap_timeout_s=3.0))
    for sequence in (1, 4, 5):
        accept(streams, A, 1, sequence, 1, 10.0)
    assert [s for _, _, s, _ in streams.delivered] == [1]
    assert streams.deadline == 13.0
    streams.handle_timeout(13.0)
    assert [s for _, _, s, _ in streams.delivered] == [1, 4, 5]
    assert streams.skipped == 2
    assert streams.deadline == float("inf")


def test_the_floor_ends_hopeless_waits() -> None:
    streams = Streams(CONFIG)
    accept(streams, A, 1, 1, 1, 0.0)
    accept(streams, A, 1, 3, 1, 0.0)
    accept(streams, A, 1, 1000, 1000, 60.0)
    assert [s for _, _, s, _ in streams.delivered] == [1, 3, 1000]
    assert streams.skipped == 997


def test_a_new_life_starts_anew_and_the_old_one_is_over() -> None:
    streams = Streams(CONFIG)
    accept(streams, A, 1, 9, 9, 0.0)
    accept(streams, A, 2, 1, 1, 0.0)
    assert not streams.is_new(A, 1, 10)
    assert accept(streams, A, 1, 10, 10, 0.0) is None
    assert [s for _, _, s, _ in streams.delivered] == [9, 1]


def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.gossip.streams._STREAMS_MAX", 2)
    monkeypatch.setattr("psyne_mesh.gossip.streams._PENDING_MAX", 3)
    streams = Streams(CONFIG)
    for peer in (A, B, C):
        accept(streams, peer, 1, 1, 1, 0.0)
    assert streams.get(A) is None
    for sequence in range(3, 20):
        accept(streams, C, 1, sequence, 1, 0.0)
    stream = streams.get(C)
    assert stream is not None
    assert len(stream.pending) == 3


@given(st.permutations(range(1, 13)), st.sets(st.integers(1, 12), max_size=4), st.integers(0, 2**32))
def test_any_order_with_any_losses_is_delivered_in_order_once(order: list[int], lost: set[int], seed: int) -> None:
    streams, rng, now = Streams(GossipConfig(gap_timeout_s=3.0)), random.Random(seed), 0.0
    streams.position(A, 1, 1)
    for sequence in order:
        now += rng.random() / 10
        for _ in range(rng.randint(1, 2)):
            if sequence not in lost and streams.is_new(A, 1, sequence):
                accept(streams, A, 1, sequence, 1, now)
    while streams.deadline < float("inf"):
        streams.handle_timeout(streams.deadline)
    assert [s for _, _, s, _ in streams.delivered] == [s for s in range(1, 13) if s not in lost]


def test_the_stream_that_was_silent_for_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.gossip.streams._STREAMS_MAX", 2)
    streams = Streams(GossipConfig())
    for origin, sequence in ((A, 1), (B, 1), (A, 2), (C, 1)):
        accept(streams, origin, 1, sequence, 1, 10.0)
    assert streams.get(B) is None
    assert streams.get(A) is not None
    streams.forget(A)
    assert streams.get(A) is None
