"""SWIM with suspicion (DSN'02) as memberlist plays it, and Lifeguard (DSN'18) on top of it.

The figures are memberlist's for a LAN (github.com/hashicorp/memberlist: config.go, state.go, queue.go, util.go), but for
alpha 5, which the Lifeguard paper gives its baseline: a probe a second, its timeout half of that, 3 indirect probes, news in
every datagram and 5 times a second to 3 members, each 4 ceil(log10(n + 1)) times, and the whole state to somebody by lot
every 30 s. What is left out favours neither side: its ping over TCP, and msgpack, whose messages are larger than ours here.

It assumes what SWIM assumes: a datagram to anybody, at any time, for nothing.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence
from typing import Any, Final

import attrs

from psyne_mesh.gossip.events import PeerDiscovered, PeerLeft, PeerResumed, PeerSuspected
from psyne_mesh.identity import PeerId
from psyne_mesh.simulations.actor import BareRecord
from psyne_mesh.simulations.baselines.base import Baseline

PERIOD_S, INDIRECT = 1.0, 3
SUSPICION_ALPHA, SUSPICION_BETA, CONFIRMATIONS = 5.0, 6.0, 3  # beta and confirmations are Lifeguard's
GOSSIP_PER_PERIOD, GOSSIP_NODES = 5, 3
RETRANSMIT = 4
PUSH_PULL_S, PUSH_PULL_CALM_TO = 30.0, 32  # larger rooms do it less often
TO_THE_DEAD_S = 30.0  # so long the dead are told of their death, which they may refute
HEALTH_MAX, NACK_AT = 8, 0.8  # Lifeguard's local health, and when a helper says that it heard nothing
DATAGRAM_MAX = 1400
_PING, _ACK, _PING_REQ, _GOSSIP, _PULL, _PUSH, _NACK = 1, 2, 3, 4, 5, 6, 7
_HEAD: Final = struct.Struct(">BI16s")
_RUMOUR: Final = struct.Struct(">16s16sIB")  # subject, who says so, incarnation, state
_ALIVE, _SUSPECT, _DEAD = 0, 1, 2
_NOBODY = bytes(16)


@attrs.define(eq=False)
class _Member:
    peer: PeerId
    incarnation: int = 0
    state: int = _ALIVE
    suspected_at: float = 0.0
    accusers: dict[PeerId, None] = attrs.Factory(dict)


@attrs.define(eq=False)
class _Probe:
    target: PeerId
    nacks_due: int = 0


class News:
    """Memberlist's queue: what was told least goes first, of that the newest; a newer word of somebody replaces the older."""

    def __init__(self) -> None:
        self._tiers: dict[int, dict[PeerId, bytes]] = {}
        self._place: dict[PeerId, int] = {}

    def __bool__(self) -> bool:
        return bool(self._place)

    def add(self, about: PeerId, rumour: bytes) -> None:
        self._drop(about)
        self._put(about, rumour, 0)

    def take(self, room: int, limit: int) -> bytes:
        """Rumours of at most `room` bytes; each goes after it was taken `limit` times."""
        taken: list[tuple[PeerId, bytes, int]] = []
        for times in sorted(self._tiers):
            for about, rumour in reversed(self._tiers[times].items()):
                if len(taken) >= room // _RUMOUR.size:
                    break
                taken.append((about, rumour, times + 1))
        for about, rumour, times in reversed(taken):
            self._drop(about)
            if times < limit:
                self._put(about, rumour, times)
        return b"".join(rumour for _, rumour, _ in taken)

    def _put(self, about: PeerId, rumour: bytes, times: int) -> None:
        self._tiers.setdefault(times, {})[about] = rumour
        self._place[about] = times

    def _drop(self, about: PeerId) -> None:
        times = self._place.pop(about, None)
        if times is not None:
            tier = self._tiers[times]
            del tier[about]
            if not tier:
                del self._tiers[times]


