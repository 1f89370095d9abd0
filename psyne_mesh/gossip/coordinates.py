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

    __slots__ = ("_rng", "error", "height", "wire", "x", "y", "z")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.x = self.y = self.z = 0.0
        self.height = _HEIGHT_MIN_S
        self.error = _ERROR_MAX
        self.wire: Wire = (0, 0, 0, 0, 1500)

    def update(self, theirs: Wire, rtt: float) -> None:
        """Written out by hand: this runs for every measured round trip."""
        if not 0.0 < rtt < _RTT_MAX_S:
            return
        x, y, z, height, error = self.x, self.y, self.z, self.height, self.error
        dx, dy, dz = x - theirs[0] * _UNIT_S, y - theirs[1] * _UNIT_S, z - theirs[2] * _UNIT_S
        heights = height + theirs[3] * _UNIT_S
        apart = math.sqrt(dx * dx + dy * dy + dz * dz)
        surprise = rtt - apart - heights
        weight = error / (error + (theirs[4] or 1) / 1000)
        error = _CE * weight * abs(surprise) / rtt + error * (1 - _CE * weight)
        self.error = error = _ERROR_MAX if error > _ERROR_MAX else error
        force = _CC * weight * surprise
        if apart > 1e-6:
            height += heights * force / apart
            height = _HEIGHT_MIN_S if height < _HEIGHT_MIN_S else min(height, _RTT_MAX_S)
        else:  # in one place: any direction will do
            dx, dy, dz = (self._rng.random() - 0.5 for _ in range(3))
            apart = math.sqrt(dx * dx + dy * dy + dz * dz) or 1.0
        force /= apart
        self.x, self.y, self.z, self.height = x + dx * force, y + dy * force, z + dz * force, height
        self.wire = _wire(self.x, self.y, self.z, height, error)


def distance(a: Wire, b: Wire) -> float:
    """The round trip in seconds that two coordinates foretell."""
    return _UNIT_S * (math.dist(a[:3], b[:3]) + a[3] + b[3])


def _wire(x: float, y: float, z: float, height: float, error: float) -> Wire:
    size = 1 / _UNIT_S
    a, b, c, h, e = int(x * size), int(y * size), int(z * size), int(height * size), int(error * 1000)
    if -32_768 < a < 32_768 and -32_768 < b < 32_768 and -32_768 < c < 32_768 and h < 65_536:
        return a, b, c, h, e
    return _clip(a), _clip(b), _clip(c), min(h, 65_535), e


def _clip(place: int) -> int:
    return max(-32_768, min(32_767, place))
