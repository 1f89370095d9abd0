"""Which stream sends next: self-clocked weighted fair queueing (RFC 8260 section 3.6, weights of RFC 8831 section 6.4).

Every stream that has something to send carries the virtual time at which its next piece would be through; the smallest
goes first. A short message on a quiet stream so passes a bulk stream at once, and no stream starves.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psyne_mesh.webrtc.sctp.send_queue import SendStream

    Entry = tuple[float, int, SendStream]  # virtual time, serial


class Scheduler:
    """1. `add` a stream that became non-empty. 2. `pick`. 3. `charge` it for what left. 4. `remove` it when empty."""

    __slots__ = ("_clock", "_serial", "heap", "locked")

    def __init__(self) -> None:
        self.heap: list[Entry] = []
        self._clock = 0.0
        self._serial = 0  # earlier comer first among equals
        # Without interleaving a message that has begun must end before another begins (RFC 9260 section 6.9)
        self.locked: SendStream | None = None

    def __bool__(self) -> bool:
        return bool(self.heap)

    def pick(self) -> SendStream | None:
        if self.locked is not None:
            return self.locked
        return self.heap[0][2] if self.heap else None

    def add(self, stream: SendStream, next_size: int) -> None:
        self._serial += 1
        heappush(self.heap, (self._clock + next_size / stream.weight, self._serial, stream))

    def charge(self, stream: SendStream, next_size: int) -> None:
        """A piece of `stream`, which was picked, has left; its next piece has `next_size` bytes. Alone in `heap`, a
        stream competes with nobody and need not be charged."""
        heap = self.heap
        if heap[0][2] is not stream:  # locked, while a stream with a smaller tag came in
            self.heap = [entry for entry in heap if entry[2] is not stream]
            heapify(self.heap)
            self.add(stream, next_size)
            return
        self._clock = heap[0][0]
        self._serial += 1
        heapreplace(heap, (self._clock + next_size / stream.weight, self._serial, stream))

    def set_aside(self) -> Entry:
        """Take out the stream that was picked, which may not send now, for the next in line. Not for a locked one."""
        return heappop(self.heap)

    def put_back(self, entries: list[Entry]) -> None:
        """In their old places, so that none of them gains or loses by it."""
        for entry in entries:
            heappush(self.heap, entry)

    def remove(self, stream: SendStream) -> None:
        heap = self.heap
        if self.locked is stream:
            self.locked = None
        if heap and heap[0][2] is stream:
            self._clock = heappop(heap)[0]
            return
        self.heap = [entry for entry in heap if entry[2] is not stream]
        heapify(self.heap)
