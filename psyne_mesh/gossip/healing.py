"""What a cut needs: one event for all that it takes away, knocking on the doors of the lost, and a look at signaling.

The field's open wound: memberlist forgets a dead member after 30 s and never finds it again. Here the lost are
remembered for as long as the room lives, and somebody knocks at a constant rate, whatever the room's size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from psyne_mesh.gossip import effects
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import CutMended, CutSeen, Effects, Knock
from psyne_mesh.gossip.records import rank
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random

_CUT_MAX = 1024  # members of cuts remembered; more are simply lost one by one
LOOKOUTS = 2  # the members with the lowest hashes: one may be about to leave


class Cuts:
    """Gathers losses and returns into one event each. How to drive it: `lost` and `back` as members are suspected, go
    and return; `handle_timeout(now, alive)` at `deadline`. It says: `CutSeen`, `CutMended`."""

    def __init__(self, config: GossipConfig, out: Effects) -> None:
        self._config = config
        self.effects = out
        self._losing: dict[PeerId, None] = {}
        self._losing_since = self._returning_since = 0.0
        self.losing_until = math.inf
        self._cut: dict[PeerId, None] = {}
        self._returned: dict[PeerId, None] = {}
        self.returning_until = math.inf

    @property
    def deadline(self) -> float:
        return min(self.losing_until, self.returning_until)

    @property
    def losing_until(self) -> float:
        return self.effects.timers[effects.LOSING]

    @losing_until.setter
    def losing_until(self, losing_until: float) -> None:
        self.effects.timers[effects.LOSING] = losing_until

    @property
    def returning_until(self) -> float:
        return self.effects.timers[effects.RETURNING]

    @returning_until.setter
    def returning_until(self, returning_until: float) -> None:
        self.effects.timers[effects.RETURNING] = returning_until

    def lost(self, peer: PeerId, now: float) -> None:
        """Suspected or gone by silence."""
        self._returned.pop(peer, None)
        if peer not in self._cut and peer not in self._losing and len(self._losing) < _CUT_MAX:
            if not self._losing:
                self._losing_since = now
            self._losing[peer] = None
            self.losing_until = self._hold(self._losing_since, now)

    def back(self, peer: PeerId, now: float) -> None:
        """Heard again, or a member again."""
        self._losing.pop(peer, None)
        if peer in self._cut and peer not in self._returned:
            if not self._returned:
                self._returning_since = now
            self._returned[peer] = None
            self.returning_until = self._hold(self._returning_since, now)

    @property
    def is_healing(self) -> bool:
        """Some whom a cut took are back, and more are expected."""
        return bool(self._returned)

    def _hold(self, since: float, now: float) -> float:
        """Until nothing was added for one hold time, and three at most."""
        return min(since + 3 * self._config.partition_hold_s, now + self._config.partition_hold_s)

    def forget(self, peer: PeerId) -> None:
        """It left by its own will."""
        self._losing.pop(peer, None)
        self._cut.pop(peer, None)
        self._returned.pop(peer, None)

    def handle_timeout(self, now: float, alive: list[PeerId], *, suspecting: bool = False) -> None:
        """`suspecting`: verdicts are still to come, and with them perhaps more whom a cut took away."""
        latest = self._losing_since + 3 * self._config.partition_hold_s
        if suspecting and self.losing_until <= now < latest:
            self.losing_until = min(latest, now + self._config.partition_hold_s / 4)
        if now >= self.losing_until:
            self.losing_until = math.inf
            if len(self._losing) >= self._config.partition_min_lost:
                lost = tuple(self._losing)
                remaining = tuple(peer for peer in alive if peer not in self._losing)
                majority = len(remaining) + 1 > len(lost)  # we ourselves remain, too
                self.effects.wishes.append(CutSeen(lost, remaining, majority))
                for peer in lost[: _CUT_MAX - len(self._cut)]:
                    self._cut[peer] = None
            self._losing.clear()
        if now >= self.returning_until:
            self.returning_until = math.inf
            for peer in self._returned:
                self._cut.pop(peer, None)
            if self._returned:
                self.effects.wishes.append(CutMended(tuple(self._returned), tuple(self._cut)))
            self._returned.clear()


class Knocker:
    """Now and then dials somebody who was lost: the expected number of knocks of a whole component in one interval is
    `knock_factor`, so a large room does not knock more than a small one."""

    def __init__(self, config: GossipConfig, rng: random.Random, out: Effects) -> None:
        self._config = config
        self._rng = rng
        self.effects = out
        self.deadline = math.inf

    @property
    def deadline(self) -> float:
        return self.effects.timers[effects.KNOCKS]

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self.effects.timers[effects.KNOCKS] = deadline

    def arm(self, now: float) -> None:
        """Somebody was lost: from now on there are doors to knock on."""
        if self.deadline == math.inf:
            self.deadline = now + self._config.knock_interval_s * self._rng.random()

    def handle_timeout(self, now: float, down: list[PeerId], alive: int) -> None:
        if now < self.deadline:
            return
        self.deadline = now + self._config.knock_interval_s * (0.75 + 0.5 * self._rng.random()) if down else math.inf
        if down and self._rng.random() < self._config.knock_factor / (alive + 1):
            self.effects.wishes.append(Knock(self._rng.choice(down)))

    def cross_links(self, returned: list[PeerId], members: int) -> list[PeerId]:
        """After a heal: with the right chance, one of the returned to dial, so that about 4 log2(n) links cross the
        former cut."""
        if self._rng.random() < 4 * max(1, members).bit_length() / max(1, members):
            return [self._rng.choice(returned)]
        return []


def is_lookout(room: bytes, own: PeerId, alive: list[PeerId], lookouts: int = LOOKOUTS) -> bool:
    """Whether we are one of those with the lowest H(room, peer) among the living, who look out for the lost at signaling."""
    mine = rank(room, own)
    lower = 0
    for peer in alive:
        lower += rank(room, peer) < mine
        if lower == lookouts:
            return False
    return True
