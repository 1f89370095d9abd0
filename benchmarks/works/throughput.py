"""Messages of 64 KiB on one reliable, ordered channel, as fast as back-pressure allows; the path carries large packets.

`mb_per_s` counts at the receiver, after a warm-up (10^6 bytes). `cpu_s_per_gb` is the CPU time of both processes with all
their threads, per 10^9 bytes delivered, warm-up included.
"""

from __future__ import annotations

from typing import Any

from benchmarks.stacks.registry import Stack
from benchmarks.work import PAIRS, Figures, Scale, Work, less, more
from benchmarks.works.flood import flood

SIZE = 65_536
FIGURES = {"mb_per_s": more("MB/s"), "cpu_s_per_gb": less("s/GB")}


async def measure(stack: Stack, scale: Scale, settings: dict[str, Any] | None = None) -> Figures:
    done = await flood(stack, scale, size=SIZE, reliable=True, settings=settings)
    return {"mb_per_s": done["bytes_per_s"] / 1e6, "cpu_s_per_gb": done["cpu_s"] / done["bytes"] * 1e9}


WORK = Work("throughput", FIGURES, PAIRS, measure, __doc__ or "")
