"""Weights by key, and which key is the heaviest: asked for each message that finds no room, so nothing is looked through."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K", bound=str)

_VOID_SPARED = 64  # the heap is made anew when it has four times as many entries as there are keys, and this many more


class Heaviest(Generic[K]):
    """1. `add` to a weight, or take from it; a key without weight is forgotten. 2. `heaviest`: among equals the key that has
    been here longest. Both take the logarithm of the number of keys."""

    __slots__ = ("_heap", "_serial", "_since", "weights")

    def __init__(self) -> None:
        self.weights: dict[K, int] = {}
        self._since: dict[K, int] = {}  # serial numbers, for the order among equals
        self._serial = 0
        self._heap: list[
            tuple[int, int, K]
        ] = []  # (-weight, since, key); void where the key weighs something else by now

    def add(self, key: K, weight: int) -> None:
        total = self.weights.get(key, 0) + weight
        if not total:
            if self.weights.pop(key, None) is not None:
                del self._since[key]
            return
        if key not in self._since:
            self._serial += 1
            self._since[key] = self._serial
        self.weights[key] = total
        heappush(self._heap, (-total, self._since[key], key))
        if len(self._heap) > 4 * len(self.weights) + _VOID_SPARED:
            self._heap = [(-total, self._since[key], key) for key, total in self.weights.items()]
            heapify(self._heap)

    def heaviest(self) -> K:
        """Raises IndexError when nothing weighs anything."""
        heap = self._heap
        while True:
            negative, since, key = heap[0]
            if self.weights.get(key) == -negative and self._since[key] == since:
                return key
            heappop(heap)
