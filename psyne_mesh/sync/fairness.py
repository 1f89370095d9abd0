"""What a simulation on the game's thread tells the transcript of its room, which lives on the network's."""

from __future__ import annotations

from functools import partial

from psyne_mesh.identity import PeerId
from psyne_mesh.room.fairness import Fairness
from psyne_mesh.sync.handover import Outbox


class RemoteFairness:
    def __init__(self, fairness: Fairness, outbox: Outbox) -> None:
        self._fairness, self._outbox = fairness, outbox

    def said_span(self, stream: str, span: int, entries: list[bytes]) -> None:
        self._outbox.run(partial(self._fairness.said_span, stream, span, entries))

    def heard_span(self, peer: PeerId, stream: str, span: int, digest: bytes) -> None:
        self._outbox.run(partial(self._fairness.heard_span, peer, stream, span, digest))
