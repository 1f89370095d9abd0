"""What a scenario needs beyond data: attackers, comparisons between arms, looks inside the nodes.

`BEFORE[name](run)` before the hosts start, `AFTER[name](run)` when the run is over, `COMPARE[name](run, arm)` for each
other arm.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from psyne_mesh.simulations import attacks, terms
from psyne_mesh.simulations.series import neighbours, percentile

if TYPE_CHECKING:
    from psyne_mesh.simulations.net import Host
    from psyne_mesh.simulations.run import Run

BEFORE: dict[str, Callable[[Run], None]] = {
    "incarnations": attacks.seat_forgers,
    "sybils": attacks.seat_sybils,
    "hosts": terms.seat_players,
}
AFTER: dict[str, Callable[[Run], None]] = {
    "incarnations": attacks.judge_forgers,
    "sybils": attacks.judge_sybils,
    "hosts": terms.judge_players,
}
COMPARE: dict[str, Callable[[Run, Run], None]] = {}


def before(name: str) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    return lambda act: BEFORE.setdefault(name, act)


def after(name: str) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    return lambda act: AFTER.setdefault(name, act)


# ------------------------------------------------------------------------------------------------------------- clocks


def _same_order(run: Run, arm: Run) -> None:
    """Whether wrong clocks changed anything but the hours: the same frames between the same nodes in the same order."""
    same = run.world.trace.order_digest() == arm.world.trace.order_digest()
    run.findings.figures[f"{arm.arm}.same_trace"] = float(same)


COMPARE["clocks"] = _same_order


# --------------------------------------------------------------------------------------------------------- duplicates


@after("duplicates")
def _duplicates(run: Run) -> None:
    """Every node must have every one of the identical payloads of every origin, numbered 1, 2, 3, ..."""
    got: dict[tuple[int, Any], list[int]] = {}
    for host, event in run.accounting.unmarked:
        got.setdefault((host, event.origin), []).append(event.seq)
    sent = run.unmarked_sent
    due = [(host.index, origin) for host in run.up() for origin in sent if run.world.by_peer[origin] is not host]
    whole = sum(len(got.get(pair, ())) == sent[pair[1]] for pair in due)
    in_order = sum(numbers == sorted(set(numbers)) for numbers in got.values())
    run.findings.figures["pairs_complete_percent"] = 100 * whole / len(due) if due else math.nan
    run.findings.figures["pairs_in_order_percent"] = 100 * in_order / len(got) if got else math.nan


# ------------------------------------------------------------------------------------------------------------- queues


@after("queues")
def _queues(run: Run) -> None:
    """The longest queue in front of a slow node, as its neighbours would hold it, and links that broke because of one."""
    run.findings.figures["queued_kib_max"] = max(host.queued_bytes_max for host in run.world.hosts) / 1024
    run.findings.figures["links_overflowed"] = float(run.accounting.unlinks["overflow"])


# -------------------------------------------------------------------------------------------------------- coordinates


@after("vivaldi")
def _vivaldi(run: Run) -> None:
    """How well two nodes' coordinates foretell the true round trip, over random pairs."""
    spots = {host.index: run.world.hosts[host.index].actor.topology(run.world.now).coordinates for host in run.up()}
    placed = [index for index, spot in spots.items() if spot is not None]
    errors = []
    for _ in range(2000 if len(placed) > 1 else 0):
        a, b = run.rng.sample(placed, 2)
        true_s = 2 * run.world.latency.one_way_s(a, b)
        errors.append(abs(_distance(spots[a], spots[b]) - true_s) / true_s)
    run.findings.add_samples("coordinate_error", errors)
    rtts = [2 * run.world.latency.one_way_s(host.index, other.index) for host in run.up() for other in neighbours(host)]
    run.findings.add_samples("link_rtt_s", rtts)


def _distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Vivaldi with heights, in seconds: the plane between the two, and down to both (x, y, z, height)."""
    return math.dist(a[:3], b[:3]) + a[3] + b[3]


# --------------------------------------------------------------------------------------------------------------- soak


@before("soak")
def _watch_memory(run: Run) -> None:
    step = run.scenario.duration_s / 24
    for number in range(1, 25):
        # After the boot: `t0` is not known yet, so the first looks may come early; only late ones are compared.
        run.world.at(number * step, _weigh, run)


def _weigh(run: Run) -> None:
    up = [host for host in run.up() if host.lanes]
    if up:
        run.weights.append((run.world.now, percentile([float(deep_bytes(host)) for host in up], 0.5)))


@after("soak")
def _memory(run: Run) -> None:
    """The median node's memory: the last quarter of the run against the second quarter."""
    half = [weight for at, weight in run.weights if 0.25 * run.end <= at < 0.5 * run.end]
    last = [weight for at, weight in run.weights if at >= 0.75 * run.end]
    growth = 100 * (sum(last) / len(last)) / (sum(half) / len(half)) - 100 if half and last else math.nan
    run.findings.figures["memory_growth_percent"] = growth
    run.findings.figures["node_bytes"] = last[-1] if last else math.nan


_SHARED = (ModuleType, type, FunctionType, BuiltinFunctionType, MethodType)


def deep_bytes(host: Host) -> int:
    """What the host's node holds in memory, everything it points to included, code and classes not."""
    seen: dict[int, None] = {}
    stack: list[Any] = [vars(host.actor) if hasattr(host.actor, "__dict__") else host.actor]
    total = 0
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, _SHARED):
            continue
        seen[id(thing)] = None
        total += sys.getsizeof(thing)
        stack.extend(gc.get_referents(thing))
    return total
