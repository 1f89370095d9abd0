"""Which players are here and not at play, and why. Pure."""

from __future__ import annotations

from psyne_mesh.identity import PeerId

STANDS_STILL = "stands still"
"""Of a player whose event loop does not turn while its process lives: a level loads, or `time.sleep` in a callback."""


class Away:
    """1. `note_still(peer, still)` and `note_pause(peer, reason)` as links say so, of players of the room; 2. `reason(peer)`;
    3. `forget(peer)` when it has left."""

    def __init__(self) -> None:
        self._still: set[PeerId] = set()
        self._paused: dict[PeerId, str] = {}

    def note_still(self, peer: PeerId, still: bool) -> None:
        (self._still.add if still else self._still.discard)(peer)

    def note_pause(self, peer: PeerId, reason: str | None) -> None:
        """What the player said itself, or (None) that it is back."""
        if reason is None:
            self._paused.pop(peer, None)
        else:
            self._paused[peer] = reason

    def reason(self, peer: PeerId) -> str | None:
        """None: it is not away. Its own word is worth more than what its heartbeats show."""
        return self._paused.get(peer) or (STANDS_STILL if peer in self._still else None)

    def forget(self, peer: PeerId) -> None:
        self._still.discard(peer)
        self._paused.pop(peer, None)
