"""What is due when: the queue of the discrete-event world."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import ceil
from typing import Any, Final, TypeAlias

# Time has grains of about a microsecond, as clocks have. They are sums of powers of two, so differences of times are exact:
# neither the hour nor a wrong clock decides by rounding whether a deadline has come.
_GRAINS_PER_S: Final = 2.0**20
_GRAIN_S: Final = 2.0**-20
_SLOTS_PER_S: Final = 64.0  # a thousand nodes have some hundred entries in one slot

Entry: TypeAlias = tuple[float, int, int, Any, Any]  # time, number, kind, target, data


def grained(time: float) -> float:
    """The first grain that is not before `time`."""
    return ceil(time * _GRAINS_PER_S) * _GRAIN_S


class Agenda:
    """Drive it so: `push(time, kind, target, data)`, then `pop(until)` until it gives None. Entries come in the order of
    their times, those of one time in the order in which they were pushed.

    Most entries are timeouts that lie far ahead and will not matter. They wait in slots, unsorted, until their slot is at
    hand: a heap of them all would be a hundred times larger than the one of the slot at hand.
    """

    __slots__ = ("_far", "_near", "_number", "_slot", "_slots")

    def __init__(self) -> None:
        self._number = 0
        self._near: list[Entry] = []  # a heap: all up to the slot at hand
        self._slot = 0  # the slot at hand
        self._far: dict[int, list[Entry]] = {}
        self._slots: list[int] = []  # a heap: the keys of `_far`

    def push(self, time: float, kind: int, target: Any, data: Any) -> None:
        at = grained(time)
        self._number += 1
        entry = (at, self._number, kind, target, data)
        slot = int(at * _SLOTS_PER_S)
        if slot <= self._slot:
            heappush(self._near, entry)
        elif slot in self._far:
            self._far[slot].append(entry)
        else:
            self._far[slot] = [entry]
            heappush(self._slots, slot)

    def pop(self, until: float) -> Entry | None:
        """Takes the next entry if it is due by `until`."""
        if not self._near:
            if not self._slots or self._slots[0] > until * _SLOTS_PER_S:
                return None
            self._slot = heappop(self._slots)
            self._near = self._far.pop(self._slot)
            heapify(self._near)
        return heappop(self._near) if self._near[0][0] <= until else None
