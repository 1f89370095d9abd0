"""Messages that came on channels which this side has not declared yet: the other's first words may be quicker."""

from __future__ import annotations

from collections import deque

from psyne_mesh.room.codec import Payload
from psyne_mesh.room.delivery import DeliveryMode
from psyne_mesh.room.peer import Peer

# Of all channels together; the oldest goes first. Payloads: the names are short (`CHANNEL_NAME_BYTES_MAX`).
MESSAGES_MAX = 1024
BYTES_MAX = 4 * 2**20
# On an unreliable channel what came longer ago is worth nothing any more.
LIFE_S = 0.5


class Undeclared:
    """1. `put` what came for a channel that is not there. 2. `take` it when the channel is made."""

    def __init__(self) -> None:
        self._messages: deque[tuple[Peer, str, Payload, float]] = deque()
        self._bytes = 0

    def put(self, peer: Peer, name: str, payload: Payload, now: float) -> None:
        self._messages.append((peer, name, payload, now))
        self._bytes += len(payload)
        while len(self._messages) > MESSAGES_MAX or self._bytes > BYTES_MAX:
            self._bytes -= len(self._messages.popleft()[2])

    def take(self, name: str, mode: DeliveryMode, now: float) -> list[tuple[Peer, Payload]]:
        """Those for channel `name`, in order."""
        taken = [message for message in self._messages if message[1] == name]
        if taken:
            self._messages = deque(message for message in self._messages if message[1] != name)
            self._bytes = sum(len(payload) for _, _, payload, _ in self._messages)
        return [(peer, payload) for peer, _, payload, came in taken if mode.reliable or now - came <= LIFE_S]
