"""How the room looked over time: a sample of the true graph and of the views every so often."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from psyne_mesh.simulations.net import Host

if TYPE_CHECKING:
    from psyne_mesh.simulations.accounting import Accounting
    from psyne_mesh.simulations.world import World

JOINING_S = 5.0  # who was started less long ago and is still on the way in is not yet held against the graph


@attrs.frozen
class Sample:
    """The room at one moment. Machines on their way in (without a link, or linked among themselves only) do not count as a
    piece of it for the first `JOINING_S`."""

    at: float
    up: int
    components: int  # over links that carry frames both ways
    largest: int
    isolated: int
    min_degree: int
    view_sizes: tuple[int, ...]  # the distinct ones, sorted
    equal_views: bool  # every view is exactly the machines that are up


def neighbours(host: Host) -> list[Host]:
    """Whom `host` has a working link to: both sides hold it, nothing cuts it."""
    found = []
    for peer, lane in host.lanes.items():
        other = lane.dst
        back = other.lanes.get(host.peer)
        if back is lane.twin and not (lane.void or back.void or lane.blocked or back.blocked) and other.up:
            found.append(other)
        del peer
    return found


def components_of(hosts: list[Host]) -> list[list[int]]:
    """The connected groups of the true graph, the largest first."""
    inside = {host.index: host for host in hosts}
    seen: dict[int, None] = {}
    groups = []
    for start in inside:
        if start in seen:
            continue
        seen[start] = None
        group = [start]
        for index in group:
            for other in neighbours(inside[index]):
                if other.index in inside and other.index not in seen:
                    seen[other.index] = None
                    group.append(other.index)
        groups.append(group)
    return sorted(groups, key=len, reverse=True)


def sample(world: World, accounting: Accounting, *, compare_views: bool) -> Sample:
    up = [host for host in world.hosts if host.up]
    old_enough = {host.index for host in up if world.now - host.joined_at >= JOINING_S}
    pieces = components_of([host for host in up if host.lanes or host.index in old_enough])
    groups = [piece for number, piece in enumerate(pieces) if number == 0 or not old_enough.isdisjoint(piece)]
    degrees = [len(neighbours(world.hosts[index])) for group in groups for index in group]
    sizes = sorted({len(accounting.views[host.index]) for host in up})
    return Sample(
        at=world.now,
        up=len(up),
        components=len(groups),
        largest=len(groups[0]) if groups else 0,
        isolated=sum(degree == 0 for degree in degrees),
        min_degree=min(degrees, default=0),
        view_sizes=tuple(sizes),
        equal_views=compare_views and sizes == [len(up) - 1] and _views_are_true(world, accounting, up),
    )


def _views_are_true(world: World, accounting: Accounting, up: list[Host]) -> bool:
    return all(world.by_peer[peer].up for host in up for peer in accounting.views[host.index])


def percentile(values: list[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `share` of all do not exceed. NaN when empty."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]
