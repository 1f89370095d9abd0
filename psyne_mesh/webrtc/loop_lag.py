"""How far behind the event loop is, as its timers tell. Pure."""

from __future__ import annotations

import math

# Above this, answers that do not come say nothing of the path: gossip misses a peer after about as long.
LAGGING_S = 0.25
HALF_LIFE_S = 0.5  # a loop that was late once and is no more: forgotten in two seconds
LASTING_MAX_S = 10.0
# From the first on a loop leaves frames of the game out, and keeps the newest: it comes round about once between two that
# leave. At the last a player still sees who moves.
BEHIND_S = 0.06
FRAMES_OF_LAG = 1.0
FRAME_INTERVAL_MAX_S = 0.2


def frame_interval_s(lag_s: float) -> float:
    """Seconds between the frames of a game that may leave while the loop is late by so much; 0: all of them."""
    return 0.0 if lag_s < BEHIND_S else min(FRAME_INTERVAL_MAX_S, FRAMES_OF_LAG * lag_s)


class LoopLag:
    """1. `note(late_s, now)` whenever a timer fires. 2. `seconds(now)`: how late the worst of the last moments was.

    lasting: the later it was the longer it is remembered, up to `LASTING_MAX_S` for half of it: where a turn of the loop
        takes seconds the next timer tells no sooner.
    """

    __slots__ = ("_at", "_half_life_s", "_lasting", "_seconds")

    def __init__(self, *, lasting: bool = False) -> None:
        self._seconds = 0.0
        self._at = 0.0
        self._half_life_s = HALF_LIFE_S
        self._lasting = lasting

    def note(self, late_s: float, now: float) -> None:
        if late_s > self.seconds(now):
            self._seconds, self._at = late_s, now
            if self._lasting:
                self._half_life_s = min(LASTING_MAX_S, max(HALF_LIFE_S, late_s))

    def seconds(self, now: float) -> float:
        return self._seconds * math.exp2((self._at - now) / self._half_life_s)
