"""Plain HyParView (DSN'07) with Plumtree (SRDS'07) on it: both papers as they stand, with their figures.

Active view 5, passive 30, ARWL 6, PRWL 3, shuffles of 3 active and 4 passive members every 15 s (the paper counts cycles);
Plumtree's threshold 3. Its timers are iroh-gossip's, 80 ms until the first graft and 40 ms until the next, for the paper
leaves them open. A crash shows as both papers assume: the connection breaks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from psyne_mesh.gossip.events import BroadcastReceived, CloseLink, Dial, PeerDiscovered
from psyne_mesh.identity import PeerId
from psyne_mesh.simulations.actor import BareRecord
from psyne_mesh.simulations.baselines.base import Baseline

ACTIVE, PASSIVE = 5, 30
ARWL, PRWL = 6, 3
SHUFFLE_ACTIVE, SHUFFLE_PASSIVE, SHUFFLE_S = 3, 4, 15.0
GRAFT_FIRST_S, GRAFT_NEXT_S = 0.08, 0.04
THRESHOLD = 3
_JOIN, _FORWARD_JOIN, _NEIGHBOUR, _REFUSE, _DISCONNECT, _SHUFFLE, _SHUFFLED = range(1, 8)
_GOSSIP, _IHAVE, _GRAFT, _PRUNE = range(8, 12)
_LOW, _HIGH, _GRANTED = 0, 1, 2
_PEER_BYTES, _ID_BYTES = 16, 20
_PASSIVE_DIALS = 3  # at once, for one vacancy after the other


class PlumtreeNode(Baseline):
    """Frames: type, then a byte (time to live, priority or hops), then ids or a message id and its payload."""

    def __init__(self, peer: PeerId, rng: random.Random) -> None:
        super().__init__(peer, rng)
        self.active: dict[PeerId, None] = {}
        self.passive: dict[PeerId, None] = {}
        self.eager: dict[PeerId, None] = {}
        self._links: dict[PeerId, None] = {}
        self._dialling: dict[PeerId, bytes] = {}  # and what is said first
        self._met: dict[PeerId, None] = {}
        self._sequence = 0
        self._received: dict[bytes, tuple[bytes, int]] = {}
        self._missing: dict[bytes, list[tuple[PeerId, int]]] = {}  # who announced it, over how many hops

    # -------------------------------------------------------------------------------------------------- HyParView

    def start(self, now: float) -> None:
        self.set_timer(now + SHUFFLE_S * self.rng.random(), ("shuffle", b""))

    def learn(self, records: Sequence[Any], now: float) -> None:
        peers = [record.peer for record in records if record.peer != self.peer]
        if peers and not self.active and not self._dialling:
            self._dial(self.rng.choice(peers), bytes((_JOIN, 0)))
        for peer in peers:
            self._add_passive(peer)

    def link_up(self, peer: PeerId, now: float, rtt: float | None = None) -> None:
        self._links[peer] = None
        first = self._dialling.pop(peer, None)
        if first is None:
            return
        self.send(peer, first)
        if first[0] == _JOIN or first[1] == _HIGH:  # else it may be refused
            self._add_active(peer)

    def link_down(self, peer: PeerId, reason: str, now: float) -> None:
        self._links.pop(peer, None)
        self._dialling.pop(peer, None)
        self._lost(peer)

    def dial_failed(self, peer: PeerId, cause: str, now: float) -> None:
        self._dialling.pop(peer, None)
        self.passive.pop(peer, None)
        self._fill()

    def _dial(self, peer: PeerId, first: bytes) -> None:
        if peer != self.peer and peer not in self.active and peer not in self._dialling:
            self._dialling[peer] = first
            self._outputs.append(Dial(peer, BareRecord(peer)))  # type: ignore[arg-type]

    def _add_active(self, peer: PeerId) -> None:
        if peer in self.active:
            return
        while len(self.active) >= ACTIVE:
            victim = self.rng.choice(list(self.active))
            self.send(victim, bytes((_DISCONNECT, 0)))
            self._hang_up(victim)
            self._add_passive(victim)
        self.passive.pop(peer, None)
        self.active[peer] = self.eager[peer] = None
        if peer not in self._met:
            self._met[peer] = None
            self.emit(PeerDiscovered(BareRecord(peer)))  # type: ignore[arg-type]

    def _hang_up(self, peer: PeerId) -> None:
        self.active.pop(peer, None)
        self.eager.pop(peer, None)
        if self._links.pop(peer, 0) is None:
            self._outputs.append(CloseLink(peer, "surplus"))

    def _lost(self, peer: PeerId) -> None:
        if self.active.pop(peer, 0) is None:
            self.eager.pop(peer, None)
        self._fill()

    def _fill(self) -> None:
        """A vacancy is filled from the passive view; who has nobody left may not be refused."""
        lack = min(_PASSIVE_DIALS, ACTIVE - len(self.active)) - len(self._dialling)
        candidates = [peer for peer in self.passive if peer not in self._dialling]
        for peer in self.rng.sample(candidates, min(max(0, lack), len(candidates))):
            self._dial(peer, bytes((_NEIGHBOUR, _LOW if self.active else _HIGH)))

    def _add_passive(self, peer: PeerId) -> None:
        if peer == self.peer or peer in self.active or peer in self.passive:
            return
        if len(self.passive) >= PASSIVE:
            del self.passive[self.rng.choice(list(self.passive))]
        self.passive[peer] = None

    def receive(self, peer: PeerId, frame: bytes, now: float) -> None:
        kind, number, body = frame[0], frame[1], frame[2:]
        if kind >= _GOSSIP:
            if peer not in self.active:  # its request was lost with a link that another took the place of
                self.send(peer, bytes((_DISCONNECT, 0)))
            self._broadcast_frame(peer, kind, number, body, now)
        elif kind == _JOIN:
            self._add_active(peer)
            for other in self.active:
                if other != peer:
                    self.send(other, bytes((_FORWARD_JOIN, ARWL)) + peer.raw)
        elif kind == _FORWARD_JOIN:
            self._forward_join(peer, number, PeerId(body.hex()))
        elif kind == _NEIGHBOUR and number == _GRANTED:
            if len(self.active) < ACTIVE:
                self._add_active(peer)
            elif peer not in self.active:
                self.send(peer, bytes((_DISCONNECT, 0)))
        elif kind == _NEIGHBOUR:
            if number == _HIGH or len(self.active) < ACTIVE:
                self._add_active(peer)
                self.send(peer, bytes((_NEIGHBOUR, _GRANTED)))
            else:
                self.send(peer, bytes((_REFUSE, 0)))
        elif kind in (_REFUSE, _DISCONNECT):
            self._hang_up(peer)
            self._add_passive(peer)
            self._fill()
        else:
            self._shuffle_frame(peer, kind, number, _peers(body))

    def _forward_join(self, peer: PeerId, ttl: int, newcomer: PeerId) -> None:
        others = [other for other in self.active if other not in (peer, newcomer)]
        if ttl == 0 or not others:
            self._dial(newcomer, bytes((_NEIGHBOUR, _HIGH)))
            return
        if ttl == PRWL:
            self._add_passive(newcomer)
        self.send(self.rng.choice(others), bytes((_FORWARD_JOIN, ttl - 1)) + newcomer.raw)

    def _shuffle(self) -> None:
        if self.active:
            partner = self.rng.choice(list(self.active))
            self.send(partner, bytes((_SHUFFLE, ARWL)) + self.peer.raw + b"".join(p.raw for p in self._sample()))

    def _sample(self) -> list[PeerId]:
        active, passive = list(self.active), list(self.passive)
        chosen = self.rng.sample(active, min(SHUFFLE_ACTIVE, len(active)))
        return chosen + self.rng.sample(passive, min(SHUFFLE_PASSIVE, len(passive)))

    def _shuffle_frame(self, peer: PeerId, kind: int, ttl: int, peers: list[PeerId]) -> None:
        others = [other for other in self.active if other not in (peer, peers[0])]
        if kind == _SHUFFLE and ttl > 0 and others:
            body = b"".join(p.raw for p in peers)
            self.send(self.rng.choice(others), bytes((_SHUFFLE, ttl - 1)) + body)
            return
        if (
            kind == _SHUFFLE and peers[0] in self._links
        ):  # the paper opens a connection for the answer; ours goes if there is one
            answer = self.rng.sample(list(self.passive), min(len(peers), len(self.passive)))
            if answer:
                self.send(peers[0], bytes((_SHUFFLED, 0)) + b"".join(p.raw for p in answer))
        for one in peers:
            self._add_passive(one)

    # --------------------------------------------------------------------------------------------------- Plumtree

    def broadcast(self, payload: bytes, now: float) -> None:
        self._sequence += 1
        message_id = self.peer.raw + self._sequence.to_bytes(4, "big")
        self._received[message_id] = payload, 0
        self._push(message_id, payload, 0, but=None)

    def timer_fired(self, what: Any, now: float) -> None:
        kind, message_id = what
        if kind == "shuffle":
            self.set_timer(now + SHUFFLE_S, what)
            self._shuffle()
            self._fill()
        elif message_id in self._missing:
            announced = self._missing[message_id]
            while announced:
                peer, _ = announced.pop(0)
                if peer in self.active:
                    self.eager[peer] = None
                    self.send(peer, bytes((_GRAFT, 0)) + message_id)
                    self.set_timer(now + GRAFT_NEXT_S, what)
                    return
            del self._missing[message_id]

    def _broadcast_frame(self, peer: PeerId, kind: int, hops: int, body: bytes, now: float) -> None:
        message_id, payload = body[:_ID_BYTES], body[_ID_BYTES:]
        if kind == _GOSSIP:
            self._gossip(peer, hops, message_id, payload)
        elif kind == _IHAVE:
            if message_id not in self._received:
                if message_id not in self._missing:
                    self.set_timer(now + GRAFT_FIRST_S, ("graft", message_id))
                self._missing.setdefault(message_id, []).append((peer, hops))
        elif kind == _GRAFT:
            if peer in self.active:
                self.eager[peer] = None
            if message_id in self._received:
                kept, before = self._received[message_id]
                self.send(peer, bytes((_GOSSIP, before + 1)) + message_id + kept)
        elif kind == _PRUNE:
            self.eager.pop(peer, None)

    def _gossip(self, peer: PeerId, hops: int, message_id: bytes, payload: bytes) -> None:
        if message_id in self._received:
            self.eager.pop(peer, None)
            self.send(peer, bytes((_PRUNE, 0)) + message_id)
            return
        self._received[message_id] = payload, hops
        announced = self._missing.pop(message_id, [])
        origin, sequence = PeerId(message_id[:_PEER_BYTES].hex()), int.from_bytes(message_id[_PEER_BYTES:], "big")
        self.emit(BroadcastReceived(origin, payload, sequence))
        self._push(message_id, payload, hops, but=peer)
        if peer in self.active:
            self.eager[peer] = None
        for other, shorter in announced:
            if shorter + THRESHOLD < hops and other in self.active:  # section 3.8: the lazy link is much shorter
                self.eager[other] = None
                self.send(other, bytes((_GRAFT, 0)) + bytes(_ID_BYTES))
                self.eager.pop(peer, None)
                self.send(peer, bytes((_PRUNE, 0)) + message_id)
                break

    def _push(self, message_id: bytes, payload: bytes, hops: int, but: PeerId | None) -> None:
        hops = min(255, hops + 1)
        for peer in self.active:
            if peer == but:
                continue
            if peer in self.eager:
                self.send(peer, bytes((_GOSSIP, hops)) + message_id + payload)
            else:
                self.send(peer, bytes((_IHAVE, hops)) + message_id)


def _peers(body: bytes) -> list[PeerId]:
    return [PeerId(body[at : at + _PEER_BYTES].hex()) for at in range(0, len(body), _PEER_BYTES)]
