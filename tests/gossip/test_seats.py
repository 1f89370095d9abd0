"""Seats: never more than N in any view, the same N once views are equal, incumbents before newcomers."""

from __future__ import annotations

import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import BallotDue, ClaimDue, Effects, Seating, SeatLost
from psyne_mesh.gossip.events import Evicted, SeatsChanged
from psyne_mesh.gossip.seats import Claim, Seats, assign, vote_of
from psyne_mesh.identity import PeerId
from tests.gossip.cluster import CheapIdentity, Cluster

ROOM = bytes(16)
PEERS = [CheapIdentity(n).peer_id for n in range(8)]
ME, A, B, C = PEERS[:4]

# ------------------------------------------------------------------------------------------------------- assignment


@given(
    claims=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5)), max_size=30),
    ballots=st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=6), max_size=8),
    seed=st.integers(0, 1000),
)
def test_any_claims_seat_everybody_once_and_in_any_order_alike(
    claims: list[tuple[int, int]], ballots: list[list[tuple[int, int]]], seed: int
) -> None:
    wishes = [Claim(PEERS[who], seat) for who, seat in dict(claims).items()]
    votes = [tuple((seat, vote_of(PEERS[who])) for seat, who in ballot) for ballot in ballots]
    seats = assign(ROOM, 4, [wish for wish in wishes if wish.seat < 4], votes)
    holders = [holder for holder in seats if holder is not None]
    assert len(seats) == 4
    assert len(set(holders)) == len(holders)
    assert {seat for seat, holder in enumerate(seats) if holder} == {wish.seat for wish in wishes if wish.seat < 4}
    random.Random(seed).shuffle(wishes)
    random.Random(seed).shuffle(votes)
    assert assign(ROOM, 4, [wish for wish in wishes if wish.seat < 4], votes) == seats


def test_votes_beat_the_hash_and_one_voter_counts_once() -> None:
    claims = [Claim(A, 0), Claim(B, 0)]
    winner = assign(ROOM, 1, claims, [])[0]
    loser = B if winner == A else A
    assert assign(ROOM, 1, claims, [((0, vote_of(loser)),)]) == (loser,)
    stuffed = ((0, vote_of(loser)),) * 5
    both = [stuffed, ((0, vote_of(winner)),), ((0, vote_of(winner)),)]  # type: ignore[arg-type]
    assert assign(ROOM, 1, claims, both) == (winner,)


# --------------------------------------------------------------------------------------------------------- our seat


def seats(count: int = 2) -> Seats:
    machine = Seats(GossipConfig(max_players=count), ROOM, ME, random.Random(1), Effects(), wanted=True)
    machine.start(0.0)
    return machine


def drain(machine: Seats) -> list[object]:
    facts, machine.effects.facts = list(machine.effects.facts), []
    return facts


def advance(machine: Seats, until: float) -> list[object]:
    while machine.deadline <= until:
        machine.handle_timeout(machine.deadline)
    return drain(machine)


def test_alone_we_take_a_seat_after_a_second() -> None:
    machine = seats()
    machine.view([], 0.0)
    assert advance(machine, 0.9) == []
    [claim] = advance(machine, 1.1)
    assert isinstance(claim, ClaimDue)
    machine.view([Claim(ME, claim.seat or 0)], 1.1)
    assert machine.own_seat == claim.seat
    [seating] = drain(machine)
    assert isinstance(seating, Seating)
    assert seating.own == claim.seat


def test_among_others_we_wait_for_their_view_but_not_for_ever() -> None:
    machine = seats()
    machine.view([Claim(A, 0)], 0.1)
    drain(machine)
    assert advance(machine, 4.0) == []
    assert advance(machine, 5.5) == [ClaimDue(1)]
    quick = seats()
    quick.view([Claim(A, 0)], 0.1)
    drain(quick)
    quick.synced(0.2)
    assert advance(quick, 0.6) == [ClaimDue(1)]


def test_a_lost_claim_moves_to_a_free_seat_and_without_one_is_given_up() -> None:
    machine = seats(2)
    machine.synced(0.0)
    machine.view([], 0.0)
    [claim] = advance(machine, 1.0)
    assert isinstance(claim, ClaimDue)
    ours = claim.seat or 0
    rival = ((ours, vote_of(A)),)
    machine.view([Claim(ME, ours), Claim(A, ours, ballot=rival)], 2.0)
    drain(machine)
    assert advance(machine, 2.7) == [ClaimDue(1 - ours)]
    rivals = ((ours, vote_of(A)), (1 - ours, vote_of(B)))
    machine.view([Claim(ME, 1 - ours), Claim(A, ours, ballot=rivals), Claim(B, 1 - ours)], 3.0)
    drain(machine)
    assert advance(machine, 3.7) == [ClaimDue(None), SeatLost()]
    machine.view([Claim(A, ours, ballot=rivals), Claim(B, 1 - ours)], 4.0)
    assert advance(machine, 9.0) == []
    machine.view([Claim(A, ours, ballot=rivals)], 10.0)  # B left
    assert [fact for fact in advance(machine, 12.0) if isinstance(fact, ClaimDue)] == [ClaimDue(1 - ours)]


def test_a_full_room_is_told_once() -> None:
    machine = seats(1)
    machine.view([Claim(A, 0)], 0.0)
    machine.synced(0.0)
    drain(machine)
    assert advance(machine, 1.0) == [SeatLost()]
    machine.view([Claim(B, 0)], 2.0)
    assert [fact for fact in advance(machine, 5.0) if isinstance(fact, SeatLost)] == []


