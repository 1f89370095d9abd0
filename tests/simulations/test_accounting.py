"""The accounting on traces made by hand, where the right answer is known."""

from __future__ import annotations

from itertools import pairwise

import pytest

from psyne_mesh.gossip.events import (
    BroadcastReceived,
    PeerDiscovered,
    PeerLeft,
    PeerResumed,
    PeerSuspected,
    SeatsChanged,
)
from psyne_mesh.simulations.accounting import Accounting, numbers_in, payload_of
from psyne_mesh.simulations.actor import BareRecord
from psyne_mesh.simulations.cuts import split
from psyne_mesh.simulations.series import JOINING_S, components_of, percentile, sample
from tests.simulations.helpers import GRAIN, pair, probes, send


def of(world) -> Accounting:
    assert isinstance(world.watcher, Accounting)
    return world.watcher


def meets(world, observer, subject) -> None:
    of(world).on_event(observer, PeerDiscovered(BareRecord(subject.peer)))  # type: ignore[arg-type]


def room(number: int):
    """Probes in a row, each linked to the next."""
    world, hosts = probes(number)
    for left, right in pairwise(hosts):
        world.links.connect(left, right)
    return world, hosts, of(world)


# ------------------------------------------------------------------------------------------------------------ broadcast


def test_a_payload_is_found_in_whatever_frame_carries_it():
    frame = b"head" + payload_of(7, 40) + b"between" + payload_of(65_536, 12) + b"tail"
    assert numbers_in(frame) == [7, 65_536]
    assert numbers_in(b"nothing here") == []
    assert len(payload_of(1, 100)) == 100


def test_hops_and_copies_follow_the_frames():
    world, hosts, accounting = room(3)
    payload = accounting.new_broadcast(0, 50)
    accounting.on_broadcast(hosts[0], payload)
    send(world, hosts[0], hosts[1], b"x" + payload)
    world.run(1.0)
    send(world, hosts[1], hosts[2], b"xx" + payload)
    send(world, hosts[1], hosts[0], b"xx" + payload)
    world.run(2.0)
    (sent,) = accounting.sent
    assert sent.copies == 3
    assert sent.hops == {0: 0, 1: 1, 2: 2}


def test_a_broadcast_twice_or_out_of_order_is_a_broken_promise():
    world, hosts, accounting = room(2)
    first, second = accounting.new_broadcast(0, 20), accounting.new_broadcast(0, 20)
    for payload in (second, first, first):
        accounting.on_event(hosts[1], BroadcastReceived(hosts[0].peer, payload, 1))
    assert [text.split(": ")[1] for text in accounting.violations] == [
        "1 got broadcast 0 of 0 out of order",
        "1 got broadcast 0 twice",
    ]
    assert accounting.sent[1].delivered == {1: world.now}


def test_every_miss_has_its_reason():
    world, hosts, accounting = room(6)
    lonely = world.add_host(type(hosts[0].peer)("ff" * 16))
    world.start(lonely)  # up, and without a link
    world.run(1.0)
    accounting.new_broadcast(0, 20)
    (sent,) = accounting.sent
    sent.delivered[1] = 1.1
    world.run(1.2)
    world.crash(hosts[2])
    accounting.note_pause(3, 1.1, 2.0)
    cut = split([[0, 1, 2, 3, 4], [5]])
    world.links.cut(cut)
    world.run(1.5)
    world.links.mend(cut)
    world.run(20.0)
    misses = accounting.misses(sent, 5.0, range(7))
    assert {miss.host: miss.why for miss in misses} == {
        2: "receiver went down",
        3: "receiver stood still",
        4: "unexplained",
        5: "cut",
    }
    assert accounting.expected(sent, 5.0, range(7)) == [1, 3, 4]


def test_who_got_it_too_late_has_missed_it():
    world, _, accounting = room(2)
    accounting.new_broadcast(0, 20)
    (sent,) = accounting.sent
    sent.delivered[1] = sent.at + 6.0
    world.run(30.0)
    assert [miss.why for miss in accounting.misses(sent, 5.0, [0, 1])] == ["unexplained"]
    assert accounting.misses(sent, 7.0, [0, 1]) == []


