"""The room's clock: how wrong it is, and that it never is by more than it says."""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Callable
from itertools import count

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.game.room_clock import SETTLING_S, Reading, RoomClock


@attrs.define
class Outcome:
    errors_ms: list[float] = attrs.field(factory=list)
    violated: int = 0
    backward: int = 0
    set_after_s: list[float] = attrs.field(factory=list)

    @property
    def p95_ms(self) -> float:
        return sorted(self.errors_ms)[int(0.95 * len(self.errors_ms))]


class Party:
    """Members with clocks of their own (any epoch, 50 ppm of drift) who probe each other in virtual time and measure
    themselves.
    """

    def __init__(
        self,
        members: int,
        seed: int,
        latency_s: float = 0.025,
        jitter_s: float = 0.02,
        liar: int | None = None,
        period_s: float = 2.0,
    ) -> None:
        """`jitter_s` is of the round trip, to either side."""
        self.rng = random.Random(seed)
        self.latency_s, self.jitter_s, self.liar, self.period_s = latency_s, jitter_s, liar, period_s
        self.epochs = [self.rng.uniform(0, 1e6) for _ in range(members)]
        self.drifts = [self.rng.uniform(-5e-5, 5e-5) for _ in range(members)]
        self.clocks: dict[int, RoomClock] = {}
        self.outcome = Outcome()
        self._joined: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._count = count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        for member in range(members):
            self._at(
                0.0 if not member else self.rng.uniform(0.1, 3.0), lambda now, member=member: self._join(member, now)
            )
        self._at(0.05, self._measure)

    def play(self, seconds: float) -> Outcome:
        while self._events and self._events[0][0] < seconds:
            now, _, what = heapq.heappop(self._events)
            what(now)
        return self.outcome

    def local(self, member: int, now: float) -> float:
        return self.epochs[member] + (1 + self.drifts[member]) * now

    def _at(self, when: float, what: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), what))

    def _join(self, member: int, now: float) -> None:
        others = list(self.clocks)
        self.clocks[member] = RoomClock(self.local(member, now), None if others else 1000.0)
        self._joined[member] = now
        for other in others:
            for pair in ((member, other), (other, member)):
                for early in range(5):  # a new link is probed quickly at first
                    self._at(now + 0.1 * early, lambda at, pair=pair: self._probe(*pair, at))
                self._at(now + self.rng.uniform(0, self.period_s), lambda at, pair=pair: self._again(*pair, at))

    def _again(self, member: int, other: int, now: float) -> None:
        self._probe(member, other, now)
        self._at(now + self.period_s * self.rng.uniform(0.8, 1.2), lambda at: self._again(member, other, at))

    def _way_s(self) -> float:
        return max(0.0002, self.latency_s + self.rng.uniform(-self.jitter_s, self.jitter_s) / 2)

    def _probe(self, member: int, other: int, now: float) -> None:
        sent = self.local(member, now)

        def answer(then: float) -> None:
            reading = self.clocks[other].reading(self.local(other, then))
            if reading is not None:
                if other == self.liar:
                    reading = reading._replace(correction=reading.correction + self.rng.choice([-5.0, 0.7, 5.0]))
                self._at(then + self._way_s(), lambda last: self._answered(member, other, sent, reading, last))

        self._at(now + self._way_s(), answer)

    def _answered(self, member: int, other: int, sent: float, reading: Reading, now: float) -> None:
        clock = self.clocks[member]
        was_set = clock.is_set
        clock.sample(other, sent, reading, self.local(member, now))
        if clock.is_set and not was_set:
            self.outcome.set_after_s.append(now - self._joined[member])

    def truth(self, member: int, now: float) -> float:
        return self.clocks[member]._reading(self.local(member, now))

    def _measure(self, now: float) -> None:
        self._at(now + 0.05, self._measure)
        honest = [member for member, clock in self.clocks.items() if clock.is_set and member != self.liar]
        room = statistics.median([self.truth(member, now) for member in honest])
        for member in honest:
            clock = self.clocks[member]
            known = [other for other in clock._others if isinstance(other, int) and self.clocks[other].is_set]
            seen = statistics.median([self.truth(other, now) for other in (member, *known)])
            time = clock.time(self.local(member, now))
            if self.liar is None and abs(time - seen) > clock.error(self.local(member, now)) + 1e-9:
                self.outcome.violated += 1
            settled = now - self._joined[member] > SETTLING_S and (
                self.liar is None or now > 12
            )  # four honest ones, a while
            if settled:
                self.outcome.errors_ms.append(abs(time - room) * 1e3)
                self.outcome.backward += time < self._last.get(member, -math.inf)
                self._last[member] = time


