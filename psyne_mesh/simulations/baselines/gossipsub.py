"""GossipSub v1.1 with v1.2's IDONTWANT, with the specification's figures (github.com/libp2p/specs, pubsub/gossipsub).

D 6, Dlo 5, Dhi 12, Dout 2, Dlazy 6, gossip factor 0.25, heartbeat 1 s, 5 windows of messages kept of which 3 are gossiped
about, prune backoff 60 s, and what is published goes to all neighbours (flood publishing). Left out: scores, and with them
opportunistic grafting, for nobody misbehaves here; and peer exchange, for the links are given.
"""

from __future__ import annotations

import random

from psyne_mesh.gossip.events import BroadcastReceived
from psyne_mesh.identity import PeerId
from psyne_mesh.simulations.baselines.base import OverlayNode

D, D_LOW, D_HIGH, D_OUT, D_LAZY = 6, 5, 12, 2, 6
GOSSIP_FACTOR = 0.25
PRUNE_BACKOFF_S = 60.0
IDONTWANT_MIN_BYTES = 1024  # of go-libp2p-pubsub: it costs more than it saves for less
_CACHE_WINDOWS, _GOSSIP_WINDOWS = 5, 3
_DATA, _GRAFT, _PRUNE, _IHAVE, _IWANT, _IDONTWANT = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06"
_ID_BYTES = 20  # origin and sequence


class GossipSubNode(OverlayNode):
    """Frames: 0x01 id payload; 0x02 GRAFT; 0x03 PRUNE; 0x04 IHAVE ids; 0x05 IWANT ids; 0x06 IDONTWANT ids."""

    degree = 20  # connections; the mesh is a part of them
    degree_max = 40

    def __init__(
        self,
        peer: PeerId,
        rng: random.Random,
        flood_publish: bool = True,
        idontwant_min_bytes: int = IDONTWANT_MIN_BYTES,
    ) -> None:
        super().__init__(peer, rng)
        self.mesh: dict[PeerId, None] = {}
        self._flood_publish = flood_publish
        self._idontwant_min_bytes = idontwant_min_bytes
        self._sequence = 0
        self._backoff: dict[PeerId, float] = {}
        self._seen: dict[bytes, None] = {}
        self._cache: dict[bytes, bytes] = {}
        self._windows: list[list[bytes]] = [[]]
        self._unwanted: dict[tuple[PeerId, bytes], None] = {}  # of this heartbeat and the one before
        self._unwanted_before: dict[tuple[PeerId, bytes], None] = {}

    def neighbour_lost(self, peer: PeerId, now: float) -> None:
        self.mesh.pop(peer, None)

    def broadcast(self, payload: bytes, now: float) -> None:
        self._sequence += 1
        message_id = self.peer.raw + self._sequence.to_bytes(4, "big")
        self._keep(message_id, payload)
        for peer in self.links if self._flood_publish else self.mesh:
            self.send(peer, _DATA + message_id + payload)

    def message_received(self, peer: PeerId, frame: bytes, now: float) -> None:
        kind, body = frame[:1], frame[1:]
        if kind == _DATA:
            self._data(peer, body[:_ID_BYTES], body[_ID_BYTES:])
        elif kind == _GRAFT:
            if len(self.mesh) < D_HIGH and now >= self._backoff.get(peer, 0.0):
                self.mesh[peer] = None
            else:
                self._prune(peer, now)
        elif kind == _PRUNE:
            self.mesh.pop(peer, None)
            self._backoff[peer] = now + PRUNE_BACKOFF_S
        elif kind == _IHAVE:
            wanted = [message_id for message_id in _ids(body) if message_id not in self._seen]
            if wanted:
                self.send(peer, _IWANT + b"".join(wanted))
        elif kind == _IWANT:
            for message_id in _ids(body):
                if message_id in self._cache:
                    self.send(peer, _DATA + message_id + self._cache[message_id])
        elif kind == _IDONTWANT:
            self._unwanted.update(((peer, message_id), None) for message_id in _ids(body))

    def heartbeat(self, now: float) -> None:
        fit = [peer for peer in self.links if peer not in self.mesh and now >= self._backoff.get(peer, 0.0)]
        if len(self.mesh) < D_LOW:
            self._graft(fit, D - len(self.mesh))
        elif len(self.mesh) > D_HIGH:
            own = [peer for peer in self.mesh if peer in self.dialled]
            kept = dict.fromkeys(self.rng.sample(own, min(D_OUT, len(own))))
            others = [peer for peer in self.mesh if peer not in kept]
            for peer in self.rng.sample(others, len(self.mesh) - D):
                self._prune(peer, now)
        lacking = D_OUT - sum(peer in self.dialled for peer in self.mesh)
        if lacking > 0:  # against who surrounds a node: some of its mesh it has chosen itself
            self._graft([peer for peer in fit if peer in self.dialled and peer not in self.mesh], lacking)
        self._gossip()
        self._unwanted_before, self._unwanted = self._unwanted, {}
        self._windows.insert(0, [])
        for old in self._windows[_CACHE_WINDOWS:]:
            for message_id in old:
                self._cache.pop(message_id, None)
        del self._windows[_CACHE_WINDOWS:]

    def _gossip(self) -> None:
        ids = [message_id for window in self._windows[:_GOSSIP_WINDOWS] for message_id in window]
        outside = [peer for peer in self.links if peer not in self.mesh]
        if ids:
            count = max(D_LAZY, int(GOSSIP_FACTOR * len(outside)))
            for peer in self.rng.sample(outside, min(count, len(outside))):
                self.send(peer, _IHAVE + b"".join(ids))

    def _graft(self, peers: list[PeerId], count: int) -> None:
        for peer in self.rng.sample(peers, min(count, len(peers))):
            self.mesh[peer] = None
            self.send(peer, _GRAFT)

    def _prune(self, peer: PeerId, now: float) -> None:
        self.mesh.pop(peer, None)
        self._backoff[peer] = now + PRUNE_BACKOFF_S
        self.send(peer, _PRUNE)

    def _data(self, peer: PeerId, message_id: bytes, payload: bytes) -> None:
        if message_id in self._seen:
            return
        self._keep(message_id, payload)
        origin, sequence = PeerId(message_id[:16].hex()), int.from_bytes(message_id[16:], "big")
        self.emit(BroadcastReceived(origin, payload, sequence))
        if len(payload) >= self._idontwant_min_bytes:
            for other in self.mesh:
                if other != peer:
                    self.send(other, _IDONTWANT + message_id)
        for other in self.mesh:
            unwanted = (other, message_id) in self._unwanted or (other, message_id) in self._unwanted_before
            if other not in (peer, origin) and not unwanted:
                self.send(other, _DATA + message_id + payload)

    def _keep(self, message_id: bytes, payload: bytes) -> None:
        self._seen[message_id] = None
        self._cache[message_id] = payload
        self._windows[0].append(message_id)


def _ids(body: bytes) -> list[bytes]:
    return [body[start : start + _ID_BYTES] for start in range(0, len(body), _ID_BYTES)]
