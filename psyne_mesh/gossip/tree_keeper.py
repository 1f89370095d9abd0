"""Who keeps the broadcast tree in shape while nobody broadcasts: the member with the lowest hash gives signs down it.

The signs are empty messages; they shape and mend the tree as messages do. Who misses them, though all know the keeper, may
be beyond a cut of the overlay.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from enum import Enum, auto
from typing import TYPE_CHECKING

from psyne_mesh.gossip import effects
from psyne_mesh.gossip.broadcast_wire import Keep
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.policy import Policy
from psyne_mesh.gossip.records import rank
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random

_EVERY_MIN_S, _EVERY_MAX_S = (
    0.5,
    20.0,
)  # between two signs: often while the tree is young. A hole is found within that time
_CUT_OFF_S = 2.2 * _EVERY_MAX_S  # a keeper that all know and whose signs do not come may be beyond a cut of the overlay
_NEVER_IN_S = 1.2 * _EVERY_MAX_S  # who never had one need not wait until two were lost: it may have fallen among liars
_KEEPERS_MAX = 16  # normally one; the one silent for longest is forgotten
_GAP_S = 0.2  # what comes faster than a keeper gives signs is dropped
_QUIET_S = 1.0  # and so is a further keeper, unless one of the known was quiet for so long
_LIFE_MASK = (1 << 47) - 1  # unix milliseconds fit for 4,000 years


class Duty(Enum):
    """What is to be done at a beat."""

    SIGN = auto()  # the tree is ours to keep
    IN_TOUCH = auto()  # the keeper's signs come
    CUT_OFF = auto()  # they do not: somebody by lot should be dialled


class Signs:
    """The newest sign of each keeper, and when it came."""

    __slots__ = ("_newest",)

    def __init__(self) -> None:
        self._newest: dict[PeerId, tuple[Keep, float]] = {}

    def newest(self, keeper: PeerId) -> Keep | None:
        found = self._newest.get(keeper)
        return found[0] if found is not None else None

    def number(self, keeper: PeerId) -> int:
        """Of its newest sign; 0: none came."""
        found = self._newest.get(keeper)
        return found[0].number if found is not None else 0

    def next_number(self, own: PeerId, life: int) -> int:
        """Of our next sign. `life` grows with every start of the process, and the numbers with it."""
        return max(self.number(own), (life & _LIFE_MASK) << 16) + 1

    def wants(self, sign: Keep, now: float) -> bool:
        """Whether it is new, and no flood: whoever is in the room may call itself keeper."""
        newest = self._newest.get(sign.origin)
        if newest is not None:
            return sign.number > newest[0].number and now - newest[1] >= _GAP_S
        return len(self._newest) < _KEEPERS_MAX or now - next(iter(self._newest.values()))[1] >= _QUIET_S

    def take(self, sign: Keep, now: float) -> None:
        self._newest.pop(sign.origin, None)
        if len(self._newest) >= _KEEPERS_MAX:
            del self._newest[next(iter(self._newest))]
        self._newest[sign.origin] = sign, now

    def heard(self, own: PeerId) -> dict[PeerId, float]:
        """Who else gives signs, and when the last one came."""
        return {keeper: at for keeper, (_, at) in self._newest.items() if keeper != own}


class TreeKeeper:
    """How to drive it:

    1. `follow(policy, now)` when the mode changes; `met_lobby(now)` when our first neighbour knows a part of the room only.
    2. `beat(now, alive, linked=...)` when its timer is due: do what it says. `first` is whom we take for the keeper.
    """

    def __init__(self, room: bytes, own: PeerId, rng: random.Random, signs: Signs, out: Effects) -> None:
        self._room = room
        self._own = own
        self._rng = rng
        self._signs = signs
        self._effects = out
        self._knows_all = True
        self._every_s = _EVERY_MIN_S
        self._lobby_since = math.inf
        self._sign: tuple[PeerId, int] | None = None  # the newest sign of the keeper
        self._heard_at = -math.inf  # when it came
        self._any_at = -math.inf  # when the newest sign of anybody came

    def follow(self, policy: Policy, now: float) -> None:
        self._knows_all = policy.knows_all
        self._every_s = _EVERY_MIN_S
        self._effects.timers[effects.TREE_KEEPER] = now + self._rng.random() if policy.by_tree else math.inf

    def met_lobby(self, now: float) -> None:
        self._lobby_since = now

    def beat(self, now: float, alive: Collection[PeerId], *, linked: bool) -> list[Duty]:
        self._every_s = min(_EVERY_MAX_S, 2 * self._every_s)
        self._effects.timers[effects.TREE_KEEPER] = now + self._every_s * (0.9 + 0.2 * self._rng.random())
        if self._sign is None:
            self._heard_at = self._any_at = now
        new_in_lobby = 0.0 <= now - self._lobby_since < _CUT_OFF_S
        heard = self._signs.heard(self._own)
        if not linked or (new_in_lobby and not heard):
            return []  # a newcomer knows too few to be the lowest of all: first it hears who gives signs
        duties: list[Duty] = []
        candidates = alive
        if new_in_lobby or not self._knows_all:
            candidates = self._candidates(now, alive, heard)
            if not candidates and self._sign is not None and self._sign[0] != self._own:
                duties.append(Duty.CUT_OFF)
        first = keeper(self._room, self._own, candidates)
        sign = first, self._signs.number(first)
        if first == self._own:
            duties.append(Duty.SIGN)
        elif sign != self._sign:
            self._heard_at = now
            duties.append(Duty.IN_TOUCH)
        elif now - self._heard_at >= (_CUT_OFF_S if heard else _NEVER_IN_S):
            duties.append(Duty.CUT_OFF)
        self._sign = sign
        return duties

    def _candidates(self, now: float, alive: Collection[PeerId], heard: dict[PeerId, float]) -> Collection[PeerId]:
        """Who else may keep a lobby's tree. Of the few whom we know, some may have died or be beyond a cut without our
        knowing: who gives signs counts, and who is known only as long as nobody does. When nobody has for long, everybody
        begins, and gives way to the lowest sign that it hears."""
        self._any_at = max([self._any_at, *heard.values()])
        lately = [peer for peer, at in heard.items() if at + _CUT_OFF_S > now]
        return lately or (alive if now - self._any_at < _CUT_OFF_S else ())


def keeper(room: bytes, own: PeerId, alive: Collection[PeerId]) -> PeerId:
    """The member with the lowest hash."""
    return min([own, *alive], key=lambda peer: rank(room, peer))
