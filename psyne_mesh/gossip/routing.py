"""Ways through the mesh: signals to members without a link, and frames carried one hop for a pair that cannot connect.

A signal goes along remembered directions where there are any (the link that brought a member's record or its last
signal), else by a few random walks. A signal that comes to a node again went astray: it takes another way from there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.frozen import Frozen
from psyne_mesh.gossip import codec
from psyne_mesh.gossip.codec import Reader, raw_of
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.events import SendFrame, SignalReceived
from psyne_mesh.gossip.neighbours import Neighbour
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import forget_oldest

if TYPE_CHECKING:
    import random

# Signals remembered against loops, the oldest is forgotten; and no longer than twice as long as an envelope counts
# (`signaling/envelope.py`).
_SEEN_MAX, _SEEN_S = 4096, 60.0
_ROUTES_MAX = 1024  # directions remembered; the oldest is forgotten
_WALKERS = 4  # a signal without a direction starts so many walks
_WAYS_MAX = 3  # a node passes one signal on so often, each time to somebody else


class Signal(Frozen):
    number: int
    origin: PeerId
    to: PeerId
    ttl: int
    blob: bytes


class Router:
    """How to drive it: `send(...)` for our own signals, `received(...)` for those of a neighbour. What arrives for us is
    an event. `direction` is the link that brought the target's record, if it still stands."""

    def __init__(self, config: GossipConfig, own: PeerId, rng: random.Random, out: Effects) -> None:
        self._config = config
        self._own = own
        self._rng = rng
        self._routes: OrderedDict[PeerId, PeerId] = OrderedDict()
        self._seen: OrderedDict[tuple[PeerId, int], tuple[float, list[PeerId]]] = (
            OrderedDict()
        )  # when, and passed on to
        self.effects = out
        self.passed_on = 0
        self.dropped = 0

    def send(self, to: PeerId, blob: bytes, direction: PeerId | None, links: list[PeerId], now: float) -> None:
        signal = Signal(self._rng.getrandbits(63), self._own, to, self._config.signal_ttl, blob)
        self._pass_on(signal, direction, links, self._ways(signal, now), None, _WALKERS)

    def received(
        self, neighbour: Neighbour, signal: Signal, direction: PeerId | None, links: list[PeerId], now: float
    ) -> None:
        if signal.origin == self._own:
            return
        peer = neighbour.peer
        first, ways = (signal.origin, signal.number) not in self._seen, self._ways(signal, now)
        if first:
            self._learn_route(signal.origin, peer)
        if signal.to == self._own:
            if first:
                self.effects.events.append(SignalReceived(signal.origin, signal.blob, peer))
        elif signal.ttl > 1 and len(ways) < _WAYS_MAX and signal.to not in ways and neighbour.signals.allow(now):
            self.passed_on += 1
            onward = msgspec.structs.replace(signal, ttl=signal.ttl - 1)
            self._pass_on(onward, direction, links, ways, peer, 1)
        else:
            self.dropped += 1

    def gone(self, peer: PeerId) -> None:
        """It is no member any more: no way leads to it."""
        self._routes.pop(peer, None)

    def _pass_on(
        self, signal: Signal, direction: PeerId | None, links: list[PeerId], ways: list[PeerId], source: PeerId | None,
        walkers: int,
    ) -> None:  # fmt: skip
        targets: list[PeerId] = []
        for step in (signal.to, self._routes.get(signal.to), direction):
            if step is not None and step != source and step in links and step not in ways:
                targets.append(step)
                break
        if signal.to not in targets:  # directions age: the sender lets others try their luck, too
            taken = [source, signal.origin] + ways + targets  # noqa: RUF005 - mypyc knows no star here
            open_to = [peer for peer in links if peer not in taken]
            targets += self._rng.sample(open_to, min(walkers - len(targets), len(open_to)))
        ways += targets
        frame = encode_signal(signal)
        for peer in targets:
            self.effects.frames.append(SendFrame(peer, frame, True))

    def _ways(self, signal: Signal, now: float) -> list[PeerId]:
        """Whom we passed this signal on to so far."""
        known = self._seen.get((signal.origin, signal.number))
        if known is None:
            while self._seen and next(iter(self._seen.values()))[0] + _SEEN_S <= now:
                self._seen.popitem(last=False)
            known = self._seen[signal.origin, signal.number] = (now, [])
            forget_oldest(self._seen, _SEEN_MAX)
        return known[1]

    def _learn_route(self, origin: PeerId, link: PeerId) -> None:
        self._routes.pop(origin, None)
        self._routes[origin] = link
        forget_oldest(self._routes, _ROUTES_MAX)


def encode_signal(signal: Signal) -> bytes:
    return b"".join(
        (
            codec.head(codec.SIGNAL),
            signal.number.to_bytes(8, "big"),
            raw_of(signal.origin),
            raw_of(signal.to),
            bytes((signal.ttl,)),
            signal.blob,
        )
    )


def signal_untrusted(frame: bytes, blob_max: int, ttl_max: int) -> Signal:
    reader = Reader(frame)
    number = int.from_bytes(reader.take_untrusted(8), "big")
    origin, to, ttl = reader.peer_untrusted(), reader.peer_untrusted(), reader.u8_untrusted()
    blob = reader.rest()
    if len(blob) > blob_max:
        raise ProtocolError(f"signal of {len(blob)} bytes, the limit is {blob_max}")
    return Signal(number, origin, to, min(ttl, ttl_max), blob)


def encode_relay(to: PeerId, frame: bytes) -> bytes:
    """Ask a neighbour to hand `frame` to `to`, one hop further and no more."""
    return codec.head(codec.RELAY) + raw_of(to) + frame


def relay_untrusted(frame: bytes) -> tuple[PeerId, bytes]:
    reader = Reader(frame)
    return reader.peer_untrusted(), reader.rest()
