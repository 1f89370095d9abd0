"""What work takes, against an honest one-byte message through SCTP, for each byte of its packets: that is one unit.

Counted in steps of Python it is the same on every machine, however busy; C functions show in time only, and time is measured
by turns with honest messages in one thread, the least of many tries.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from benchmarks.attacks import tiny_messages
from benchmarks.hostile import PACKINGS, Meter

STEPS = 23.0  # bytecodes of a unit: 21.2 in CPython 3.11, some more or less in others
MESSAGE_STEPS = 600.0  # free for each message: some 2 us, where accounts of links charge 5 units (1 us each) and more
SMALL_BYTES = 200  # an input that is shorter counts as so long, where time is told every day
ROUGHLY = 3.0  # what other work on the same processors may add, after all tries
TURNS = 5
TRIES = 15


def steps_of(act: Callable[[], object]) -> int:
    """Bytecodes of Python that are run for it. What happens inside of a C function is one step, whatever it takes."""
    steps = 0

    def entered(frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return stepped

    def stepped(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += event == "opcode"
        return stepped

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        act()
    finally:
        sys.settrace(before)
    return steps


def honest_steps() -> float:
    """Of one-byte messages, for each byte."""
    honest = Meter(tiny_messages(), PACKINGS["bundled"])
    honest.turn(5_000)
    before = honest.came
    steps = steps_of(lambda: honest.turn(20_000))
    return steps / (honest.came - before)


def time_ratio(prepare: Callable[[], Callable[[], object]], n_bytes: int, enough: float) -> float:
    """CPU for each of the `n_bytes` of what `prepare` gives, in units; the least of some tries, no more once it is enough.
    Call it within `without_collections`."""
    best = math.inf
    for _ in range(TRIES):
        act, honest, spent = prepare(), Meter(tiny_messages(), PACKINGS["bundled"]), 0
        for _ in range(TURNS):
            honest.turn(2_000)
            began = time.thread_time_ns()
            act()
            spent += time.thread_time_ns() - began
        best = min(best, spent / (TURNS * n_bytes) / honest.cost.ns_per_byte)
        if best <= enough:
            break
    return best
