"""RFC 7675 in virtual time."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from psyne_mesh.webrtc.ice.consent import EXPIRY_S, Consent


def drive(
    consent: Consent, now: float, until: float, *, rtt_s: float | None, alive_every_s: float | None = None
) -> list[tuple[float, str]]:
    """Run the timers; checks are answered after `rtt_s`, or never. What happened, with times."""
    happened: list[tuple[float, str]] = []
    answers: list[tuple[float, float]] = []
    next_alive = now + alive_every_s if alive_every_s else float("inf")
    while True:
        coming = [consent.next_timeout(), next_alive, *(at for at, _ in answers)]
        now = min(coming)
        if now > until or consent.expired:
            return happened
        if next_alive <= now:
            next_alive += alive_every_s or 0.0
            happened += [(now, "revived")] * consent.note_alive(now)
        for answer in [a for a in answers if a[0] <= now]:
            answers.remove(answer)
            happened += [(now, "revived")] * consent.check_answered(now, now - answer[1])
        for verdict in consent.handle_timeout(now):
            happened.append((now, verdict))
            if verdict == "check":
                consent.check_sent(now)
                if rtt_s is not None:
                    answers.append((now + rtt_s, now))


def names(happened: list[tuple[float, str]]) -> list[str]:
    return [name for _, name in happened]


@pytest.fixture
def consent() -> Consent:
    return Consent(0.0, random.Random(1))


def test_checks_come_at_once_soon_again_and_then_every_five(consent: Consent) -> None:
    times = [at for at, name in drive(consent, 0.0, 60.0, rtt_s=0.02)]
    assert times[0] == 0.0
    assert times[1:3] == [0.5, 1.5]  # they confirm the nomination
    gaps = [b - a for a, b in pairwise(times[2:])]
    assert len(gaps) > 8
    assert all(4.0 <= gap <= 6.0 for gap in gaps)
    assert len(set(gaps)) == len(gaps)
    assert consent.srtt_s == pytest.approx(0.02)


@pytest.mark.parametrize("rtt_s", [0.8, 2.5])
def test_a_long_round_trip_is_not_a_loss(consent: Consent, rtt_s: float) -> None:
    """aioice#58: its deadline of 0.5 s ended such links."""
    assert "expired" not in names(drive(consent, 0.0, 120.0, rtt_s=rtt_s))
    assert names(drive(consent, 120.0, 180.0, rtt_s=rtt_s)).count("disconnected") == 0
    assert consent.answer_deadline_s == pytest.approx(3 * rtt_s, rel=0.05)


def test_silence_is_told_after_three_misses_and_ends_after_thirty_seconds(consent: Consent) -> None:
    drive(consent, 0.0, 20.0, rtt_s=0.01)
    happened = drive(consent, 20.0, 100.0, rtt_s=None)
    told = next(at for at, name in happened if name == "disconnected")
    ended = next(at for at, name in happened if name == "expired")
    assert 20.0 < told < 30.0
    assert EXPIRY_S - 6.0 <= ended - 20.0 <= EXPIRY_S
    assert names(happened).count("disconnected") == 1
    assert names(happened)[-1] == "expired"
    assert not consent.note_alive(101.0)


def test_a_peer_that_answers_no_check_but_sends_lives(consent: Consent) -> None:
    """str0m#846: Chromium may stop answering and keep sending."""
    happened = drive(consent, 0.0, 200.0, rtt_s=None, alive_every_s=0.5)
    assert "expired" not in names(happened)
    assert "disconnected" not in names(happened)


def test_a_disconnected_path_revives_once(consent: Consent) -> None:
    happened = drive(consent, 0.0, 15.0, rtt_s=None)
    assert names(happened).count("disconnected") == 1
    assert names(drive(consent, 15.0, 30.0, rtt_s=0.1)).count("revived") == 1
    assert not consent.disconnected


def test_checks_are_quick_while_answers_are_missing(consent: Consent) -> None:
    drive(consent, 0.0, 10.0, rtt_s=0.01)
    times = [at for at, name in drive(consent, 10.0, 25.0, rtt_s=None) if name == "check"]
    assert max(b - a for a, b in pairwise(times[1:])) <= 1.0


def test_a_hint_of_silence_makes_it_certain_in_a_second_and_a_half(consent: Consent) -> None:
    drive(consent, 0.0, 12.0, rtt_s=0.01)
    consent.suspect(12.0)
    happened = drive(consent, 12.0, 20.0, rtt_s=None)
    assert happened[0] == (12.0, "check")
    assert next(at for at, name in happened if name == "disconnected") == pytest.approx(13.5)


def test_a_false_alarm_costs_two_checks(consent: Consent) -> None:
    drive(consent, 0.0, 12.0, rtt_s=0.01)
    for _ in range(10):
        consent.suspect(12.0)
    assert names(drive(consent, 12.0, 15.9, rtt_s=0.1)) == ["check", "check"]
    assert not consent.disconnected


def test_distrust_ends_with_an_answer_and_with_nothing_else(consent: Consent) -> None:
    """What the peer sends shows that its direction works. Ours may be the dead one."""
    drive(consent, 0.0, 12.0, rtt_s=0.01)
    assert consent.distrust(12.0)
    assert not consent.distrust(12.1)
    happened = drive(consent, 12.1, 20.0, rtt_s=None, alive_every_s=0.1)
    assert set(names(happened)) == {"check"}
    assert consent.disconnected
    assert names(drive(consent, 20.0, 25.0, rtt_s=0.05)).count("revived") == 1


def test_a_peer_that_is_back_after_consent_expired_is_found_within_two_seconds(consent: Consent) -> None:
    drive(consent, 0.0, 60.0, rtt_s=None)
    assert consent.expired
    asked: list[float] = []
    now = 60.0
    while now < 70.0:
        now = consent.next_timeout()
        if "check" in consent.handle_timeout(now):
            asked.append(now)
            consent.check_sent(now)
    assert max(b - a for a, b in pairwise(asked)) <= 2.0
    assert consent.check_answered(now, 0.05)


def test_checks_join_others_only_while_all_is_well(consent: Consent) -> None:
    assert consent.check_sent(0.0, 5.0) == 0.5  # the first two confirm the nomination, so they have their own times
    consent.check_answered(0.01, 0.01)
    assert consent.check_sent(0.5, 5.0) == 1.5
    consent.check_answered(0.51, 0.01)
    assert consent.check_sent(1.5, 6.9) == 6.9
    assert consent.next_timeout() == 2.0  # the answer
    consent.check_answered(1.51, 0.01)
    assert consent.next_timeout() == 6.9
    consent.suspect(3.0)
    assert consent.check_sent(3.0, 8.0) == 4.0


def test_an_appointment_is_kept_within_the_bounds_of_the_rfc(consent: Consent) -> None:
    """RFC 7675 section 5.1: 0.8 to 1.2 times five seconds, and never less than four."""
    drive(consent, 0.0, 10.0, rtt_s=0.01)
    for number in range(200):
        now, appointment = 100.0 * number, 100.0 * number + number / 20
        due = consent.check_sent(now, appointment)
        consent.check_answered(now, 0.01)
        assert now + 4.0 <= due <= now + 6.0
        assert (due == appointment) == (4.0 <= number / 20 <= 6.0)
