"""The replicated maps of a room as a spectator has them: what players say of theirs, and the host of the room's."""

from __future__ import annotations

from collections.abc import Mapping

from psyne_mesh.errors import ProtocolError
from psyne_mesh.game.state import ROOM, Changed
from psyne_mesh.game.state_map import Copy
from psyne_mesh.game.state_wire import At, Part, StateWord
from psyne_mesh.identity import PeerId


class Copies:
    """1. `joined(player)` and `left(player)`. 2. `take(player, word, host)` for each word; False: it does not follow on what is
    here, and all of that map is wanted. 3. `take_events()`."""

    def __init__(self) -> None:
        self._copies: dict[PeerId, Copy] = {}
        self.room = Copy()
        self._events: list[Changed] = []

    def of(self, player: PeerId) -> Mapping[str, bytes]:
        copy = self._copies.get(player)
        return {} if copy is None else copy.values

    def joined(self, player: PeerId) -> None:
        self._copies[player] = Copy()

    def left(self, player: PeerId) -> None:
        self._copies.pop(player, None)

    def take(self, player: PeerId, word: StateWord, host: PeerId | None) -> bool:
        """Raises ProtocolError for what no player says; nothing has changed then."""
        if not isinstance(word, Part | At) or player not in self._copies:
            return True
        if word.owner not in (ROOM, player.raw):
            raise ProtocolError("a player speaks of another one's map")
        if word.owner == ROOM and player != host:
            return True  # the host's is asked for when it is known for the host
        copy = self.room if word.owner == ROOM else self._copies[player]
        if isinstance(word, At):
            return copy.is_old(word.term, word.sequence, player.raw)
        is_first = not copy.stand.sequence
        changes = copy.take(word, player.raw)
        if changes is None:
            return False
        owner = None if word.owner == ROOM else player
        self._events += [Changed(owner, key, value, is_first=is_first) for key, value in changes]
        return True

    def take_events(self) -> list[Changed]:
        events, self._events = self._events, []
        return events
