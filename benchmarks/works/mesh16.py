"""16 players in one process, each sending 100 bytes to every other one at 60 Hz over unreliable channels.

14,400 messages a second in all. `p50_ms` and `p99_ms`: from the tick for which a message was scheduled to its arrival in user
code, so a sender that falls behind counts; what never came is in `delivered_percent`, of all that was to be sent.
`cpu_percent` is of one core. "ours" are data channels, one endpoint a player, like the other stacks; "rooms" is the same game
played through `join_game_room`. Ticks of the players are spread evenly over 1/60 s, as clocks of players are not aligned.
"""

from __future__ import annotations

from benchmarks.stacks.registry import Stack
from benchmarks.work import Figures, Scale, Work, less, more
from benchmarks.works import meshes

FIGURES = {
    "p99_ms": less("ms"),
    "p50_ms": less("ms"),
    "delivered_percent": more("%"),
    "cpu_percent": less("%"),
}
STACKS = ("ours", "compiled", "rooms", "aiortc", "wrtc", "node-datachannel", "werift")


async def measure(stack: Stack, scale: Scale) -> Figures:
    return await meshes.measure(stack, scale, one_process=True)


WORK = Work("mesh16", FIGURES, STACKS, measure, __doc__ or "", rough_s=16)
