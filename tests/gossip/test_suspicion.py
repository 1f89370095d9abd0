"""Cases: how long they run, what confirms, refutes and ends them."""

from __future__ import annotations

import math

import pytest

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import CaseClosed, CaseOpened, Effects, SecondOpinionDue, VerdictReached
from psyne_mesh.gossip.policy import PARTIAL
from psyne_mesh.gossip.records import DOWN, SUSPECT
from psyne_mesh.gossip.suspicion import Suspicions
from psyne_mesh.identity import PeerId

ME, X, A, B, C = (PeerId(letter * 32) for letter in "0abcd")
CONFIG = GossipConfig(suspicion_min_s=1.0, suspicion_max_s=6.0, confirmations=2)


def accuse(
    cases: Suspicions, accuser: PeerId, now: float, *, verdict: int = SUSPECT, contested: bool = False,
    witnesses: int = 10, version: tuple[int, int] = (1, 0),
) -> bool:  # fmt: skip
    return cases.accuse(X, version, accuser, verdict, now, own=accuser == ME, contested=contested, witnesses=witnesses)


def verdicts(cases: Suspicions) -> list[object]:
    return [fact for fact in cases.effects.facts if isinstance(fact, VerdictReached)]


# Lifeguard: max(Min, Max - (Max - Min) * log(C + 1) / log(K + 1)) with Min 1, Max 6, K 2
@pytest.mark.parametrize(
    ("accusers", "timeout"), [([ME], 6.0), ([ME, A], 2.845), ([ME, A, B], 1.0), ([ME, A, B, C], 1.0)]
)
def test_confirmations_shorten_the_wait(accusers: list[PeerId], timeout: float) -> None:
    cases = Suspicions(CONFIG, Effects())
    for accuser in accusers:
        accuse(cases, accuser, 10.0)
    assert cases.deadline == pytest.approx(10.0 + timeout, abs=0.01)
    cases.handle_timeout(cases.deadline)
    assert verdicts(cases) == [VerdictReached(X, 1, 0, own=True)]


@pytest.mark.parametrize(("witnesses", "timeout"), [(0, 1.0), (1, 6.0), (2, 6.0)])
def test_without_witnesses_there_is_nothing_to_wait_for(witnesses: int, timeout: float) -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, ME, 0.0, witnesses=witnesses)
    assert cases.deadline == pytest.approx(timeout)


def test_one_witness_is_enough_where_there_is_only_one() -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, ME, 0.0, witnesses=1)
    accuse(cases, A, 0.5, witnesses=1)
    assert cases.deadline == pytest.approx(1.0)


def test_a_verdict_of_another_ends_our_own_case_at_once() -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, ME, 0.0)
    accuse(cases, A, 0.3, verdict=DOWN)
    cases.handle_timeout(0.3)
    assert len(verdicts(cases)) == 1


@pytest.mark.parametrize("heals_first", [True, False])
def test_while_a_cut_heals_a_verdict_from_beyond_it_does_not_end_our_own_case_at_once(heals_first: bool) -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, ME, 0.0)
    if heals_first:
        cases.cut_heals(0.2)
    accuse(cases, A, 0.3, verdict=DOWN, contested=True)  # it has just come back
    if not heals_first:
        cases.cut_heals(0.3)
    cases.handle_timeout(1.2)
    assert verdicts(cases) == []
    cases.handle_timeout(6.0)  # it is silent still
    assert len(verdicts(cases)) == 1


def test_a_stranger_alone_convinces_late_and_strangers_never_at_once() -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, A, 0.0, verdict=DOWN)
    assert cases.deadline == pytest.approx(6.0)
    accuse(cases, B, 0.1, verdict=DOWN)
    accuse(cases, C, 0.1, verdict=DOWN)
    assert cases.deadline == pytest.approx(1.0)
    cases.handle_timeout(1.0)
    assert verdicts(cases) == [VerdictReached(X, 1, 0, own=False)]


def test_a_strangers_late_verdict_is_not_believed_on_arrival() -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, A, 0.0)
    accuse(cases, A, 11.9, verdict=DOWN)  # long after the six seconds that its word has
    accuse(cases, A, 12.5, verdict=DOWN)  # the same again is no news
    cases.handle_timeout(12.8)
    assert verdicts(cases) == []
    assert cases.deadline == pytest.approx(12.9)
    cases.handle_timeout(12.9)
    assert len(verdicts(cases)) == 1


def test_the_time_to_answer_a_verdict_counts_from_the_first() -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, A, 0.0)
    accuse(cases, B, 0.1)
    accuse(cases, A, 2.5, verdict=DOWN)
    accuse(cases, B, 3.4, verdict=DOWN)  # who was alive would have answered the other one
    cases.handle_timeout(3.4)
    assert verdicts(cases) == []
    cases.handle_timeout(3.5)
    assert len(verdicts(cases)) == 1


