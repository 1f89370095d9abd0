"""A token bucket for work that a stranger can cause."""

from __future__ import annotations


class TokenBucket:
    """Allows `burst` at once and `per_second` on average.

    1. `allow(now)` says whether one more may pass, and takes its token.
    """

    __slots__ = ("_at", "_burst", "_per_second", "_tokens")

    def __init__(self, *, burst: float, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._tokens = burst
        self._at = now

    def allow(self, now: float) -> bool:
        tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if tokens < 1:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1
        return True
