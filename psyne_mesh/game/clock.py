"""When what another player stamped is due here: how far behind its clock we are, and how late its messages come.

The quickest message of the last seconds is taken to have come without delay, as in Mirror and Quake: what is played back is
then late by that quickest way, which nobody sees. The room's clock (`room_clock.py`) would tell that way, too, and the delay
of two intervals at most would have to cover it: see "Measured" in docs/decisions/60-shared-objects.md for why it does not.
"""

from __future__ import annotations

from collections import deque

# The quickest way is looked for over so long: some 150 messages at 30 Hz. A path that became slower is believed after it.
QUICKEST_WINDOW_S = 5.0
# Lateness is what the delay must cover: the share below is on time, as seen over the last so many messages (2 s at 30 Hz).
ON_TIME = 0.97
LATENESS_SAMPLES = 64
# A stamp further from what the sender's own earlier ones say than this begins a new timeline: it slept, or it lies.
JUMP_S = 5.0


class SenderClock:
    """1. `note(stamp, now)` for every message. 2. `offset_s` and `lateness_s` say where its timeline lies in ours.

    Times are in seconds; `now` is any monotonic clock of ours, the stamp any monotonic clock of the sender.
    """

    def __init__(self) -> None:
        # Of (when it came, now - stamp), rising in the second: the first is the quickest of the window.
        self._quickest: deque[tuple[float, float]] = deque()
        self._late: deque[float] = deque(maxlen=LATENESS_SAMPLES)
        self._ordered: list[float] = []
        self.offset_s = 0.0
        self.resets = 0

    def note(self, stamp: float, now: float) -> None:
        age = now - stamp
        if self._quickest and abs(age - self.offset_s) > JUMP_S:
            self._quickest.clear()
            self._late.clear()
            self.resets += 1
        while self._quickest and self._quickest[-1][1] >= age:
            self._quickest.pop()
        self._quickest.append((now, age))
        while self._quickest[0][0] < now - QUICKEST_WINDOW_S:
            self._quickest.popleft()
        self.offset_s = self._quickest[0][1]
        self._late.append(age)
        self._ordered = sorted(self._late)

    @property
    def lateness_s(self) -> float:
        """How much later than the quickest a message comes that is just about on time."""
        if not self._ordered:
            return 0.0
        return max(0.0, self._ordered[int(ON_TIME * (len(self._ordered) - 1))] - self.offset_s)
