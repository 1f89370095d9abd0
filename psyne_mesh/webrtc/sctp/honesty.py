"""Whether the peer acknowledges what it got: now and then a chunk is kept back, and who claims it has lied.

An acknowledgement costs nothing, so a peer may give it for what it did not get: then no loss slows us. So once in so many
acknowledged bytes a chunk gets its TSN and is not sent, until the peer says that it lacks it (S. Savage et al., "TCP
Congestion Control with a Misbehaving Receiver", CCR 1999, section 4.3; RFC 9000 section 21.4). An honest one waits for it for
a round trip, as after a loss; then it is believed for four times as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.sctp.outstanding import LOST, Chunk

if TYPE_CHECKING:
    from random import Random

EVERY_BYTES = 2 * 2**20  # to three times that: which one nobody knows
GROWTH, EVERY_MAX_BYTES = 4, 2**30
CHUNKS_BEHIND = 16  # full ones that wait in the same stream: what follows shows the gap


class Lie(ProtocolError):
    """The peer acknowledges what it did not get."""


class Honesty:
    """1. `acked_bytes` counts what the peer acknowledged; once it is `every`, ask `is_due`.
    2. Give the chunk that is not sent to `keep_back`; it counts as lost.
    3. `is_lie` of each SACK before it is believed, then `release`, which gives the chunk that is to be sent now. Until that has
       come, `kept` is why the cumulative TSN stands still, and no loss."""

    __slots__ = ("_at", "_released", "_rng", "acked_bytes", "every", "kept")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.acked_bytes = 0  # since the last one was kept back
        self.every = EVERY_BYTES
        self._at = 0  # of them; drawn once there are as many as `every`
        self.kept: Chunk | None = None
        self._released = False

    def is_due(self) -> bool:
        if not self._at:
            self._at = int(self.every * (1 + 2 * self._rng.random()))
        return self.acked_bytes >= self._at and self.kept is None

    def keep_back(self, chunk: Chunk) -> None:
        self.kept, self._released = chunk, False
        self.acked_bytes = self._at = 0

    def is_lie(self, cumulative_tsn: int, gaps: Sequence[tuple[int, int]]) -> bool:
        """Whether a SACK claims what was never sent. It may have been since, when T3-rtx expired."""
        chunk = self.kept
        if chunk is None or self._released or chunk.state != LOST or chunk.transmissions > 1:
            return False
        offset = chunk.tsn - cumulative_tsn
        return offset <= 0 or any(first <= offset <= last for first, last in gaps)

    def release(self, highest_tsn: int) -> Chunk | None:
        """What the peer got reaches up to there: if that is behind the chunk, it tells the truth, and lacks it."""
        chunk = self.kept
        if chunk is None:
            return None
        if chunk.state > LOST:
            self.kept = None
            return None
        if self._released or highest_tsn <= chunk.tsn:
            return None
        self._released = True
        self.every = min(GROWTH * self.every, EVERY_MAX_BYTES)
        return chunk if chunk.state == LOST and chunk.transmissions == 1 else None
