"""News that rides on probes: each item lambda * log2(n) times, the least told first (SWIM section 4.1)."""

from __future__ import annotations

from typing import TypeAlias

_RUMOURS_MAX = 512  # the oldest rumour is dropped: anti-entropy brings it later
_ITEM_MIN_BYTES = 64  # no item is smaller: a probe with less room left is full

Key: TypeAlias = tuple[int, str, str]
"""(item type, subject, accuser or "")."""


class Rumours:
    """A bounded queue of encoded items by key; a newer item of the same key takes the place of the older."""

    __slots__ = ("queue",)

    def __init__(self) -> None:
        self.queue: dict[Key, tuple[bytes, int]] = {}

    def add(self, key: Key, item: bytes, times: int) -> None:
        self.queue.pop(key, None)
        if len(self.queue) >= _RUMOURS_MAX:
            del self.queue[next(iter(self.queue))]
        self.queue[key] = (item, times)

    def take(self, room: int) -> bytes:
        """Whole items for one probe, at most `room` bytes in all; each loses one of its times."""
        queue = self.queue
        taken: list[bytes] = []
        for key in list(queue):
            if room < _ITEM_MIN_BYTES:
                break
            item, times = queue[key]
            if len(item) > room:
                continue
            room -= len(item)
            taken.append(item)
            del queue[key]
            if times > 1:
                queue[key] = (item, times - 1)  # to the back: the least told come first
        return b"".join(taken)
