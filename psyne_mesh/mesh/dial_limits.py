"""Who may dial us, and how often: each offer costs a connection and a handshake."""

from __future__ import annotations

from collections.abc import Callable, Collection

from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket
from psyne_mesh.mesh.link import Link

# Links of one process. A stranger's offer over this is not answered: each costs memory and a handshake.
LINKS_MAX = 256

# Of these, answered to peers of whom no room has a record, at once. Signaling names newcomers before their offers come,
# so it is for those who come back over a cut, and for lobbies: as many as a full mesh has members.
STRANGERS_MAX = 16

# One peer may dial so often in a row, later once in so many seconds.
DIALS_IN_A_ROW = 6.0
DIAL_EVERY_S = 2.0
DIALLERS_MAX = 1024  # peers whose dials are counted; beyond that the table starts afresh


class DialLimits:
    """`allow` each offer before it is answered."""

    def __init__(self) -> None:
        self._dials: dict[PeerId, TokenBucket] = {}

    def allow(self, peer: PeerId, now: float) -> bool:
        if peer not in self._dials:
            if len(self._dials) >= DIALLERS_MAX:
                self._dials.clear()
            self._dials[peer] = TokenBucket(burst=DIALS_IN_A_ROW, per_second=1 / DIAL_EVERY_S, now=now)
        return self._dials[peer].allow(now)


def has_room_for(peer: PeerId, links: Collection[Link], knows: Callable[[PeerId], bool]) -> bool:
    """Whether one more link may be answered. `knows`: whether any room has the record of a peer."""
    if len(links) >= LINKS_MAX:
        return False
    if knows(peer):
        return True
    answered = (link for link in links if not link.offerer and link.asleep_since is None)
    return sum(not knows(link.peer_id) for link in answered) < STRANGERS_MAX
