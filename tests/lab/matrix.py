"""Every kind of access against every other: which pairs connect, over which path, how fast."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import attrs
import trio

from tests.lab.lab import DEFAULT_SHAPE, Lab
from tests.lab.play import Payload, PlayerFailed, RemotePlayer, open_player, servers, signaling
from tests.lab.shaper import Shape
from tests.lab.topology import Site, can_be_direct

Reach = Literal["direct", "relay", "none"]
DEADLINE_S = 15.0  # a pair that cannot connect says so by then

MAIN_KINDS = (
    "open",
    "full-cone",
    "address-restricted",
    "port-restricted",
    "symmetric",
    "double-cone",
    "double-symmetric",
    "udp-blocked",
)


@attrs.frozen
class Case:
    """Two players somewhere. direct: whether ICE can join them without a relay."""

    name: str
    sites: tuple[Site, ...]
    direct: bool

    def expected(self, turn: bool) -> Reach:
        return "direct" if self.direct else "relay" if turn else "none"


def pair(a: str, b: str) -> Case:
    return Case(f"{a} / {b}", (Site("a", a), Site("b", b)), can_be_direct(a, b))


def special_cases() -> list[Case]:
    def one_network(kind: str, *, isolated: bool = False, hairpin: bool = False) -> tuple[Site, ...]:
        return (Site("net", kind, players=("a", "b"), isolated=isolated, hairpin=hairpin),)

    def one_carrier(kind: str, *, hairpin: bool) -> tuple[Site, ...]:
        isp = Site("isp", kind, players=(), hairpin=hairpin)
        return isp, Site("a", "port-restricted", behind="isp"), Site("b", "port-restricted", behind="isp")

    cases = [
        Case("one home network", one_network("port-restricted"), direct=True),
        Case("one isolating network, no hairpin", one_network("port-restricted", isolated=True), direct=False),
        Case(
            "one isolating network, hairpin", one_network("port-restricted", isolated=True, hairpin=True), direct=True
        ),
        Case("two homes, one carrier cone NAT, no hairpin", one_carrier("full-cone", hairpin=False), direct=False),
        Case("two homes, one carrier cone NAT, hairpin", one_carrier("full-cone", hairpin=True), direct=True),
        Case("two homes, one carrier symmetric NAT", one_carrier("symmetric", hairpin=False), direct=False),
    ]
    kinds = [
        ("udp-rejected", "open"),
        ("udp-rejected", "port-restricted"),
        ("udp-rejected", "udp-blocked"),
        ("ipv6-open", "ipv6-open"),
        ("ipv6-open", "ipv6-only"),
        ("ipv6-only", "ipv6-only"),
        ("ipv6-only", "open"),
        ("ipv6-only", "port-restricted"),
        ("ipv6-only", "udp-blocked"),
        ("dual-stack", "dual-stack"),
        ("dual-stack", "dual-symmetric"),
        ("dual-symmetric", "dual-symmetric"),
        ("dual-stack", "ipv6-only"),
        ("dual-stack", "symmetric"),
        ("dual-symmetric", "port-restricted"),
    ]
    return cases + [pair(a, b) for a, b in kinds]


def all_cases() -> list[Case]:
    return [pair(a, b) for a, b in itertools.product(MAIN_KINDS, MAIN_KINDS)] + special_cases()


QUICK_WITH_TURN = (
    "open / open",
    "open / symmetric",
    "full-cone / port-restricted",
    "port-restricted / address-restricted",
    "port-restricted / port-restricted",
    "port-restricted / symmetric",
    "symmetric / address-restricted",
    "symmetric / symmetric",
    "double-cone / double-cone",
    "double-cone / double-symmetric",
    "udp-blocked / open",
    "port-restricted / udp-blocked",
    "udp-blocked / udp-blocked",
    "one home network",
    "one isolating network, no hairpin",
    "one isolating network, hairpin",
    "two homes, one carrier cone NAT, hairpin",
    "udp-rejected / port-restricted",
    "ipv6-only / ipv6-only",
    "ipv6-only / port-restricted",
    "dual-symmetric / dual-symmetric",
)
QUICK_WITHOUT_TURN = (
    "open / port-restricted",
    "port-restricted / port-restricted",
    "symmetric / full-cone",
    "port-restricted / symmetric",
)


@attrs.frozen(kw_only=True)
class Cell:
    """What came of one case. Times in ms: from the moment when both sides knew the other's description and first
    candidate, and from the start of both."""

    case: str
    turn: bool
    payload: str
    expected: Reach
    connected: bool
    path: str | None = None  # what A is to B, and what B is to A, each as the other side sees it
    relayed: bool = False  # on the selected pair of either side
    known_to_open_ms: float | None = None
    start_to_open_ms: float | None = None
    error: str | None = None

    @property
    def direct(self) -> bool:
        return self.connected and not self.relayed

    @property
    def as_expected(self) -> bool:
        """Connected wherever a way exists, and directly wherever that is possible."""
        return self.connected == (self.expected != "none") and self.direct == (self.expected == "direct")


def chosen(quick: bool, only: Sequence[str] = ()) -> Iterator[tuple[Case, bool]]:
    """(case, with TURN) in the order of running. only: words that a case's name must contain, each."""
    for turn in (True, False):
        names = QUICK_WITH_TURN if turn else QUICK_WITHOUT_TURN
        for case in all_cases():
            if (not quick or case.name in names) and all(word in case.name for word in only):
                yield case, turn


