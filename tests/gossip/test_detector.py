"""Probing of links, with a clock by hand."""

from __future__ import annotations

import math
import random

import pytest

from psyne_mesh.gossip import codec
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.detector import Detector, nack_after_s
from psyne_mesh.gossip.effects import (
    CutOff,
    Effects,
    FrameDue,
    LinkBroken,
    LinkHeard,
    LinkImpaired,
    LinkSilent,
    ProbeDue,
)
from psyne_mesh.gossip.neighbours import Neighbours
from psyne_mesh.gossip.policy import PARTIAL
from psyne_mesh.identity import PeerId

PEERS = [PeerId(f"{n:032x}") for n in range(1, 8)]
X = PEERS[0]


class Bench:
    """A detector whose peers answer every probe at once, unless they are in `dead`."""

    def __init__(self, links: int = 5) -> None:
        self.neighbours = Neighbours()
        self.detector = Detector(GossipConfig(), random.Random(1), self.neighbours, Effects())
        self.now = 0.0
        self.dead: list[PeerId] = []
        self.frames: list[FrameDue] = []
        self.pings: list[ProbeDue] = []
        self.impaired: list[tuple[float, PeerId]] = []
        self.facts: list[tuple[float, object]] = []
        for peer in PEERS[:links]:
            self.detector.link_up(self.neighbours.open(peer, self.now, outbound=True), self.now, 0.05)

    def lose(self, peer: PeerId) -> None:
        lost = self.neighbours.lose(peer)
        assert lost is not None
        self.detector.link_lost(lost, self.now)

    def run(self, until: float) -> None:
        while self.detector.deadline <= until:
            self.now = max(self.now, self.detector.deadline)
            self.detector.handle_timeout(self.now)
            self.drain()
        self.now = until

    def drain(self) -> None:
        while self.detector.effects.probing:
            fact = self.detector.effects.probing.pop(0)
            if isinstance(fact, ProbeDue):
                self.pings.append(fact)
                if fact.peer not in self.dead:
                    link = self.neighbours.watched[fact.peer]
                    self.detector.heard(link, self.now)
                    self.detector.ack_received(link, fact.sequence, self.now)
            elif isinstance(fact, FrameDue):
                self.frames.append(fact)
            elif isinstance(fact, LinkImpaired):
                self.impaired.append((self.now, fact.peer))
            else:
                self.facts.append((self.now, fact))


def test_everybody_is_pinged_again_and_again() -> None:
    bench = Bench()
    bench.run(25.0)  # links are asked more often while they are young
    bench.pings.clear()
    bench.run(35.0)
    for peer in PEERS[:5]:
        assert 14 <= sum(ping.peer == peer for ping in bench.pings) <= 19  # 4 contacts in an interval, among 5 links
    assert bench.facts == []
    assert bench.detector.local_health == 0


def test_who_pings_us_need_not_be_pinged() -> None:
    bench = Bench(links=1)
    link = bench.neighbours.watched[X]
    for tick in range(100):
        bench.now = tick / 10
        bench.detector.heard(link, bench.now)
        bench.detector.ping_received(link, bench.now, 0.04)
        bench.run(bench.now)
    assert len(bench.pings) < 6


def test_the_more_neighbours_watch_the_less_each_of_them_asks() -> None:
    few, many = Bench(links=2), Bench(links=7)
    for bench in (few, many):
        bench.run(25.0)
        bench.pings.clear()
        bench.run(85.0)
    assert 110 <= sum(ping.peer == X for ping in few.pings) <= 130  # one each 0.5 s: there is nobody else
    assert 60 <= sum(ping.peer == X for ping in many.pings) <= 80


def test_a_stretched_pace_asks_less() -> None:
    bench = Bench(links=7)
    bench.detector.follow(PARTIAL)
    bench.run(25.0)
    bench.pings.clear()
    bench.run(85.0)
    assert 14 <= sum(ping.peer == X for ping in bench.pings) <= 20  # some 2.4 a second among seven


def test_two_late_links_make_us_ask_all_who_have_not_spoken_since() -> None:
    bench = Bench(links=7)
    bench.run(25.0)
    bench.dead = PEERS[:6]
    died_at = bench.now
    bench.run(died_at + 2.0)
    silent = {fact.peer for _, fact in bench.facts if isinstance(fact, LinkSilent)}
    waiting = [bench.neighbours.watched[peer].probe.waiting_since for peer in PEERS[:6]]
    assert silent
    assert sorted(waiting)[-1] - sorted(waiting)[1] <= 0.3  # the second late one raised the alarm
    asked_last = bench.neighbours.watched[PEERS[6]].probe.waiting_since
    assert asked_last > bench.now  # who speaks is not waited for


def test_an_accusation_makes_us_ask_at_once_and_halves_our_patience() -> None:
    bench = Bench(links=7)
    bench.run(5.0)
    bench.dead = [X]
    link = bench.neighbours.watched[X]
    before = len(bench.pings)
    bench.now = max(link.probe.heard_at + 0.3, bench.now)
    assert bench.detector.accused(X, bench.now)  # as far as we know it lives
    asked_at = bench.now
    bench.drain()
    assert [ping.peer for ping in bench.pings[before:]] == [X]
    bench.run(asked_at + 0.5)
    assert [fact for _, fact in bench.facts] == [LinkSilent(X)]
    assert not bench.detector.accused(X, bench.now)
    assert not bench.detector.accused(PeerId("f" * 32), bench.now)


