"""Messages of 100 bytes on an unordered channel without retransmissions, as fast as back-pressure allows.

`messages_per_s` counts deliveries at the receiver, after a warm-up. `lost_percent` is what never came, of all that was
sent. `cpu_us` is the CPU time of both processes for one delivered message.
"""

from __future__ import annotations

from benchmarks.stacks.registry import Stack
from benchmarks.work import PAIRS, Figures, Scale, Work, less, more
from benchmarks.works.flood import flood

SIZE = 100


async def measure(stack: Stack, scale: Scale) -> Figures:
    done = await flood(stack, scale, size=SIZE, reliable=False)
    return {
        "messages_per_s": done["messages_per_s"],
        "lost_percent": 100 * done["lost"],
        "cpu_us": done["cpu_s"] / done["messages"] * 1e6,
    }


FIGURES = {"messages_per_s": more("/s"), "lost_percent": less("%"), "cpu_us": less("us")}
WORK = Work("small", FIGURES, PAIRS, measure, __doc__ or "")
