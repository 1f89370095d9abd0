"""Throughput of one reliable, ordered channel on a bad path: 50 ms round trip, packets up to 1500 bytes, random loss.

`kb_per_s_at_1_percent` and `..._at_5_percent`: 10^3 bytes a second that reached the program, with so much loss in each
direction; a relay process between the two peers (`benchmarks/relay.py`) delays and drops, the same for every stack. The path
has no bottleneck: what limits is how a stack finds out about losses and what it makes of them. For comparison, the formula of
Mathis et al. (1997) gives a Reno sender 290 and 130 kB/s.
"""

from __future__ import annotations

import attrs

from benchmarks.stacks.registry import Stack
from benchmarks.work import PAIRS, Figures, Scale, Work, more
from benchmarks.works.flood import BadPath, flood

SIZE = 8192
DELAY_MS = 25.0
LOSSES = (1, 5)  # percent


async def measure(stack: Stack, scale: Scale) -> Figures:
    scale = attrs.evolve(scale, seconds=scale.loss_s)
    figures = {}
    for percent in LOSSES:
        path = BadPath(delay_ms=DELAY_MS, loss=percent / 100)
        done = await flood(stack, scale, size=SIZE, reliable=True, path=path)
        figures[f"kb_per_s_at_{percent}_percent"] = done["bytes_per_s"] / 1e3
    return figures


FIGURES = {f"kb_per_s_at_{percent}_percent": more("kB/s") for percent in LOSSES}
WORK = Work("lossy", FIGURES, PAIRS, measure, __doc__ or "", rough_s=30)
