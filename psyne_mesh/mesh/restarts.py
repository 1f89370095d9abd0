"""Whether the link to a player is of an earlier run of it: a process that died, and was started again with its key. Pure."""

from __future__ import annotations

from psyne_mesh.identity import PeerId

# Within so long the rooms of a restarted player are entered, or its earlier run has been missed there: gossip takes some
# seconds.
TELLING_S = 30.0


class Restarts:
    """The first room to hear of a restart ends the link of the run before. The player dials anew, and another room that both
    share hears of the restart when the player enters it: it must not end the new link. A room that hears twice, hears of two.

    1. `ends_link(peer, room, now)` for each room that hears of a restart.
    """

    def __init__(self) -> None:
        self._told: dict[PeerId, tuple[float, set[str]]] = {}  # since when, and which rooms, oldest first

    def ends_link(self, peer: PeerId, room: str, now: float) -> bool:
        """`room` has heard of a restart: whether the link that stands is of the run before."""
        while self._told and now - next(iter(self._told.values()))[0] > TELLING_S:
            del self._told[next(iter(self._told))]
        _, rooms = self._told.get(peer, (now, {room}))
        if room in rooms:
            self._told.pop(peer, None)
            self._told[peer] = now, {room}
            return True
        rooms.add(room)
        return False
