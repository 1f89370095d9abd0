"""Fifty players on one slow machine, in virtual time: real tables of links and the real patience over one processor's queue."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable

import attrs
import pytest

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.dialer import Dialer
from psyne_mesh.gossip.effects import DialDue, Effects
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh.link_table import DialFailed, HangUp, LinkTable, LinkUp, StartLink, TableLink
from psyne_mesh.webrtc.loop_lag import LoopLag
from psyne_mesh.webrtc.patience import Patience

PLAYERS = 50
WANTED = 5  # links that each orders; others order as many with it
TIMEOUT_S = 14.0
# The steps of a handshake, whose turn each is, and what each proves to whom: offer, answer, checks both ways, four flights.
STEPS = ("offer", "answer", "signaling", "ice", "ice", "dtls", "dtls", "open")
WHOLE_CORE_S = 33.0  # for all of them together, measured once on a machine of 2026


class View:
    knows_all, is_large = True, False

    def knows(self, peer: PeerId) -> bool:
        return True


@attrs.define(eq=False)
class End:
    """One player's end of one handshake."""

    player: Player
    link: TableLink
    patience: Patience
    over: bool = False


@attrs.define(eq=False)
class Player:
    peer: PeerId
    table: LinkTable
    dialer: Dialer
    lag: LoopLag
    ends: dict[TableLink, End] = attrs.Factory(dict)
    linked: set[PeerId] = attrs.Factory(set)
    timer_waits: bool = False


class Machine:
    """All players in one loop: whatever any of them does waits behind what the others do."""

    def __init__(self, cores: float, seed: int, *, careful: bool) -> None:
        self.now = 0.0
        self.abandoned = 0
        self.most_under_way = 0
        self._rng = random.Random(seed)
        self._step_s = WHOLE_CORE_S / (PLAYERS * WANTED * len(STEPS)) / cores
        self._careful = careful
        self._free_at = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.players: dict[PeerId, Player] = {}
        for number in range(PLAYERS):
            self._add(Identity.from_seed(number.to_bytes(32, "big")).peer_id)
        for player in self.players.values():
            for other in self._rng.sample(sorted(self.players.keys() - {player.peer}), WANTED):
                player.dialer.want(other, self._rng.uniform(0, 0.1))

    def _add(self, peer: PeerId) -> None:
        lag, sessions = LoopLag(lasting=True), itertools.count()
        table = LinkTable(peer, lambda: f"{peer.short}-{next(sessions)}", lag.seconds if self._careful else None)
        table.enter("crowd", View())
        self.players[peer] = Player(peer, table, Dialer(GossipConfig(), self._rng, Effects()), lag)

    @property
    def is_complete(self) -> bool:
        return all(not player.dialer.wanted for player in self.players.values())

    def run(self, until_s: float) -> bool:
        while self.now < until_s and not self.is_complete:
            for player in self.players.values():
                self._turn(player)
            if self._agenda:
                self.now, _, act = heapq.heappop(self._agenda)
                act()
                self._when_idle()
            else:
                self.now += 0.05
        return self.is_complete

    def _when_idle(self) -> None:
        """Timers of tables and dialers are looked at whenever anything happens, and twenty times a second."""
        if not self._agenda or self._agenda[0][0] - self.now > 0.05:
            self._at(self.now + 0.05, lambda: None)

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), act))

    def _work(self, player: Player, act: Callable[[], None]) -> None:
        """`act` when the loop gets to it; how long that was, its timers see."""
        began, self._free_at = self.now, max(self.now, self._free_at) + self._step_s

        def done() -> None:
            player.lag.note(self.now - began - self._step_s, self.now)
            act()

        self._at(self._free_at, done)

    def _look_at_timer(self, player: Player) -> None:
        """The loop sees that the table's timer is due when it gets to it, and then how late it is."""
        due = player.table.next_timeout()
        if due <= self.now and not player.timer_waits:
            player.timer_waits = True

            def fire() -> None:
                player.timer_waits = False
                if due > -math.inf:
                    player.lag.note(self.now - due, self.now)
                player.table.handle_timeout(self.now)

            self._at(max(self.now, self._free_at), fire)

    def _turn(self, player: Player) -> None:
        player.dialer.handle_timeout(self.now)
        for wish in player.dialer.effects.wishes:
            assert isinstance(wish, DialDue)
            player.table.dial("crowd", wish.peer, self.now)
        player.dialer.effects.wishes.clear()
        self._look_at_timer(player)
        for output in player.table.take_outputs():
            match output:
                case StartLink(link=link) if link.offerer:
                    end = self._end(player, link)
                    self._work(player, lambda end=end: self._step(end, None, 0))  # type: ignore[misc]
                case HangUp(link=link):
                    self._give_up(player.ends[link])
                case _:
                    pass
        for event in player.table.take_events():
            match event:
                case LinkUp(peer=peer):
                    player.linked.add(peer)
                    player.dialer.linked(peer)
                case DialFailed(peer=peer):
                    player.dialer.failed(peer, self.now)
                case _:
                    pass

    def _end(self, player: Player, link: TableLink) -> End:
        patience = Patience(TIMEOUT_S)
        patience.begin(self.now)
        end = player.ends[link] = End(player, link, patience)
        self._at(patience.deadline, lambda: self._look(end))
        self.most_under_way = max(
            self.most_under_way, sum(not e.over for p in self.players.values() for e in p.ends.values()) // 2
        )
        return end

    def _look(self, end: End) -> None:
        if end.over:
            return
        if end.patience.has_run_out(self.now, end.player.lag.seconds(self.now) if self._careful else 0.0):
            self.abandoned += 1
            self._give_up(end)
        else:
            self._at(end.patience.deadline, lambda: self._look(end))

    def _give_up(self, end: End) -> None:
        if not end.over:
            end.over = True
            end.player.table.gone(end.link, "timeout")

    def _step(self, near: End, far: End | None, number: int) -> None:
        """`near` has done step `number`; `far` is next."""
        if near.over or (far is not None and far.over):
            return
        if self._careful and STEPS[number] in ("signaling", "ice", "dtls"):
            near.patience.progress(STEPS[number], self.now, near.player.lag.seconds(self.now))
        if far is None:
            callee = self.players[near.link.peer]
            if not callee.table.offer_received(near.player.peer, near.link.session, int(1000 * self.now), self.now):
                return
            (start,) = [one for one in callee.table.take_outputs() if isinstance(one, StartLink)]
            far = self._end(callee, start.link)
        if number + 1 < len(STEPS):
            self._work(far.player, lambda: self._step(far, near, number + 1))
            return
        for end in (near, far):
            end.over = True
            end.patience.end()
            end.player.table.opened(end.link)


@pytest.mark.parametrize("cores", [1.0, 0.5, 0.25])
def test_what_is_begun_is_finished_and_hardly_anything_is_begun_anew(cores: float) -> None:
    machine = Machine(cores, seed=1, careful=True)
    assert machine.run(1.25 * WHOLE_CORE_S / cores)
    assert machine.abandoned <= 0.01 * PLAYERS * WANTED
    assert machine.most_under_way <= 3 * PLAYERS


def test_without_care_most_of_the_work_is_thrown_away() -> None:
    """What the limits are for: the same machine, where all begin at once and each has 14 seconds."""
    machine = Machine(0.5, seed=1, careful=False)
    assert not machine.run(1.25 * WHOLE_CORE_S / 0.5)
    assert machine.abandoned > PLAYERS