@pytest.mark.parametrize(
    "seeds", [range(30), pytest.param(range(1000), marks=pytest.mark.slow)], ids=["few", "thousand"]
)
def test_the_clock_is_right_to_five_milliseconds_and_its_bound_holds(seeds: range) -> None:
    """50 +- 20 ms of round trip: p95 of the error over all runs, and not one moment beyond the bound in any."""
    errors: list[float] = []
    for seed in seeds:
        outcome = Party((2, 3, 4, 8)[seed % 4], seed).play(12)
        assert outcome.violated == 0, seed
        assert outcome.backward == 0, seed
        errors += outcome.errors_ms
    assert sorted(errors)[int(0.95 * len(errors))] <= 5


def test_on_a_local_network_it_is_right_to_a_millisecond() -> None:
    for seed in range(5):
        assert Party(8, seed, 0.0005, 0.0008).play(12).p95_ms <= 1


def test_it_can_be_used_half_a_second_after_the_first_link() -> None:
    for seed in range(10):
        after = Party(4, seed).play(8).set_after_s
        assert len(after) == 3
        assert max(after) <= 0.5


@pytest.mark.parametrize("members", [4, 5, 9])
def test_a_liar_cannot_move_it_beyond_the_honest_ones(members: int) -> None:
    """It lies by seconds. While it is one of two or three it pulls the others after it; once it is one of four they agree."""
    for seed in range(4):
        outcome = Party(members, seed, liar=members - 1).play(20)
        assert outcome.p95_ms <= 15
        assert outcome.backward == 0


def test_it_never_goes_back_and_runs_five_percent_fast_or_slow_at_most() -> None:
    clock = RoomClock(0.0, 100.0)
    clock.sample("a", 10.0, Reading(500.0, -385.0, 0.0), 10.02)  # five seconds ahead
    last = clock.time(10.02)
    for step in range(1, 4000):
        now = 10.02 + step * 0.01
        if step % 100 == 0:
            clock.sample("a", now - 0.02, Reading(500.0 + now - 10.01, -385.0, 0.0), now)
        time = clock.time(now)
        assert 0.0094 <= time - last <= 0.01051
        last = time
    assert last - now == pytest.approx(102.5, abs=0.8)  # two who disagree meet half way


def test_who_joins_shows_its_own_time_until_it_knows_better() -> None:
    clock = RoomClock(7.0)
    assert not clock.is_set
    assert clock.reading(8.0) is None
    assert clock.error(8.0) == math.inf
    assert clock.time(9.0) == 9.0
    clock.sample("a", 9.0, Reading(50.0, 950.0, 0.0), 9.04)
    clock.sample("a", 9.1, Reading(50.1, 950.0, 0.0), 9.14)
    assert clock.is_set
    assert clock.time(9.14) == pytest.approx(1000.12, abs=0.001)
    assert clock.error(9.14) == pytest.approx(0.01, abs=0.001)  # half way between its interval and ours
    offset = clock.offset("a", 9.14)
    assert offset is not None
    assert offset[0] == pytest.approx(0.0, abs=1e-6)
    clock.forget("a")
    assert clock.offset("a", 9.2) is None


