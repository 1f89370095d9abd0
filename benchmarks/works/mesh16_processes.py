"""The same game as mesh16 with one process for each of the 16 players, which share the cores of this machine."""

from __future__ import annotations

from benchmarks.stacks.registry import Stack
from benchmarks.work import Figures, Scale, Work
from benchmarks.works import mesh16, meshes


async def measure(stack: Stack, scale: Scale) -> Figures:
    return await meshes.measure(stack, scale, one_process=False)


WORK = Work("mesh16_processes", mesh16.FIGURES, mesh16.STACKS, measure, __doc__ or "", rough_s=30)
