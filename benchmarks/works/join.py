"""A cold join: one player waits in a room, another one enters and gets a first message from the first.

`join_ms` runs from the call of `join_game_room` to that message in user code: WebSocket and hello to the signaling server,
offer and answer, ICE, DTLS, SCTP, the channel, the message. `cold_ms` runs from the start of the joining process, so with the
start of Python and all imports (from bytecode, as of any installed package), and `cold_cpu_ms` is the CPU time of that process
until then, which a busy machine changes less. Medians of several joins, each in a new process.
"""

from __future__ import annotations

import json
import os
from statistics import median

import trio

from benchmarks.process import ROOT, start_peer
from benchmarks.stacks.protocol import now_ns
from benchmarks.stacks.registry import Stack
from benchmarks.work import Figures, Scale, Work, less
from benchmarks.works.meshes import serve_signaling

ROOM_NAME = "lobby"


async def measure(stack: Stack, scale: Scale) -> Figures:
    joined = []
    async with serve_signaling() as url, start_peer(stack.command) as host:
        await host.call("enter", url=url, room=ROOM_NAME, names=["host"], players=1, greet=True)
        await _join(stack.command[0], url)  # writes what bytecode is missing
        for _ in range(max(2, scale.setups // 2)):
            joined.append(await _join(stack.command[0], url))
    return {name: median(one[name] for one in joined) for name in FIGURES}


async def _join(python: str, url: str) -> Figures:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = now_ns()
    done = await trio.run_process(
        [python, "-m", "benchmarks.newcomer", url, ROOM_NAME], capture_stdout=True, cwd=ROOT, env=environment
    )
    told = json.loads(done.stdout)
    return {
        "join_ms": told["join_ns"] / 1e6,
        "cold_ms": (told["at_ns"] - began) / 1e6,
        "cold_cpu_ms": told["cpu_ns"] / 1e6,
    }


FIGURES = {"join_ms": less("ms"), "cold_ms": less("ms"), "cold_cpu_ms": less("ms")}
WORK = Work("join", FIGURES, ("rooms",), measure, __doc__ or "", rough_s=6)
