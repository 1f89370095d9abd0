"""What an idle connection holds: growth of a process (resident set) while one player gets 50 connections, divided by 50.

One connection was made before, so what a stack needs once is not counted. The other ends are in the other process.
"""

from __future__ import annotations

import trio

from benchmarks.process import start_pair
from benchmarks.stacks.registry import Stack
from benchmarks.work import PAIRS, Figures, Scale, Work, less

SETTLE_S = 1.0


async def measure(stack: Stack, scale: Scale) -> Figures:
    async with start_pair(stack.command) as (one, two):
        way = {"port": two.signaling, "reliable": True, "mine": "sink", "theirs": "sink", "settings": {}}
        await one.call("dial", count=1, to="warm", **way)
        await trio.sleep(SETTLE_S)
        before = await one.call("usage", tidy=True)
        await one.call("dial", count=scale.connections, **way)
        await trio.sleep(SETTLE_S)
        after = await one.call("usage", tidy=True)
    return {"kib_per_connection": (after["rss_kib"] - before["rss_kib"]) / scale.connections}


WORK = Work("memory", {"kib_per_connection": less("KiB")}, PAIRS, measure, __doc__ or "", rough_s=9)
