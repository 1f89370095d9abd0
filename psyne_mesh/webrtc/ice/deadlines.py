"""One sleeper for the deadlines of many: a task for each would wake, arm a scope and sleep again for nothing."""

from __future__ import annotations

import math
from typing import Protocol

import trio

_NEVER = (math.inf, math.inf)


class Sleeper(Protocol):
    """Somebody with a deadline."""

    def handle_timeout(self, now: float) -> None:
        """Called between `earliest` and `deadline` (or later, when the machine is busy), and must not raise. It sets the
        next deadline, or the old one counts again."""
        ...


class Deadlines:
    """1. `run()` in a nursery, until cancelled.
    2. `set(who, earliest, deadline)` (of `trio.current_time`) as often as it changes; `drop(who)` at the end.

    When it wakes for one, all others whose time has begun go along: to wake is what costs. A pass over all of them costs a
    tenth of a microsecond each, and they are as many as an endpoint has peers.
    """

    def __init__(self) -> None:
        self._table: dict[Sleeper, tuple[float, float]] = {}  # earliest and latest
        self._scope = trio.CancelScope()

    def set(self, who: Sleeper, earliest: float, deadline: float) -> None:
        _, before = self._table.get(who, _NEVER)
        self._table[who] = earliest, deadline
        soonest = self._scope.deadline
        if deadline < soonest:
            self._scope.deadline = deadline
        elif before <= soonest:  # nobody needs waking then
            self._scope.deadline = self._soonest()

    def drop(self, who: Sleeper) -> None:
        self._table.pop(who, None)

    def __len__(self) -> int:
        return len(self._table)

    async def run(self) -> None:
        while True:
            self._scope = trio.CancelScope(deadline=self._soonest())
            with self._scope:
                await trio.sleep_forever()
            now = trio.current_time()
            if self._soonest() > now:
                continue  # it was put off when it was too late to let us sleep
            for who in [who for who, (earliest, _) in self._table.items() if earliest <= now]:
                if who in self._table:
                    who.handle_timeout(now)

    def _soonest(self) -> float:
        return min((deadline for _, deadline in self._table.values()), default=math.inf)
