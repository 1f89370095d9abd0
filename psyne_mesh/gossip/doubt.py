"""Whether we are deaf or were cut off, when others call us gone: former neighbours are asked before we answer.

The ring of it: an accusation of ourselves (`Census`: `CalledGone`), former neighbours dialled (`Core.ask_former`), their
probes (`Hearing`), and the answer (`Core.settle_doubt`), which is a new life of ours, or that we stand aside.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from psyne_mesh.gossip import effects
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.hearing import LINKS_MIN, Hearing
from psyne_mesh.identity import PeerId

_COMPANY_MIN = 6  # links (a partial mesh has as many): with fewer, all may be deaf, who find nobody but each other
_ASKED_MAX = 12  # neighbours that a node asks which had lost most of its links: some are full, or gone
_DOUBT_S = 4.0  # so long may they take to answer: a dial and a round of probes
_DEAF_DOUBT_S = 8.0  # and so long if too few answer, and one of them found us deaf: time for a second dial
_DOUBT_TICK_S = 0.25


class Doubt:
    """We had lost nearly all our neighbours, and hear that we are called gone. Were we cut off, we would say at once that
    we are back. But a deaf node would come back only to go again as soon as it finds out: two changes more in everybody's
    view. So former neighbours are asked first, once in each life. Who has company (others beyond a cut, say) has no doubt:
    they know that it lives, and must not be made to wait for its answer.

    How to drive it: `begin` says whom to ask; `is_over` at `deadline`.
    """

    def __init__(self, out: Effects) -> None:
        self.effects = out
        self.deadline = math.inf
        self.begun_for = -1  # the epoch whose end we doubt
        self.called_gone = False  # somebody waits for our answer
        self.asked: list[PeerId] = []
        self._since = 0.0

    @property
    def deadline(self) -> float:
        return self.effects.timers[effects.DOUBT]

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self.effects.timers[effects.DOUBT] = deadline

    @property
    def is_open(self) -> bool:
        return self.deadline < math.inf

    def begin(self, epoch: int, former: list[PeerId], links: Collection[Hearing], now: float) -> list[PeerId]:
        """Whom to ask, nobody if there is no doubt. `former`: as `Hearings` tells; `links`: of those that we have."""
        company = sum(hearing.is_company(now) for hearing in links)
        if self.begun_for == epoch or not company < min(_COMPANY_MIN, len(former)):
            return []
        self.begun_for, self.called_gone = epoch, False
        self.asked = former[-_ASKED_MAX:]
        self._since = now
        self.deadline = now + _DOUBT_TICK_S
        return self.asked

    def is_over(self, links: Mapping[PeerId, Hearing], deaf: bool, now: float) -> bool:
        """Whether enough of them have answered, or time is over. `deaf`: it shows already, and will be acted on. If one of
        them found us deaf, all are heard: the first to answer may be deaf as well, and know no better."""
        told = [links[peer] for peer in self.asked if peer in links and links[peer].told_since(self._since)]
        found_deaf = any(hearing.deaf_s for hearing in told)
        wanted = len(self.asked) if found_deaf else LINKS_MIN
        patience = _DEAF_DOUBT_S if found_deaf and len(told) < LINKS_MIN else _DOUBT_S
        if now < self._since + patience and (deaf or len(told) < wanted):
            self.deadline = now + _DOUBT_TICK_S
            return False
        self.deadline = math.inf
        return True
