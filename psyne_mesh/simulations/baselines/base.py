"""What the baselines share: timers, output and event queues, and a random overlay of links.

`Baseline` is the bare actor; `OverlayNode` keeps about `degree` links to random peers, and hands every newcomer a handful
of names, so that a room that starts from one seed becomes one graph.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

from psyne_mesh.gossip.events import CloseLink, Dial, PeerDiscovered, SendFrame
from psyne_mesh.identity import PeerId
from psyne_mesh.simulations.actor import BareRecord

PEERS = b"\x00"  # first byte of a frame that holds names
_ID_BYTES = 16
_NAMES_MAX = 16
_KNOWN_MAX = 512


class Baseline:
    """The parts of an actor that every protocol has. Subclasses override what they react to."""

    connectionless = False
    ends_silent_links = True  # one path a connection, and RFC 7675 above it

    def __init__(self, peer: PeerId, rng: random.Random) -> None:
        self.peer = peer
        self.rng = rng
        self.own_record = BareRecord(peer)
        self._outputs: list[Any] = []
        self._events: list[Any] = []
        self._timers: list[tuple[float, int, Any]] = []
        self._timer_count = 0

    def start(self, now: float) -> None: ...
    def learn(self, records: Sequence[Any], now: float) -> None: ...
    def link_up(self, peer: PeerId, now: float, rtt: float | None = None) -> None: ...
    def link_down(self, peer: PeerId, reason: str, now: float) -> None: ...
    def dial_failed(self, peer: PeerId, cause: str, now: float) -> None: ...
    def receive(self, peer: PeerId, frame: bytes, now: float) -> None: ...
    def broadcast(self, payload: bytes, now: float) -> None: ...
    def send_signal(self, to: PeerId, blob: bytes, now: float) -> None: ...
    def leave(self, now: float) -> None: ...
    def note_loop_lag(self, seconds: float, now: float) -> None: ...

    def timer_fired(self, what: Any, now: float) -> None: ...

    def set_timer(self, at: float, what: Any) -> None:
        self._timer_count += 1
        heappush(self._timers, (at, self._timer_count, what))

    def next_timeout(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def handle_timeout(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            self.timer_fired(heappop(self._timers)[2], now)

    def send(self, peer: PeerId, frame: bytes, *, reliable: bool = True) -> None:
        self._outputs.append(SendFrame(peer, frame, reliable))

    def emit(self, event: Any) -> None:
        self._events.append(event)

    def take_outputs(self) -> list[Any]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_events(self) -> list[Any]:
        events, self._events = self._events, []
        return events


class OverlayNode(Baseline):
    """A node with about `degree` links to random peers. Subclasses broadcast over `links`."""

    degree = 8
    degree_max = 16
    heartbeat_s = 1.0

    def __init__(self, peer: PeerId, rng: random.Random) -> None:
        super().__init__(peer, rng)
        self.links: dict[PeerId, None] = {}
        self.dialled: dict[PeerId, None] = {}  # of the links, those of our own choice
        self._known: dict[PeerId, None] = {}
        self._dialing: dict[PeerId, None] = {}

    def start(self, now: float) -> None:
        self.set_timer(now + self.rng.random() * self.heartbeat_s, "heartbeat")

    def learn(self, records: Sequence[Any], now: float) -> None:
        for record in records:
            self._meet(record.peer)
        self._refill()

    def link_up(self, peer: PeerId, now: float, rtt: float | None = None) -> None:
        self._meet(peer)
        if self._dialing.pop(peer, 0) is None:
            self.dialled[peer] = None
        self.links[peer] = None
        names = list(self._known)
        shown = names if len(names) <= _NAMES_MAX else self.rng.sample(names, _NAMES_MAX)
        self.send(peer, PEERS + b"".join(name.raw for name in shown))
        if len(self.links) > self.degree_max:
            victim = self.rng.choice(list(self.links))
            self._outputs.append(CloseLink(victim, "too many links"))
            self._drop(victim, now)

    def link_down(self, peer: PeerId, reason: str, now: float) -> None:
        self._dialing.pop(peer, None)
        self._drop(peer, now)  # it stays known: who is dead fails its next dial
        self._refill()

    def dial_failed(self, peer: PeerId, cause: str, now: float) -> None:
        self._dialing.pop(peer, None)
        self._known.pop(peer, None)
        self._refill()

    def receive(self, peer: PeerId, frame: bytes, now: float) -> None:
        if frame[:1] == PEERS:
            for start in range(1, len(frame), _ID_BYTES):
                self._meet(PeerId(frame[start : start + _ID_BYTES].hex()))
            self._refill()
        elif peer in self.links:
            self.message_received(peer, frame, now)

    def message_received(self, peer: PeerId, frame: bytes, now: float) -> None: ...

    def neighbour_lost(self, peer: PeerId, now: float) -> None: ...

    def heartbeat(self, now: float) -> None: ...

    def timer_fired(self, what: Any, now: float) -> None:
        self.set_timer(now + self.heartbeat_s, "heartbeat")
        self._refill()
        self.heartbeat(now)

    def _drop(self, peer: PeerId, now: float) -> None:
        if peer in self.links:
            del self.links[peer]
            self.dialled.pop(peer, None)
            self.neighbour_lost(peer, now)

    def _meet(self, peer: PeerId) -> None:
        if peer != self.peer and peer not in self._known and len(self._known) < _KNOWN_MAX:
            self._known[peer] = None
            self.emit(PeerDiscovered(BareRecord(peer)))  # type: ignore[arg-type]

    def _refill(self) -> None:
        lack = self.degree - len(self.links) - len(self._dialing)
        if lack <= 0:
            return
        fresh = [peer for peer in self._known if peer not in self.links and peer not in self._dialing]
        for peer in self.rng.sample(fresh, min(lack, len(fresh))):
            self._dialing[peer] = None
            self._outputs.append(Dial(peer, BareRecord(peer)))  # type: ignore[arg-type]
