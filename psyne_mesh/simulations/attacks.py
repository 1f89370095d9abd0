"""Hostile members: they hold valid keys, speak the protocol, and lie.

An attacker is an honest `Node` in a shell that adds frames of its own, or drops what it should pass on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from psyne_mesh.gossip import codec
from psyne_mesh.gossip.events import SendFrame
from psyne_mesh.gossip.records import DOWN, SUSPECT, RoomKey, accuse
from psyne_mesh.identity import PeerId
from psyne_mesh.simulations.actors import ROOM
from psyne_mesh.testing.hostile.frames import HUGE, forged_record, withholds

if TYPE_CHECKING:
    from psyne_mesh.simulations.accounting import Fact
    from psyne_mesh.simulations.net import Host
    from psyne_mesh.simulations.run import Run
    from psyne_mesh.simulations.world import World

_ATTACK_EVERY_S = 1.0
_HOARD_MAX = 5000  # captured items, the oldest is given up
_KEY = RoomKey.of(ROOM)


class Shell:
    """An actor around an honest node. Subclasses change what goes in and out."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.extra: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)

    def take_outputs(self) -> list[Any]:
        outputs, self.extra = [*self.node.take_outputs(), *self.extra], []
        return outputs


class Forger(Shell):
    """Accuses the living with numbers beyond all bounds, replays what it ever heard, forges records of others."""

    def __init__(self, node: Any, signer: Any, rng: Any) -> None:
        super().__init__(node)
        self._signer = signer
        self._rng = rng
        self._hoard: dict[bytes, int] = {}  # captured items: bytes -> kind
        self._links: dict[PeerId, None] = {}
        self._attack_at = math.inf
        self.attacks = 0

    def link_up(self, peer: PeerId, now: float, rtt: float | None = None) -> None:
        self._links[peer] = None
        self._attack_at = min(self._attack_at, now + _ATTACK_EVERY_S)
        self.node.link_up(peer, now, rtt)

    def link_down(self, peer: PeerId, reason: str, now: float) -> None:
        self._links.pop(peer, None)
        self.node.link_down(peer, reason, now)

    def receive(self, peer: PeerId, frame: bytes, now: float) -> None:
        if frame[1] == codec.RUMOURS:
            for kind, data in codec.items_untrusted(frame, 2):
                self._hoard[data] = kind
            while len(self._hoard) > _HOARD_MAX:
                del self._hoard[next(iter(self._hoard))]
        self.node.receive(peer, frame, now)

    def next_timeout(self) -> float | None:
        deadline = self.node.next_timeout()
        if self._attack_at == math.inf:
            return deadline  # type: ignore[no-any-return]
        return self._attack_at if deadline is None else min(deadline, self._attack_at)

    def handle_timeout(self, now: float) -> None:
        self.node.handle_timeout(now)
        if now >= self._attack_at:
            self._attack_at = now + _ATTACK_EVERY_S
            self._attack()

    def _attack(self) -> None:
        self.attacks += 1
        for peer in self._links:
            items = [self._accusation(), self._accusation(), self._forged_record(), *self._replays()]
            frame = codec.head(codec.RUMOURS) + b"".join(codec.item(kind, data) for kind, data in items)
            self.extra.append(SendFrame(peer, frame, True))

    def _victim(self) -> Any:
        peers = [peer for peer in self.node.members if peer != self._signer.peer_id]
        return self.node.record(self._rng.choice(peers)) if peers else self.node.own_record

    def _accusation(self) -> tuple[int, bytes]:
        """Half of them name numbers that the victim never signed, half its present ones."""
        record = self._victim()
        epoch, incarnation = record.epoch, record.incarnation
        if self._rng.random() < 0.5:
            epoch, incarnation = self._rng.choice([(epoch, h) for h in HUGE] + [(h, 0) for h in HUGE])
        verdict = self._rng.choice((SUSPECT, DOWN))
        return codec.ITEM_ACCUSATION, accuse(
            _KEY, self._signer, record.peer, epoch, incarnation, verdict, record.instance
        ).encoded

    def _forged_record(self) -> tuple[int, bytes]:
        """The victim's record with the highest numbers, under a signature that is not the victim's."""
        record = self._victim()
        return codec.ITEM_RECORD, forged_record(_KEY, self._signer, record, self._rng.choice((0, 1))).encoded

    def _replays(self) -> list[tuple[int, bytes]]:
        old = list(self._hoard.items())
        return [(kind, data) for data, kind in self._rng.sample(old, min(20, len(old)))]


