"""Reliable messages to players to whom a link is being made: they wait for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from psyne_mesh.identity import PeerId
from psyne_mesh.room.codec import Payload

# For one player, and for all together: a handshake takes a second or two, and a greeting, a seed and a level fit many times
# over. What is beyond that is refused, and the report says so.
MESSAGES_MAX = 1024
BYTES_MAX = 2**20
BYTES_OF_ALL_MAX = 4 * 2**20

_Queue: TypeAlias = list[tuple[str, Payload]]


class Outlet(Protocol):
    """A channel."""

    def send_waiting(self, peer_id: PeerId, payload: Payload, /) -> bool:
        """False when there is still no way."""
        ...


class Waiting:
    """1. `put(peer, channel, payload)` what cannot be sent yet; while `is_waiting(peer)`, later messages must wait, too. 2.
    `send(peer, channels)` when there may be a way, in order; `take(peer)` when the player has gone.
    """

    def __init__(self) -> None:
        self._queues: dict[PeerId, _Queue] = {}
        self._sizes: dict[PeerId, int] = {}

    def put(self, peer: PeerId, channel: str, payload: Payload) -> bool:
        """False when there is no room for it."""
        size = len(payload if isinstance(payload, bytes) else payload.encode())
        if not self.has_room(peer, size):
            return False
        held = self._sizes.get(peer, 0)
        self._queues.setdefault(peer, []).append((channel, payload))
        self._sizes[peer] = held + size
        return True

    def has_room(self, peer: PeerId, size: int) -> bool:
        """For a message of so many bytes."""
        is_full = len(self._queues.get(peer, ())) >= MESSAGES_MAX or self._sizes.get(peer, 0) + size > BYTES_MAX
        return not is_full and sum(self._sizes.values()) + size <= BYTES_OF_ALL_MAX

    def __bool__(self) -> bool:
        return bool(self._queues)

    def is_waiting(self, peer: PeerId) -> bool:
        return peer in self._queues

    def peers(self) -> list[PeerId]:
        return list(self._queues)

    def send(self, peer: PeerId, channels: Mapping[str, Outlet]) -> None:
        """There may be a way: what finds none waits on, with all that is behind it."""
        waiting = self.take(peer)
        for number, (name, payload) in enumerate(waiting):
            if not channels[name].send_waiting(peer, payload):
                for later in waiting[number:]:
                    self.put(peer, *later)
                return

    def take(self, peer: PeerId) -> list[tuple[str, Payload]]:
        self._sizes.pop(peer, None)
        return self._queues.pop(peer, [])
