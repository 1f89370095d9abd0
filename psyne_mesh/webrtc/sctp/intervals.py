"""A set of integers kept as sorted disjoint ranges: what has arrived above the cumulative TSN, on either side.

The cost of a step depends on the number of ranges (losses), never on how many integers they hold.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator


class Intervals:
    """Closed ranges [start, end]; neighbours that touch are one range."""

    __slots__ = ("ends", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def __bool__(self) -> bool:
        return bool(self.starts)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts, self.ends, strict=True)

    def __contains__(self, value: int) -> bool:
        i = bisect_right(self.starts, value)
        return i > 0 and value <= self.ends[i - 1]

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Add [start, end]; returns the parts of it that were not in the set."""
        starts, ends = self.starts, self.ends
        if not starts or start > ends[-1] + 1:
            starts.append(start)
            ends.append(end)
            return [(start, end)]
        i = bisect_right(starts, start) - 1
        if i >= 0 and end <= ends[i]:
            return []
        if i < 0 or ends[i] < start - 1:
            i += 1  # the range before does not touch: begin with the one after
        fresh: list[tuple[int, int]] = []
        low, high, cursor = start, end, start
        j = i
        while j < len(starts) and starts[j] <= end + 1:
            if starts[j] > cursor:
                fresh.append((cursor, min(end, starts[j] - 1)))
            cursor = max(cursor, ends[j] + 1)
            low, high = min(low, starts[j]), max(high, ends[j])
            j += 1
        if cursor <= end:
            fresh.append((cursor, end))
        starts[i:j] = [low]
        ends[i:j] = [high]
        return fresh

    def end_of(self, value: int) -> int:
        """The end of the range that holds `value`, or `value - 1` when none does."""
        i = bisect_right(self.starts, value)
        return self.ends[i - 1] if i > 0 and value <= self.ends[i - 1] else value - 1

    def discard_through(self, value: int) -> None:
        """Forget everything up to and with `value`."""
        starts, ends = self.starts, self.ends
        if not starts or starts[0] > value:
            return
        i = bisect_right(starts, value)
        if ends[i - 1] > value:
            i -= 1
            starts[i] = value + 1
        del starts[:i]
        del ends[:i]

    def clear(self) -> None:
        self.starts.clear()
        self.ends.clear()
