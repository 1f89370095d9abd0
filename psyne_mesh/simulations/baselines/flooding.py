"""Flooding: every message goes to every neighbour but the one it came from. Cheap to reason about, dear to run."""

from __future__ import annotations

import random

from psyne_mesh.gossip.events import BroadcastReceived
from psyne_mesh.identity import PeerId
from psyne_mesh.simulations.baselines.base import OverlayNode

_DATA = b"\x01"
_HEAD = 21  # type, origin, sequence


class FloodNode(OverlayNode):
    """Frames: 0x01, origin (16 bytes), sequence (4), payload."""

    def __init__(self, peer: PeerId, rng: random.Random) -> None:
        super().__init__(peer, rng)
        self._sequence = 0
        self._seen: dict[bytes, None] = {}

    def broadcast(self, payload: bytes, now: float) -> None:
        self._sequence += 1
        head = _DATA + self.peer.raw + self._sequence.to_bytes(4, "big")
        self._seen[head] = None
        self._flood(head + payload, but=None)

    def message_received(self, peer: PeerId, frame: bytes, now: float) -> None:
        head = frame[:_HEAD]
        if head in self._seen:
            return
        self._seen[head] = None
        origin, sequence = PeerId(head[1:17].hex()), int.from_bytes(head[17:], "big")
        self.emit(BroadcastReceived(origin, frame[_HEAD:], sequence))
        self._flood(frame, but=peer)

    def _flood(self, frame: bytes, but: PeerId | None) -> None:
        for peer in self.links:
            if peer != but:
                self.send(peer, frame)
