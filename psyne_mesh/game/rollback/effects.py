"""Sounds and sparks: each once, though the tick that made it is simulated several times."""

from __future__ import annotations

from collections import Counter

import msgspec

KEPT_TICKS = 64
"""Longer than any window: an effect of an older tick cannot be made again."""
WAITING_MAX = 1024
"""Not fetched; then the oldest goes: a sound that nobody asked for is not missed."""


class Effect(msgspec.Struct, frozen=True):
    """What `Game.emit` was given. `frame`: the tick that made it. `predicted`: it may turn out not to have happened."""

    value: object
    frame: int
    predicted: bool


class Effects:
    """1. `begin(frame, predicted)` before each tick, `emit(value)` in it. 2. `take()` gives each effect of a tick
    once, when it is first seen: a replay that makes it again gives nothing, one that makes another gives that. 3.
    `forget(newest)`.
    """

    def __init__(self) -> None:
        self._frame = 0
        self._predicted = False
        self._given: dict[int, Counter[str]] = {}
        self._made: Counter[str] = Counter()
        self._waiting: list[Effect] = []

    def begin(self, frame: int, predicted: bool) -> None:
        self._frame, self._predicted = frame, predicted
        self._made = Counter()

    def emit(self, value: object) -> None:
        name = repr(value)
        self._made[name] += 1
        given = self._given.setdefault(self._frame, Counter())
        if self._made[name] > given[name]:
            given[name] += 1
            self._waiting.append(Effect(value, self._frame, self._predicted))
            if len(self._waiting) > WAITING_MAX:
                del self._waiting[0]

    def take(self) -> list[Effect]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def forget(self, newest: int) -> None:
        while self._given and (oldest := min(self._given)) < newest - KEPT_TICKS:
            del self._given[oldest]
