"""Deafness: told from loss both ways and from silence, and what a node does that finds itself deaf."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.gossip.doubt import Doubt
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.events import PeerDiscovered, PeerLeft
from psyne_mesh.gossip.hearing import Hearing, Hearings, deaf_for
from psyne_mesh.identity import PeerId
from tests.gossip.cluster import Cluster, room_of
from tests.gossip.test_node_partial_mesh import crowd


def talk(loss_in: float, loss_out: float, seconds: float, seed: int = 1) -> Hearing:
    """Both ends send four probes a second; returns what our end makes of it."""
    rng = random.Random(seed)
    ours, theirs = Hearing(), Hearing()
    for tick in range(int(seconds * 4)):
        now = tick / 4
        theirs.sent = (theirs.sent + 1) & 0xFFFF
        if rng.random() >= loss_in:
            ours.probe_received(theirs.sent, theirs.got, now)
        ours.sent = (ours.sent + 1) & 0xFFFF
        if rng.random() >= loss_out:
            theirs.probe_received(ours.sent, ours.got, now)
    return ours


def ten_good_seconds(ours: Hearing) -> None:
    for tick in range(40):
        ours.sent += 1
        ours.probe_received(tick + 1, ours.sent, tick / 4)


@pytest.mark.parametrize("seed", range(5))
def test_loss_of_what_comes_in_is_deafness(seed: int) -> None:
    assert talk(0.8, 0.0, 40.0, seed).deaf_s > 20.0


@pytest.mark.parametrize(
    ("loss_in", "loss_out"), [(0.0, 0.0), (0.1, 0.1), (0.3, 0.3), (0.0, 0.8), (0.8, 0.8), (0.3, 0.0)]
)
def test_other_loss_is_not(loss_in: float, loss_out: float) -> None:
    assert max(talk(loss_in, loss_out, 600.0, seed).deaf_s for seed in range(5)) < 8.0


def test_a_deaf_stretch_is_seen_when_it_ends_and_forgotten_in_time() -> None:
    ours = Hearing()
    ten_good_seconds(ours)
    ours.sent += 80
    ours.probe_received(120, ours.sent, 30.0)  # 80 of theirs were lost in 20 s, none of ours
    assert ours.deaf_s == pytest.approx(20.25)
    for tick in range(480):
        ours.sent += 1
        ours.probe_received(121 + tick, ours.sent, 30.0 + (tick + 1) / 4)
    assert ours.deaf_s == 0.0


def test_counters_wrap_and_a_new_life_of_the_peer_says_nothing() -> None:
    ours = Hearing()
    ours.sent = 65_530
    for tick in range(100):
        ours.sent = (ours.sent + 1) & 0xFFFF
        ours.probe_received((65_500 + tick) & 0xFFFF, ours.sent, tick / 4)
    assert ours.deaf_s == 0.0
    ours.probe_received(30_000, 0, 25.0)
    assert ours.deaf_s == 0.0


def test_most_links_must_agree() -> None:
    links = [Hearing() for _ in range(5)]
    for link, seconds in zip(links, (30.0, 40.0, 50.0, 0.0, 0.0), strict=True):
        link.deaf_s, link.known_s = seconds, 60.0
    links += [Hearing() for _ in range(9)]  # newcomers have nothing to say of the past
    assert deaf_for(links) == 30.0
    assert deaf_for(links[1:5]) == 0.0  # two of four
    assert deaf_for(links[:2]) == 0.0  # too few to tell


def parted_and_met(lost_in: int, lost_out: int, apart_s: float) -> Hearing:
    """Ten good seconds, then `lost_in` and `lost_out` of 40 probes in ten seconds, then no link for a while."""
    kept, peer = Hearings(), PeerId("00" * 16)
    ours = kept.link_up(peer, 0.0)
    ten_good_seconds(ours)
    ours.sent += 40
    kept.link_down(peer, ours, 20.0)
    ours = kept.link_up(peer, 20.0 + apart_s)
    if lost_in:
        ours.sent += 1
        ours.probe_received(41 + lost_in, 81 - lost_out, 20.0 + apart_s)
    return ours


def test_a_deaf_stretch_at_whose_end_the_link_was_lost_is_seen_when_there_is_one_again() -> None:
    assert parted_and_met(40, 0, 8.0).deaf_s == pytest.approx(18.25)
    assert parted_and_met(40, 0, 60.0).deaf_s == pytest.approx(25.25)  # a long time without a link proves little


def test_a_cut_is_no_deafness() -> None:
    assert parted_and_met(40, 40, 8.0).deaf_s == 0.0
    assert parted_and_met(2, 0, 8.0).deaf_s == 0.0


def test_what_was_lost_while_we_stood_still_is_no_deafness() -> None:
    ours = Hearing()
    ten_good_seconds(ours)
    ours.sent += 40
    ours.stood_still(20.0)
    ours.probe_received(80, ours.sent, 20.0)  # an old one, that had waited; the next ones found the buffer full
    ours.sent += 10
    ours.probe_received(120, ours.sent, 20.5)
    assert ours.deaf_s == 0.0
    for tick in range(8):  # what is lost from now on counts
        ours.sent += 10
        ours.probe_received(130 + 10 * tick, ours.sent, 23.0 + 2.5 * tick)
    assert ours.deaf_s == pytest.approx(20.0)


def known_for(seconds: float) -> Hearing:
    """Up to now, which is 0."""
    hearing = Hearing()
    for tick in range(int(4 * seconds) + 1):
        hearing.probe_received(tick, 0, tick / 4 - seconds)
    return hearing


def test_counters_of_links_long_gone_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parted_and_met(0, 0, 100.0).sent == 80
    assert parted_and_met(0, 0, 130.0).sent == 0
    monkeypatch.setattr("psyne_mesh.gossip.hearing._KEPT_MAX", 2)
    kept = Hearings()
    peers = [PeerId(f"{n:032x}") for n in range(3)]
    for peer in peers:
        kept.link_down(peer, known_for(10.0), 1.0)
    assert kept.former(1.0) == peers[1:]
    assert kept.former(130.0) == []
    kept.link_down(peers[0], known_for(10.0), 200.0)
    kept.link_down(peers[1], known_for(1.0), 200.0)  # has nothing to say of our past
    assert kept.former(200.0) == peers[:1]
    kept.clear()
    assert kept.former(200.0) == []


def test_a_deaf_member_stands_aside_and_comes_back() -> None:
    room = room_of(6, 3)
    ids = list(room.ids())
    victim, others = ids[0], ids[1:]
    node = room.nodes[victim]
    for link in node._core.links.values():
        link.loss.deaf_s = 100.0
    room.run(5.0)
    assert node.members == (victim,)
    left = [event.reason for _, at, event in room.events(PeerLeft) if at != victim and event.peer == victim]  # type: ignore[attr-defined]
    assert left == ["left"] * len(others)
    assert all(victim not in room.nodes[peer].members for peer in others)
    room.run(290.0)
    assert all(victim not in room.nodes[peer].members for peer in others)
    room.run(30.0)
    assert all(len(room.nodes[peer].members) == 6 for peer in ids)


def test_who_had_lost_all_links_asks_former_neighbours() -> None:
    room = crowd(40, 2)
    victim = room.ids()[5]
    core = room.nodes[victim]._core
    before = list(core.links)
    for peer in before:
        core.hang_up(peer, "lost", room.now)
    for peer in core.dialer.wanted:
        core.dialer.drop(peer)
    first = next(peer for peer in room.ids() if peer != victim and peer not in before)
    room.tell(victim, lambda node: node.link_up(first, room.now, 0.05))
    assert set(before[-12:]) <= set(core.dialer.wanted)


# ------------------------------------------------------------------------------------------------------------- doubt


PEERS = [PeerId(f"{n:032x}") for n in range(20)]


def test_only_who_lost_nearly_everybody_doubts_and_once_in_each_life() -> None:
    doubt = Doubt(Effects())
    company = [*(known_for(10.0) for _ in range(5)), known_for(1.0)]
    assert doubt.begin(1, [], [], 0.0) == []
    assert doubt.begin(1, PEERS, [*company, known_for(10.0)], 0.0) == []  # somebody knows that we live
    assert doubt.begin(1, PEERS[:2], company, 0.0) == []  # no more to ask than are here
    assert not doubt.is_open
    assert doubt.begin(1, PEERS, company, 0.0) == PEERS[-12:]
    assert doubt.is_open
    assert doubt.begin(1, PEERS, company, 0.0) == []
    assert doubt.begin(2, PEERS, company, 0.0) == PEERS[-12:]


def test_whom_we_did_not_hear_meanwhile_is_no_company() -> None:
    company = [known_for(10.0) for _ in range(6)]
    assert Doubt(Effects()).begin(1, PEERS, company, 9.0) == []
    assert Doubt(Effects()).begin(1, PEERS, company, 11.0) != []  # they have fallen silent, too
    for number, hearing in enumerate(company):
        hearing.probe_received(100, 0, 20.0 + number / 2)  # and speak again
    assert Doubt(Effects()).begin(1, PEERS, company, 23.0) != []
    for tick in range(30):
        for hearing in company:
            hearing.probe_received(101 + tick, 0, 23.0 + tick / 4)
    assert Doubt(Effects()).begin(1, PEERS, company, 30.5) == []


def test_a_doubt_ends_when_enough_have_told_or_time_is_over() -> None:
    doubt = Doubt(Effects())
    asked = doubt.begin(1, PEERS, [], 10.0)
    told, silent = Hearing(), Hearing()
    told.probe_received(1, 1, 11.0)
    some = dict.fromkeys(asked[:2], told) | {asked[2]: silent} | dict.fromkeys(PEERS[:5], told)
    assert not doubt.is_over(some, deaf=False, now=doubt.deadline)
    enough = dict.fromkeys(asked[:3], told)
    assert not doubt.is_over(enough, deaf=True, now=doubt.deadline)  # the rest follows
    found_deaf = Hearing()
    found_deaf.probe_received(1, 1, 11.0)
    found_deaf.deaf_s = 9.0
    assert not doubt.is_over({**enough, asked[2]: found_deaf}, deaf=False, now=doubt.deadline)  # then all are heard
    assert doubt.is_over(enough, deaf=False, now=doubt.deadline)
    assert not doubt.is_open
    doubt.begin(3, PEERS, [], 10.0)
    everybody = dict.fromkeys(asked, told)
    assert doubt.is_over({**everybody, asked[2]: found_deaf}, deaf=False, now=doubt.deadline)
    doubt.begin(2, PEERS, [], 20.0)
    while not doubt.is_over({}, deaf=False, now=doubt.deadline):
        assert doubt.deadline <= 24.25
    assert not doubt.is_open
    doubt.begin(4, PEERS, [], 10.0)
    few = dict.fromkeys(asked[:2], found_deaf)
    assert not doubt.is_over(few, deaf=False, now=17.9)  # others may need a second dial
    assert doubt.is_over(few, deaf=False, now=18.0)


def lost_and_called_gone(seed: int, *, deaf: bool) -> tuple[Cluster, PeerId]:
    """For 20 s a member hears nothing, and is heard or not; then the network is whole again."""
    room = crowd(40, seed)
    victim = room.ids()[5]
    room.run(20.0)
    room.blocked = lambda a, b: b == victim or (a == victim and not deaf)
    room.no_dial = lambda a, b: victim in (a, b)
    others = [node for peer, node in room.nodes.items() if peer != victim]
    room.run(19.0)
    if deaf:  # who is deaf and still heard is seldom called gone; here it is
        for node in others:
            core = node._core
            core.census._lose(victim, "timeout", room.now)
            room.drain(node.peer_id)
    assert all(victim not in node.members for node in others)
    room.run(1.0)
    room.mend()
    room.no_dial = lambda a, b: False
    room.log.clear()
    return room, victim


@pytest.mark.parametrize("seed", range(3))
def test_who_was_cut_off_comes_back_for_good(seed: int) -> None:
    room, _ = lost_and_called_gone(seed, deaf=False)
    assert room.run(40.0, until=room.views_equal) < 40.0
    room.run(20.0)
    assert room.views_equal()


@pytest.mark.parametrize("seed", range(3))
def test_who_was_deaf_does_not_come_back_only_to_go_again(seed: int) -> None:
    room, victim = lost_and_called_gone(seed, deaf=True)
    room.run(60.0)
    seen = [event for _, at, event in room.events(PeerDiscovered) if at != victim]
    assert all(event.record.peer != victim for event in seen)  # type: ignore[attr-defined]
    assert room.nodes[victim]._core.aside
    assert [event for _, at, event in room.events(PeerLeft) if at != victim] == []
