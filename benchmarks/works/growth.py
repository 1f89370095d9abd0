"""Cost must grow as the work grows, and no step may be worse than linear. Three series:

`throughput_cpu_1`, `_4`, `_16`: CPU seconds per 10^9 bytes (both processes) while 64 KiB messages flow on so many
connections at once, and `throughput_mb_per_s_...` what they carry together. `rtt_us_1`, `_100`: median ping-pong on one of so
many connections, the others idle. `sctp_us_1`, `_100`, `_10000`: CPU per message of 100 bytes in the SCTP core alone, both
sides, while so many are outstanding and the first one of each round is lost (ours only). `worst_step`: the largest growth from
one step of a series to the next of the cost of one unit (a byte, a round trip, a message); 1 is linear in the units, whatever
else is there.
"""

from __future__ import annotations

from itertools import pairwise

from benchmarks.process import start_pair, start_peer
from benchmarks.stacks.registry import STACKS, Stack
from benchmarks.work import FULL, Figure, Figures, Scale, Work, less, more, percentile
from benchmarks.works.flood import flood

SIZE = 65_536
PING_SIZE = 64


async def measure(stack: Stack, scale: Scale) -> Figures:
    figures: Figures = {"worst_step": 0.0}
    for connections in scale.series:
        done = await flood(stack, scale, size=SIZE, reliable=True, connections=connections)
        figures[f"throughput_cpu_{connections}"] = done["cpu_s"] / done["bytes"] * 1e9
        figures[f"throughput_mb_per_s_{connections}"] = done["bytes_per_s"] / 1e6
    for connections in scale.idle_series:
        figures[f"rtt_us_{connections}"] = await _rtt(stack, scale, connections)
    if stack.name == "ours":
        async with start_peer(STACKS["core"].command) as core:
            for outstanding in scale.outstanding_series:
                done = await core.call("outstanding", count=outstanding, seconds=scale.seconds)
                figures[f"sctp_us_{outstanding}"] = done["cpu_us"]
    figures["worst_step"] = worst_step(figures, scale)
    return figures


async def _rtt(stack: Stack, scale: Scale, connections: int) -> float:
    async with start_pair(stack.command) as (one, two):
        await one.call(
            "dial", port=two.signaling, count=connections, reliable=False, mine="ping", theirs="echo", settings={}
        )
        await one.call("ping", count=scale.warm_pings, size=PING_SIZE)
        return percentile((await one.call("ping", count=scale.pings, size=PING_SIZE))["times_ns"], 0.5) / 1e3


def worst_step(figures: Figures, scale: Scale) -> float:
    series = [
        [figures[f"{name}_{size}"] for size in sizes if f"{name}_{size}" in figures]
        for name, sizes in (
            ("throughput_cpu", scale.series),
            ("rtt_us", scale.idle_series),
            ("sctp_us", scale.outstanding_series),
        )
    ]
    return max(after / before for costs in series for before, after in pairwise(costs))


def _figures(scale: Scale) -> dict[str, Figure]:
    return {
        "worst_step": less("x"),
        **{f"throughput_cpu_{n}": less("s/GB") for n in scale.series},
        **{f"throughput_mb_per_s_{n}": more("MB/s") for n in scale.series},
        **{f"rtt_us_{n}": less("us") for n in scale.idle_series},
        **{f"sctp_us_{n}": less("us") for n in scale.outstanding_series},
    }


WORK = Work("growth", _figures(FULL), ("ours", "aiortc", "wrtc"), measure, __doc__ or "", rough_s=32)
