"""How long a connection may take until it stands: longer while it gets on, and while our own loop is behind. Pure."""

from __future__ import annotations

import math

from psyne_mesh.webrtc.loop_lag import LAGGING_S

# What is left of the whole time after each step, at least. Where steps come quickly nothing changes; a machine that takes
# seconds for each finishes what it has begun, instead of beginning anew with all of them.
LEFT_SHARE = 0.5
# A handshake takes about so many turns of our loop, so it gets the time of so many where they are slow.
TURNS = 10
# So many times the whole time may be added for the loop's sake: it may stay as slow, and a peer that is gone must be known.
ADDED_MAX = 4.0


class Patience:
    """1. `begin(now)`. 2. `progress(step, now, lag_s)` for each step that the peer has proved to take; the second time it is
    none. 3. `has_run_out(now, lag_s)` at `deadline`, which may move it. 4. `end()` when the connection stands, or has ended.

    lag_s: how late our loop is. As the steps are few, a peer cannot stretch it for ever.
    """

    def __init__(self, timeout_s: float) -> None:
        self.deadline = math.inf
        self.stretched_s = 0.0  # by how much it became longer, all in all
        self._timeout_s = timeout_s
        self._left_s = ADDED_MAX * timeout_s  # that may be added because of the loop
        self._steps: set[str] = set()

    def begin(self, now: float) -> None:
        if self.deadline == math.inf:
            self.deadline = now + self._timeout_s

    def progress(self, step: str, now: float, lag_s: float = 0.0) -> None:
        if step not in self._steps and self.deadline < math.inf:
            self._steps.add(step)
            self._stretch(now + LEFT_SHARE * self._timeout_s)
            self._bear(now, lag_s)

    def has_run_out(self, now: float, lag_s: float = 0.0) -> bool:
        """A loop that comes late has not read yet what came in time, and is asked again when it has."""
        self._bear(now, max(lag_s, now - self.deadline))
        return now >= self.deadline

    def end(self) -> None:
        self.deadline = math.inf
        self._timeout_s = math.inf

    def _bear(self, now: float, lag_s: float) -> None:
        if lag_s > LAGGING_S:
            before = self.stretched_s
            self._stretch(min(now + TURNS * lag_s, self.deadline + self._left_s))
            self._left_s -= self.stretched_s - before

    def _stretch(self, until: float) -> None:
        if until > self.deadline:
            self.stretched_s += until - self.deadline
            self.deadline = until
