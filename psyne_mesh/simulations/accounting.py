"""Ground truth: who was up when, who could reach whom, what each node believed, and why a message did not arrive.

The world knows everything, the nodes only what frames tell them. All figures of a scenario come from the difference.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import attrs

from psyne_mesh.gossip.events import (
    BroadcastReceived,
    PeerDiscovered,
    PeerLeft,
    PeerResumed,
    PeerSuspected,
    SeatsChanged,
)
from psyne_mesh.identity import PeerId
from psyne_mesh.simulations.cuts import Cut, place, regions
from psyne_mesh.simulations.net import Host, Lane
from psyne_mesh.simulations.watcher import Watcher

MARK = b"\xa5\x5aSIM\xa5\x5a\x01"  # in front of every payload that the world sends; 8 bytes do not occur by chance
_MARK_BYTES = len(MARK) + 4


def payload_of(number: int, size: int) -> bytes:
    """The payload of broadcast `number`: recognisable in whatever frame carries it."""
    return (MARK + number.to_bytes(4, "big")).ljust(size, b"\0")


def numbers_in(frame: bytes) -> list[int]:
    """The broadcasts whose payload `frame` carries."""
    found = []
    at = frame.find(MARK)
    while at >= 0:
        found.append(int.from_bytes(frame[at + len(MARK) : at + _MARK_BYTES], "big"))
        at = frame.find(MARK, at + _MARK_BYTES)
    return found


@attrs.define(eq=False)
class Life:
    """One run of one machine: [up_at, down_at); `linked_at` is when it got its first link (never: infinity)."""

    up_at: float
    down_at: float = float("inf")
    linked_at: float = float("inf")
    how: str = ""


@attrs.define(eq=False)
class Sent:
    """One broadcast: when, by whom, who has it since when and over how many links, and how many copies travelled."""

    number: int
    origin: int
    at: float
    size: int
    delivered: dict[int, float] = attrs.Factory(dict)
    hops: dict[int, int] = attrs.Factory(dict)
    copies: int = 0


@attrs.frozen
class Fact:
    """What one node came to believe of another."""

    at: float
    kind: str  # "discovered", "suspected", "resumed", "left"
    observer: int
    subject: int
    reason: str = ""


_KINDS: Final = ("discovered", "suspected", "resumed", "left")
_ROW: Final = struct.Struct("=dBiiB")


class FactLog:
    """All facts of a run, in order: 18 bytes each, because a large room has millions. Iterating gives `Fact`s."""

    __slots__ = ("_reason_numbers", "_rows")

    def __init__(self) -> None:
        self._rows = bytearray()
        self._reason_numbers: dict[str, int] = {"": 0}

    def add(self, at: float, kind: str, observer: int, subject: int, reason: str) -> None:
        number = self._reason_numbers.setdefault(reason, len(self._reason_numbers))
        self._rows += _ROW.pack(at, _KINDS.index(kind), observer, subject, number)

    def __len__(self) -> int:
        return len(self._rows) // _ROW.size

    def __iter__(self) -> Iterator[Fact]:
        reasons = list(self._reason_numbers)
        for at, kind, observer, subject, reason in _ROW.iter_unpack(self._rows):
            yield Fact(at, _KINDS[kind], observer, subject, reasons[reason])


@attrs.frozen
class Miss:
    """A delivery that did not happen, and why. `why` is "unexplained" when the protocol is to blame."""

    number: int
    host: int
    why: str


class Accounting(Watcher):
    """Drive it so: hand it to the `World`, let the world run, then ask.

    `violations` holds broken promises (a `PeerLeft` without `PeerDiscovered`, a broadcast twice or out of order, ...) as
    text; an honest run has none.
    """

    def __init__(self) -> None:
        self.watches_frames = False
        self.world: Any = None  # set by the scenario, once the world is made
        self.lives: dict[int, list[Life]] = {}
        self.views: dict[int, dict[PeerId, None]] = {}
        self.facts = FactLog()
        self.sent: list[Sent] = []
        self.cuts_since: list[tuple[float, tuple[Cut, ...]]] = [(0.0, ())]
        self.pauses: list[tuple[int, float, float]] = []
        self.unlinks: Counter[str] = Counter()
        self.violations: list[str] = []
        self.seats: dict[int, Sequence[PeerId | None]] = {}
        self.seats_most = 0
        self.seats_changed_at = 0.0
        self.other_events: Counter[str] = Counter()
        self.unmarked: list[tuple[int, BroadcastReceived]] = []  # payloads that the scenario made itself
        self.event_log: list[tuple[float, int, Any]] = []  # the rare events, for scenarios that read them
        self._last_number: dict[int, dict[int, int]] = {}  # observer -> origin -> newest broadcast
        self._suspected: dict[int, dict[int, None]] = {}  # observer -> whom it suspects
        self.ways: list[tuple[float, array[int]]] = []  # while cuts hold: which hosts had a way to each other
        self._regions: dict[tuple[Cut, ...], dict[tuple[int | None, ...], int]] = {}
        self._bridged: dict[tuple[Cut, ...], bool] = {}  # whether the rendezvous carried what these cuts kept back

    # ---------------------------------------------------------------------------------------- what the world tells

    def on_up(self, host: Host) -> None:
        self.lives.setdefault(host.index, []).append(Life(self.world.now))
        self.views[host.index] = {}
        self._last_number[host.index] = {}
        self._suspected[host.index] = {}

    def on_down(self, host: Host, how: str) -> None:
        life = self.lives[host.index][-1]
        life.down_at, life.how = self.world.now, how
        self.views.pop(host.index, None)
        self.seats.pop(host.index, None)

    def on_link(self, lane: Lane) -> None:
        for host in (lane.src, lane.dst):
            life = self.lives[host.index][-1]
            life.linked_at = min(life.linked_at, self.world.now)

    def on_unlink(self, lane: Lane, reason: str) -> None:
        self.unlinks[reason] += 1

    def on_cuts(self, cuts: Sequence[Cut], bridging: bool) -> None:
        self.cuts_since.append((self.world.now, tuple(cuts)))
        self._bridged[tuple(cuts)] = bridging

    def on_broadcast(self, host: Host, payload: bytes) -> None:
        for number in numbers_in(payload):
            self.sent[number].hops[host.index] = 0
        self.watches_frames = True

    def on_frame(self, lane: Lane, frame: bytes) -> None:
        if MARK not in frame:
            return
        for number in numbers_in(frame):
            sent = self.sent[number]
            sent.copies += 1
            hops = sent.hops
            if lane.dst.index not in hops:
                hops[lane.dst.index] = hops.get(lane.src.index, 0) + 1

    def on_event(self, host: Host, event: Any) -> None:
        kind = event.__class__
        if kind is BroadcastReceived:
            self._delivered(host, event)
        elif kind is PeerDiscovered:
            self._believe(host, "discovered", event.record.peer)
        elif kind is PeerLeft:
            self._believe(host, "left", event.peer, event.reason)
        elif kind is PeerSuspected:
            self._believe(host, "suspected", event.peer)
        elif kind is PeerResumed:
            self._believe(host, "resumed", event.peer)
        else:
            if kind is SeatsChanged:
                self.seats[host.index] = event.seats
                self.seats_most = max(self.seats_most, sum(holder is not None for holder in event.seats))
                self.seats_changed_at = self.world.now
            self.other_events[kind.__name__] += 1
            self.event_log.append((self.world.now, host.index, event))

    def note_ways(self, pieces: Sequence[Sequence[int]], dialling: Iterable[int]) -> None:
        """While a cut holds: `pieces` of the graph of links that carry, and who can dial over signaling."""
        labels = array("h", [-1]) * len(self.world.hosts)
        meets = dict.fromkeys(dialling)
        for number, piece in enumerate(pieces, 1):
            label = 0 if any(index in meets for index in piece) else number
            for index in piece:
                labels[index] = label
        self.ways.append((self.world.now, labels))

    def note_pause(self, host: int, since: float, until: float) -> None:
        self.pauses.append((host, since, until))

    def new_broadcast(self, origin: int, size: int) -> bytes:
        """Books a broadcast that `origin` is about to send, and makes its payload."""
        number = len(self.sent)
        self.sent.append(Sent(number, origin, self.world.now, size))
        return payload_of(number, size)

    # -------------------------------------------------------------------------------------------- promises checked

    def _believe(self, host: Host, kind: str, peer: PeerId, reason: str = "") -> None:
        subject = self.world.by_peer.get(peer)
        index = subject.index if subject is not None else -1
        view, suspected = self.views[host.index], self._suspected[host.index]
        if kind == "discovered":
            if peer in view:
                self._violate(f"{host.index} discovered {index} twice")
            view[peer] = None
        elif peer not in view:
            self._violate(f"{host.index} says {kind} of {index}, whom it has not discovered")
        elif kind == "suspected":
            suspected[index] = None
        elif kind == "resumed":
            if index not in suspected:
                self._violate(f"{host.index} says resumed of {index}, whom it did not suspect")
            suspected.pop(index, None)
        else:
            del view[peer]
            suspected.pop(index, None)
        self.facts.add(self.world.now, kind, host.index, index, reason)

    def _delivered(self, host: Host, event: BroadcastReceived) -> None:
        numbers = numbers_in(event.payload)
        if not numbers:
            self.unmarked.append((host.index, event))
        for number in numbers:
            sent = self.sent[number]
            if host.index in sent.delivered:
                self._violate(f"{host.index} got broadcast {number} twice")
            newest = self._last_number[host.index]
            if newest.get(sent.origin, -1) > number:
                self._violate(f"{host.index} got broadcast {number} of {sent.origin} out of order")
            newest[sent.origin] = number
            sent.delivered[host.index] = self.world.now

    def _violate(self, text: str) -> None:
        if len(self.violations) < 100:  # a broken build would fill the memory; a hundred say enough
            self.violations.append(f"{self.world.now:.3f}: {text}")

    # ----------------------------------------------------------------------------------------------------- answers

    def was_up(self, host: int, since: float, until: float) -> bool:
        """Whether one and the same run of `host` covers the whole of [since, until]."""
        return any(life.up_at <= since and until <= life.down_at for life in self.lives.get(host, ()))

    def life_at(self, host: int, time: float) -> Life | None:
        for life in self.lives.get(host, ()):
            if life.up_at <= time < life.down_at:
                return life
        return None

    def cuts_within(self, since: float, until: float) -> list[tuple[Cut, ...]]:
        """Every state of the cuts that held at some time in [since, until]."""
        first = bisect_right([at for at, _ in self.cuts_since], since) - 1
        return [cuts for at, cuts in self.cuts_since[first:] if at <= until]

    def connected(self, a: int, b: int, since: float, until: float) -> bool:
        """Whether the cuts left a way between two hosts, directly or over others, all through [since, until]: one that
        somebody has a link on, or could dial."""
        cuts_within = [cuts for cuts in self.cuts_within(since, until) if cuts]
        return all(self._in_one_region(a, b, cuts) for cuts in cuts_within) and (
            not cuts_within or self._had_ways(a, b, since, until)
        )

    def _had_ways(self, a: int, b: int, since: float, until: float) -> bool:
        first = bisect_left(self.ways, since, key=lambda entry: entry[0])
        for at, labels in islice(self.ways, first, None):
            if at > until:
                break
            if max(a, b) < len(labels) and labels[a] != labels[b]:
                return False
        return True

    def _in_one_region(self, a: int, b: int, cuts: tuple[Cut, ...]) -> bool:
        if cuts not in self._regions:
            self._regions[cuts] = regions(cuts, bridged=self._bridged.get(cuts, False))
        numbers, place_a, place_b = self._regions[cuts], place(a, cuts), place(b, cuts)
        # A host that came after the cut is on no side of it: nothing parts it from anybody.
        return place_a not in numbers or place_b not in numbers or numbers[place_a] == numbers[place_b]

    def misses(self, sent: Sent, window_s: float, hosts: Sequence[int]) -> list[Miss]:
        """Who of `hosts` should have had a broadcast within `window_s` and had not, each with the reason."""
        until = sent.at + window_s
        found = []
        for host in hosts:
            if host == sent.origin or sent.delivered.get(host, float("inf")) <= until:
                continue
            why = self._why_not(sent, host, until)
            if why is not None:
                found.append(Miss(sent.number, host, why))
        return found

    def _why_not(self, sent: Sent, host: int, until: float) -> str | None:
        """None: `host` was not in the room at all when the message was sent, so nothing was missed."""
        life = self.life_at(host, sent.at)
        if life is None or life.linked_at > sent.at:
            return None
        if life.down_at < until:
            return "receiver went down"
        if any(index == host and since < until and sent.at < to for index, since, to in self.pauses):
            return "receiver stood still"
        origin = self.life_at(sent.origin, sent.at)
        if origin is None or origin.linked_at > sent.at:
            return "origin had no link yet"
        if not self.connected(sent.origin, host, sent.at, until):
            return "cut"
        if origin.down_at < until and not any(self.was_up(index, sent.at, until) for index in sent.delivered):
            return "origin died before anybody had it"
        return "unexplained"

    def expected(self, sent: Sent, window_s: float, hosts: Sequence[int]) -> list[int]:
        """Who of `hosts` was linked and up for all of [sent, sent + window] and not cut off: these must have it."""
        until = sent.at + window_s
        origin = self.life_at(sent.origin, sent.at)
        if origin is None or origin.linked_at > sent.at:
            return []
        cut = any(self.cuts_within(sent.at, until))
        found = []
        for host in hosts:
            life = self.life_at(host, sent.at)
            if host == sent.origin or life is None or life.linked_at > sent.at or life.down_at < until:
                continue
            if not cut or self.connected(sent.origin, host, sent.at, until):
                found.append(host)
        return found
