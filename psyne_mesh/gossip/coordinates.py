"""Vivaldi network coordinates (SIGCOMM'04) with height, after serf's constants: who is near, without asking everybody."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import random

Wire: TypeAlias = tuple[int, int, int, int, int]
"""x, y, z, height in 0.1 ms and the error in 0.001, as they travel."""

_CE = _CC = 0.25  # the paper's tuning constants
_ERROR_MAX = 1.5  # serf: a node this unsure moves at every sample
_HEIGHT_MIN_S = 1e-5
_RTT_MAX_S = 10.0  # larger samples are nonsense or a stalled process; they are ignored
_UNIT_S = 1e-4


class Coordinate:
    """Our own place. Drive it with `update` for each measured round trip; `wire` is what to tell others."""

    __slots__ = ("_rng", "error", "height", "position", "wire")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.position = (0.0, 0.0, 0.0)
        self.height = _HEIGHT_MIN_S
        self.error = _ERROR_MAX
        self.wire: Wire = (0, 0, 0, 0, 1500)

    def update(self, theirs: Wire, rtt: float) -> None:
        if not 0.0 < rtt < _RTT_MAX_S:
            return
        x, y, z, height, error_units = theirs
        their_height, their_error = height * _UNIT_S, max(0.001, error_units / 1000)
        delta = tuple(a - b * _UNIT_S for a, b in zip(self.position, (x, y, z), strict=True))
        apart = math.sqrt(sum(d * d for d in delta))
        distance = apart + self.height + their_height
        weight = self.error / (self.error + their_error)
        wrong = abs(distance - rtt) / rtt
        self.error = min(_ERROR_MAX, max(0.001, _CE * weight * wrong + self.error * (1 - _CE * weight)))
        force = _CC * weight * (rtt - distance)
        if apart > 1e-6:
            unit = tuple(d / apart for d in delta)
            self.height = max(_HEIGHT_MIN_S, self.height + (self.height + their_height) * force / apart)
        else:  # in one place: any direction will do
            raw = tuple(self._rng.random() - 0.5 for _ in range(3))
            size = math.sqrt(sum(d * d for d in raw)) or 1.0
            unit = tuple(d / size for d in raw)
        a, b, c = (p + u * force for p, u in zip(self.position, unit, strict=True))
        self.position = (a, b, c)
        self.height = min(self.height, _RTT_MAX_S)
        self.wire = (_place(a), _place(b), _place(c), _size(self.height), min(65_535, int(self.error * 1000)))


def distance(a: Wire, b: Wire) -> float:
    """The round trip in seconds that two coordinates foretell."""
    return _UNIT_S * (math.dist(a[:3], b[:3]) + a[3] + b[3])


def _place(seconds: float) -> int:
    return max(-32_768, min(32_767, round(seconds / _UNIT_S)))


def _size(seconds: float) -> int:
    return max(0, min(65_535, round(seconds / _UNIT_S)))
