"""When each tick is due, by the clock that all players share."""

from __future__ import annotations

BEHIND_TICKS_MAX = 8
"""A machine further behind than this after catching up does not chase the schedule: the schedule slips for all."""
FOLLOW_EVERY_TICKS = 8
"""Others follow a slip by one tick in so many, so that a player who claims delays slows the game by an eighth at
most.
"""


class Schedule:
    """Ticks stand on the shared clock, so nobody measures how far the others are ahead, and a path that is slow one
    way only pulls nobody back. After a stall everyone would race to catch up: instead the schedule slips, and all
    take the largest slip.

    1. `is_due(frame, now)`, `behind(frame, now)` in ticks. 2. `slip(frame, now)` after each round of ticks. 3.
    `follow(slipped, frame)` what another says. `slipped` is what we say.
    """

    def __init__(self, start: float, hz: float) -> None:
        self._start, self._hz = start, hz
        self.slipped = 0  # ticks
        self._followed_at = 0

    def behind(self, frame: int, now: float) -> int:
        """How many ticks from `frame` on are due; negative before its time."""
        return int((now - self._start) * self._hz + 1e-9) + 1 - self.slipped - frame

    def is_due(self, frame: int, now: float) -> bool:
        return self.behind(frame, now) > 0

    def slip(self, frame: int, now: float) -> None:
        behind = self.behind(frame, now)
        if behind > BEHIND_TICKS_MAX:
            self.slipped += behind - BEHIND_TICKS_MAX

    def follow(self, slipped: int, frame: int) -> None:
        if slipped > self.slipped and frame - self._followed_at >= FOLLOW_EVERY_TICKS:
            self.slipped += 1
            self._followed_at = frame

    def begin(self, slipped: int) -> None:
        """We join a game whose schedule has slipped so far already."""
        self.slipped = slipped