def test_hearing_the_subject_closes_the_case() -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, ME, 0.0)
    assert cases.suspected == [X]
    cases.clear(X)
    assert cases.effects.facts == [CaseOpened(X), CaseClosed(X)]
    cases.handle_timeout(100.0)
    assert verdicts(cases) == []


def test_a_newer_record_refutes_an_older_case_only() -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, A, 0.0, version=(1, 3))
    cases.clear_older(X, (1, 3))
    assert cases.is_suspected(X)
    cases.clear_older(X, (1, 4))
    assert not cases.is_suspected(X)
    accuse(cases, A, 0.0, version=(1, 4))
    assert not accuse(cases, B, 0.0, version=(1, 3))


def test_a_contested_case_rests_but_its_accusers_count_later() -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, A, 0.0, contested=True)
    accuse(cases, B, 0.1, contested=True)
    assert cases.effects.facts == []
    assert not cases.is_suspected(X)
    accuse(cases, ME, 0.3)
    assert cases.deadline == pytest.approx(1.0)  # the subject has heard of it since A spoke
    late = Suspicions(CONFIG, Effects())
    accuse(late, A, 0.0, contested=True)
    accuse(late, B, 0.1, contested=True)
    accuse(late, ME, 5.0)
    assert late.deadline == pytest.approx(5.5)  # but has half the time from our own word on


def test_one_stranger_who_never_comes_to_a_verdict_convinces_nobody() -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, A, 0.0)
    cases.handle_timeout(cases.deadline)
    assert cases.effects.facts == [CaseOpened(X), CaseClosed(X)]
    assert cases.deadline == math.inf


def test_time_in_which_we_stood_still_does_not_count() -> None:
    cases = Suspicions(CONFIG, Effects())
    for accuser in (ME, A, B):
        accuse(cases, accuser, 0.0)
    cases.note_loop_lag(8.0)
    cases.handle_timeout(8.5)
    assert verdicts(cases) == []
    cases.handle_timeout(9.0)
    assert len(verdicts(cases)) == 1


def test_we_can_take_back_what_we_said() -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, ME, 0.0)
    cases.retract(X, ME)
    assert cases.effects.facts == [CaseOpened(X), CaseClosed(X)]
    accuse(cases, A, 10.0)
    cases.retract(X, ME)  # never said
    accuse(cases, ME, 10.0)
    cases.retract(X, ME)
    assert cases.is_suspected(X)  # others stand by it
    cases.handle_timeout(50.0)
    assert verdicts(cases) == []  # but one stranger convinces nobody


def test_a_contested_case_ends_without_a_verdict() -> None:
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, A, 0.0, contested=True)
    cases.handle_timeout(50.0)
    assert cases.effects.facts == []
    assert not cases.knows(X, (1, 0), A, SUSPECT)


def test_repetitions_and_crowds_are_no_news() -> None:
    cases = Suspicions(CONFIG, Effects())
    assert accuse(cases, A, 0.0)
    assert cases.knows(X, (1, 0), A, SUSPECT)
    assert not cases.knows(X, (1, 0), A, DOWN)
    assert not cases.knows(X, (1, 1), A, SUSPECT)
    for letter in "123456789":
        accuse(cases, PeerId(letter * 32), 0.0)
    assert cases.knows(X, (1, 0), PeerId("e" * 32), SUSPECT)
    assert not cases.knows(X, (1, 0), PeerId("e" * 32), DOWN)
    accuse(cases, A, 0.0, verdict=DOWN)
    assert cases.knows(X, (1, 0), PeerId("e" * 32), DOWN)


def test_the_number_of_cases_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.gossip.suspicion._CASES_MAX", 1)
    cases = Suspicions(CONFIG, Effects())
    accuse(cases, A, 0.0)
    assert not cases.accuse(B, (1, 0), A, SUSPECT, 0.0, own=False, contested=False, witnesses=3)


def test_in_a_large_room_those_who_fell_silent_together_go_together() -> None:
    cases = Suspicions(CONFIG, Effects())
    cases.policy = PARTIAL
    for number, subject in enumerate((X, A, B)):
        at = 0.5 * number
        cases.accuse(subject, (1, 0), ME, SUSPECT, at, own=True, contested=False, witnesses=0)
    while not verdicts(cases):
        cases.handle_timeout(cases.deadline)
    assert {fact.subject for fact in verdicts(cases)} == {X, A, B}  # type: ignore[attr-defined]
    assert cases.deadline == math.inf


def test_a_verdict_waits_two_seconds_for_others_and_no_longer() -> None:
    cases = Suspicions(CONFIG, Effects())
    cases.policy = PARTIAL
    cases.accuse(X, (1, 0), ME, SUSPECT, 0.0, own=True, contested=False, witnesses=0)  # due after a second
    cases.accuse(A, (1, 0), ME, SUSPECT, 0.0, own=True, contested=False, witnesses=10)  # after six
    cases.handle_timeout(1.0)
    assert verdicts(cases) == []
    cases.handle_timeout(cases.deadline)
    assert verdicts(cases) == [VerdictReached(X, 1, 0, own=True)]
    assert cases.deadline == 6.0


