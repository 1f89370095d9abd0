"""The view: which record wins, what being gone means, and hashes that follow."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.gossip.codec import NO_HASH
from psyne_mesh.gossip.membership import Change, Membership, Status
from psyne_mesh.gossip.records import ALIVE, LEAVING, OwnState, Record, RoomKey
from psyne_mesh.identity import PeerId
from tests.gossip.cluster import CheapIdentity

ROOM = RoomKey.of(b"room")


def record(
    who: int = 1, epoch: int = 1, incarnation: int = 0, state: int = ALIVE, joined_at: int = 1, lifetime: int = 300
) -> Record:
    own = OwnState(epoch=epoch, incarnation=incarnation, state=state, joined_at=joined_at, lifetime=lifetime)
    return own.sign(ROOM, CheapIdentity(who))


def peer(who: int = 1) -> PeerId:
    return CheapIdentity(who).peer_id


A, L = ALIVE, LEAVING
# (known before, its status, what comes, the change, alive afterwards)
TABLE = [
    (None, None, (1, 0, A, 1), Change.JOINED, True),
    (None, None, (1, 0, L, 1), Change.NOTED, False),
    ((1, 0, A, 1), "alive", (1, 0, A, 1), Change.SAME, True),
    ((1, 1, A, 1), "alive", (1, 0, A, 1), Change.STALE, True),
    ((1, 0, A, 1), "alive", (1, 1, A, 1), Change.UPDATED, True),
    ((1, 0, A, 1), "alive", (2, 0, A, 1), Change.UPDATED, True),  # it refuted a verdict that we never made
    ((1, 0, A, 1), "alive", (2, 0, A, 2), Change.RESTARTED, True),
    ((1, 0, A, 1), "alive", (1, 0, L, 1), Change.LEFT, False),
    ((2, 0, A, 2), "alive", (1, 9, L, 1), Change.STALE, True),
    ((1, 0, A, 1), "down", (1, 0, A, 1), Change.SAME, False),
    ((1, 0, A, 1), "down", (1, 5, A, 1), Change.NOTED, False),  # down is final for an epoch
    ((1, 0, A, 1), "down", (2, 0, A, 1), Change.JOINED, True),
    ((1, 0, A, 1), "down", (1, 1, L, 1), Change.NOTED, False),
    ((1, 0, L, 1), "left", (1, 9, A, 1), Change.NOTED, False),
    ((1, 0, L, 1), "left", (2, 0, A, 2), Change.JOINED, True),
]


@pytest.mark.parametrize(("before", "status", "comes", "change", "alive"), TABLE)
def test_what_a_record_does(before, status, comes, change, alive) -> None:  # type: ignore[no-untyped-def]
    view = Membership(10)
    if before is not None:
        view.apply(record(1, *before), 0.0, None)
    if status == "down":
        view.mark_down(peer(), 0.0)
    assert view.apply(record(1, *comes), 1.0, None) is change
    assert view.is_alive(peer()) is alive
    assert view.alive == ([peer()] if alive else [])


def test_hashes_name_the_living_whatever_the_way_there() -> None:
    one, two = Membership(10), Membership(10)
    for who in (1, 2, 3):
        one.apply(record(who), 0.0, peer(9))
    one.mark_down(peer(3), 0.0)
    two.apply(record(2), 0.0, peer(9))
    two.apply(record(1, incarnation=0), 0.0, peer(9))
    assert (one.view_hash, one.buckets) == (two.view_hash, two.buckets)
    two.apply(record(1, incarnation=1), 0.0, peer(9))
    assert one.view_hash != two.view_hash
    one.forget(peer(1), 0.0)
    one.forget(peer(2), 0.0)
    assert (one.view_hash, one.buckets) == (NO_HASH, [NO_HASH] * 16)


def test_own_and_others_records_make_the_same_hash() -> None:
    mine, theirs = Membership(10), Membership(10)
    mine.set_own(record(1), 0.0)
    mine.apply(record(2), 0.0, peer(9))
    theirs.set_own(record(2), 0.0)
    theirs.apply(record(1), 0.0, peer(9))
    assert mine.view_hash == theirs.view_hash


def test_the_table_is_bounded() -> None:
    view = Membership(3)
    changes = [view.apply(record(who), 0.0, None) for who in range(5)]
    assert changes == [Change.JOINED] * 3 + [Change.REFUSED] * 2
    view.mark_down(peer(0), 1.0)
    assert view.apply(record(4), 2.0, None) is Change.JOINED
    assert view.apply(record(0, epoch=2), 3.0, None) is Change.REFUSED


def test_the_gone_are_remembered_oldest_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.gossip.membership._GONE_MAX", 2)
    view = Membership(10)
    for who in (1, 2, 3):
        view.apply(record(who), 0.0, None)
        view.mark_down(peer(who), float(who))
    assert [member.record.peer for member in view.down()] == [peer(2), peer(3)]
    assert view.get(peer(1)) is None


def test_of_those_long_gone_only_the_version_stays_and_it_keeps_late_rumours_out() -> None:
    view = Membership(100)
    for who in range(10):
        view.apply(record(who, incarnation=3), 0.0, None)
    view.apply(record(0, incarnation=4, state=LEAVING), 10.0, None)
    for who in range(1, 8):
        view.mark_down(peer(who), 100.0 * who)
    assert view.tidy(65.0) == []
    assert view.tidy(100.0) == [peer(0)]
    assert view.get(peer(0)) is None
    assert view.is_past(peer(0), 1)
    assert not view.is_past(peer(0), 2)
    assert view.apply(record(0, incarnation=2), 101.0, None) is Change.STALE
    assert view.apply(record(0, incarnation=9), 101.0, None) is Change.NOTED  # he has to raise his epoch
    assert not view.is_alive(peer(0))
    assert view.apply(record(0, epoch=2), 102.0, None) is Change.JOINED
    assert view.tidy(1200.0) == [peer(1), peer(2), peer(3)]  # the others are worth a knock
    assert [member.record.peer for member in view.down()] == [peer(who) for who in (4, 5, 6, 7)]
    assert view.apply(record(1, incarnation=3), 1201.0, None) is Change.NOTED
    member = view.get(peer(1))
    assert member is not None
    assert (member.status, member.since) == (Status.DOWN, 100.0)  # so that he can be told
    view.remember_down(record(2), 1202.0)
    assert view.get(peer(2)) is None
    view.tidy(3900.0)
    assert not view.is_past(peer(2), 1)  # a rumour as old as that has no carrier any more


def test_those_lost_together_stay_worth_a_knock() -> None:
    view = Membership(100)
    for who in range(20):
        view.apply(record(who), 0.0, None)
    for who in range(8):
        view.mark_down(peer(who), 10.0 + 0.1 * who)  # a cut
    for who in range(8, 16):
        view.mark_down(peer(who), 100.0 * who)  # crashes
    view.tidy(5000.0)
    assert [member.record.peer for member in view.down()] == [peer(who) for who in (*range(8), 12, 13, 14, 15)]


def test_the_past_is_bounded_by_the_size_of_the_room() -> None:
    view = Membership(1000)
    for who in range(300):
        view.apply(record(who, state=LEAVING), 0.0, None)
    assert len(view.tidy(100.0)) == 300
    assert sum(view.is_past(peer(who), 1) for who in range(300)) == 64


def test_who_speaks_for_an_earlier_life_itself_is_let_in() -> None:
    view = Membership(100)
    view.apply(record(1, epoch=5, state=LEAVING), 0.0, None)
    view.tidy(100.0)
    assert view.apply(record(1, epoch=4), 100.0, None) is Change.STALE
    view.clock_went_back(record(1, epoch=5))
    assert view.is_past(peer(1), 5)
    view.clock_went_back(record(1, epoch=4))
    assert view.apply(record(1, epoch=4), 100.0, None) is Change.JOINED


def test_expiry_counts_from_the_last_word() -> None:
    view = Membership(10)
    view.apply(record(1, lifetime=10), 0.0, None, age=4.0)
    view.apply(record(2, lifetime=10), 0.0, None)
    assert view.expired(6.5) == [peer(1)]
    view.apply(record(1, incarnation=1, lifetime=10), 6.5, None)
    assert view.expired(11.0) == [peer(2)]


def test_random_members_are_members() -> None:
    view = Membership(100)
    for who in range(20):
        view.apply(record(who), 0.0, None)
    for who in range(0, 20, 2):
        view.mark_down(peer(who), 1.0)
    odd = {peer(who) for who in range(1, 20, 2)}
    assert set(view.alive) == odd
    assert set(view.random_alive(random.Random(1), 50)) == odd
    member = view.get(peer(0))
    assert member is not None
    assert member.status is Status.DOWN
