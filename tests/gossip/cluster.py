"""A small world for gossip tests: nodes in one process, virtual time, links with latency, loss, cuts and crashes.

Everything follows from the seed. Reliable frames come in order and late when lost once or more; unreliable ones vanish.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterable

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.events import CloseLink, Dial, Event, PeerDiscovered, PeerLeft, SendFrame
from psyne_mesh.gossip.freshness import UNTOLD, Calendar
from psyne_mesh.gossip.node import Node
from psyne_mesh.identity import PeerId

ROOM = b"a room for tests"


class CheapIdentity:
    """Signs with a hash: the work of a simulation is not ed25519."""

    def __init__(self, seed: int) -> None:
        self.public_key = hashlib.sha256(b"key%d" % seed).digest()
        self.peer_id = PeerId.of(self.public_key)

    def sign(self, domain: bytes, payload: bytes) -> bytes:
        return _cheap(self.public_key, domain, payload)


def cheap_verify(public_key: bytes, domain: bytes, payload: bytes, signature: bytes) -> PeerId:
    if signature != _cheap(public_key, domain, payload):
        raise ProtocolError("the signature does not match")
    return PeerId.of(public_key)


def _cheap(public_key: bytes, domain: bytes, payload: bytes) -> bytes:
    return hashlib.blake2b(domain + payload, key=public_key, digest_size=64).digest()


class Cluster:
    def __init__(
        self,
        seed: int = 0,
        config: GossipConfig | None = None,
        *,
        latency: tuple[float, float] = (0.02, 0.03),
        loss: float = 0.0,
        dial_time: tuple[float, float] = (0.3, 1.5),
        calendar: Calendar = UNTOLD,
    ) -> None:
        self.rng = random.Random(seed)
        self.config = config or GossipConfig()
        self.latency, self.loss, self.dial_time = latency, loss, dial_time
        self.now = 0.0
        self.calendar = calendar  # of who comes next
        self.nodes: dict[PeerId, Node] = {}
        self.identities: dict[PeerId, CheapIdentity] = {}
        self.links: set[tuple[PeerId, PeerId]] = set()
        self.blocked: Callable[[PeerId, PeerId], bool] = lambda a, b: False  # frames a -> b vanish
        self.no_dial: Callable[[PeerId, PeerId], bool] = lambda a, b: False  # dials fail
        self.by_hand: dict[PeerId, Callable[[PeerId, bytes], None]] = {}  # who is no node here gets (sender, frame)
        self.asleep: dict[PeerId, list[tuple[PeerId, bytes | None]]] = {}  # what waits; None: the link was closed
        self.log: list[tuple[float, PeerId, Event]] = []
        self.closed: list[tuple[PeerId, PeerId, str]] = []  # who ended its link to whom, and why
        self.frames = self.bytes = self.dials = self.steps = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._armed: dict[PeerId, float] = {}
        self._in_order: dict[tuple[PeerId, PeerId], float] = {}

    # -------------------------------------------------------------------------------------------------- the people

    def add(
        self, index: int, *, epoch: int = 1, knows: Iterable[PeerId] = (), config: GossipConfig | None = None
    ) -> Node:
        identity = CheapIdentity(index)
        node = Node(
            config or self.config,
            identity,
            ROOM,
            rng=random.Random(self.rng.getrandbits(64)),
            verify=cheap_verify,
            epoch=epoch,
            name=f"player {index}",
            calendar=self.calendar,
            now=self.now,
        )
        known = [self.nodes[peer].own_record for peer in knows]
        self.nodes[identity.peer_id] = node
        self.identities[identity.peer_id] = identity
        node.start(self.now)
        node.learn(known, self.now)
        self.drain(identity.peer_id)
        return node

    def crash(self, peer: PeerId) -> None:
        """Silence: nobody is told."""
        self.nodes.pop(peer)
        self._armed.pop(peer, None)
        self.links = {link for link in self.links if peer not in link}

    def stall(self, peer: PeerId, seconds: float) -> None:
        """The process stands still; frames wait for it. Its shell notices how late it is."""
        self.asleep[peer] = []
        self.run(seconds)
        node = self.nodes[peer]
        node.note_loop_lag(seconds, self.now)
        for sender, frame in self.asleep.pop(peer):
            if frame is not None:
                node.receive(sender, frame, self.now)
            elif not self.linked(peer, sender):
                node.link_down(sender, "closed", self.now)
        node.handle_timeout(self.now)
        self._armed.pop(peer, None)
        self.drain(peer)

    def leave(self, peer: PeerId) -> None:
        """Goodbye; the process ends once its last frames are out."""
        self.tell(peer, lambda node: node.leave(self.now))
        self.run(0.5)
        self.crash(peer)

    def ids(self) -> list[PeerId]:
        return list(self.nodes)

    # ------------------------------------------------------------------------------------------------------- time

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (when, self._order, act))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Run for `seconds`, or until the condition holds; returns the time that passed."""
        begin, end = self.now, self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, act = heapq.heappop(self._queue)
            act()
            self.steps += 1
            if until is not None and until():
                return self.now - begin
        self.now = end
        return seconds

    def drain(self, peer: PeerId) -> None:
        node = self.nodes.get(peer)
        if node is None:
            return
        for output in node.take_outputs():
            if isinstance(output, SendFrame):
                self._send(peer, output)
            elif isinstance(output, Dial):
                self._dial(peer, output.peer)
            elif isinstance(output, CloseLink):
                self.closed.append((peer, output.peer, output.reason))
                self._close(peer, output.peer)
        for event in node.take_events():
            self.log.append((self.now, peer, event))
        due = node.next_timeout()
        if due is not None and due < self._armed.get(peer, float("inf")):
            self._armed[peer] = due
            self.at(max(due, self.now), lambda: self._wake(peer, node, due))

    def tell(self, peer: PeerId, act: Callable[[Node], object]) -> None:
        """Call something on a node, then drain it."""
        act(self.nodes[peer])
        self.drain(peer)

    # ------------------------------------------------------------------------------------------------------ views

    def say(self, peer: PeerId, payload: bytes) -> None:
        self.tell(peer, lambda node: node.broadcast(payload, self.now))

    def cut(self, side: set[PeerId]) -> None:
        """No frame and no dial crosses from `side` to the others."""
        self.blocked = lambda a, b: (a in side) != (b in side)

    def mend(self) -> None:
        self.blocked = lambda a, b: False

    def linked(self, a: PeerId, b: PeerId) -> bool:
        return (min(a, b), max(a, b)) in self.links

    def views_equal(self) -> bool:
        everybody = tuple(sorted(self.nodes))
        return all(node.members == everybody for node in self.nodes.values())

    def events(self, kind: type, peer: PeerId | None = None) -> list[tuple[float, PeerId, Event]]:
        return [entry for entry in self.log if isinstance(entry[2], kind) and peer in (None, entry[1])]

    def left_once(self) -> bool:
        """Every PeerLeft closes one PeerDiscovered, and no discovery comes twice in a row."""
        present: set[tuple[PeerId, PeerId]] = set()
        for _, observer, event in self.log:
            if isinstance(event, PeerDiscovered):
                pair = (observer, event.record.peer)
                if pair in present:
                    return False
                present.add(pair)
            elif isinstance(event, PeerLeft):
                pair = (observer, event.peer)
                if pair not in present:
                    return False
                present.remove(pair)
        return True

    # ----------------------------------------------------------------------------------------------------- network

    def _wake(self, peer: PeerId, node: Node, due: float) -> None:
        if self.nodes.get(peer) is not node or self._armed.get(peer) != due or peer in self.asleep:
            return
        del self._armed[peer]
        wanted = node.next_timeout()
        if wanted is not None and wanted <= self.now:
            node.handle_timeout(self.now)
        self.drain(peer)

    def _delay(self) -> float:
        return self.rng.uniform(*self.latency)

    def _send(self, sender: PeerId, out: SendFrame) -> None:
        self.frames += 1
        self.bytes += len(out.frame)
        pair = (sender, out.peer)
        if not self.linked(*pair):
            return
        arrival = self.now + self._delay()
        if out.reliable:
            retry = 0.2
            while self.rng.random() < self.loss:
                arrival += retry
                retry *= 2
            arrival = max(arrival, self._in_order.get(pair, 0.0))
            self._in_order[pair] = arrival
        elif self.rng.random() < self.loss:
            return
        self.at(arrival, lambda: self._arrive(sender, out.peer, out.frame))

    def _arrive(self, sender: PeerId, receiver: PeerId, frame: bytes) -> None:
        node = self.nodes.get(receiver)
        if receiver in self.by_hand:
            self.by_hand[receiver](sender, frame)
        if node is None or sender not in self.nodes or self.blocked(sender, receiver):
            return
        if receiver in self.asleep:
            self.asleep[receiver].append((sender, frame))
            return
        node.receive(sender, frame, self.now)
        self.drain(receiver)

    def _dial(self, a: PeerId, b: PeerId) -> None:
        self.dials += 1
        self.at(self.now + self.rng.uniform(*self.dial_time), lambda: self._dialled(a, b))

    def _dialled(self, a: PeerId, b: PeerId) -> None:
        if a not in self.nodes:
            return
        if b not in self.nodes or self.blocked(a, b) or self.blocked(b, a) or self.no_dial(a, b):
            self.tell(a, lambda node: node.dial_failed(b, "unreachable", self.now))
            return
        if self.linked(a, b):
            return
        self.links.add((min(a, b), max(a, b)))
        rtt = 2 * self._delay()
        self.tell(a, lambda node: node.link_up(b, self.now, rtt))
        self.tell(b, lambda node: node.link_up(a, self.now, rtt))

    def _close(self, a: PeerId, b: PeerId) -> None:
        link = (min(a, b), max(a, b))
        if link in self.links:
            self.links.discard(link)
            if not self.blocked(a, b):  # behind what was sent before
                arrival = max(self.now + self._delay(), self._in_order.get((a, b), 0.0))
                self.at(arrival, lambda: self._closed(b, a))

    def _closed(self, at: PeerId, by: PeerId) -> None:
        if at in self.asleep:
            self.asleep[at].append((by, None))
        elif at in self.nodes and not self.linked(at, by):
            self.tell(at, lambda node: node.link_down(by, "closed", self.now))


def room_of(size: int, seed: int = 0, config: GossipConfig | None = None, **world: object) -> Cluster:
    """A settled room: everybody knew the first one, and all views are equal."""
    cluster = Cluster(seed, config, **world)  # type: ignore[arg-type]
    first = cluster.add(0).peer_id
    for index in range(1, size):
        cluster.add(index, knows=[first])
    cluster.run(30.0, until=cluster.views_equal)
    cluster.run(10.0)
    return cluster
