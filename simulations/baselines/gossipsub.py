"""A GossipSub-like mesh: libp2p's v1.0 with its default figures, without scoring.

D 6, Dlo 4, Dhi 12, Dlazy 6, heartbeat 1 s, message cache of 5 windows of which 3 are gossiped about
(github.com/libp2p/specs, pubsub/gossipsub/gossipsub-v1.0.md).
"""

from __future__ import annotations

import random

from psyne_mesh.gossip.events import BroadcastReceived
from psyne_mesh.identity import PeerId
from simulations.baselines.base import OverlayNode

D, D_LOW, D_HIGH, D_LAZY = 6, 4, 12, 6
_CACHE_WINDOWS, _GOSSIP_WINDOWS = 5, 3
_DATA, _GRAFT, _PRUNE, _IHAVE, _IWANT = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"
_ID_BYTES = 20  # origin and sequence


class GossipSubNode(OverlayNode):
    """Frames: 0x01 id payload; 0x02 GRAFT; 0x03 PRUNE; 0x04 IHAVE ids; 0x05 IWANT ids."""

    degree = 20  # connections; the mesh is a part of them
    degree_max = 40

    def __init__(self, peer: PeerId, rng: random.Random) -> None:
        super().__init__(peer, rng)
        self.mesh: dict[PeerId, None] = {}
        self._sequence = 0
        self._seen: dict[bytes, None] = {}
        self._cache: dict[bytes, bytes] = {}
        self._windows: list[list[bytes]] = [[]]

    def neighbour_lost(self, peer: PeerId, now: float) -> None:
        self.mesh.pop(peer, None)

    def broadcast(self, payload: bytes, now: float) -> None:
        self._sequence += 1
        message_id = self.peer.raw + self._sequence.to_bytes(4, "big")
        self._keep(message_id, payload)
        self._push(message_id, payload, but=None)

    def message_received(self, peer: PeerId, frame: bytes, now: float) -> None:
        kind, body = frame[:1], frame[1:]
        if kind == _DATA:
            self._data(peer, body[:_ID_BYTES], body[_ID_BYTES:])
        elif kind == _GRAFT:
            if len(self.mesh) < D_HIGH:
                self.mesh[peer] = None
            else:
                self.send(peer, _PRUNE)
        elif kind == _PRUNE:
            self.mesh.pop(peer, None)
        elif kind == _IHAVE:
            wanted = [message_id for message_id in _ids(body) if message_id not in self._seen]
            if wanted:
                self.send(peer, _IWANT + b"".join(wanted))
        elif kind == _IWANT:
            for message_id in _ids(body):
                if message_id in self._cache:
                    self.send(peer, _DATA + message_id + self._cache[message_id])

    def heartbeat(self, now: float) -> None:
        outside = [peer for peer in self.links if peer not in self.mesh]
        if len(self.mesh) < D_LOW:
            for peer in self.rng.sample(outside, min(D - len(self.mesh), len(outside))):
                self._graft(peer)
        elif len(self.mesh) > D_HIGH:
            for peer in self.rng.sample(list(self.mesh), len(self.mesh) - D):
                del self.mesh[peer]
                self.send(peer, _PRUNE)
        ids = [message_id for window in self._windows[:_GOSSIP_WINDOWS] for message_id in window]
        outside = [peer for peer in self.links if peer not in self.mesh]
        if ids:
            for peer in self.rng.sample(outside, min(D_LAZY, len(outside))):
                self.send(peer, _IHAVE + b"".join(ids))
        self._windows.insert(0, [])
        for old in self._windows[_CACHE_WINDOWS:]:
            for message_id in old:
                self._cache.pop(message_id, None)
        del self._windows[_CACHE_WINDOWS:]

    def _graft(self, peer: PeerId) -> None:
        self.mesh[peer] = None
        self.send(peer, _GRAFT)

    def _data(self, peer: PeerId, message_id: bytes, payload: bytes) -> None:
        if message_id in self._seen:
            return
        self._keep(message_id, payload)
        origin, sequence = PeerId(message_id[:16].hex()), int.from_bytes(message_id[16:], "big")
        self.emit(BroadcastReceived(origin, payload, sequence))
        self._push(message_id, payload, but=peer)

    def _keep(self, message_id: bytes, payload: bytes) -> None:
        self._seen[message_id] = None
        self._cache[message_id] = payload
        self._windows[0].append(message_id)

    def _push(self, message_id: bytes, payload: bytes, but: PeerId | None) -> None:
        for peer in self.mesh:
            if peer != but:
                self.send(peer, _DATA + message_id + payload)


def _ids(body: bytes) -> list[bytes]:
    return [body[start : start + _ID_BYTES] for start in range(0, len(body), _ID_BYTES)]
