"""Deafness: told from loss both ways and from silence, and what a node does that finds itself deaf."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.gossip.events import PeerLeft
from psyne_mesh.gossip.hearing import Hearing, deaf_for
from tests.gossip.cluster import room_of


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
    for tick in range(40):
        ours.sent += 1
        ours.probe_received(tick + 1, ours.sent, tick / 4)
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
        link.deaf_s = seconds
    assert deaf_for(links) == 30.0
    assert deaf_for(links[1:]) == 0.0  # two of four
    assert deaf_for(links[:2]) == 0.0  # too few to tell


def test_a_deaf_member_stands_aside_and_comes_back() -> None:
    room = room_of(6, 3)
    ids = list(room.ids())
    victim, others = ids[0], ids[1:]
    node = room.nodes[victim]
    for link in node._core.detector.links.values():
        link.hearing.deaf_s = 100.0
    room.run(5.0)
    assert node.members == (victim,)
    left = [event.reason for _, at, event in room.events(PeerLeft) if at != victim and event.peer == victim]  # type: ignore[attr-defined]
    assert left == ["left"] * len(others)
    assert all(victim not in room.nodes[peer].members for peer in others)
    room.run(290.0)
    assert all(victim not in room.nodes[peer].members for peer in others)
    room.run(30.0)
    assert all(len(room.nodes[peer].members) == 6 for peer in ids)
