"""Messages that came too early: on channels which this side has not declared yet, or over a link that another room shares, of
a player whose record is still on its way."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container
from typing import TypeAlias

from psyne_mesh.identity import PeerId
from psyne_mesh.limits import forget_oldest
from psyne_mesh.room.codec import Payload
from psyne_mesh.room.delivery import DeliveryMode
from psyne_mesh.room.heaviest import Heaviest

# Of all channels together; then the oldest of the player who has most waiting goes, so nobody pushes out another's first
# words. Payloads: the names are short (`CHANNEL_NAME_BYTES_MAX`).
MESSAGES_MAX = 1024
BYTES_MAX = 4 * 2**20
# On an unreliable channel what came longer ago is worth nothing any more.
LIFE_S = 0.5
# Of a player who was unknown. A record takes no longer than its message by more than that; later it speaks of another stay.
UNKNOWN_LIFE_S = 5.0
# Channels whose losses are counted, as many as a room has, and players of each; then the one counted longest is forgotten.
COUNTED_MAX = 256

_Early: TypeAlias = tuple[int, Payload, float]


class Undeclared:
    """1. `put` what came for a channel that is not there, or of a player who is not. 2. `take` it when the channel is made,
    `take_of` when the player is discovered. 3. `take_dropped` tells how many are missing."""

    def __init__(self) -> None:
        # By author and channel, each with a number that tells the order in which they came: what one floods costs it only.
        self._queues: dict[PeerId, dict[str, deque[_Early]]] = {}
        self._counts: Heaviest[PeerId] = Heaviest()
        self._sizes: Heaviest[PeerId] = Heaviest()
        self._lengths: dict[PeerId, Heaviest[str]] = {}  # of the queues of each author
        self._count = self._bytes = self._number = 0
        self._dropped: OrderedDict[str, OrderedDict[PeerId, int]] = OrderedDict()

    def put(self, peer: PeerId, name: str, payload: Payload, now: float) -> None:
        """Work: what is put and dropped, and the logarithm of how many authors and channels there are."""
        self._number += 1
        self._queues.setdefault(peer, {}).setdefault(name, deque()).append((self._number, payload, now))
        self._book(peer, name, 1, _size(payload))
        while self._count > MESSAGES_MAX:
            self._drop_oldest_of(self._counts.heaviest())
        while self._bytes > BYTES_MAX:
            self._drop_oldest_of(self._sizes.heaviest())

    def take(self, name: str, mode: DeliveryMode, now: float, known: Container[PeerId]) -> list[tuple[PeerId, Payload]]:
        """Those for channel `name` of players who are known, in order."""
        taken = []
        for author in [author for author in self._queues if author in known]:
            taken += [(number, author, payload, came) for number, payload, came in self._remove(author, name)]
        taken.sort()
        return [(author, payload) for _, author, payload, came in taken if mode.reliable or now - came <= LIFE_S]

    def take_of(self, author: PeerId, now: float, life_s: float) -> list[tuple[str, Payload, float]]:
        """All of a player that came no longer ago: channel, message, when it came."""
        taken = []
        for name in list(self._queues.get(author, ())):
            taken += [(number, name, payload, came) for number, payload, came in self._remove(author, name)]
        taken.sort()
        return [(name, payload, came) for _, name, payload, came in taken if now - came <= life_s]

    def take_dropped(self, name: str) -> dict[PeerId, int]:
        """How many for channel `name` of which players went for want of room since this was asked last."""
        return self._dropped.pop(name, {})

    def _remove(self, author: PeerId, name: str) -> deque[_Early]:
        taken = self._queues[author].pop(name, deque())
        if not self._queues[author]:
            del self._queues[author]
        for _, payload, _ in taken:
            self._book(author, name, -1, -_size(payload))
        return taken

    def _drop_oldest_of(self, author: PeerId) -> None:
        """On the channel where most of its messages wait: positions do not push out a word."""
        queues = self._queues[author]
        busiest = self._lengths[author].heaviest()
        _, payload, _ = queues[busiest].popleft()
        self._book(author, busiest, -1, -_size(payload))
        dropped = self._dropped.setdefault(busiest, OrderedDict())
        dropped[author] = dropped.pop(author, 0) + 1
        forget_oldest(dropped, COUNTED_MAX)
        forget_oldest(self._dropped, COUNTED_MAX)
        if not queues[busiest]:
            self._remove(author, busiest)

    def _book(self, author: PeerId, name: str, count: int, size: int) -> None:
        self._count += count
        self._bytes += size
        self._counts.add(author, count)
        self._sizes.add(author, size)
        lengths = self._lengths.setdefault(author, Heaviest())
        lengths.add(name, count)
        if not lengths.weights:
            del self._lengths[author]


def _size(payload: Payload) -> int:
    return len(payload if isinstance(payload, bytes) else payload.encode())
