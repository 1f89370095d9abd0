"""Of players who crashed: what the others keep of theirs, and what is given back to who returns."""

from __future__ import annotations

import math

from psyne_mesh.errors import ProtocolError
from psyne_mesh.game.schema import Schema, Shared
from psyne_mesh.game.shared_records import OBJECTS_MAX, Kept, Theirs
from psyne_mesh.identity import PeerId

# Crashed players whose objects are kept; those who crashed first go first. More than a room of 16 loses at once.
ABSENT_MAX = 16


class Absent:
    """1. `keep(peer, until, objects)` when a player has crashed; 2. `take(peer)` when it is back; 3. `expire(now)` at
    `next_timeout()`. Both `keep` and `expire` say what is gone for good."""

    def __init__(self) -> None:
        self._players: dict[PeerId, tuple[float, dict[int, Theirs]]] = {}

    def keep(self, peer: PeerId, until: float, objects: dict[int, Theirs]) -> list[tuple[PeerId, int]]:
        self._players.pop(peer, None)
        oldest = list(self._players)[: max(0, len(self._players) + 1 - ABSENT_MAX)]
        self._players[peer] = until, objects
        return self._forget(oldest)

    def take(self, peer: PeerId) -> tuple[float, dict[int, Theirs]] | None:
        """Until when it would have been kept, and its objects by number."""
        return self._players.pop(peer, None)

    def next_timeout(self) -> float:
        return min((until for until, _ in self._players.values()), default=math.inf)

    def expire(self, now: float) -> list[tuple[PeerId, int]]:
        return self._forget([peer for peer, (until, _) in self._players.items() if until <= now])

    def _forget(self, peers: list[PeerId]) -> list[tuple[PeerId, int]]:
        return [(peer, number) for peer in peers for number in self._players.pop(peer)[1]]


class Regained:
    """What we had before we crashed, as the others say.

    1. `note(kept)` for each object; 2. `of(schema)` gives those of a class, once it is known: as objects of nobody; 3.
    `number_of(shared)` when one of them is shared again: it is the same object for the others. `is_reserved(number)`: no new
    object of ours may have it.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, Kept] = {}
        self._numbers: set[int] = set()

    def note(self, kept: Kept) -> None:
        if len(self._numbers) < OBJECTS_MAX:
            self._numbers.add(kept.number)
            self._waiting[kept.number] = kept

    def of(self, schema: Schema) -> list[Shared]:
        kept = [each for each in self._waiting.values() if each.schema.name == schema.name]
        for each in kept:
            del self._waiting[each.number]
        made = [_restored(each, schema) for each in kept]
        return [shared for shared in made if shared is not None]

    def is_reserved(self, number: int) -> bool:
        return number in self._numbers

    def number_of(self, shared: Shared) -> int | None:
        number: int | None = shared.__dict__.pop("_kept", None)
        return number if number in self._numbers else None


def _restored(kept: Kept, ours: Schema) -> Shared | None:
    """None: we come back with another version of the game, or whoever says that we had this lies."""
    if kept.schema.difference(ours) is not None:
        return None
    try:
        shared = ours.object_untrusted(kept.values)
    except ProtocolError:
        return None
    shared.__dict__["_kept"] = kept.number
    return shared