class SwimNode(Baseline):
    """Frames: type, sequence, subject (of a PING-REQ, or whom an ACK speaks for), then rumours."""

    connectionless = True
    lifeguard = False

    def __init__(self, peer: PeerId, rng: random.Random, period_s: float = PERIOD_S) -> None:
        super().__init__(peer, rng)
        self._period_s = period_s
        self.members: dict[PeerId, _Member] = {}
        self._dead: dict[PeerId, tuple[int, float]] = {}  # the incarnation that died, and when
        self._incarnation = 0
        self._order: list[PeerId] = []
        self._sequence = 0
        self._probes: dict[int, _Probe] = {}  # of ours, without an answer
        self._relayed: dict[int, tuple[PeerId, int]] = {}  # probes for others: whom to tell
        self.news = News()
        self.health = 0  # Lifeguard's: 0 is well

    # ------------------------------------------------------------------------------------------------------ inputs

    def start(self, now: float) -> None:
        self.set_timer(now + self.rng.random() * self._period_s, ("period", None))
        self.set_timer(now + self.rng.random() * self._period_s / GOSSIP_PER_PERIOD, ("gossip", None))
        self.set_timer(now + self.rng.random() * PUSH_PULL_S, ("push pull", None))
        self._say(self.peer, self.peer, 0, _ALIVE)

    def learn(self, records: Sequence[Any], now: float) -> None:
        """A newcomer joins by comparing its state with one member; all others hear of it."""
        if records and not self.members:
            self._send_state(self.rng.choice(list(records)).peer, _PULL)

    def receive(self, peer: PeerId, frame: bytes, now: float) -> None:
        kind, sequence, subject = _HEAD.unpack_from(frame)
        compared = kind in (_PULL, _PUSH)
        for raw, says, incarnation, state in _RUMOUR.iter_unpack(frame[_HEAD.size :]):
            # Memberlist: who is dead in another's state is suspected here, and may refute.
            state = _SUSPECT if compared and state == _DEAD else state
            self._hear(PeerId(raw.hex()), PeerId(says.hex()), incarnation, state, now)
        if kind == _PING:
            self._send(peer, _ACK, sequence, self.peer.raw)
        elif kind == _ACK:
            self._answered(sequence, subject)
        elif kind == _NACK and sequence in self._probes:
            self._probes[sequence].nacks_due -= 1
        elif kind == _PING_REQ:
            self._sequence += 1
            self._relayed[self._sequence] = (peer, sequence)
            self.set_timer(now + NACK_AT * self._period_s / 2, ("nack", self._sequence))
            self.set_timer(now + self._period_s, ("forget", self._sequence))
            self._send(PeerId(subject.hex()), _PING, self._sequence, _NOBODY)
        elif kind == _PULL:
            self._send_state(peer, _PUSH)

    def _answered(self, sequence: int, subject: bytes) -> None:
        if self._probes.pop(sequence, None) is not None:
            self._worsen(-1)
        asked = self._relayed.pop(sequence, None)
        if asked is not None:
            self._send(asked[0], _ACK, asked[1], subject)

    # ------------------------------------------------------------------------------------------------------ timers

    def timer_fired(self, what: Any, now: float) -> None:
        kind, about = what
        if kind == "period":
            self._probe(now)
            self.set_timer(now + self._period_s * (1 + self.health), what)
        elif kind == "gossip":
            self._gossip(now)
            self.set_timer(now + self._period_s / GOSSIP_PER_PERIOD, what)
        elif kind == "push pull":
            self._push_pull(now)
        elif kind == "probe":
            self._ask_others(about)
        elif kind == "judge":
            self._judge(about, now)
        elif kind == "suspicion":
            self._suspicion_over(about[0], about[1], now)
        elif kind == "nack" and about in self._relayed and self.lifeguard:
            asker, sequence = self._relayed[about]
            self._send(asker, _NACK, sequence, _NOBODY)
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
        self._probes[self._sequence] = _Probe(target)
        member = self.members[target]
        buddy = b""
        if self.lifeguard and member.state == _SUSPECT:  # the Buddy System: it hears first of what it can refute
            buddy = _RUMOUR.pack(target.raw, self.peer.raw, member.incarnation, _SUSPECT)
        self._send(target, _PING, self._sequence, _NOBODY, buddy)
        scale = 1 + self.health
        self.set_timer(now + scale * self._period_s / 2, ("probe", self._sequence))
        self.set_timer(now + scale * self._period_s, ("judge", self._sequence))

    def _ask_others(self, sequence: int) -> None:
        probe = self._probes.get(sequence)
        if probe is None:
            return
        helpers = [peer for peer, member in self.members.items() if member.state == _ALIVE and peer != probe.target]
        asked = self.rng.sample(helpers, min(INDIRECT, len(helpers)))
        probe.nacks_due = len(asked)
        for helper in asked:
            self._send(helper, _PING_REQ, sequence, probe.target.raw)

    def _judge(self, sequence: int, now: float) -> None:
        probe = self._probes.pop(sequence, None)
        if probe is None:
            return
        self._worsen(probe.nacks_due if probe.nacks_due > 0 else 1)
        member = self.members.get(probe.target)
        if member is not None:
            self._hear(probe.target, self.peer, member.incarnation, _SUSPECT, now)

    def _gossip(self, now: float) -> None:
        for peer in [peer for peer, (_, since) in self._dead.items() if now - since > TO_THE_DEAD_S]:
            del self._dead[peer]
        if self.news:
            candidates = [*self.members, *self._dead]
            for peer in self.rng.sample(candidates, min(GOSSIP_NODES, len(candidates))):
                if self.news:
                    self._send(peer, _GOSSIP, 0, _NOBODY)

    def _push_pull(self, now: float) -> None:
        members = len(self.members) + 1
        calm = 1.0 if members <= PUSH_PULL_CALM_TO else math.ceil(math.log2(members / PUSH_PULL_CALM_TO)) + 1
        self.set_timer(now + PUSH_PULL_S * calm, ("push pull", None))
        alive = [peer for peer, member in self.members.items() if member.state == _ALIVE]
        if alive:
            self._send_state(self.rng.choice(alive), _PULL)

    # -------------------------------------------------------------------------------------------------------- news

    def _hear(self, peer: PeerId, says: PeerId, incarnation: int, state: int, now: float) -> None:
        """SWIM's order: dead over all; suspect over alive of the same incarnation; a newer incarnation over both."""
        if peer == self.peer:
            if state != _ALIVE and incarnation >= self._incarnation:
                self._incarnation = incarnation + 1
                self._worsen(1)
                self._say(peer, peer, self._incarnation, _ALIVE)
            return
        member = self.members.get(peer)
        if member is None:
            if state != _DEAD and incarnation > self._dead.get(peer, (-1, 0.0))[0]:
                self._dead.pop(peer, None)
                self.members[peer] = _Member(peer, incarnation)
                self._say(peer, peer, incarnation, _ALIVE)
                self.emit(PeerDiscovered(BareRecord(peer)))  # type: ignore[arg-type]
            return
        if state == member.state == _SUSPECT and incarnation == member.incarnation:
            self._confirmed(member, says, now)
        if incarnation < member.incarnation or (incarnation == member.incarnation and state <= member.state):
            return
        was, member.incarnation, member.state = member.state, incarnation, state
        self._say(peer, says, incarnation, state)
        if state == _SUSPECT:
            member.suspected_at, member.accusers = now, {says: None}
            self._await_suspicion(member, now)
            if was != _SUSPECT:
                self.emit(PeerSuspected(peer))
        elif state == _DEAD:
            del self.members[peer]
            self._dead[peer] = incarnation, now
            self.emit(PeerLeft(peer, "timeout"))
        elif was == _SUSPECT:
            self.emit(PeerResumed(peer))

    def _confirmed(self, member: _Member, says: PeerId, now: float) -> None:
        """LHA-Suspicion: each of the first few who say so as well shortens the time, and is passed on."""
        if self.lifeguard and says not in member.accusers and len(member.accusers) <= CONFIRMATIONS:
            member.accusers[says] = None
            self._say(member.peer, says, member.incarnation, _SUSPECT)
            self._await_suspicion(member, now)

    def _await_suspicion(self, member: _Member, now: float) -> None:
        due = max(now, member.suspected_at + self._suspicion_s(len(member.accusers) - 1))
        self.set_timer(due, ("suspicion", (member.peer, member.incarnation)))

    def _suspicion_over(self, peer: PeerId, incarnation: int, now: float) -> None:
        known = self.members.get(peer)
        if known is None or known.state != _SUSPECT or known.incarnation != incarnation:
            return
        if now >= known.suspected_at + self._suspicion_s(len(known.accusers) - 1) - 1e-9:
            self._hear(peer, self.peer, incarnation, _DEAD, now)

    def _suspicion_s(self, confirmed: int) -> float:
        least = SUSPICION_ALPHA * max(1.0, math.log10(len(self.members) + 1)) * self._period_s
        if not self.lifeguard:
            return least
        most = SUSPICION_BETA * least
        return max(least, most - (most - least) * math.log(confirmed + 1) / math.log(CONFIRMATIONS + 1))

    def _worsen(self, points: int) -> None:
        if self.lifeguard:
            self.health = max(0, min(HEALTH_MAX - 1, self.health + points))

    # ----------------------------------------------------------------------------------------------------- sending

    def _say(self, peer: PeerId, says: PeerId, incarnation: int, state: int) -> None:
        self.news.add(peer, _RUMOUR.pack(peer.raw, says.raw, incarnation, state))

    def _send(self, peer: PeerId, kind: int, sequence: int, subject: bytes, first: bytes = b"") -> None:
        limit = RETRANSMIT * math.ceil(math.log10(len(self.members) + 2))
        head = _HEAD.pack(kind, sequence, subject) + first
        self.send(peer, head + self.news.take(DATAGRAM_MAX - len(head), limit), reliable=False)

    def _send_state(self, peer: PeerId, kind: int) -> None:
        """All that is known, over TCP."""
        known = [(m.peer, m.incarnation, m.state) for m in self.members.values()]
        known += [(gone, incarnation, _DEAD) for gone, (incarnation, _) in self._dead.items()]
        known.append((self.peer, self._incarnation, _ALIVE))
        rumours = [_RUMOUR.pack(about.raw, self.peer.raw, incarnation, state) for about, incarnation, state in known]
        self.send(peer, _HEAD.pack(kind, 0, _NOBODY) + b"".join(rumours))


class LifeguardNode(SwimNode):
    """All three parts of it: LHA-Probe (`health`), LHA-Suspicion, the Buddy System."""

    lifeguard = True
