"""Players who fell silent and were taken for gone: for a while what is sent still goes their way."""

from __future__ import annotations

from collections.abc import Callable

from psyne_mesh.identity import PeerId
from psyne_mesh.room.peer import Peer

# Silent players remembered; the one remembered longest goes first.
SILENT_MAX = 64
# A silence that ends just in time: so long until the way carries again, and gossip knows it.
_RETURN_S = 5.0


class Silent:
    """1. `add` who was lost by silence. 2. `hoped_for`: reliable messages still wait in their links, so that nothing is lost if
    they come back in time; `given_up`: what they miss is counted. 3. `take` who is back. `forgotten` is told of who is not
    remembered any more."""

    def __init__(self, hold_s: float, forgotten: Callable[[PeerId], None] = lambda peer: None) -> None:
        self._hold_s = hold_s + _RETURN_S
        self._forgotten = forgotten
        self._players: dict[PeerId, tuple[Peer, float]] = {}

    def __len__(self) -> int:
        return len(self._players)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._players

    def add(self, peer: Peer, now: float) -> None:
        self._players.pop(peer.id, None)
        self._players[peer.id] = peer, now + self._hold_s
        while len(self._players) > SILENT_MAX:
            oldest = next(iter(self._players))
            del self._players[oldest]
            self._forgotten(oldest)

    def take(self, peer: PeerId) -> Peer | None:
        return self._players.pop(peer, (None, 0.0))[0]

    def get(self, peer: PeerId) -> Peer | None:
        return self._players.get(peer, (None, 0.0))[0]

    def hoped_for(self, now: float) -> list[PeerId]:
        """Those whose links are kept for the case that the silence is short."""
        return [peer for peer, (_, until) in self._players.items() if now < until]

    def given_up(self, now: float) -> list[PeerId]:
        """Those who have been silent for longer."""
        return [peer for peer, (_, until) in self._players.items() if until <= now]