def test_accusations_cannot_make_us_ask_without_end() -> None:
    bench = Bench()
    bench.run(5.0)
    before = len(bench.pings)
    for tick in range(100):
        bench.detector.accused(X, bench.now + tick / 1000)
        bench.drain()
    assert len(bench.pings) - before <= 1


def test_silence_is_a_suspicion_after_a_second_and_three_pings() -> None:
    bench = Bench()
    bench.run(5.0)
    heard = bench.neighbours.watched[X].probe.heard_at
    bench.dead = [X]
    bench.run(8.0)
    [(when, fact)] = bench.facts
    assert fact == LinkSilent(X)
    assert 0.6 <= when - bench.neighbours.watched[X].probe.waiting_since <= 0.75
    assert when - heard <= 1.5
    assert bench.neighbours.watched[X].probe.impaired
    asked = [codec.indirect_untrusted(frame.frame) for frame in bench.frames]
    assert {(target, alive) for _, target, alive in asked} == {(X, False)}
    assert len({frame.peer for frame in bench.frames[:3]}) == 3
    [(impaired_at, impaired)] = bench.impaired  # told once, and before the suspicion
    assert (impaired, impaired_at < when) == (X, True)


def test_a_voice_ends_the_suspicion() -> None:
    bench = Bench()
    bench.dead = [X]
    bench.run(3.0)
    bench.dead = []
    bench.run(4.0)
    assert [fact for _, fact in bench.facts] == [LinkSilent(X), LinkHeard(X)]
    assert not bench.neighbours.watched[X].probe.impaired


def test_helpers_who_reach_it_keep_it_alive_until_the_link_is_called_broken() -> None:
    bench = Bench()
    bench.dead = [X]
    for tick in range(1, 120):
        bench.run(tick / 10)
        if bench.frames:
            helper = bench.frames[0].peer
            bench.frames.clear()
            bench.detector.indirect_received(helper, X, True, bench.now)
    assert bench.facts[0][1] == LinkBroken(X)
    assert bench.facts[0][0] > 9.0


def test_whom_nobody_reaches_is_silent_and_keeps_its_link() -> None:
    """All neighbours may be beyond one cut: the links to them are the way back when it heals."""
    bench = Bench()
    bench.run(5.0)
    bench.dead = list(PEERS)
    bench.run(120.0)
    assert sorted(fact.peer for _, fact in bench.facts if isinstance(fact, LinkSilent)) == sorted(PEERS[:5])
    assert not any(isinstance(fact, LinkBroken) for _, fact in bench.facts)


@pytest.mark.parametrize("n_dead", range(1, 6))
def test_who_hears_nobody_in_a_large_room_is_cut_off_itself(n_dead: int) -> None:
    """Its patience grows with each round that nobody answers: it knows after ten seconds all the same."""
    bench = Bench()
    bench.detector.follow(PARTIAL)
    bench.run(5.0)
    bench.dead = PEERS[:n_dead]
    bench.run(17.0)
    cut_off = {fact.peer for _, fact in bench.facts if isinstance(fact, CutOff)}
    assert cut_off == (set(PEERS[:5]) if n_dead == 5 else set())
    assert not any(isinstance(fact, LinkBroken) for _, fact in bench.facts)


@pytest.mark.parametrize("far_s", [0.05, 0.3])
def test_a_helper_is_not_blamed_before_its_answer_can_be_here(far_s: float) -> None:
    """Who is accused is given less time, and helpers are not: they wait as long as ever, and are a round trip away."""
    bench = Bench(links=6)
    bench.run(5.0)
    bench.dead = [X]
    for link in bench.neighbours.watched.values():
        link.probe.srtt, link.probe.rttvar = far_s, 0.0
    bench.neighbours.watched[X].probe.accused_at = math.inf  # all the time
    answers: list[tuple[float, PeerId]] = []
    while bench.now < 7.5:
        bench.run(bench.now + 0.01)
        answers += [
            (bench.now + nack_after_s(bench.detector.patience_min) + far_s, frame.peer) for frame in bench.frames
        ]
        bench.frames.clear()
        for _, helper in [answer for answer in answers if answer[0] <= bench.now]:
            bench.detector.indirect_received(helper, X, False, bench.now)
        answers = [answer for answer in answers if answer[0] > bench.now]
        assert bench.detector.local_health == 0
    assert [fact for _, fact in bench.facts] == [LinkSilent(X)]


def test_missing_nacks_speak_against_ourselves() -> None:
    silent_helpers = Bench()
    silent_helpers.dead = [X]
    silent_helpers.run(1.3)
    assert silent_helpers.detector.local_health > 0
    patient = silent_helpers.detector.patience(silent_helpers.neighbours.watched[X].probe, silent_helpers.now)
    assert patient >= 1.2
    nacking = Bench()
    nacking.dead = [X]
    for tick in range(1, 14):
        nacking.run(tick / 10)
        while nacking.frames:
            nacking.detector.indirect_received(nacking.frames.pop().peer, X, False, nacking.now)
    assert nacking.detector.local_health == 0


