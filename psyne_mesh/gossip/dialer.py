"""Whom to dial and when: bounded in number, patient with failures, never two at once for the same peer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from psyne_mesh.gossip import effects
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import DialDue, Effects
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random

_LOST_S = 60.0  # a dial that the shell never answered counts as failed after that


class Wish:
    __slots__ = ("at", "failures")

    def __init__(self, at: float) -> None:
        self.at = at
        self.failures = 0


class Dialer:
    """Wishes become dials. How to drive it:

    1. `want(peer, at)` and `drop(peer)` say who should be linked; `linked(peer)`, `failed(peer, now)` what came of it.
    2. `handle_timeout(now)` at `deadline`. It wishes: `DialDue`.
    """

    def __init__(self, config: GossipConfig, rng: random.Random, out: Effects) -> None:
        self._config = config
        self._rng = rng
        self._wishes: dict[PeerId, Wish] = {}
        self.in_flight: dict[PeerId, float] = {}
        self.effects = out
        self.deadline = math.inf

    @property
    def deadline(self) -> float:
        return self.effects.timers[effects.DIALS]

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self.effects.timers[effects.DIALS] = deadline

    @property
    def wanted(self) -> list[PeerId]:
        return list(self._wishes)

    def want(self, peer: PeerId, at: float) -> None:
        wish = self._wishes.get(peer)
        if wish is None:
            self._wishes[peer] = Wish(at)
            self.deadline = min(self.deadline, at)

    def drop(self, peer: PeerId) -> None:
        self._wishes.pop(peer, None)

    def linked(self, peer: PeerId) -> None:
        self._wishes.pop(peer, None)
        self.in_flight.pop(peer, None)
        self.deadline = min(self.deadline, self._next())

    def failed(self, peer: PeerId, now: float) -> None:
        self.in_flight.pop(peer, None)
        wish = self._wishes.get(peer)
        if wish is not None:
            config = self._config
            backoff = min(config.dial_backoff_max_s, config.dial_backoff_min_s * 2 ** min(wish.failures, 16))
            wish.failures += 1
            wish.at = now + backoff * (0.75 + 0.5 * self._rng.random())
        self.deadline = min(self.deadline, self._next())

    def handle_timeout(self, now: float) -> None:
        if now < self.deadline:
            return
        for peer, since in list(self.in_flight.items()):
            if since + _LOST_S <= now:
                self.failed(peer, now)
        free = self._config.dials_max - len(self.in_flight)
        if free > 0:
            due = [(w.at, peer) for peer, w in self._wishes.items() if w.at <= now and peer not in self.in_flight]
            due.sort()
            for _, peer in due[:free]:
                self.in_flight[peer] = now
                self.effects.wishes.append(DialDue(peer))
        self.deadline = self._next()

    def _next(self) -> float:
        lost = min(self.in_flight.values(), default=math.inf) + _LOST_S
        if len(self.in_flight) >= self._config.dials_max:
            return lost
        return min(lost, min((w.at for p, w in self._wishes.items() if p not in self.in_flight), default=math.inf))
