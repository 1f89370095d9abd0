"""When a port that has just read should wait a moment before it looks again, so that one wake-up finds several datagrams."""

from __future__ import annotations

from collections.abc import Sequence

from psyne_mesh.webrtc.ice.events import Address

# Waking costs more than what a small datagram needs afterwards: the kernel, Trio's pass, cold caches. The wait is a tenth of
# a frame at 60 Hz. Below these rates nothing would be found together: 16 players at 60 Hz make 900 datagrams a second, 6
# make 300. A quick dialogue with one peer, or bulk, is no crowd, and never waits.
WAIT_S = 0.0015
LOOK_S = 0.05
DATAGRAMS_MIN = 30  # within LOOK_S, so 600 a second
SENDERS_MIN = 4


class Collecting:
    """1. `note(batch, now)` after each batch was dealt with; it returns how long to wait before the next look, in seconds.

    While no time passes between two looks, as under a clock that stands, nothing changes.
    """

    __slots__ = ("_count", "_crowd", "_senders", "_since")

    def __init__(self) -> None:
        self._since = 0.0
        self._count = 0
        self._senders: set[Address] = set()
        self._crowd = False

    def note(self, batch: Sequence[tuple[bytes, Address]], now: float) -> float:
        if now - self._since > LOOK_S:
            # A look that is long ago belongs to another time, however many it had
            recent = now - self._since < 2 * LOOK_S
            self._crowd = recent and self._count >= DATAGRAMS_MIN and len(self._senders) >= SENDERS_MIN
            self._since, self._count = now, 0
            self._senders.clear()
        self._count += len(batch)
        if batch and len(self._senders) < SENDERS_MIN:
            self._senders.add(batch[0][1])
        return WAIT_S if self._crowd else 0.0
