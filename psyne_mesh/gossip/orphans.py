"""Who dies together with all its neighbours leaves nobody behind who would miss it: after many losses at once others look.

In a partial mesh a member is watched by its neighbours alone. Where as many die in one moment as a member has neighbours, each
of the living looks after three others, those before it in a ring by H(room, peer): whom it has no link with it dials, and whom
it does not reach it calls silent. The accused hears of it through its own neighbours, if there are any, and refutes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection

from psyne_mesh.gossip import effects
from psyne_mesh.gossip.effects import DialWanted, Effects, OrphanSilent
from psyne_mesh.gossip.records import rank
from psyne_mesh.identity import PeerId

_MANY = 5  # losses within `_TOGETHER_S`; members of a partial mesh have six links or more, now and then one less
_TOGETHER_S = (
    5.0  # verdicts of one disaster come within that: the longest suspicion is one second more than the shortest wait
)
_LOOK_S = 0.5  # from the last of them to the look: others are just being told
_WATCHED = 3  # members that each looks after: three watchers are as many as Lifeguard counts (K = 2 confirm the first)
_REACH_S = 3.0  # so long may a dial take to reach somebody: most take 0.3 to 1.5 s, and a later link closes the case
_REST_S = 10.0  # between two looks


class Orphans:
    """How to drive it:

    1. `lost(now)` for each member that went by silence; `linked(peer)` for each link.
    2. `handle_timeout(now, alive, links)` at its timer. It wishes `DialWanted` and says `OrphanSilent`.
    """

    def __init__(self, room: bytes, own: PeerId, out: Effects) -> None:
        self._room = room
        self._own = own
        self.effects = out
        self._losses: deque[float] = deque(maxlen=_MANY)
        self._look_at = math.inf
        self._looked_at = -math.inf
        self._awaited: dict[PeerId, float] = {}  # whom we dialled, and until when it may come

    def lost(self, now: float) -> None:
        self._losses.append(now)
        if len(self._losses) == _MANY and now - self._losses[0] <= _TOGETHER_S:
            self._look_at = min(self._look_at, max(now + _LOOK_S, self._looked_at + _REST_S))
            self._arm()

    def linked(self, peer: PeerId) -> None:
        self._awaited.pop(peer, None)

    def handle_timeout(self, now: float, alive: list[PeerId], links: Collection[PeerId]) -> None:
        for peer in [peer for peer, until in self._awaited.items() if until <= now]:
            del self._awaited[peer]
            self.effects.facts.append(OrphanSilent(peer))
        if now >= self._look_at:
            self._look_at, self._looked_at = math.inf, now
            for peer in self._watched(alive):
                if peer not in links:
                    self._awaited[peer] = now + _REACH_S
                    self.effects.wishes.append(DialWanted(peer))
        self._arm()

    def _watched(self, alive: list[PeerId]) -> list[PeerId]:
        """The next ones below us in the ring."""
        ours = rank(self._room, self._own)
        ring = sorted((rank(self._room, peer), peer) for peer in alive)
        below = sum(place < ours for place, _ in ring)
        return [ring[(below - 1 - step) % len(ring)][1] for step in range(min(_WATCHED, len(ring)))]

    def _arm(self) -> None:
        self.effects.timers[effects.ORPHANS] = min(self._look_at, min(self._awaited.values(), default=math.inf))