class Sybil(Shell):
    """Joins like everybody, answers probes, and passes no broadcast on: it starves whoever has only sybils around."""

    def __init__(self, node: Any) -> None:
        super().__init__(node)
        self.withheld = 0

    def take_outputs(self) -> list[Any]:
        kept = []
        for output in self.node.take_outputs():
            if withholds(output):
                self.withheld += 1
            else:
                kept.append(output)
        return kept


# --------------------------------------------------------------------------------------------------------------- hooks


def seat_forgers(run: Run) -> None:
    """The last hosts of the room are forgers: one in eight, at least two (they collude)."""
    number = max(2, run.nodes // 8)

    def make(world: World, host: Host) -> Any:
        run.labels.setdefault("faulty", []).append(host)  # members part from who forges: that is no mistake
        return Forger(run.factory.make_node(world, host), run.factory.signer(host.index), host.rng)

    for index in range(run.nodes - number, run.nodes):
        run.factory.overrides[index] = make


def judge_forgers(run: Run) -> None:
    """Who was evicted though it lived, and who came back though it was gone."""
    forgers = [host for host in run.world.hosts if isinstance(host.actor, Forger)]
    ghosts = [fact for fact in run.accounting.facts if fact.kind == "discovered" and _is_ghost(run, fact)]
    parted = {(fact.observer, fact.subject): fact.at for fact in run.accounting.facts if fact.kind == "left"}
    back = [fact for fact in ghosts if parted.get((fact.observer, fact.subject), math.inf) < fact.at]
    run.findings.figures["resurrections"] = float(len(back))
    # A newcomer cannot know that an old record is stale before the others tell it; this counts how often that happened.
    run.findings.figures["ghosts_shown_to_newcomers"] = float(len(ghosts) - len(back))
    run.findings.figures["attacks"] = float(sum(host.actor.attacks for host in forgers))
    honest = {host.peer: host.index for host in run.up() if host not in forgers}
    short = [peer for peer, index in honest.items() if not honest.keys() - {peer} <= run.accounting.views[index].keys()]
    run.findings.figures["views_short"] = float(len(short))


def _is_ghost(run: Run, fact: Fact) -> bool:
    """Somebody was discovered who is not alive; news of a life may arrive a moment after its end."""
    lives = run.accounting.lives.get(fact.subject, ())
    return not any(life.up_at <= fact.at <= life.down_at + 2.0 for life in lives)


def seat_sybils(run: Run) -> None:
    """`sybil_percent` of the hosts are sybils; they start last, as a flood."""
    share = run.scenario.params["sybil_percent"] / 100
    number = round(run.nodes * share)
    for index in range(run.nodes - number, run.nodes):
        run.factory.overrides[index] = _make_sybil(run)


def _make_sybil(run: Run) -> Any:
    def make(world: World, host: Host) -> Any:
        return Sybil(run.factory.make_node(world, host))

    return make


def judge_sybils(run: Run) -> None:
    """Honest nodes without an honest neighbour, and what honest nodes got of what honest nodes sent."""
    honest = [host for host in run.up() if not isinstance(host.actor, Sybil)]
    alone = sum(all(isinstance(lane.dst.actor, Sybil) for lane in host.lanes.values()) for host in honest)
    run.findings.figures["honest_isolated"] = float(alone)
    window = run.scenario.params.get("window_s", 10.0)
    due = arrived = 0
    latencies: list[float] = []
    for message in run.accounting.sent:
        if isinstance(run.world.hosts[message.origin].actor, Sybil) or message.at + window > run.end:
            continue
        receivers = _receivers(honest, message.origin)
        due += len(receivers)
        times = [message.delivered[index] - message.at for index in receivers if index in message.delivered]
        arrived += sum(time <= window for time in times)
        latencies += times
    run.findings.figures["honest_delivered_percent"] = 100 * arrived / due if due else math.nan
    run.findings.add_samples("honest_latency_s", latencies)


def _receivers(honest: Sequence[Host], origin: int) -> list[int]:
    return [host.index for host in honest if host.index != origin]
