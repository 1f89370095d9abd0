"""What an idle mesh costs: CPU of one process with 16 players, all connected to each other (120 links), that say nothing.

`cpu_percent` is of one core, for all 16 players together. "ours" are data channels; "rooms" are rooms with gossip, failure
detection and signaling. The first seconds after connecting, with path MTU discovery, are left out.
"""

from __future__ import annotations

import trio

from benchmarks.stacks.registry import Stack
from benchmarks.work import Figures, Scale, Work, less
from benchmarks.works.mesh16 import STACKS
from benchmarks.works.meshes import open_mesh
from benchmarks.works.usage import CpuMeter

SETTLE_S = 5.0


async def measure(stack: Stack, scale: Scale) -> Figures:
    async with open_mesh(stack, scale.players, one_process=True) as mesh:
        await trio.sleep(min(SETTLE_S, scale.idle_s))
        async with CpuMeter(*mesh.processes) as cpu:
            await trio.sleep(scale.idle_s)
    return {"cpu_percent": 100 * cpu.seconds / scale.idle_s}


WORK = Work("poll", {"cpu_percent": less("%")}, STACKS, measure, __doc__ or "", rough_s=28)