def test_whose_verdict_waited_and_who_answered_meanwhile_gets_all_the_time_of_a_new_case() -> None:
    cases = Suspicions(CONFIG, Effects())
    cases.policy = PARTIAL
    for subject in (X, A, B):
        cases.accuse(subject, (1, 0), ME, SUSPECT, 0.0, own=True, contested=False, witnesses=0)
    cases.handle_timeout(1.0)
    assert verdicts(cases) == []  # three at once wait for more
    cases.clear_older(X, (1, 1))
    accuse(cases, C, 1.2, verdict=DOWN, version=(1, 1))  # six seconds to answer
    cases.accuse(C, (1, 0), ME, SUSPECT, 1.5, own=True, contested=False, witnesses=0)
    while cases.deadline < 7.0:
        cases.handle_timeout(cases.deadline)
    assert {fact.subject for fact in verdicts(cases)} == {A, B, C}  # type: ignore[attr-defined]
    assert cases.is_suspected(X)


def test_a_wait_that_nobody_needed_any_more_does_not_shorten_the_next() -> None:
    cases = Suspicions(CONFIG, Effects())
    cases.policy = PARTIAL
    for subject in (X, A, B):
        cases.accuse(subject, (1, 0), ME, SUSPECT, 0.0, own=True, contested=False, witnesses=0)
    cases.handle_timeout(1.0)
    for subject in (X, A, B):
        cases.clear(subject)
    for subject in (X, A, B):
        cases.accuse(subject, (1, 1), ME, SUSPECT, 100.0, own=True, contested=False, witnesses=0)
    cases.handle_timeout(101.0)
    assert verdicts(cases) == []
    cases.handle_timeout(cases.deadline)
    assert cases.deadline == math.inf
    assert len(verdicts(cases)) == 3


def test_in_a_large_room_neighbours_are_asked_before_a_verdict_on_the_word_of_others() -> None:
    cases = Suspicions(CONFIG, Effects())
    cases.policy = PARTIAL
    for accuser in (A, B, C):
        accuse(cases, accuser, 0.0)
    cases.handle_timeout(cases.deadline)
    assert cases.effects.facts[-1] == SecondOpinionDue(X)
    assert verdicts(cases) == []
    accuse(cases, A, cases.deadline - 0.1, verdict=DOWN)  # it does not hurry the answers
    cases.handle_timeout(cases.deadline - 0.05)
    assert verdicts(cases) == []
    cases.handle_timeout(cases.deadline)
    assert verdicts(cases) == [VerdictReached(X, 1, 0, own=False)]
    assert sum(isinstance(fact, SecondOpinionDue) for fact in cases.effects.facts) == 1


def test_a_refutation_that_a_neighbour_brings_then_ends_the_case() -> None:
    cases = Suspicions(CONFIG, Effects())
    cases.policy = PARTIAL
    for accuser in (A, B, C):
        accuse(cases, accuser, 0.0)
    cases.handle_timeout(cases.deadline)
    assert cases.clear_older(X, (1, 1))
    cases.handle_timeout(10.0)
    assert verdicts(cases) == []


def test_what_our_own_link_saw_needs_no_second_opinion() -> None:
    cases = Suspicions(CONFIG, Effects())
    cases.policy = PARTIAL
    accuse(cases, ME, 0.0)
    cases.handle_timeout(cases.deadline)
    assert not any(isinstance(fact, SecondOpinionDue) for fact in cases.effects.facts)


@pytest.mark.parametrize(("rtt_s", "verdict_s"), [(0.05, 1.0), (0.25, 1.0), (0.8, 2.1)])
def test_who_is_far_away_gets_the_time_of_another_way_round(rtt_s: float, verdict_s: float) -> None:
    cases = Suspicions(GossipConfig(), Effects())
    cases.accuse(X, (1, 0), ME, SUSPECT, 0.0, own=True, contested=False, witnesses=0, rtt_s=rtt_s)
    assert cases.deadline == pytest.approx(verdict_s)


def test_while_a_cut_heals_the_word_of_others_is_not_enough() -> None:
    cases = Suspicions(CONFIG, Effects())
    cases.policy = PARTIAL
    cases.cut_heals(0.0)
    for accuser in (A, B, C):
        accuse(cases, accuser, 0.2, verdict=DOWN)
    while cases.deadline < 4.0:
        cases.handle_timeout(cases.deadline)
    assert verdicts(cases) == []
    cases.handle_timeout(cases.deadline)
    assert verdicts(cases) == [VerdictReached(X, 1, 0, own=False)]
