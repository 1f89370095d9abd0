"""Players who look after a host, as rooms do: the pure lease (`psyne_mesh/game/host_duty.py`) on top of an honest node.

Whoever is host writes ten times a second to all whom it is linked with, and everybody notes whose writes it accepted.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from psyne_mesh.game import host_wire
from psyne_mesh.game.host_duty import HostDuty
from psyne_mesh.gossip.events import SendFrame
from psyne_mesh.identity import PeerId
from psyne_mesh.simulations.attacks import Shell
from psyne_mesh.simulations.faults import Step, verb

if TYPE_CHECKING:
    from psyne_mesh.simulations.net import Host
    from psyne_mesh.simulations.run import Run
    from psyne_mesh.simulations.world import World

_WORD, _WRITE = b"\xf0", b"\xf1"  # no frame of gossip begins so: those begin with the version
_TERM = struct.Struct(">Q")
_WRITE_S = 0.1
_TICK_S = 0.05


class Player(Shell):
    """A node, and its share in the room's host."""

    def __init__(self, node: Any, host: Host, now: float) -> None:
        super().__init__(node)
        self._host = host
        self.duty = HostDuty(host.peer, now)
        self._look_at = self._write_at = now
        self._term = 0  # as we last looked
        self._newest = 0  # term of the newest write that we accepted
        self.authors: dict[int, PeerId] = {}  # of each term, whose writes we accepted
        self.double_writes = 0  # accepted of a second author of a term
        self.terms_fell = 0

    def receive(self, peer: PeerId, frame: bytes, now: float) -> None:
        if frame[:1] == _WORD:
            self.duty.receive(peer, host_wire.decode_untrusted(frame[1:]), now)
            self._flush()
            if self.duty.is_overdue(now):
                self._look_at = now
        elif frame[:1] == _WRITE:
            self._written(peer, _TERM.unpack(frame[1:])[0])
        else:
            self.node.receive(peer, frame, now)

    def next_timeout(self) -> float:
        deadline = self.node.next_timeout()
        return self._look_at if deadline is None else min(deadline, self._look_at)

    def handle_timeout(self, now: float) -> None:
        self.node.handle_timeout(now)
        if now >= self._look_at:
            self._look(now)

    def _look(self, now: float) -> None:
        members = set(self.node.members)
        linked = [peer for peer in self._host.lanes if peer in members]
        here = {self._host.peer, *linked}
        seats = {peer: seat for seat, peer in enumerate(self.node.seats) if peer is not None and peer in here}
        all_linked = len(here) == len(members)
        for peer in self.duty.look(seats, linked, now, all_linked=all_linked):
            self._send(peer, _WORD + host_wire.encode(None))
        self._flush()
        if now >= self._write_at and self.duty.lease.is_host(now):
            self._write_at = now + _WRITE_S
            self._written(self._host.peer, self.duty.lease.term)
            for peer in linked:
                self._send(peer, _WRITE + _TERM.pack(self.duty.lease.term))
        self.terms_fell += self.duty.lease.term < self._term
        self._term = self.duty.lease.term
        self._look_at = self.duty.next_look(now)

    def _flush(self) -> None:
        for target, word in self.duty.lease.take_outputs():
            self._send(target, _WORD + host_wire.encode(word))
        self.duty.lease.take_events()

    def _send(self, peer: Any, frame: bytes) -> None:
        self.extra.append(SendFrame(peer, frame, False))

    def _written(self, author: PeerId, term: int) -> None:
        if author != self._host.peer and not self.duty.lease.accepts(author, term):
            return
        self.terms_fell += term < self._newest
        self._newest = max(self._newest, term)
        self.double_writes += self.authors.setdefault(term, author) != author