def test_an_origin_that_died_before_anybody_had_its_message_explains_all():
    world, hosts, accounting = room(3)
    accounting.new_broadcast(0, 20)
    world.run(0.6)
    world.crash(hosts[0])
    world.run(20.0)
    misses = accounting.misses(accounting.sent[0], 5.0, range(3))
    assert {miss.why for miss in misses} == {"origin died before anybody had it"}


# -------------------------------------------------------------------------------------------------------------- beliefs


def test_views_follow_the_events_and_contradictions_are_noted():
    world, hosts, accounting = room(2)
    observer, subject = hosts
    accounting.on_event(observer, PeerSuspected(subject.peer))
    assert "whom it has not discovered" in accounting.violations[0]
    meets(world, observer, subject)
    meets(world, observer, subject)
    assert "twice" in accounting.violations[1]
    accounting.on_event(observer, PeerResumed(subject.peer))
    assert "whom it did not suspect" in accounting.violations[2]
    accounting.on_event(observer, PeerLeft(subject.peer, "timeout"))
    accounting.on_event(observer, PeerLeft(subject.peer, "timeout"))
    assert len(accounting.violations) == 4
    assert accounting.views[observer.index] == {}


def test_an_honest_story_has_no_violations():
    world, hosts, accounting = room(2)
    meets(world, *hosts)
    for event in (PeerSuspected(hosts[1].peer), PeerResumed(hosts[1].peer), PeerLeft(hosts[1].peer, "left")):
        accounting.on_event(hosts[0], event)
    meets(world, *hosts)
    assert accounting.violations == []
    assert [fact.kind for fact in accounting.facts] == ["discovered", "suspected", "resumed", "left", "discovered"]


def test_seats_shown_are_counted_at_their_peak():
    _, hosts, accounting = room(2)
    accounting.on_event(hosts[0], SeatsChanged((hosts[0].peer, hosts[1].peer, None), 0))
    accounting.on_event(hosts[0], SeatsChanged((hosts[0].peer, None, None), 0))
    assert accounting.seats_most == 2


def test_a_new_life_starts_with_an_empty_view():
    world, hosts, accounting = room(2)
    meets(world, *hosts)
    world.crash(hosts[0])
    world.start(hosts[0])
    assert accounting.views[0] == {}
    assert [life.how for life in accounting.lives[0]] == ["crash", ""]
    assert accounting.was_up(0, 0.0, world.now) is True
    world.run(5.0)
    assert accounting.was_up(0, 0.1, 5.0) is False


# ---------------------------------------------------------------------------------------------------------------- graph


def test_the_true_graph_falls_apart_and_comes_together():
    world, hosts, _ = room(4)
    assert [sorted(group) for group in components_of(hosts)] == [[0, 1, 2, 3]]
    cut = split([[0, 1], [2, 3]])
    world.links.cut(cut)
    assert [sorted(group) for group in components_of(hosts)] == [[0, 1], [2, 3]]
    world.links.mend(cut)
    world.crash(hosts[1])
    # Who has come just now and is not linked to the others yet is no piece of the room yet.
    assert sample(world, of(world), compare_views=True).components == 1
    world.run(JOINING_S)
    seen = sample(world, of(world), compare_views=True)
    assert (seen.up, seen.components, seen.largest, seen.isolated, seen.min_degree) == (3, 2, 2, 1, 0)
    assert seen.equal_views is False


def test_equal_views_are_seen_as_such():
    world, a, b = pair()
    meets(world, a, b)
    assert sample(world, of(world), compare_views=True).equal_views is False
    meets(world, b, a)
    assert sample(world, of(world), compare_views=True).equal_views is True


def test_percentiles_are_by_nearest_rank():
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([7.0], 0.01) == 7.0
    assert percentile([], 0.5) != percentile([], 0.5)
    assert percentile([3.0, 1.0, 2.0], 0.5) == pytest.approx(2.0, abs=GRAIN)
