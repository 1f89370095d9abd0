"""Measures works: every repetition takes each stack once, in a fixed order, so that a slow minute hits all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from benchmarks.process import PeerFailed
from benchmarks.samples import Samples
from benchmarks.stacks.registry import STACKS, Stack
from benchmarks.work import Scale, Work

ALWAYS = ("udp", "simulator")  # they stand beside no other stack
Told = Callable[[str], None]


def plan(works: Sequence[Work], wanted: Sequence[str], told: Told) -> list[tuple[Work, list[Stack]]]:
    """Which stacks each work is done with; what is missing here is told loudly and left out."""
    missing = {name: reason for name in (*wanted, *ALWAYS) if (reason := STACKS[name].missing())}
    for name, reason in missing.items():
        told(f"[bold yellow]{name} is not measured: {reason}[/]")
    return [
        (work, [STACKS[name] for name in work.stacks if (name in wanted or name in ALWAYS) and name not in missing])
        for work in works
    ]


async def run(
    planned: Sequence[tuple[Work, list[Stack]]], scale: Scale, repetitions: int, told: Told, done: Callable[[], None]
) -> Samples:
    """told: one line of news for people. done: called after each measurement."""
    samples = Samples()
    for work, stacks in planned:
        for repetition in range(repetitions):
            for stack in stacks:
                told(f"{work.name} {repetition + 1}/{repetitions}: {stack.name}")
                try:
                    samples.add(work.name, stack.name, await work.measure(stack, scale))
                except (PeerFailed, trio.TooSlowError) as failure:
                    samples.add_failure(work.name, stack.name, str(failure))
                    told(f"[bold red]{work.name}: {stack.name} failed[/]\n{failure}")
                done()
    return samples
