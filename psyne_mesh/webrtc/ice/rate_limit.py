"""Within the quota of a relay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from psyne_mesh.limits import TokenBucket

QUOTA_SHARE: Final = 0.95  # of a server's quota is used: it counts by seconds of its own clock, and we send in bursts
BURST_S: Final = 0.02  # of the quota may leave at once
BURST_BYTES_MIN: Final = 2600  # two packets
CHANNEL_DATA_HEADER_BYTES: Final = 4  # of each datagram (RFC 8656 section 12.4)
DEBT_S: Final = 0.5  # the most that game traffic may take of what bulk would have got later


class QuotaLimit:
    """Keeps what is sent within the quota of an allocation: a TURN server drops what is above it, game traffic and all.

    Bulk asks first and waits; game traffic goes out in any case, and bulk waits for that, too.

    1. Send bulk only while `left(now)` is positive, and no more than that.
    2. `spend` whatever is sent.
    3. When nothing is left, ask again at `ready_at()`.
    """

    __slots__ = ("_bucket", "_burst", "_debt_max")

    def __init__(self, quota_bytes_per_s: float, now: float) -> None:
        per_second = QUOTA_SHARE * quota_bytes_per_s
        self._burst = max(BURST_S * per_second, BURST_BYTES_MIN)
        self._debt_max = DEBT_S * per_second
        self._bucket = TokenBucket(burst=self._burst, per_second=per_second, now=now)

    def left(self, now: float) -> float:
        """Bytes; negative after game traffic took more than there was."""
        return self._bucket.left(now)

    def spend(self, datagrams: Sequence[bytes], now: float) -> None:
        n_bytes = sum(map(len, datagrams)) + CHANNEL_DATA_HEADER_BYTES * len(datagrams)
        self._bucket.charge(n_bytes, now, self._debt_max)

    def ready_at(self) -> float:
        """When half a burst is there again: sooner is a timer for each packet, later costs throughput."""
        return self._bucket.ready_at(self._burst / 2)
