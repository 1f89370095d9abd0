"""Whether the link to a player is of an earlier life of it: a process that died, and was started again with its key."""

from __future__ import annotations

from psyne_mesh.identity import PeerId

# Within so long the rooms of a new life are entered, or the old life has been missed there: gossip takes some seconds.
TELLING_S = 30.0


class Lives:
    """The first room to hear of a new life ends the link of the old one. The player dials anew, and another room that both
    share hears of that life when the player enters it: it must not end the new link. A room that hears twice, hears of two."""

    def __init__(self) -> None:
        self._told: dict[PeerId, tuple[float, set[str]]] = {}  # since when, and which rooms, oldest first

    def has_outlived(self, peer: PeerId, room: str, now: float) -> bool:
        """`room` has heard of a new life: whether the link that stands is of the old one."""
        while self._told and now - next(iter(self._told.values()))[0] > TELLING_S:
            del self._told[next(iter(self._told))]
        _, rooms = self._told.get(peer, (now, {room}))
        if room in rooms:
            self._told.pop(peer, None)
            self._told[peer] = now, {room}
            return True
        rooms.add(room)
        return False
