"""One sleeper for the deadlines of many: a task for each would wake, arm a scope and sleep again for nothing."""

from __future__ import annotations

import math
from typing import Protocol

import trio

from psyne_mesh.interrupts import uninterrupted


class Sleeper(Protocol):
    """Somebody with a deadline."""

    def handle_timeout(self, now: float) -> None:
        """Called at the deadline or later, and must not raise; sets the next deadline, or the old one counts again."""
        ...


@uninterrupted
class Deadlines:
    """1. `run()` in a nursery, until cancelled.
    2. `set(who, deadline)` (of `trio.current_time`) as often as it changes; `drop(who)` at the end.

    appointment: the last that somebody made for a regular check; who has the choice joins.

    A pass over all is quicker than a heap, as they are as many as an endpoint has peers.
    """

    def __init__(self) -> None:
        self._table: dict[Sleeper, float] = {}
        self._scope = trio.CancelScope()
        self.appointment = 0.0

    def set(self, who: Sleeper, deadline: float) -> None:
        before = self._table.get(who, math.inf)
        self._table[who] = deadline
        soonest = self._scope.deadline
        if deadline < soonest:
            self._scope.deadline = deadline
        elif before <= soonest and (after := min(self._table.values())) > soonest:  # nobody needs waking then
            self._scope.deadline = after

    def drop(self, who: Sleeper) -> None:
        self._table.pop(who, None)

    def __len__(self) -> int:
        return len(self._table)

    async def run(self) -> None:
        while True:
            self._scope = trio.CancelScope(deadline=min(self._table.values(), default=math.inf))
            with self._scope:
                await trio.sleep_forever()
            now = trio.current_time()
            for who in [who for who, deadline in self._table.items() if deadline <= now]:
                if who in self._table:
                    who.handle_timeout(now)
