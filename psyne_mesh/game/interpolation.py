"""Other players' movements between two messages: a buffer that is read a little behind the newest.

Figures of others: 1.7 send intervals (lightyear), 2 that adapt to jitter (Mirror), 100 ms (Source). Here one interval and the
lateness of the path, two intervals at most; a lost message is bridged by going on as before, for a quarter of a second.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from psyne_mesh.game.clock import SenderClock

INTERVALS_MAX = 2.0
# Beyond this nobody can tell any more where a player has gone (the limit of Source's `cl_extrapolate_amount` is the same).
EXTRAPOLATION_MAX_S = 0.25
# A changed delay is reached by playing so much faster or slower: what Mirror calls catch-up is 2 to 4 %, too slow for a path
# that has just become worse; a tenth is not seen.
SLEW = 0.1
# Further off than this the picture jumps: a pause, not jitter.
JUMP_S = 0.5
# What was guessed wrongly is taken back over this time, so that it is seen as a curve and not as a step.
CORRECTION_S = 0.1
SAMPLES_MAX = 32  # one second at 30 Hz: more than any delay needs
# Two messages further apart than so many intervals, the earlier of them at rest: it stood still until shortly before the
# later.
REST_INTERVALS = 1.6

Values = tuple[float, ...]


class Playback:
    """Where we are in one sender's timeline: 1. `note(stamp, now, interval)` for each message, 2. `at(now)` for each frame.

    It never goes backwards, but when the sender's clock begins anew, and is `delay_s` behind what the quickest message
    would show.
    """

    def __init__(self) -> None:
        self.clock = SenderClock()
        self.interval_s = 1 / 30
        self._shown_at = -math.inf
        self._position = 0.0
        self._resets = 0

    def note(self, stamp: float, now: float, interval_s: float) -> None:
        self.clock.note(stamp, now)
        self.interval_s = interval_s

    @property
    def shown(self) -> float:
        """The stamp whose state was shown last; minus infinity before there was one."""
        return self._position if self._shown_at > -math.inf else -math.inf

    @property
    def delay_s(self) -> float:
        return min(INTERVALS_MAX * self.interval_s, self.interval_s + self.clock.lateness_s)

    def at(self, now: float) -> float:
        """The stamp whose state is to be shown now."""
        target = now - self.clock.offset_s - self.delay_s
        passed = now - self._shown_at
        if self._shown_at == -math.inf or self.clock.resets != self._resets:
            self._position, self._resets = target, self.clock.resets
        elif passed > JUMP_S or abs(target - self._position - passed) > JUMP_S:
            self._position = max(target, self._position)
        elif passed > 0:
            slow, fast = self._position + passed * (1 - SLEW), self._position + passed * (1 + SLEW)
            self._position = min(max(target, slow), fast)
        self._shown_at = max(now, self._shown_at)
        return self._position


class Track:
    """The smooth fields of one object: 1. `add(stamp, values, interval)` for each message, 2. `at(position)` for each frame.

    snaps: for each field, from what distance on a change is a jump (a teleport) and not a movement; wraps: the period of
    each field that is an angle, or 0.
    """

    def __init__(self, snaps: Sequence[float], wraps: Sequence[float]) -> None:
        self._snaps = tuple(snaps)
        self._wraps = tuple(wraps)
        self._stamps: deque[float] = deque(maxlen=SAMPLES_MAX)
        self._samples: deque[Values] = deque(maxlen=SAMPLES_MAX)
        self._shown: Values | None = None
        self._shown_at = 0.0
        self._guessed = self._news = self._rests = False
        self._off: Values | None = None  # what was shown too far, and is being taken back
        self._off_since = 0.0

    def add(self, stamp: float, values: Values, interval_s: float, at_rest: bool = False) -> None:
        """at_rest: it has stopped there. Older ones than the newest are dropped: it has gone on."""
        stamps, samples = self._stamps, self._samples
        if stamps and stamp <= stamps[-1]:
            return
        if self._rests and not at_rest and stamp - stamps[-1] > REST_INTERVALS * interval_s:
            stamps.append(stamp - interval_s)
            samples.append(samples[-1])
        stamps.append(stamp)
        samples.append(values)
        self._news, self._rests = True, at_rest

    def at(self, position: float) -> Values:
        """The values at that place of the sender's timeline. There must have been one `add`."""
        values, guessed = self._on_path(position)
        if self._news and self._guessed and self._shown is not None:
            self._begin_correction(self._shown)
        self._guessed, self._news = guessed, False
        if self._off is not None:
            left = 1.0 - (position - self._off_since) / CORRECTION_S
            if left <= 0.0 or left > 1.0:
                self._off = None
            else:
                values = tuple([value + left * off for value, off in zip(values, self._off)])
        self._shown, self._shown_at = values, position
        return values

    @property
    def newest(self) -> float:
        """The stamp of the newest sample; minus infinity before there was one."""
        return self._stamps[-1] if self._stamps else -math.inf

    def look_back(self, position: float) -> Values:
        """The values that belong to that place, as far as is known by now; what is shown stays as it is."""
        return self._on_path(position)[0]

    def is_at_rest(self, position: float) -> bool:
        """Nothing will change until the next `add`."""
        if position < self._stamps[-1] or self._off is not None or self._news:
            return False
        return self._rests or len(self._samples) == 1 or position - self._stamps[-1] > EXTRAPOLATION_MAX_S

    def _begin_correction(self, shown: Values) -> None:
        """News after a guess: what was shown last is left behind little by little."""
        self._off = self._moved(self._on_path(self._shown_at)[0], shown)
        self._off_since = self._shown_at

    def _on_path(self, position: float) -> tuple[Values, bool]:
        """The values, and whether they are a guess beyond the newest message."""
        stamps, samples = self._stamps, self._samples
        last = len(stamps) - 1
        if position >= stamps[last]:
            return self._beyond(position, last)
        after = last
        while after > 0 and stamps[after - 1] > position:
            after -= 1
        if after == 0:
            return samples[0], False
        before = after - 1
        moved = self._moved(samples[before], samples[after])
        if moved is None:
            return samples[before], False
        share = (position - stamps[before]) / (stamps[after] - stamps[before])
        return self._added(samples[before], moved, share), False

    def _beyond(self, position: float, last: int) -> tuple[Values, bool]:
        newest = self._samples[last]
        if last == 0 or self._rests:
            return newest, False
        moved = self._moved(self._samples[last - 1], newest)
        if moved is None:
            return newest, False
        ahead = min(position - self._stamps[last], EXTRAPOLATION_MAX_S)
        return self._added(newest, moved, ahead / (self._stamps[last] - self._stamps[last - 1])), ahead > 0.0

    def _moved(self, start: Values, end: Values) -> Values | None:
        """How far each field went, or None when one of them jumped."""
        moved = []
        for number, (one, other) in enumerate(zip(start, end)):
            distance = other - one
            wrap = self._wraps[number]
            if wrap:
                distance -= wrap * round(distance / wrap)
            if distance > self._snaps[number] or -distance > self._snaps[number]:
                return None
            moved.append(distance)
        return tuple(moved)

    def _added(self, start: Values, moved: Values, share: float) -> Values:
        return tuple([value + share * distance for value, distance in zip(start, moved)])
