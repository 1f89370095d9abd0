"""Every kind of access against every other: which pairs connect, over which path, how fast."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import attrs
import trio

from tests.lab.lab import DEFAULT_SHAPE, Lab
from tests.lab.play import Payload, PlayerFailed, RemotePlayer, open_players, servers, signaling
from tests.lab.shaper import Shape
from tests.lab.topology import Site, can_be_direct

Reach = Literal["direct", "relay", "none"]
DEADLINE_S = 15.0  # a pair that cannot connect says so by then
GRACE_S = 5.0  # for the player to say that it gave up
UPGRADE_S = 5.0
HOPELESS_AT_ONCE = 6
OPENED = ("open", "PeerConnected")
DIRECT_KINDS = {"host", "srflx", "prflx"}

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

    def expected(self, turn: bool, payload: Payload) -> Reach:
        """A room needs no TURN to reach everybody: it goes through a common peer or the signaling server."""
        return "direct" if self.direct else "relay" if turn or payload == "room" else "none"


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
    upgraded: bool = False  # it opened over a relay, and `path` is the better one that came soon after
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


async def run_cases(
    cases: Iterable[tuple[Case, bool]], *, payload: Payload, shape: Shape, on_cell: Callable[[Cell], None]
) -> None:
    """Runs them one after the other, so that times mean something; those that can only fail wait side by side."""
    hopeless: list[tuple[Case, bool]] = []
    for case, turn in cases:
        if case.expected(turn, payload) == "none":
            hopeless.append((case, turn))
        else:
            on_cell(await run_case(case, turn=turn, payload=payload, shape=shape))
    limit = trio.CapacityLimiter(HOPELESS_AT_ONCE)

    async def run(case: Case, turn: bool) -> None:
        async with limit:
            on_cell(await run_case(case, turn=turn, payload=payload, shape=shape))

    async with trio.open_nursery() as nursery:
        for case, turn in hopeless:
            nursery.start_soon(run, case, turn)


async def run_case(
    case: Case, *, turn: bool, payload: Payload, shape: Shape = DEFAULT_SHAPE, deadline_s: float = DEADLINE_S
) -> Cell:
    """Builds a lab for the case, lets both players connect, and takes it down."""
    result: dict[str, Any] = {}
    expected = case.expected(turn, payload)
    lab = await trio.to_thread.run_sync(lambda: Lab(case.sites, shape=shape))
    try:
        url = await trio.to_thread.run_sync(lab.start_signaling) if payload == "room" else ""
        specs = {
            name: {"name": name, "offerer": name == "a", "deadline_s": deadline_s, "room": "lab", "signaling": url}
            | servers(lab, name, payload=payload, turn=turn)
            for name in ("a", "b")
        }
        async with open_players(lab, specs, payload=payload) as (a, b), signaling(a, b):
            result = await _watch(a, b, deadline_s + GRACE_S)
            if result["connected"] and result["relayed"] and expected == "direct" and payload != "aioice":
                result |= await _watch_upgrade(a, b)
    except* PlayerFailed as group:
        result = {"connected": False, "error": str(_first(group))}
    finally:
        lab.close()
    return Cell(case=case.name, turn=turn, payload=payload, expected=expected, **result)


async def _watch(a: RemotePlayer, b: RemotePlayer, limit_s: float) -> dict[str, Any]:
    began = time.monotonic()
    for player in (b, a):  # the one who answers first, as in a room that somebody joins
        await player.tell(do="start")
    opened = []
    for player in (a, b):
        with trio.move_on_after(limit_s):
            opened.append(await player.wait_for(*OPENED, "failed"))
    failed = next((event for event in opened if event["event"] == "failed"), None)
    if failed or len(opened) < 2:
        why = f"{failed['phase']}: {failed['error']}" if failed else f"not connected within {limit_s:.0f} s"
        return {"connected": False, "error": why}
    last = max(event["t"] for event in opened)
    known = [event["t"] for player in (a, b) for event in player.events if event.get("event") == "known"]
    return {
        "connected": True,
        **_paths(*(event.get("path", event) for event in opened)),
        "known_to_open_ms": round((last - max(known)) * 1000, 1) if known else None,
        "start_to_open_ms": round((last - began) * 1000, 1),
    }


async def _watch_upgrade(a: RemotePlayer, b: RemotePlayer) -> dict[str, Any]:
    """A pair that opened over a relay may find the better path afterwards: what it has after UPGRADE_S at most."""
    result: dict[str, Any] = {}
    with trio.move_on_after(UPGRADE_S):
        while not result or result["relayed"]:
            await trio.sleep(0.1)
            reports = [await player.ask(do="report") for player in (a, b)]
            result = _paths(*(report.get("path") or next(iter(report["peers"].values())) for report in reports))
    return {**result, "upgraded": True} if result and not result["relayed"] else {}


def _paths(at_a: dict[str, Any], at_b: dict[str, Any]) -> dict[str, Any]:
    ends = [path[end] for path in (at_a, at_b) for end in ("local", "remote")]
    return {"path": f"{at_b['remote']}-{at_a['remote']}", "relayed": not DIRECT_KINDS.issuperset(ends)}


def _first(group: BaseExceptionGroup[PlayerFailed]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@attrs.frozen(kw_only=True)
class Summary:
    cells: int
    as_expected: int
    connected: int  # of connectable
    connectable: int
    direct: int
    can_be_direct: int
    median_ms: float | None  # from both candidates known to channel open
    p99_ms: float | None
    max_ms: float | None


def summary(cells: Sequence[Cell]) -> Summary:
    possible = [cell for cell in cells if cell.expected != "none"]
    times = sorted(cell.known_to_open_ms for cell in cells if cell.known_to_open_ms is not None)
    return Summary(
        cells=len(cells),
        as_expected=sum(cell.as_expected for cell in cells),
        connected=sum(cell.connected for cell in possible),
        connectable=len(possible),
        direct=sum(cell.direct for cell in cells),
        can_be_direct=sum(cell.expected == "direct" for cell in cells),
        median_ms=statistics.median(times) if times else None,
        p99_ms=times[min(len(times) - 1, int(len(times) * 0.99))] if times else None,
        max_ms=times[-1] if times else None,
    )
