"""Measures works: every repetition takes each stack once, in a fixed order, so that a slow minute hits all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from benchmarks.process import PeerFailed, start_peer
from benchmarks.samples import Samples
from benchmarks.stacks.registry import STACKS, Stack
from benchmarks.work import Scale, Work

ALWAYS = ("udp", "simulator", "simulator-compiled")  # they stand beside no other stack
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


class Watcher(Protocol):
    """Who wants to know how far it is."""

    def begins(self, work: Work, repetition: int, stack: Stack) -> None: ...

    def failed(self, work: Work, stack: Stack, reason: str) -> None: ...

    def measured(self, work: Work) -> None: ...

    def finished(self, work: Work) -> None: ...


async def run(planned: Sequence[tuple[Work, list[Stack]]], scale: Scale, repetitions: int, watcher: Watcher) -> Samples:
    samples = Samples()
    for work, stacks in planned:
        for repetition in range(repetitions):
            for stack in stacks:
                watcher.begins(work, repetition, stack)
                try:
                    samples.add(work.name, stack.name, await work.measure(stack, scale))
                except (PeerFailed, trio.TooSlowError) as failure:
                    samples.add_failure(work.name, stack.name, str(failure))
                    watcher.failed(work, stack, str(failure))
                watcher.measured(work)
        watcher.finished(work)
    return samples


async def versions(planned: Sequence[tuple[Work, list[Stack]]]) -> dict[str, dict[str, str]]:
    """What each stack says it is. One that does not start says so again when it is measured."""
    found = {}
    for stack in dict.fromkeys(stack for _, stacks in planned for stack in stacks):
        try:
            async with start_peer(stack.command) as peer:
                found[stack.name] = peer.versions
        except PeerFailed:
            continue
    return found
