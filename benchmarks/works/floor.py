"""What this machine gives in this run: bare UDP between two Trio processes on loopback, without any protocol above it.

`p50_us` and `p99_us`: ping-pong of 64 bytes. `mb_per_s`: datagrams of 1228 bytes delivered, and `messages_per_s`: of 100
bytes, both sent without back-pressure (what the receiver cannot take is lost) and drained 64 a wake.
"""

from __future__ import annotations

from benchmarks.stacks.registry import Stack
from benchmarks.work import Figures, Scale, Work, less, more
from benchmarks.works import rtt
from benchmarks.works.flood import flood

PACKET = 1228


async def measure(stack: Stack, scale: Scale) -> Figures:
    pings = await rtt.measure(stack, scale)
    packets = await flood(stack, scale, size=PACKET, reliable=False)
    small = await flood(stack, scale, size=100, reliable=False)
    return {
        "p50_us": pings["p50_us"],
        "p99_us": pings["p99_us"],
        "mb_per_s": packets["bytes_per_s"] / 1e6,
        "messages_per_s": small["messages_per_s"],
    }


FIGURES = {"p50_us": less("us"), "p99_us": less("us"), "mb_per_s": more("MB/s"), "messages_per_s": more("/s")}
WORK = Work("floor", FIGURES, ("udp",), measure, __doc__ or "", rough_s=12)