class Watch:
    """Looks at all players twenty times a second: who is host for whom.

    `hostless_s`: the stretches in which those who can reach the most others did not all name one living host among themselves.
    Who has just come, or is back from a cut, counts once it names that host, and `late_s` is how long it took.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._side: set[int] = set()  # the largest that can reach each other
        self._late: dict[int, float] = {}  # who came to it, and when
        self._without_since = self._apart_since = -1.0  # negative: not
        self.hostless_s: list[float] = []
        self.late_s: list[float] = []
        self.minority_s = 0.0  # the longest that somebody beyond a cut acted as host
        self.named_s = 0.0  # and that somebody there took it for one: it hears beats until the host gives up
        self._apart: dict[int, float] = {}
        self.together_max = 0  # hosts at the same moment
        run.world.at(0.0, self._tick)

    def _tick(self) -> None:
        world, now = self._run.world, self._run.world.now
        world.after(_TICK_S, self._tick)
        players = {host.index: host.actor for host in self._run.up()}
        acting = [index for index, player in players.items() if player.duty.lease.is_host(now)]
        self.together_max = max(self.together_max, len(acting))
        before, self._side = self._side, self._largest_side(list(players))
        self._late = {index: at for index, at in self._late.items() if index in self._side}
        self._late |= dict.fromkeys(self._side - before, now)
        named = {index: player.duty.lease.host(now) for index, player in players.items()}
        host = world.hosts[acting[0]] if len(acting) == 1 else None
        agreed = (
            host is not None
            and host.index in self._side
            and all(named[index] == host.peer for index in self._side - self._late.keys())
        )
        for index in [index for index in self._late if agreed and host is not None and named[index] == host.peer]:
            self._note(self.late_s, now, self._late.pop(index))
        if agreed and self._without_since >= 0:
            self._note(self.hostless_s, now, self._without_since)
            self._without_since = -1.0
        elif not agreed and self._without_since < 0:
            self._without_since = now
        self._look_beyond(acting, named, now)

    def _look_beyond(self, acting: list[int], named: dict[int, Any], now: float) -> None:
        apart = named.keys() - self._side
        self._apart = {index: self._apart.get(index, now) for index in sorted(apart)}
        for index, since in self._apart.items():
            if index in acting:
                self.minority_s = max(self.minority_s, now - since)
            if named[index] is not None:
                self.named_s = max(self.named_s, now - since)

    def _note(self, stretches: list[float], now: float, since: float) -> None:
        if self._run.t0 and now > self._run.t0:
            stretches.append(now - since)

    def _largest_side(self, up: list[int]) -> set[int]:
        links = self._run.world.links
        if not links.cuts:
            return set(up)
        best: set[int] = set()
        left = list(up)
        while left:
            side = {index for index in left if index == left[0] or links.reachable(left[0], index)}
            left = [index for index in left if index not in side]
            best = side if len(side) > len(best) else best
        return best

    def finish(self) -> None:
        """What lasts until the end counts as it is."""
        now = self._run.world.now
        if self._without_since >= 0:
            self._note(self.hostless_s, now, self._without_since)
        for since in self._late.values():
            self._note(self.late_s, now, since)


def seat_players(run: Run) -> None:
    """Everybody looks after the host."""

    def make(world: World, host: Host) -> Any:
        return Player(run.factory.make_node(world, host), host, host.local(world.now))

    for index in range(run.nodes):
        run.factory.overrides[index] = make
    run.watch = Watch(run)


def judge_players(run: Run) -> None:
    watch: Watch = run.watch
    watch.finish()
    run.findings.add_samples("hostless_s", watch.hostless_s)
    run.findings.add_samples("late_s", watch.late_s)
    players = [host.actor for host in run.world.hosts if host.actor is not None]
    run.findings.figures["minority_acts_s"] = watch.minority_s
    run.findings.figures["minority_names_s"] = watch.named_s
    run.findings.figures["hosts_at_once"] = float(watch.together_max)
    run.findings.figures["double_writes"] = float(sum(player.double_writes for player in players))
    run.findings.figures["terms_fell"] = float(sum(player.terms_fell for player in players))
    run.findings.figures["terms"] = float(max(player.duty.lease.term for player in players))


@verb
def name_host(run: Run, step: Step) -> None:
    """`as` names the present host, and the `others` members that would follow it, the lowest seats first."""
    up = run.up()
    acting = [host for host in up if host.actor.duty.lease.is_host(host.local(run.world.now))]
    seats = up[0].actor.seats
    rest = [run.world.by_peer[peer] for peer in seats if peer is not None and run.world.by_peer[peer] not in acting]
    rest = [host for host in rest if host.up]
    run.labels[str(step["as"])] = [*acting, *rest][: 1 + int(step.get("others", 0))]
