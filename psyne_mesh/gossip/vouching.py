"""Who stands behind a record: in a full mesh, members without a link are asked for at those whom we are linked to.

A record alone proves a key, not a player: anybody makes a thousand. So a member of a full mesh is one whom we have a link
with, or whom a neighbour reached within 10 s (the indirect probe of SWIM). Who is neither is none.
How large the room is, is told by links, and by members for whom more than a third of our neighbours stand: liars vouch for all
that they made up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from psyne_mesh.gossip import codec, effects
from psyne_mesh.gossip.effects import Effects, Unvouched
from psyne_mesh.gossip.events import SendFrame
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

VOUCHED_S = 9.0  # so long a voucher counts; with the beat below, nobody is shown for 10 s without one
_BEAT_S = 0.9
_ASK_S = 2.0  # a voucher that is older than that is renewed: four tries
_HELPERS = 3  # asked for one member, as many as SWIM's k
_ASKED_MAX = 32  # members asked for in one beat, those whom nobody vouched for longest first: 96 frames of 27 bytes
_ANSWERS_MAX = 256  # questions that wait for an answer; the oldest is forgotten


class Vouching:
    """How to drive it:

    1. `arm(now)` when a member without a link came, or a link went.
    2. `beat(now, members, helpers)` when its timer is due, with the members who need a voucher.
    3. `ask(target, helpers, count)` for a member of any room that others call silent.
    4. `answered(sequence, target)` for an indirect answer: True if it is a voucher that we asked for.

    It says: `Unvouched`.
    """

    def __init__(self, rng: random.Random, out: Effects) -> None:
        self._rng = rng
        self._effects = out
        self._sequence = rng.getrandbits(31)
        self._asked: dict[tuple[int, PeerId], None] = {}

    def arm(self, now: float) -> None:
        timers = self._effects.timers
        if timers[effects.VOUCHES] == math.inf:
            timers[effects.VOUCHES] = now + _BEAT_S

    def beat(self, now: float, members: Iterable[tuple[float, bool, PeerId]], helpers: list[PeerId]) -> None:
        """`members`: when somebody last vouched, whether enough did, and for whom."""
        self._effects.timers[effects.VOUCHES] = math.inf
        waiting: list[tuple[float, bool, PeerId]] = []
        for vouched_at, is_backed, peer in members:
            if now - vouched_at >= VOUCHED_S:
                self._effects.facts.append(Unvouched(peer))
            else:
                waiting.append((vouched_at, is_backed, peer))
        if not waiting:
            return
        self._effects.timers[effects.VOUCHES] = now + _BEAT_S
        waiting.sort()
        for vouched_at, is_backed, peer in waiting[:_ASKED_MAX]:
            if not is_backed or now - vouched_at >= _ASK_S:
                self.ask(peer, helpers)

    def answered(self, sequence: int, target: PeerId) -> bool:
        return (sequence, target) in self._asked

    def ask(self, target: PeerId, helpers: list[PeerId], count: int = _HELPERS) -> None:
        """So many of the helpers, drawn by lot."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        self._asked[self._sequence, target] = None
        if len(self._asked) > _ANSWERS_MAX:
            del self._asked[next(iter(self._asked))]
        frame = codec.ping_req(self._sequence, target)
        for helper in self._rng.sample(helpers, min(count, len(helpers))):
            self._effects.frames.append(SendFrame(helper, frame, False))
