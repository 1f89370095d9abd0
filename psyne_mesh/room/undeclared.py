"""Messages that came too early: on channels which this side has not declared yet, or over a link that another room shares, of
a player whose record is still on its way."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Container

from psyne_mesh.identity import PeerId
from psyne_mesh.room.codec import Payload
from psyne_mesh.room.delivery import DeliveryMode

# Of all channels together; then the oldest of the player who has most waiting goes, so nobody pushes out another's first
# words. Payloads: the names are short (`CHANNEL_NAME_BYTES_MAX`).
MESSAGES_MAX = 1024
BYTES_MAX = 4 * 2**20
# On an unreliable channel what came longer ago is worth nothing any more.
LIFE_S = 0.5
# A record takes no longer than its message by more than that; later it speaks of another stay.
UNKNOWN_LIFE_S = 5.0


class Undeclared:
    """1. `put` what came for a channel that is not there, or of a player who is not. 2. `take` it when the channel is made,
    `take_of` when the player is discovered."""

    def __init__(self) -> None:
        self._messages: deque[tuple[PeerId, str, Payload, float]] = deque()
        self._counts: dict[PeerId, int] = {}
        self._sizes: dict[PeerId, int] = {}

    def put(self, peer: PeerId, name: str, payload: Payload, now: float) -> None:
        self._messages.append((peer, name, payload, now))
        self._counts[peer] = self._counts.get(peer, 0) + 1
        self._sizes[peer] = self._sizes.get(peer, 0) + _size(payload)
        while len(self._messages) > MESSAGES_MAX:
            self._drop_oldest_of(max(self._counts, key=self._counts.__getitem__))
        while sum(self._sizes.values()) > BYTES_MAX:
            self._drop_oldest_of(max(self._sizes, key=self._sizes.__getitem__))

    def take(self, name: str, mode: DeliveryMode, now: float, known: Container[PeerId]) -> list[tuple[PeerId, Payload]]:
        """Those for channel `name` of players who are known, in order."""
        taken = self._remove(lambda author, channel: channel == name and author in known)
        return [(peer, payload) for peer, _, payload, came in taken if mode.reliable or now - came <= LIFE_S]

    def take_of(self, author: PeerId, now: float) -> list[tuple[str, Payload, float]]:
        """All of a player who was unknown: channel, message, when it came."""
        taken = self._remove(lambda peer, channel: peer == author)
        return [(name, payload, came) for _, name, payload, came in taken if now - came <= UNKNOWN_LIFE_S]

    def _remove(self, is_wanted: Callable[[PeerId, str], bool]) -> list[tuple[PeerId, str, Payload, float]]:
        taken = [message for message in self._messages if is_wanted(message[0], message[1])]
        if taken:
            self._messages = deque(message for message in self._messages if not is_wanted(message[0], message[1]))
            for peer, _, payload, _ in taken:
                self._release(peer, payload)
        return taken

    def _drop_oldest_of(self, author: PeerId) -> None:
        """On the channel where most of its messages wait: positions do not push out a word."""
        names = Counter(name for peer, name, _, _ in self._messages if peer == author)
        (busiest, _), *_ = names.most_common(1)
        oldest = next(n for n, (peer, name, _, _) in enumerate(self._messages) if (peer, name) == (author, busiest))
        self._release(author, self._messages[oldest][2])
        del self._messages[oldest]

    def _release(self, author: PeerId, payload: Payload) -> None:
        self._counts[author] -= 1
        self._sizes[author] -= _size(payload)
        if not self._counts[author]:
            del self._counts[author], self._sizes[author]


def _size(payload: Payload) -> int:
    return len(payload if isinstance(payload, bytes) else payload.encode())
