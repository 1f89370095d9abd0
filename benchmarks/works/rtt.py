"""Ping-pong of 64 bytes on an unordered channel without retransmissions, one message under way at a time.

Measured in user code: from the call of send to the message in the hands of the program. `cpu_us` is the CPU time of both
processes for one round trip. A lost message is sent again after half a second and counted in `lost`.
"""

from __future__ import annotations

from benchmarks.process import start_pair
from benchmarks.stacks.registry import Stack
from benchmarks.work import PAIRS, Figures, Scale, Work, less, percentile
from benchmarks.works.usage import CpuMeter

SIZE = 64


async def measure(stack: Stack, scale: Scale) -> Figures:
    async with start_pair(stack.command) as (one, two):
        await one.call("dial", port=two.signaling, count=1, reliable=False, mine="ping", theirs="echo", settings={})
        await one.call("ping", count=scale.warm_pings, size=SIZE)
        async with CpuMeter(one, two) as cpu:
            answer = await one.call("ping", count=scale.pings, size=SIZE)
    times = answer["times_ns"]
    return {
        "p50_us": percentile(times, 0.5) / 1e3,
        "p99_us": percentile(times, 0.99) / 1e3,
        "cpu_us": cpu.seconds / scale.pings * 1e6,
        "lost": float(answer["lost"]),
    }


FIGURES = {"p50_us": less("us"), "p99_us": less("us"), "cpu_us": less("us"), "lost": less("messages")}
WORK = Work("rtt", FIGURES, PAIRS, measure, __doc__ or "", rough_s=4)
