"""Who may dial us, and how often: each offer costs a connection and a handshake. Pure."""

from __future__ import annotations

import math

from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket

# Links of one process. A stranger's offer over this is not answered: each costs memory and a handshake.
LINKS_MAX = 256

# Of these, answered to peers of whom no room has a record, at once. Signaling names newcomers before their offers come,
# so it is for those who come back over a cut, and for lobbies: as many as a full mesh has members.
STRANGERS_MAX = 16

# One peer may dial so often in a row, later once in so many seconds.
DIALS_IN_A_ROW = 6.0
DIAL_EVERY_S = 2.0
DIALLERS_MAX = 1024  # peers whose dials are counted; beyond that the table starts afresh


# A handshake takes some ten turns of the loops of both sides, and as each of them makes the turns longer, more at once would
# not be done sooner, but all of them too late. Below the first no limit is felt (a room's own is 16 at once); above it so
# many are under way that they add about the second, a guess that leaves half of a dial's 14 s. One is always allowed.
LAG_NONE_S = 0.05
LAG_WANTED_S = 0.8


def handshakes_max(lag_s: float) -> float:
    """Handshakes that may be under way at once before we begin another, where the loop is late by so much."""
    return math.inf if lag_s <= LAG_NONE_S else max(1, LAG_WANTED_S // lag_s)


class DialLimits:
    """1. `has_room(...)`, then `allow(peer, now)`, before an offer is answered."""

    def __init__(self) -> None:
        self._dials: dict[PeerId, TokenBucket] = {}

    def has_room(self, links: int, *, strangers: int, known: bool) -> bool:
        """Whether one more link may be answered, beside `links`, of which `strangers` were answered to peers whose record no
        room has. `known`: whether any room has the record of the one that asks."""
        return links < LINKS_MAX and (known or strangers < STRANGERS_MAX)

    def allow(self, peer: PeerId, now: float) -> bool:
        """Whether the peer may dial now; counts it."""
        if peer not in self._dials:
            if len(self._dials) >= DIALLERS_MAX:
                self._dials.clear()
            self._dials[peer] = TokenBucket(burst=DIALS_IN_A_ROW, per_second=1 / DIAL_EVERY_S, now=now)
        return self._dials[peer].allow(now)