@given(st.floats(), st.floats(), st.floats(), st.floats(0, 100), st.floats(0, 100))
def test_no_number_that_a_member_tells_breaks_it(
    raw: float, correction: float, slew: float, sent: float, received: float
) -> None:
    clock = RoomClock(0.0, 5.0)
    clock.sample("honest", 99.0, Reading(99.0, 5.0, 0.0), 99.1)
    clock.sample("other", sent, Reading(raw, correction, slew), received)
    time, later = clock.time(100.0), clock.time(101.0)
    assert math.isfinite(time)
    assert 0.94 <= later - time <= 1.06


# ------------------------------------------------------------------------------------------- what two game libraries do


def netfox_error_ms(seed: int) -> float:
    """NTP with the host: eight samples, one each quarter of a second, averaged; the clock is nudged by an eighth of
    the rest each time (netfox docs, NetworkTime). Returns the p95 of the error in ms.
    """
    dice = random.Random(seed)
    offset, samples, errors = 0.0, [], []
    for _ in range(40):
        there, back = (max(0.0002, 0.025 + dice.uniform(-0.01, 0.01)) for _ in range(2))
        samples = [*samples[-7:], (there - back) / 2]
        offset += (sum(samples) / len(samples) - offset) / 8
        errors.append(abs(offset) * 1e3)
    return sorted(errors)[int(0.95 * len(errors))]


def lightyear_error_ms(seed: int) -> float:
    """A ping each 100 ms into a moving average of a twelfth, as lightyear's sync does."""
    dice = random.Random(seed)
    offset, errors = 0.0, []
    for _ in range(100):
        there, back = (max(0.0002, 0.025 + dice.uniform(-0.01, 0.01)) for _ in range(2))
        offset += ((there - back) / 2 - offset) / 12
        errors.append(abs(offset) * 1e3)
    return sorted(errors)[int(0.95 * len(errors))]


def test_beside_two_game_libraries_that_ask_one_host_ten_times_as_often() -> None:
    """They have no bound, need a host, and follow it when it lies. Without liars and with symmetric jitter averages
    do well: the figure to watch is that the median of a room asked every two seconds stays within 2.5 times theirs.
    """
    ours = statistics.mean(Party(4, seed).play(12).p95_ms for seed in range(8))
    theirs = statistics.mean((netfox_error_ms(seed) + lightyear_error_ms(seed)) / 2 for seed in range(50))
    assert ours <= 2.5 * theirs


@pytest.mark.parametrize("members", [4, 6])
def test_one_way_latencies_are_right_and_a_path_that_is_slow_one_way_shows(members: int) -> None:
    """Members 0 and 1: 10 ms there, 110 ms back. All other ways take 25 ms, give or take 5."""
    party = Party(members, 1, jitter_s=0.01)
    whole = party._way_s

    def probe(member: int, other: int, now: float) -> None:
        slow = {(0, 1): 0.010, (1, 0): 0.110}
        there, back = (slow.get(pair, whole()) for pair in ((member, other), (other, member)))
        sent = party.local(member, now)

        def answer(then: float) -> None:
            reading = party.clocks[other].reading(party.local(other, then))
            if reading is not None:
                party._at(then + back, lambda last: party._answered(member, other, sent, reading, last))

        party._at(now + there, answer)

    party._probe = probe  # type: ignore[method-assign]
    party.play(40)
    for one in range(members):
        for other in range(members):
            if one == other:
                continue
            ways = party.clocks[one].one_way(other)
            assert ways is not None
            skew = (ways[0] - ways[1]) * 1e3
            if {one, other} == {0, 1}:
                assert skew == pytest.approx(100 if one == 0 else -100, abs=30)
            else:
                assert ways[0] * 1e3 == pytest.approx(25, abs=15)
                assert abs(skew) <= 30
    assert party.clocks[0].one_way("nobody") is None
