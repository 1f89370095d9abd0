"""What others may cost us: a token bucket, an account for each neighbour, and tables that forget. Pure; the ground floor."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

_FORGIVENESS = 0.25  # of the budget: what is over it by less is dropped and no more. A guess, as honest bursts go


class TokenBucket:
    """Allows `burst` tokens at once and `per_second` on average.

    1. `allow(now, cost)` takes the tokens if they are there, and says whether they were.
    2. Or `charge(cost, now)` takes them in any case; what is missing is a debt, and `left(now)` is negative.
    3. `ready_at(level)` says when so many will be there.
    """

    __slots__ = ("_at", "_burst", "_per_second", "_tokens")

    def __init__(self, *, burst: float, per_second: float, now: float) -> None:
        self._burst = float(burst)
        self._per_second = float(per_second)
        self._tokens = float(burst)
        self._at = float(now)

    def left(self, now: float) -> float:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        return self._tokens

    def allow(self, now: float, cost: float = 1.0) -> bool:
        left = self.left(now)
        if left < cost:
            return False
        self._tokens = left - cost
        return True

    def charge(self, cost: float, now: float, debt_max: float = math.inf) -> None:
        """The debt never exceeds `debt_max`: what is beyond it is forgiven."""
        self._tokens = max(self.left(now) - cost, -debt_max)

    def ready_at(self, level: float = 0.0) -> float:
        """When `level` tokens are there; the time of the last call if they are."""
        return self._at + max(0.0, level - self._tokens) / self._per_second


class Budget:
    """What one neighbour may cost in a second, and for how many seconds at once. `work`: units that each handler states
    beside itself; one is about a microsecond of a desktop's core. `patience_s`: so many seconds' worth beyond that is
    dropped before the link is; it comes back at a quarter of the budget, so who is a little over is never parted from."""

    __slots__ = ("burst_s", "bytes_per_s", "items_per_s", "patience_s", "work_per_s")

    def __init__(
        self, *, bytes_per_s: float, items_per_s: float, work_per_s: float, burst_s: float, patience_s: float
    ) -> None:
        self.bytes_per_s = float(bytes_per_s)
        self.items_per_s = float(items_per_s)
        self.work_per_s = float(work_per_s)
        self.burst_s = float(burst_s)
        self.patience_s = float(patience_s)


class Verdict(enum.Enum):
    OK = "ok"
    OVER = "over"  # drop what it sent, unread
    PART = "part"  # that went on until patience was at its end


class Account:
    """What one neighbour costs: bytes, items and work.

    1. `charge(now, ...)` before something of it is handled. OVER: drop that, nothing was charged. PART: end the link.
    2. `bill(now, ...)` for what this made us do: an answer is charged to who asked, whatever is left.

    Something passes while anything is left, so what is larger than the burst passes, too, and its debt is paid first. A
    debt is a burst at most.
    """

    __slots__ = ("_budget", "_bytes", "_items", "_patience", "_work", "dropped")

    def __init__(self, budget: Budget, now: float) -> None:
        self._budget = budget
        self._bytes = TokenBucket(burst=budget.bytes_per_s * budget.burst_s, per_second=budget.bytes_per_s, now=now)
        self._items = TokenBucket(burst=budget.items_per_s * budget.burst_s, per_second=budget.items_per_s, now=now)
        self._work = TokenBucket(burst=budget.work_per_s * budget.burst_s, per_second=budget.work_per_s, now=now)
        self._patience = TokenBucket(burst=budget.patience_s, per_second=_FORGIVENESS, now=now)
        self.dropped = 0

    def charge(self, now: float, n_bytes: float = 0.0, items: float = 1.0, work: float = 0.0) -> Verdict:
        if min(self._bytes.left(now), self._items.left(now), self._work.left(now)) <= 0.0:
            self.dropped += 1
            budget = self._budget
            excess_s = max(n_bytes / budget.bytes_per_s, items / budget.items_per_s, work / budget.work_per_s)
            return Verdict.OVER if self._patience.allow(now, excess_s) else Verdict.PART
        self.bill(now, n_bytes, items, work)
        return Verdict.OK

    def bill(self, now: float, n_bytes: float = 0.0, items: float = 0.0, work: float = 0.0) -> None:
        budget = self._budget
        self._bytes.charge(n_bytes, now, budget.bytes_per_s * budget.burst_s)
        self._items.charge(items, now, budget.items_per_s * budget.burst_s)
        self._work.charge(work, now, budget.work_per_s * budget.burst_s)

    def fullness(self, now: float) -> float:
        """Of the scarcest of the three: 1 nothing used, 0 nothing left, down to -1 in debt."""
        budget = self._budget
        return min(
            self._bytes.left(now) / (budget.bytes_per_s * budget.burst_s),
            self._items.left(now) / (budget.items_per_s * budget.burst_s),
            self._work.left(now) / (budget.work_per_s * budget.burst_s),
        )


def forget_oldest(table: OrderedDict[K, V], limit: int) -> None:
    """Keep the `limit` entries that were put in last. Who counts use as well takes an entry out and puts it in again.

    An OrderedDict: the first entry of a plain dict is looked for behind all that were deleted, 10,000 and more in a table of
    10,000 that is kept full.
    """
    while len(table) > limit:
        table.popitem(last=False)
