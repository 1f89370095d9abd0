"""A cold join: one player waits in a room, another one enters and gets a first message from the first.

`join_ms` runs from the call of `join_game_room` to that message in user code: WebSocket and hello to the signaling server,
offer and answer, ICE, DTLS, SCTP, the channel, the message. `cold_ms` runs from the start of the joining process, so with the
start of Python and all imports. Medians of several joins, each in a new process.
"""

from __future__ import annotations

from statistics import median

from benchmarks.process import start_peer
from benchmarks.stacks.protocol import now_ns
from benchmarks.stacks.registry import Stack
from benchmarks.work import Figures, Scale, Work, less
from benchmarks.works.meshes import serve_signaling

ROOM = "lobby"


async def measure(stack: Stack, scale: Scale) -> Figures:
    joins, colds = [], []
    async with serve_signaling() as url, start_peer(stack.command) as host:
        await host.call("enter", url=url, room=ROOM, names=["host"], players=1, greet=True)
        for _ in range(max(2, scale.setups // 2)):
            began = now_ns()
            async with start_peer(stack.command) as guest:
                joined = await guest.call("join", url=url, room=ROOM)
            joins.append(joined["join_ns"] / 1e6)
            colds.append((joined["at_ns"] - began) / 1e6)
    return {"join_ms": median(joins), "cold_ms": median(colds)}


WORK = Work("join", {"join_ms": less("ms"), "cold_ms": less("ms")}, ("rooms",), measure, __doc__ or "", rough_s=6)
