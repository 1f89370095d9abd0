"""From both peer connections created to a channel that is open on both sides, over signaling by TCP on loopback.

Several connections in the same two processes, one after the other has been closed, after one to warm up. `setup_ms` is their
median and begins with the making of the offer; `created_ms` begins before anything of the connection exists, certificates
included where a stack makes them anew; `slowest_ms` is the slowest of `setup_ms`; `cpu_ms` is the CPU time of both processes
for one connection.
"""

from __future__ import annotations

from statistics import median

from benchmarks.process import start_pair
from benchmarks.stacks.registry import Stack
from benchmarks.work import PAIRS, Figures, Scale, Work, less
from benchmarks.works.usage import CpuMeter


async def measure(stack: Stack, scale: Scale) -> Figures:
    times, cpu_s = [], []
    async with start_pair(stack.command) as (one, two):
        way = {"port": two.signaling, "reliable": True, "mine": "ping", "theirs": "echo", "settings": {}}
        for number in range(scale.setups + 1):
            async with CpuMeter(one, two) as cpu:
                taken = await one.call("dial", count=1, to="player", **way)
            if number:
                times.append(taken[0])
                cpu_s.append(cpu.seconds)
            await one.call("hang_up")
            await two.call("hang_up")
    return {
        "setup_ms": median(time["setup_ns"] for time in times) / 1e6,
        "created_ms": median(time["created_ns"] for time in times) / 1e6,
        "slowest_ms": max(time["setup_ns"] for time in times) / 1e6,
        "cpu_ms": median(cpu_s) * 1e3,
    }


FIGURES = {"setup_ms": less("ms"), "created_ms": less("ms"), "slowest_ms": less("ms"), "cpu_ms": less("ms")}
WORK = Work("setup", FIGURES, PAIRS, measure, __doc__ or "", rough_s=5)
