"""What a work is, and how large it is made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import attrs

from benchmarks.stacks.registry import Stack

Better = Literal["less", "more"]
Figures = dict[str, float]


@attrs.frozen
class Scale:
    """How much is done in one repetition. The works take the same for every stack."""

    seconds: float = 3.0  # of each flood, after the warm-up
    warm_s: float = 1.0
    pings: int = 3000
    warm_pings: int = 500
    setups: int = 10
    connections: int = 50  # idle ones, for memory
    players: int = 16
    mesh_s: float = 6.0
    idle_s: float = 15.0
    series: tuple[int, ...] = (1, 4, 16)
    idle_series: tuple[int, ...] = (1, 100)
    outstanding_series: tuple[int, ...] = (1, 100, 10_000)
    loss_s: float = 12.0
    share: float = 1.0  # of the time that the works take at full scale; a guess until something is measured


FULL = Scale()
QUICK = Scale(
    seconds=1.5, warm_s=0.5, pings=1000, warm_pings=200, setups=5, mesh_s=3.0, idle_s=6.0, loss_s=6.0, share=0.5
)
TINY = Scale(
    seconds=0.2, warm_s=0.05, pings=30, warm_pings=5, setups=2, connections=3, players=3, mesh_s=0.3, idle_s=0.3,
    series=(1, 2), idle_series=(1, 3), outstanding_series=(1, 20), loss_s=0.5, share=0.2,
)  # fmt: skip


@attrs.frozen
class Figure:
    unit: str
    better: Better


@attrs.frozen
class Work:
    """figures: what `measure` returns, the first one being the headline. stacks: those it can be done with, in the order
    of measuring. measure: does it once, with fresh processes; raises `PeerFailed`. rough_s: how long that takes at full
    scale, for the estimate that a waiting person sees."""

    name: str
    figures: Mapping[str, Figure]
    stacks: tuple[str, ...]
    measure: Callable[[Stack, Scale], Awaitable[Figures]]
    about: str
    rough_s: float = 7.0

    @property
    def headline(self) -> str:
        return next(iter(self.figures))


def less(unit: str) -> Figure:
    return Figure(unit, "less")


def more(unit: str) -> Figure:
    return Figure(unit, "more")


def percentile(values: list[int] | list[float], fraction: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


PAIRS = ("ours", "compiled", "aiortc", "wrtc", "node-datachannel", "werift")