def test_we_vote_for_a_seating_that_stood_a_while() -> None:
    machine = seats(2)
    machine.synced(0.0)
    machine.view([], 0.0)
    [claim] = advance(machine, 1.0)
    assert isinstance(claim, ClaimDue)
    ours = claim.seat or 0
    machine.view([Claim(ME, ours), Claim(A, 1 - ours)], 1.0)
    drain(machine)
    assert advance(machine, 1.7) == []
    [ballot] = advance(machine, 2.3)
    assert isinstance(ballot, BallotDue)
    assert sorted(ballot.ballot) == sorted([(ours, vote_of(ME)), (1 - ours, vote_of(A))])


def test_an_older_life_s_seat_is_taken_up_again() -> None:
    machine = seats(8)
    machine.held_before(5)
    machine.view([Claim(ME, 5), Claim(A, 0)], 0.0)  # others keep it for our key
    machine.synced(0.0)
    assert ClaimDue(5) in advance(machine, 1.0)


def test_who_wants_no_seat_claims_none() -> None:
    machine = Seats(GossipConfig(max_players=2), ROOM, ME, random.Random(1), Effects(), wanted=False)
    machine.start(0.0)
    machine.view([Claim(A, 0), Claim(B, 1)], 0.0)
    drain(machine)
    assert advance(machine, 100.0) == []
    assert machine.seats == (A, B)


# ----------------------------------------------------------------------------------------------------- whole rooms


def room(seed: int, size: int, max_players: int) -> Cluster:
    cluster = Cluster(seed, GossipConfig(max_players=max_players))
    first = cluster.add(0).peer_id
    for index in range(1, size):
        cluster.add(index, knows=[first])
    cluster.run(15.0)
    return cluster


def seatings(cluster: Cluster) -> set[tuple[PeerId | None, ...]]:
    return {node.seats for node in cluster.nodes.values()}


def never_too_many(cluster: Cluster, count: int) -> bool:
    return all(
        len([holder for holder in event.seats if holder is not None]) <= count
        for _, _, event in cluster.events(SeatsChanged)
        if isinstance(event, SeatsChanged)
    )


@pytest.mark.parametrize("seed", range(4))
def test_ten_players_race_for_eight_seats(seed: int) -> None:
    cluster = room(seed, 10, 8)
    [seating] = seatings(cluster)
    assert None not in seating
    losers = [peer for _, peer, event in cluster.events(Evicted)]
    assert len(losers) == len(set(losers)) == 2
    assert not set(losers) & set(seating)
    assert never_too_many(cluster, 8)
    leaver = seating[3]
    assert leaver is not None
    cluster.leave(leaver)
    cluster.run(8.0)
    [after] = seatings(cluster)
    assert after[3] in losers  # who waited moves up


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [2, 3, 5])
def test_who_comes_together_is_seated_soon_whoever_has_the_lower_id(seed: int, size: int) -> None:
    cluster = Cluster(seed, GossipConfig(max_players=8), dial_time=(0.1, 0.2))
    for index in range(size):
        cluster.add(10 * seed + index, knows=cluster.ids())
    cluster.run(10.0, until=lambda: len(cluster.links) == size * (size - 1) // 2)
    took = cluster.run(
        10.0, until=lambda: all(set(node.seats) >= set(cluster.nodes) for node in cluster.nodes.values())
    )
    assert took <= 1.2 + 0.6  # who is alone claims after a second; then a lost claim costs one more


@pytest.mark.parametrize("seed", range(6))
def test_five_joiners_on_two_sides_of_a_cut_race_for_the_eighth_seat(seed: int) -> None:
    cluster = room(seed, 7, 8)
    incumbents = cluster.ids()
    [before] = seatings(cluster)
    side = {peer: place < 4 for place, peer in enumerate(incumbents)}
    cluster.blocked = cluster.no_dial = lambda a, b: side[a] != side[b]
    for index, there in ((10, True), (11, True), (12, True), (13, False), (14, False)):
        joiner = CheapIdentity(index).peer_id
        side[joiner] = there
        cluster.add(index, knows=[peer for peer in incumbents if side[peer] == there][:1])
    cluster.run(20.0)
    assert len(seatings(cluster)) == 2
    assert all(set(filter(None, before)) <= set(seating) for seating in seatings(cluster))
    cluster.blocked = cluster.no_dial = lambda a, b: False
    cluster.run(30.0, until=cluster.views_equal)
    cluster.run(2.0)
    [after] = seatings(cluster)
    assert None not in after
    assert set(incumbents) <= set(after)
    assert never_too_many(cluster, 8)
    evicted = {peer for _, peer, _ in cluster.events(Evicted)}
    assert evicted == set(cluster.nodes) - set(after)


def test_a_seat_waits_for_its_player_to_come_back() -> None:
    cluster = room(2, 6, 6)
    [before] = seatings(cluster)
    victim = cluster.ids()[4]
    cluster.crash(victim)
    cluster.run(10.0)
    cluster.add(20, knows=[cluster.ids()[0]])  # somebody else would like the place
    cluster.run(10.0)
    assert seatings(cluster) == {before}
    cluster.add(4, epoch=99, knows=[cluster.ids()[0]])
    cluster.run(10.0)
    assert seatings(cluster) == {before}


def test_a_seat_does_not_wait_for_ever() -> None:
    cluster = room(2, 6, 6)
    victim = cluster.ids()[4]
    cluster.crash(victim)
    cluster.run(60.0)
    newcomer = cluster.add(20, knows=[cluster.ids()[0]]).peer_id
    cluster.run(10.0)
    [after] = seatings(cluster)
    assert newcomer in after
    assert victim not in after


def test_a_room_knows_as_many_members_as_it_has_seats() -> None:
    assert GossipConfig(max_players=1024).full_knowledge_max == 1024
    assert attrs.evolve(GossipConfig(), max_players=300).full_knowledge_max == 300
    assert GossipConfig(max_players=8).full_knowledge_max == 256
