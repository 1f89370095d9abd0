"""A control chunk that is repeated until it is answered: T1-init, T1-cookie and T2-shutdown."""

from __future__ import annotations


class ControlTimer:
    """`start` with what to send, `stop` when answered; `handle_timeout` at `deadline` repeats with back-off."""

    __slots__ = ("_interval_s", "_max_interval_s", "chunk", "deadline", "due", "expiries")

    def __init__(self, max_interval_s: float) -> None:
        self._max_interval_s = max_interval_s
        self._interval_s = 0.0
        self.chunk = b""
        self.due = False  # `chunk` is to be sent at the next flush
        self.expiries = 0
        self.deadline: float | None = None

    def start(self, chunk: bytes, now: float, interval_s: float) -> None:
        self.chunk = chunk
        self.due = True
        self.expiries = 0
        self._interval_s = interval_s
        self.deadline = now + interval_s

    def again(self, now: float) -> None:
        """Send it once more at once, and wait anew for the answer."""
        self.due = True
        self.deadline = now + self._interval_s

    def stop(self) -> None:
        self.chunk = b""
        self.due = False
        self.deadline = None

    def handle_timeout(self, now: float) -> bool:
        """True when it expired. RFC 9260 section 6.3.3 E2: every expiry doubles the interval."""
        if self.deadline is None or now < self.deadline:
            return False
        self.expiries += 1
        self.due = True
        self._interval_s = min(self._interval_s * 2, self._max_interval_s)
        self.deadline = now + self._interval_s
        return True
