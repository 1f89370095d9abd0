"""How many ticks our own inputs wait before they take effect, so that others need not guess them."""

from __future__ import annotations

HIDDEN_TICKS_MAX = 3
"""Up to here delay is added before anything is predicted: 50 ms at 60 Hz are hardly felt (lightyear's `balanced()`)."""
PREDICTED_TICKS_MAX = 7
"""Then this many ticks are predicted, one less than the window; only what is beyond becomes more delay (lightyear)."""
DELAY_TICKS_MAX = 15
"""A quarter of a second at 60 Hz. A path that needs more stalls the game, and should."""
RAISE_AGAIN_S = 0.1
LOWER_AFTER_S = 2.0
"""A delay that follows every jitter is felt more than one that is too high for two seconds (a guess)."""


class InputDelay:
    """1. `report(seat, lateness, now)` for what each other says of our inputs. 2. `update(now)` returns the delay to
    use, in ticks.

    A fixed delay reports nothing and stays. It moves by one tick at a time: a tick without an input of its own
    repeats one, and one with two inputs takes the later.
    """

    def __init__(self, ticks: int | None, now: float) -> None:
        """`ticks` fixes the delay; None finds it."""
        self.ticks = ticks or 0
        self._is_fixed = ticks is not None
        self._lateness: dict[int, tuple[int, float]] = {}
        self._changed_at = now
        self._needed_more_at = now

    def report(self, seat: int, lateness: int, now: float) -> None:
        """By how many ticks our newest input came too late for `seat`, at the worst of the last second; negative
        when early.
        """
        self._lateness[seat] = (lateness, now)

    def forget(self, seat: int) -> None:
        self._lateness.pop(seat, None)

    def update(self, now: float) -> int:
        fresh = [late for late, at in self._lateness.values() if now - at < 1.0]
        if self._is_fixed or not fresh:
            return self.ticks
        way = max(0, self.ticks + max(fresh))  # from our hand to the slowest of them
        wanted = (
            min(way, HIDDEN_TICKS_MAX, DELAY_TICKS_MAX)
            if way <= HIDDEN_TICKS_MAX + PREDICTED_TICKS_MAX
            else way - PREDICTED_TICKS_MAX
        )
        wanted = min(wanted, DELAY_TICKS_MAX)
        if wanted >= self.ticks:
            self._needed_more_at = now
        if wanted > self.ticks and now - self._changed_at >= RAISE_AGAIN_S:
            self.ticks += 1
            self._changed_at = now
        elif wanted < self.ticks and now - self._needed_more_at >= LOWER_AFTER_S:
            self.ticks -= 1
            self._changed_at = self._needed_more_at = now
        return self.ticks
