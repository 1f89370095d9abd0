"""How far behind the event loop is, as its timers tell."""

from __future__ import annotations

import math

# Above this, answers that do not come say nothing of the path: gossip misses a peer after about as long.
LAGGING_S = 0.25
HALF_LIFE_S = 0.5  # a loop that was late once and is no more: forgotten in two seconds


class LoopLag:
    """1. `note(late_s, now)` whenever a timer fires. 2. `seconds(now)`: how late the worst of the last moments was."""

    __slots__ = ("_at", "_seconds")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._at = 0.0

    def note(self, late_s: float, now: float) -> None:
        if late_s > self.seconds(now):
            self._seconds, self._at = late_s, now

    def seconds(self, now: float) -> float:
        return self._seconds * math.exp2((self._at - now) / HALF_LIFE_S)
