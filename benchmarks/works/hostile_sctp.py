"""What the dearest chunks that a peer with a valid key can send cost its receiver: `python -m benchmarks.hostile` has all of
them, by kind.

`percent_per_mbit` is the CPU of one core that 1 Mbit/s of the worst attack takes, `longest_ms` that of the dearest packet.
"""

from __future__ import annotations

import json
import subprocess

import trio

from benchmarks.stacks.registry import Stack
from benchmarks.work import FULL, TINY, Figures, Scale, Work, less


async def measure(stack: Stack, scale: Scale) -> Figures:
    which = ["tiny_messages"] if scale is TINY else []
    quick = [] if scale is FULL else ["--quick"]
    command = [*stack.command[:-1], "benchmarks.hostile", "--json", *quick, *which]
    done = await trio.run_process(command, capture_stdout=True, stdin=subprocess.DEVNULL)
    figures: Figures = json.loads(done.stdout)
    return figures


FIGURES = {"percent_per_mbit": less("%"), "longest_ms": less("ms")}
WORK = Work("hostile_sctp", FIGURES, ("ours", "compiled"), measure, __doc__ or "", rough_s=60)
