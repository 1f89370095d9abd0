"""Plain SWIM with suspicion (DSN'02), with the figures that the Lifeguard paper gives its baseline (memberlist's LAN ones).

Period 1 s, probe timeout half of it, 3 indirect probes, suspicion 5 log10(n) periods, piggyback 3 log2(n) times. It assumes
what SWIM assumes: a datagram to anybody, at any time, for nothing.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence
from itertools import islice
from typing import Any

import attrs

from psyne_mesh.gossip.events import PeerDiscovered, PeerLeft, PeerResumed, PeerSuspected
from psyne_mesh.identity import PeerId
from simulations.actor import BareRecord
from simulations.baselines.base import Baseline

PERIOD_S, INDIRECT = 1.0, 3
SUSPICION_ALPHA = 5.0
RUMOURS_MAX = 10  # in one datagram
_PING, _ACK, _PING_REQ, _SYNC = 1, 2, 3, 4
_HEAD = struct.Struct(">BI16s")
_RUMOUR = struct.Struct(">16sIB")
_ALIVE, _SUSPECT, _DEAD = 0, 1, 2
_NOBODY = bytes(16)


@attrs.define(eq=False)
class _Member:
    peer: PeerId
    incarnation: int = 0
    state: int = _ALIVE


class SwimNode(Baseline):
    """Frames: type, sequence, subject (of a PING-REQ, or whom an ACK speaks for), then rumours."""

    connectionless = True

    def __init__(self, peer: PeerId, rng: random.Random, period_s: float = PERIOD_S) -> None:
        super().__init__(peer, rng)
        self._period_s = period_s
        self.members: dict[PeerId, _Member] = {}
        self._dead: dict[PeerId, int] = {}  # with the incarnation that died: only a newer one comes back
        self._incarnation = 0
        self._order: list[PeerId] = []
        self._sequence = 0
        self._waiting: dict[int, PeerId] = {}  # probes of ours without an answer
        self._relayed: dict[int, tuple[PeerId, int]] = {}  # probes for others: whom to tell
        self._rumours: dict[PeerId, list[int]] = {}  # subject -> [incarnation, state, how often told]

    def start(self, now: float) -> None:
        self.set_timer(now + self.rng.random() * self._period_s, ("period", None))

    def learn(self, records: Sequence[Any], now: float) -> None:
        for record in records:
            self._hear(record.peer, 0, _ALIVE, now)
        if records:
            contact = self.rng.choice(list(records)).peer
            self._send(contact, _SYNC, 0, _NOBODY)

    def receive(self, peer: PeerId, frame: bytes, now: float) -> None:
        kind, sequence, subject = _HEAD.unpack_from(frame)
        if peer in self._dead:
            self._rumours[peer] = [self._dead[peer], _DEAD, 0]  # it hears of its death with our next datagram
        else:
            self._hear(peer, 0, _ALIVE, now)
        for raw, incarnation, state in _RUMOUR.iter_unpack(frame[_HEAD.size :]):
            self._hear(PeerId(raw.hex()), incarnation, state, now)
        if kind == _PING:
            self._send(peer, _ACK, sequence, self.peer.raw)
        elif kind == _ACK:
            self._waiting.pop(sequence, None)
            asked = self._relayed.pop(sequence, None)
            if asked is not None:
                self._send(asked[0], _ACK, asked[1], subject)
        elif kind == _PING_REQ:
            self._sequence += 1
            self._relayed[self._sequence] = (peer, sequence)
            self.set_timer(now + self._period_s, ("forget", self._sequence))
            self._send(PeerId(subject.hex()), _PING, self._sequence, _NOBODY)
        elif kind == _SYNC:
            self._send_all(peer)

    def timer_fired(self, what: Any, now: float) -> None:
        kind, about = what
        if kind == "period":
            self._probe(now)
            self.set_timer(now + self._period_s, what)
        elif kind == "probe":
            self._ask_others(about)
        elif kind == "judge":
            target = self._waiting.pop(about, None)
            if target is not None and target in self.members:
                member = self.members[target]
                self._hear(target, member.incarnation, max(member.state, _SUSPECT), now)
        elif kind == "suspicion":
            peer, incarnation = about
            known = self.members.get(peer)
            if known is not None and known.state == _SUSPECT and known.incarnation == incarnation:
                self._hear(peer, incarnation, _DEAD, now)
        elif kind == "forget":
            self._relayed.pop(about, None)

    def _probe(self, now: float) -> None:
        while self._order and self._order[-1] not in self.members:
            self._order.pop()
        if not self._order:
            self._order = list(self.members)
            self.rng.shuffle(self._order)
        if not self._order:
            return
        target = self._order.pop()
        self._sequence += 1
        self._waiting[self._sequence] = target
        self._send(target, _PING, self._sequence, _NOBODY)
        self.set_timer(now + self._period_s / 2, ("probe", self._sequence))
        self.set_timer(now + self._period_s, ("judge", self._sequence))

    def _ask_others(self, sequence: int) -> None:
        target = self._waiting.get(sequence)
        if target is None:
            return
        helpers = [peer for peer, member in self.members.items() if member.state == _ALIVE and peer != target]
        for helper in self.rng.sample(helpers, min(INDIRECT, len(helpers))):
            self._send(helper, _PING_REQ, sequence, target.raw)

    def _hear(self, peer: PeerId, incarnation: int, state: int, now: float) -> None:
        """SWIM's order: dead over all; suspect over alive of the same incarnation; a newer incarnation over both."""
        if peer == self.peer:
            if state != _ALIVE and incarnation >= self._incarnation:
                self._incarnation = incarnation + 1
                self._rumours[peer] = [self._incarnation, _ALIVE, 0]
            return
        member = self.members.get(peer)
        if member is None:
            if state != _DEAD and incarnation > self._dead.get(peer, -1):
                self._dead.pop(peer, None)
                self.members[peer] = _Member(peer, incarnation, _ALIVE)
                self._rumours[peer] = [incarnation, _ALIVE, 0]
                self.emit(PeerDiscovered(BareRecord(peer)))  # type: ignore[arg-type]
            return
        if incarnation < member.incarnation or (incarnation == member.incarnation and state <= member.state):
            return
        was, member.incarnation, member.state = member.state, incarnation, state
        self._rumours[peer] = [incarnation, state, 0]
        if state == _SUSPECT:
            self.set_timer(now + self._suspicion_s(), ("suspicion", (peer, incarnation)))
            if was != _SUSPECT:
                self.emit(PeerSuspected(peer))
        elif state == _DEAD:
            del self.members[peer]
            self._dead[peer] = incarnation
            self.emit(PeerLeft(peer, "timeout"))
        elif was == _SUSPECT:
            self.emit(PeerResumed(peer))

    def _suspicion_s(self) -> float:
        return SUSPICION_ALPHA * max(1.0, math.log10(len(self.members) + 1)) * self._period_s

    def _send(self, peer: PeerId, kind: int, sequence: int, subject: bytes) -> None:
        limit = 3 * math.ceil(math.log2(len(self.members) + 2))
        parts = [_HEAD.pack(kind, sequence, subject)]
        for about in list(islice(self._rumours, RUMOURS_MAX)):
            rumour = self._rumours.pop(about)
            parts.append(_RUMOUR.pack(about.raw, rumour[0], rumour[1]))
            rumour[2] += 1
            if rumour[2] < limit:
                self._rumours[about] = rumour  # to the end of the queue: the least told come first
        self.send(peer, b"".join(parts), reliable=False)

    def _send_all(self, peer: PeerId) -> None:
        rumours = [_RUMOUR.pack(m.peer.raw, m.incarnation, m.state) for m in self.members.values()]
        self.send(peer, _HEAD.pack(_ACK, 0, _NOBODY) + b"".join(rumours), reliable=False)
