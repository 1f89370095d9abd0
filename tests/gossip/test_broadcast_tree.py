"""What shapes the broadcast tree: duplicates, shorter ways, links beside it, and its keeper."""

from __future__ import annotations

import pytest

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip import codec
from psyne_mesh.gossip.broadcast import Broadcast
from psyne_mesh.gossip.broadcast_wire import BESIDE, FLAT, REPAIR
from tests.gossip.cluster import CheapIdentity, cheap_verify
from tests.gossip.neighbours import (
    ORIGIN,
    ROOM,
    A,
    B,
    C,
    D,
    another,
    link_up,
    message,
    receive,
    sent,
    sign,
    tree,
)


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


def test_a_much_shorter_lazy_link_takes_the_place_of_the_eager_one() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, 1, 1), 2)], 0.0)
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
    broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, 1, 1), 2)], 5.0)
    receive(broadcast, A, message(1), 5.05, hops=4)
    assert list(broadcast.eager) == [B if alone else A]


def test_while_many_send_at_once_the_tree_is_not_shortened_for_each_in_turn() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    for number in (5, 6, 7):
        other = CheapIdentity(number)
        receive(broadcast, A, wire.sign_message(ROOM, other, 1, 1, 1, b"at once"), 0.0)
    broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, 1, 1), 2)], 0.0)
    receive(broadcast, A, message(1), 0.05, hops=9)
    assert list(broadcast.eager) == [A]
    drawn = next(number for number in range(2, 200) if broadcast._shapes(message(number), 0.15))
    broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, 1, drawn), 2)], 0.1)
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


def flags(broadcast: Broadcast) -> list[int]:
    """Of the messages that it sends."""
    frames = [out.frame for out in broadcast.effects.frames if out.frame[1] == codec.GOSSIP]
    return [wire.gossip_untrusted(frame, 1000)[0].flags for frame in frames]


def busy(broadcast: Broadcast, now: float) -> None:
    """Eight messages of two others within an eighth of a second: hardly one message in a hundred shapes the tree then."""
    for number in range(8):
        receive(broadcast, A, another(1 + number // 2, 10 + int(now) + number % 2), now + number / 64)
    broadcast.handle_timeout(now + 0.15)
    broadcast.effects.frames.clear()


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
        broadcast.effects.frames.clear()
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
                broadcast.graft_received(broadcast.links[B], [], 0, at)
    assert pruned[0] == pruned[1]
    assert 10 <= len(pruned[0]) <= 30  # about one in two seconds


def test_a_link_that_neither_end_needs_starts_lazy() -> None:
    broadcast = tree(A)
    broadcast.link_spare(A)
    assert list(broadcast.eager) == [A]  # but never the last
    link_up(broadcast, B, 1.0)
    broadcast.link_spare(B)
    assert (list(broadcast.eager), list(broadcast.lazy)) == ([A], [B])


def test_who_loses_its_last_good_branch_takes_in_the_nearest_lazy_link_at_once() -> None:
    broadcast = tree(A, B, C, D)
    broadcast.prune_received(C)
    broadcast.prune_received(D)
    for peer, rtt in ((A, 0.01), (B, 0.01), (C, 0.2), (D, 0.1)):
        broadcast.links[peer].tree.srtt = rtt
    broadcast.links[A].probe.impaired = True
    broadcast.branch_impaired(A)
    assert sent(broadcast) == []  # B is left
    broadcast.links[B].probe.impaired = True
    broadcast.branch_impaired(B)
    assert sent(broadcast) == [(D, codec.GRAFT)]
    assert list(broadcast.eager) == [A, B, D]
    broadcast.links[C].probe.impaired = broadcast.links[D].probe.impaired = True
    broadcast.branch_impaired(D)
    assert sent(broadcast) == []  # nobody is left to take in
    broadcast.branch_impaired(C)  # that was no branch
    assert sent(broadcast) == []


def test_the_keeper_shapes_and_mends_the_tree() -> None:
    broadcast = tree(A, B, C)
    broadcast.keep_received(broadcast.links[A], sign(5), 0, 0.0)
    assert sent(broadcast) == [(B, codec.KEEP), (C, codec.KEEP)]
    assert not broadcast.signs.wants(sign(5), 0.0)
    broadcast.keep_repeated(broadcast.links[B], sign(5), 0.0)
    assert sent(broadcast) == [(B, codec.PRUNE)]
    broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, wire.KEEP_EPOCH, 6), 1)], 1.0)
    broadcast.handle_timeout(1.2)
    assert sent(broadcast) == [(B, codec.GRAFT)]
    broadcast.graft_received(
        broadcast.links[B], [(ORIGIN.peer_id, wire.KEEP_EPOCH, 5), (C, wire.KEEP_EPOCH, 5)], 0, 2.0
    )
    assert sent(broadcast) == [(B, codec.KEEP)]  # of C's it knows nothing


