"""Within the quota of a relay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from psyne_mesh.limits import TokenBucket

QUOTA_SHARE: Final = 0.95  # of a server's quota is used: it counts by seconds of its own clock, and we send in bursts
BURST_S: Final = 0.02  # of the quota may leave at once
BURST_BYTES_MIN: Final = 2600  # two packets
CHANNEL_DATA_HEADER_BYTES: Final = 4  # of each datagram (RFC 8656 section 12.4)
_FULL: Final = 0.99  # of a burst, as sums of floats go
DEBT_S: Final = 0.5  # the most that game traffic may take of what bulk would have got later


class QuotaLimit:
    """Keeps what is sent within the quota of an allocation: a TURN server drops what is above it, game traffic and all.

    Bulk asks first and waits; game traffic goes out in any case, and bulk waits for that, too. Several users of one allocation
    take turns: else who is asked first each time would have all of it.

    1. Send bulk only while `allowance(user, ...)` is positive, and no more than that.
    2. `spend` whatever is sent.
    3. Ask again at `due(user, ...)`. 4. `forget` a user that has gone.
    """

    __slots__ = ("_bucket", "_burst", "_debt_max", "_turns")

    def __init__(self, quota_bytes_per_s: float, now: float) -> None:
        per_second = QUOTA_SHARE * quota_bytes_per_s
        self._burst = max(BURST_S * per_second, BURST_BYTES_MIN)
        self._debt_max = DEBT_S * per_second
        self._bucket = TokenBucket(burst=self._burst, per_second=per_second, now=now)
        self._turns: dict[object, None] = {}  # who waits, the longest first

    def allowance(self, user: object, now: float, *, waits: bool) -> float:
        """Bytes; nothing, or negative, while it is not the user's turn, or game traffic took more than there was. `waits`:
        the user has something to send."""
        left = self._bucket.left(now)
        if not waits:
            self._turns.pop(user, None)
        elif left <= 0.0 or self._is_anothers_turn(user, left):
            self._turns[user] = None
            return min(left, 0.0)
        else:
            self._turns.pop(user, None)
        return left

    def _is_anothers_turn(self, user: object, left: float) -> bool:
        """Who does not come until the bucket is full, twice as long as it takes to be ready, has lost its turn."""
        if left >= _FULL * self._burst:
            self._turns.clear()
        return next(iter(self._turns), user) is not user

    def forget(self, user: object) -> None:
        self._turns.pop(user, None)

    def spend(self, datagrams: Sequence[bytes], now: float) -> None:
        n_bytes = sum(map(len, datagrams)) + CHANNEL_DATA_HEADER_BYTES * len(datagrams)
        self._bucket.charge(n_bytes, now, self._debt_max)

    def due(self, user: object, now: float) -> float | None:
        """When to ask again for a user that waits; None: it may send. Half a burst is enough: sooner is a timer for each
        packet, later costs throughput. If it is another's turn then, a whole burst is there without it."""
        left, half = self._bucket.left(now), self._burst / 2
        if left > 0.0 and user not in self._turns:
            return None
        return self._bucket.ready_at(half if left < _FULL * half else self._burst)
