"""Token buckets: for work that a stranger can cause, and for what a relay lets through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

QUOTA_SHARE: Final = 0.95  # of a server's quota is used: it counts by seconds of its own clock, and we send in bursts
BURST_S: Final = 0.02  # of the quota may leave at once
BURST_BYTES_MIN: Final = 2600  # two packets
CHANNEL_DATA_HEADER_BYTES: Final = 4  # of each datagram (RFC 8656 section 12.4)
DEBT_S: Final = 0.5  # the most that game traffic may take of what bulk would have got later


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


class QuotaLimit:
    """Keeps what is sent within the quota of an allocation: a TURN server drops what is above it, game traffic and all.

    Bulk asks first and waits; game traffic goes out in any case, and bulk waits for that, too.

    1. Send bulk only while `left(now)` is positive, and no more than that.
    2. `spend` whatever is sent.
    3. When nothing is left, ask again at `ready_at()`.
    """

    __slots__ = ("_at", "_burst", "_per_second", "_tokens")

    def __init__(self, quota_bytes_per_s: float, now: float) -> None:
        self._per_second = QUOTA_SHARE * quota_bytes_per_s
        self._burst = max(BURST_S * self._per_second, BURST_BYTES_MIN)
        self._tokens = self._burst
        self._at = now

    def left(self, now: float) -> float:
        """Bytes; negative after game traffic took more than there was."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        return self._tokens

    def spend(self, datagrams: Sequence[bytes], now: float) -> None:
        n_bytes = sum(map(len, datagrams)) + CHANNEL_DATA_HEADER_BYTES * len(datagrams)
        self._tokens = max(self.left(now) - n_bytes, -DEBT_S * self._per_second)

    def ready_at(self) -> float:
        """When half a burst is there again: sooner is a timer for each packet, later costs throughput."""
        return self._at + max(0.0, self._burst / 2 - self._tokens) / self._per_second
