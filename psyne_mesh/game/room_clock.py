"""One clock for a room without a master: the median of all members' clocks, with a bound on its error.

Each member keeps a correction to its monotonic clock, and tells both with each answer to a probe (`Reading`). A
probe that left at `sent` and whose answer came at `received` was answered somewhere in between (NTP's argument): so
the other's monotonic clock is known to within half the round trip, whatever part of it either way took, and stays
known but for the drift of two quartzes. With the correction that it told last this gives its room clock. The
members' median lies between the median of the lower ends of these intervals and that of the upper ends, and so far
may we be off. A member that lies can move a median no further than to its honest neighbour, as long as more than
half are honest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

DRIFT = 200e-6
"""Seconds a second that two quartz clocks may part: 100 ppm each, twice what PC boards are sold with."""
KEPT_S = 20.0
"""An interval is used for so long: by then drift has widened it by 4 ms, and some twenty newer ones have come."""
SAMPLES_MAX = 8
"""Intervals kept for each member: those that are tightest now, or will be."""
SLEW_MAX = 0.05
"""A clock that is corrected runs at most so much faster or slower: a second stays one to the eye, and no timer fires
twice.
"""
SLEW_S = 1.0
"""A difference is worked off within this time, if the slew allows."""
SETTLING_S = 2.0
"""A clock that was set for a shorter time than this may still be set anew at once: two who found a room at the same
moment.
"""
LARGEST_S = 1e11
"""Three thousand years: a double still tells ten microseconds there."""
FIRST_SAMPLES = 2
"""So many answers set a clock that has not been set: the better of two is seldom the one that met a full queue."""


class Reading(NamedTuple):
    """What a member tells: its monotonic clock, what it adds to that for the room's time, both in seconds, and by
    how many seconds a second it is changing that just now.
    """

    raw: float
    correction: float
    slew: float


class _Other:
    """What is known of one member: intervals for (its monotonic clock - ours) with the time each was taken, and its
    correction.
    """

    def __init__(self) -> None:
        self._intervals: list[tuple[float, float, float]] = []
        self._correction, self._slew, self._told_at = 0.0, 0.0, 0.0
        self.count = 0
        self.ways: list[tuple[float, float]] = []  # newest last: (to us, from us) by the room's clock

    def add(self, sent: float, theirs: Reading, received: float) -> None:
        """Older intervals that are no tighter than this go, and so does the oldest of too many."""
        self.count += 1
        low, high = theirs.raw - received, theirs.raw - sent
        kept = [
            (taken, a, b)
            for taken, a, b in self._intervals
            if received - taken < KEPT_S and b - a + 2 * DRIFT * (received - taken) < high - low
        ]
        self._intervals = [*kept[-(SAMPLES_MAX - 1) :], (received, low, high)]
        self._correction, self._slew, self._told_at = theirs.correction, theirs.slew, received

    def correction(self, now: float) -> float:
        return self._correction + self._slew * min(now - self._told_at, SLEW_S)

    def interval(self, now: float) -> tuple[float, float]:
        """For (its room clock - our monotonic clock): what all intervals allow, or the tightest where they
        contradict each other (its machine slept). A correction that was changing may have gone on to change, or not.
        """
        wide = [(a - DRIFT * (now - taken), b + DRIFT * (now - taken)) for taken, a, b in self._intervals]
        low, high = max(a for a, _ in wide), min(b for _, b in wide)
        if low > high:
            low, high = min(wide, key=lambda each: each[1] - each[0])
        slewed = self._slew * min(now - self._told_at, SLEW_S)
        return low + self._correction + min(slewed, 0.0), high + self._correction + max(slewed, 0.0)


class RoomClock:
    """1. `sample(member, sent, theirs, received)` for each answered probe, `forget(member)` when it is gone. 2.
    `time(now)` and `error(now)`. 3. `reading(now)` is what to answer probes with, None while we have nothing to tell.

    All times are in seconds; `now`, `sent` and `received` are our monotonic clock.
    """

    def __init__(self, now: float, founded_at: float | None = None) -> None:
        """`founded_at`: the first reading, for who founds the room (for example the server's time). None joins one
        that runs.
        """
        self._others: dict[object, _Other] = {}
        self._since = now
        self._base = now if founded_at is None else founded_at
        self._rate = 1.0
        self._rate_until = now
        self._last = -math.inf
        self._set_at = None if founded_at is None else now

    @property
    def is_set(self) -> bool:
        return self._set_at is not None

    def time(self, now: float) -> float:
        """The room's time. It never goes back, and runs 5 % too fast or slow at most. Before the clock is set: our
        own, from 0.
        """
        reading = self._reading(now)
        if not self.is_set:
            return reading
        self._last = max(self._last, reading)
        return self._last

    def reading(self, now: float) -> Reading | None:
        return (
            Reading(now, self._reading(now) - now, self._rate - 1 if now < self._rate_until else 0.0)
            if self.is_set
            else None
        )

    def _reading(self, now: float) -> float:
        fast = min(now, self._rate_until) - self._since
        return self._base + now - self._since + max(0.0, fast) * (self._rate - 1)

    def error(self, now: float) -> float:
        """No further than this is `time` from the median of all members' clocks; infinite before the clock is set."""
        if not self.is_set:
            return math.inf
        low, high = self._median(now)
        ours = self._reading(now) - now
        return max(abs(low - ours), abs(high - ours))

    def sample(self, member: object, sent: float, theirs: Reading, received: float) -> None:
        """An answer that came before it was asked for, or a number that no clock shows, is no sample."""
        if sent > received or not all(abs(number) < LARGEST_S for number in theirs):
            return
        other = self._others.setdefault(member, _Other())
        slew = max(-SLEW_MAX, min(SLEW_MAX, theirs.slew))
        other.add(sent, theirs._replace(slew=slew), received)
        if not self.is_set:
            if other.count >= FIRST_SAMPLES:
                self._set(received)
        elif self._set_at is not None and received - self._set_at < SETTLING_S:
            low, high = self._median(received)
            if abs((low + high) / 2 - (self._reading(received) - received)) > SLEW_MAX * SETTLING_S:
                self._set(received)
        if self.is_set:
            here = self._reading(received) - theirs.raw - theirs.correction
            other.ways = [*other.ways[-(SAMPLES_MAX - 1) :], (here, received - sent - here)]
        self._correct(received)

    def forget(self, member: object) -> None:
        self._others.pop(member, None)

    def _set(self, now: float) -> None:
        low, high = self._median(now)
        self._base = now + (low + high) / 2
        self._since = self._rate_until = now
        self._last = -math.inf
        if self._set_at is None:
            self._set_at = now

    def _correct(self, now: float) -> None:
        if not self.is_set:
            return
        low, high = self._median(now)
        self._base, self._since = self._reading(now), now
        off = (low + high) / 2 - (self._base - now)
        self._rate = 1 + max(-SLEW_MAX, min(SLEW_MAX, off / SLEW_S))
        self._rate_until = now + min(abs(off) / SLEW_MAX if abs(off) > SLEW_MAX * SLEW_S else SLEW_S, KEPT_S)

    def _median(self, now: float) -> tuple[float, float]:
        """The ends of the interval in which the median of all members' (reading - our monotonic time) lies, ours
        included if set.
        """
        lows, highs = [], []
        for other in self._others.values():
            low, high = other.interval(now)
            lows.append(low)
            highs.append(high)
        if self.is_set:
            ours = self._reading(now) - now
            lows.append(ours)
            highs.append(ours)
        return median(lows), median(highs)

    def correction(self, member: object, now: float) -> float | None:
        """What the member adds to its monotonic clock for the room's time, as it told last; None if it never did."""
        other = self._others.get(member)
        return None if other is None else other.correction(now)

    def offset(self, member: object, now: float) -> tuple[float, float] | None:
        """(how far the member's clock is ahead of ours, half the width of what is known of it); None without an
        answer of it.
        """
        other = self._others.get(member)
        if other is None:
            return None
        low, high = other.interval(now)
        return (low + high) / 2 - (self._reading(now) - now), (high - low) / 2

    def one_way(self, member: object) -> tuple[float, float] | None:
        """Seconds from the member to us, and from us to it, the medians of the last answers; None before there were any.

        Both clocks show the median of the room, which other paths hold in place: a path that is slow one way only shows as two
        ways that differ, as the triangles over it do not close. They are off by as much as the two clocks are: `error`, and of
        a path that most of the room shares nothing shows.
        """
        other = self._others.get(member)
        if other is None or not other.ways:
            return None
        here, there = median([way for way, _ in other.ways]), median([way for _, way in other.ways])
        total = max(0.0, here + there)
        return min(max(0.0, here), total), min(max(0.0, there), total)


def median(values: list[float]) -> float:
    """Of an even number the mean of the two in the middle: two who disagree meet half way."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