async def run_case(case: Case, *, turn: bool, payload: Payload, shape: Shape = DEFAULT_SHAPE) -> Cell:
    """Builds a lab for the case, lets both players connect, and takes it down."""
    result: dict[str, Any] = {}
    lab = await trio.to_thread.run_sync(lambda: Lab(case.sites, shape=shape))
    try:
        async with (
            open_player(lab, "a", payload=payload, **spec_of(lab, "a", payload, turn)) as a,
            open_player(lab, "b", payload=payload, **spec_of(lab, "b", payload, turn)) as b,
            signaling(a, b),
        ):
            result = await _watch(a, b)
    except* PlayerFailed as group:
        result = {"connected": False, "error": str(group.exceptions[0])}
    finally:
        lab.close()
    return Cell(case=case.name, turn=turn, payload=payload, expected=case.expected(turn), **result)


def spec_of(lab: Lab, name: str, payload: Payload, turn: bool) -> dict[str, object]:
    return {
        "offerer": name == "a",
        "deadline_s": DEADLINE_S,
        **servers(lab, name, payload=payload, turn=turn),
    }


async def _watch(a: RemotePlayer, b: RemotePlayer) -> dict[str, Any]:
    began = time.monotonic()
    for player in (b, a):  # the one who answers first, as in a room that somebody joins
        await player.tell(do="start")
    opened = []
    for player in (a, b):
        with trio.move_on_after(DEADLINE_S + 5):
            opened.append(await player.wait_for("open", "failed"))
    failed = next((event for event in opened if event["event"] == "failed"), None)
    if failed or len(opened) < 2:
        why = f"{failed['phase']}: {failed['error']}" if failed else "neither opened nor failed in time"
        return {"connected": False, "error": why}
    known = max([(await player.wait_for("known"))["t"] for player in (a, b)])
    last = max(event["t"] for event in opened)
    return {
        "connected": True,
        "path": f"{opened[1]['remote']}-{opened[0]['remote']}",
        "relayed": any(event[end] == "relay" for event in opened for end in ("local", "remote")),
        "known_to_open_ms": round((last - known) * 1000, 1),
        "start_to_open_ms": round((last - began) * 1000, 1),
    }


def summary(cells: Sequence[Cell]) -> dict[str, float | int | None]:
    possible = [cell for cell in cells if cell.expected != "none"]
    times = sorted(cell.known_to_open_ms for cell in cells if cell.known_to_open_ms is not None)
    return {
        "cells": len(cells),
        "as_expected": sum(cell.as_expected for cell in cells),
        "connected": sum(cell.connected for cell in possible),
        "connectable": len(possible),
        "direct": sum(cell.direct for cell in cells),
        "can_be_direct": sum(cell.expected == "direct" for cell in cells),
        "median_ms": round(statistics.median(times), 1) if times else None,
        "p99_ms": times[min(len(times) - 1, int(len(times) * 0.99))] if times else None,
        "max_ms": times[-1] if times else None,
    }