def test_a_keepers_sign_that_was_announced_long_before_it_came_moves_the_branch() -> None:
    broadcast = tree(A, B, C)
    broadcast.prune_received(B)
    broadcast.prune_received(C)
    broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, wire.KEEP_EPOCH, 5), 3)], 0.0)
    broadcast.keep_received(broadcast.links[A], sign(5), 0, 0.005)
    assert list(broadcast.eager) == [A]  # about as quick
    broadcast.ihave_received(broadcast.links[C], [((ORIGIN.peer_id, wire.KEEP_EPOCH, 6), 3)], 10.0)
    broadcast.keep_received(broadcast.links[A], sign(6), 0, 10.05)
    assert list(broadcast.eager) == [A, C]  # at no moment without a branch
    broadcast.keep_received(broadcast.links[C], sign(7), 3, 20.0)
    broadcast.keep_repeated(broadcast.links[A], sign(7), 20.05)
    assert (list(broadcast.eager), list(broadcast.lazy)) == ([C], [B, A])


def test_while_somebody_broadcasts_a_branch_moves_for_a_large_gain_only_and_at_once() -> None:
    broadcast = tree(A, B)
    broadcast.prune_received(B)
    receive(broadcast, A, message(1), 9.0)
    for number, gain in ((5, 0.03), (6, 0.05)):
        broadcast.ihave_received(broadcast.links[B], [((ORIGIN.peer_id, wire.KEEP_EPOCH, number), 3)], 10.0)
        broadcast.keep_received(broadcast.links[A], sign(number), 0, 10.0 + gain)
        assert list(broadcast.eager) == ([A] if number == 5 else [B])


def test_the_keepers_numbers_outlive_its_process() -> None:
    broadcast = tree(A)
    first = broadcast.signs.next_number(ORIGIN.peer_id, 1000)
    broadcast.keep(sign(first), 0.0)
    second = broadcast.signs.next_number(ORIGIN.peer_id, 1000)
    assert first < second < tree(A).signs.next_number(ORIGIN.peer_id, 1001)


def test_a_sign_is_wanted_when_it_is_new_and_no_flood() -> None:
    broadcast = tree(A, B)
    assert broadcast.signs.wants(sign(5), 1.0)
    broadcast.keep_received(broadcast.links[A], sign(5), 0, 1.0)
    sent(broadcast)
    assert not broadcast.signs.wants(sign(5), 2.0)
    assert not broadcast.signs.wants(sign(6), 1.1)
    broadcast.keep_repeated(broadcast.links[A], sign(6), 1.1)
    assert sent(broadcast) == []  # dropped, but no cycle
    assert broadcast.signs.wants(sign(6), 1.25)
    others = [wire.sign_keep(ROOM, CheapIdentity(100 + n), 1) for n in range(16)]
    for other in others[:15]:
        assert broadcast.signs.wants(other, 1.5)
        broadcast.keep_received(broadcast.links[A], other, 0, 1.5)
    assert not broadcast.signs.wants(others[15], 1.6)
    assert broadcast.signs.wants(others[15], 2.1)  # ORIGIN has been quiet


def test_a_forged_sign_of_the_keeper_is_refused() -> None:
    good = sign(1 << 40)
    for body in (good.body[:-1] + b"\0", good.body[:41] + codec.varint(7) + good.body[-64:]):
        _, bent = wire.keep_untrusted(wire.encode_keep(0, body))
        with pytest.raises(ProtocolError):
            wire.verify_keep_untrusted(bent, ROOM, cheap_verify)
    hops, same = wire.keep_untrusted(wire.encode_keep(3, good.body))
    wire.verify_keep_untrusted(same, ROOM, cheap_verify)
    assert (hops, same) == (3, good)
