"""How fast the simulator of the gossip layer runs: events of virtual time per second of real time, on one core.

The scenario "broadcast-random-sources" at CI scale: joins, overlay, broadcasts. `events_per_cpu_s` is what a busy machine
changes least.
"""

from __future__ import annotations

from benchmarks.process import start_peer
from benchmarks.stacks.registry import Stack
from benchmarks.work import TINY, Figures, Scale, Work, more

SCENARIO = "broadcast-random-sources"
NODES = 100


async def measure(stack: Stack, scale: Scale) -> Figures:
    async with start_peer(stack.command) as simulator:
        nodes = 8 if scale is TINY else NODES
        done = await simulator.call("simulate", scenario=SCENARIO, nodes=nodes, seed=1)
    return {"events_per_s": done["events"] / done["wall_s"], "events_per_cpu_s": done["events"] / done["cpu_s"]}


FIGURES = {"events_per_s": more("/s"), "events_per_cpu_s": more("/s")}
WORK = Work("gossip", FIGURES, ("simulator", "simulator-compiled"), measure, __doc__ or "", rough_s=15)