def test_helpers_that_fell_silent_themselves_say_nothing_about_us() -> None:
    bench = Bench(links=6)
    bench.run(5.0)
    bench.dead = PEERS[:3]  # a cut
    for tick in range(51, 90):
        bench.run(tick / 10)
        while bench.frames:
            helper = bench.frames.pop().peer
            if helper not in bench.dead:
                bench.detector.indirect_received(helper, X, False, bench.now)
                bench.detector.indirect_received(helper, PEERS[1], False, bench.now)
                bench.detector.indirect_received(helper, PEERS[2], False, bench.now)
    assert sorted(fact.peer for _, fact in bench.facts if isinstance(fact, LinkSilent)) == bench.dead
    assert len(bench.facts) == 3
    assert bench.facts[-1][0] < 6.5


def test_all_links_late_at_once_is_most_likely_our_own_fault() -> None:
    bench = Bench(links=4)
    bench.run(5.0)
    bench.dead = list(PEERS)
    bench.run(6.6)
    assert bench.facts == []
    assert bench.detector.local_health > 0


def test_a_late_loop_is_our_own_fault() -> None:
    bench = Bench()
    bench.run(5.0)
    bench.now = 12.0  # the process stood still
    bench.detector.handle_timeout(bench.now)
    assert bench.detector.local_health > 0
    assert not any(isinstance(fact, LinkSilent) for fact in bench.detector.effects.probing)
    told = Bench()
    told.run(5.0)
    told.detector.note_loop_lag(7.0, 12.0)
    told.detector.handle_timeout(12.0)
    assert told.detector.local_health == bench.detector.local_health  # told and measured count once


def test_local_health_recovers() -> None:
    bench = Bench()
    bench.run(1.0)
    bench.detector.note_loop_lag(2.0, bench.now)
    assert bench.detector.local_health == 3
    bench.run(4.0)
    assert bench.detector.local_health == 0


def test_we_help_others_and_nack_what_we_cannot_reach() -> None:
    bench = Bench()
    asker, stranger = PEERS[1], PEERS[6]
    bench.detector.ping_req_received(asker, 7, stranger, bench.now)
    bench.drain()
    assert bench.frames.pop() == FrameDue(asker, codec.indirect(7, stranger, alive=False))
    bench.detector.ping_req_received(asker, 8, X, bench.now)
    bench.drain()
    assert bench.frames.pop() == FrameDue(asker, codec.indirect(8, X, alive=True))
    bench.dead = [X]
    bench.detector.ping_req_received(asker, 9, X, bench.now)
    bench.run(bench.now + 0.3)
    assert FrameDue(asker, codec.indirect(9, X, alive=False)) in bench.frames


def test_help_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.gossip.detector._HELPS_MAX", 2)
    bench = Bench()
    bench.dead = [X]
    for sequence in range(5):
        bench.detector.ping_req_received(PEERS[1], sequence, X, bench.now)
    assert len([fact for fact in bench.detector.effects.probing if isinstance(fact, ProbeDue)]) == 2


def test_a_lost_link_asks_helpers_and_is_theirs_to_watch_if_they_reach_it() -> None:
    bench = Bench()
    bench.run(2.0)
    bench.lose(X)
    pings = len(bench.pings)
    bench.run(2.2)
    assert all(ping.peer != X for ping in bench.pings[pings:])
    assert bench.frames
    bench.detector.indirect_received(bench.frames[0].peer, X, True, bench.now)
    assert X not in bench.neighbours.watched
    bench.run(6.0)
    assert bench.facts == []


def test_a_lost_link_without_a_good_word_is_silent() -> None:
    bench = Bench()
    bench.run(2.0)
    bench.lose(X)
    bench.run(4.0)
    assert [fact for _, fact in bench.facts] == [LinkSilent(X)]


def test_large_round_trips_get_more_patience() -> None:
    bench = Bench()
    link = bench.neighbours.watched[X]
    for _ in range(50):
        bench.detector.note_rtt(X, 0.8)
    assert bench.detector.patience(link.probe, bench.now) > 1.2
    bench.detector.follow(PARTIAL)
    assert bench.detector.patience(link.probe, bench.now) > bench.detector.patience_min


def test_acks_measure_and_strange_acks_do_not() -> None:
    bench = Bench(links=1)
    link = bench.neighbours.watched[X]
    bench.detector.handle_timeout(bench.detector.deadline)
    [probe] = bench.detector.effects.probing
    assert isinstance(probe, ProbeDue)
    assert bench.detector.ack_received(link, probe.sequence + 1, 1.0) is None
    sent = link.probe.pending[probe.sequence]
    assert bench.detector.ack_received(link, probe.sequence, sent + 0.03) == pytest.approx(0.03)
    assert bench.detector.ack_received(link, probe.sequence, sent + 9.0) is None  # replayed
