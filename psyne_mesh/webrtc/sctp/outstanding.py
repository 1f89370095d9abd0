"""Chunks that were sent and are not yet cumulatively acknowledged, by TSN.

TSNs are kept unwrapped: plain integers whose low 32 bits are the TSN of the wire, so nothing here knows of wrap-around.
A SACK costs what it newly acknowledges plus its gap blocks; it never walks what stays outstanding.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from psyne_mesh.webrtc.sctp.intervals import Intervals
from psyne_mesh.webrtc.sctp.wire import FLAG_IMMEDIATE

if TYPE_CHECKING:
    from psyne_mesh.webrtc.sctp.send_queue import Message

GAP_RANGES_MAX = 4096  # of what gap blocks have acknowledged; what would make more counts as not reported
IN_FLIGHT = 0
LOST = 1  # waits for its retransmission
ACKED = 2  # by a gap block, or cumulatively and so no longer in the table
ABANDONED = 3  # RFC 3758: the peer is told to forget it


class Chunk:
    """One DATA or I-DATA chunk that has a TSN. `header` is packed once: a retransmission is the same bytes."""

    __slots__ = (
        "first_sent_at",
        "header",
        "message",
        "payload",
        "sent_at",
        "serial",
        "size",
        "state",
        "transmissions",
        "tsn",
    )

    def __init__(self, tsn: int, header: bytes, payload: bytes, size: int, message: Message, sent_at: float) -> None:
        self.tsn = tsn
        self.header = header
        self.payload = payload
        self.size = size
        self.message = message
        self.sent_at = sent_at
        self.first_sent_at: float  # when it was sent more than once
        self.transmissions = 1
        self.state = IN_FLIGHT
        self.serial = 0  # of its last transmission, among all

    def ask_at_once(self) -> None:
        """RFC 7053: ask for an acknowledgement without delay."""
        header = self.header
        self.header = bytes((header[0], header[1] | FLAG_IMMEDIATE)) + header[2:]


class AckResult:
    """What one SACK changed."""

    __slots__ = ("ambiguous", "bytes_acked", "newest")

    def __init__(self) -> None:
        self.bytes_acked = 0
        self.newest: Chunk | None = None  # the most lately sent of those newly acknowledged
        self.ambiguous: list[Chunk] = []  # those sent twice: which transmission arrived?


class Outstanding:
    """The table of chunks between the cumulative TSN and the next one."""

    __slots__ = (
        "_gap_acked",
        "_skipped",
        "advanced_tsn",
        "chunks",
        "cumulative_tsn",
        "flight_bytes",
        "lost",
        "lost_bytes",
        "next_tsn",
    )

    def __init__(self, initial_tsn: int) -> None:
        self.next_tsn = initial_tsn
        self.cumulative_tsn = initial_tsn - 1
        self.chunks: dict[int, Chunk] = {}
        self.flight_bytes = 0  # user data in chunks of state IN_FLIGHT
        self.lost_bytes = 0  # user data in chunks of state LOST
        # A heap: the lowest TSN is repeated first (RFC 9260 section 7.2.4 rule 3), also if it was lost once more while the
        # others waited, as everything behind it waits for it. Those acknowledged meanwhile are skipped on the way.
        self.lost: list[int] = []
        self._gap_acked = Intervals()
        self.advanced_tsn = initial_tsn - 1  # RFC 3758 section 3.5: Advanced.Peer.Ack.Point
        self._skipped: dict[tuple[int, bool], tuple[int, int]] = {}  # (stream, unordered) -> (number, TSN)

    def add(self, chunk: Chunk) -> None:
        self.chunks[chunk.tsn] = chunk
        self.flight_bytes += chunk.size

    def resent(self, chunk: Chunk, now: float) -> None:
        if chunk.transmissions == 1:
            chunk.first_sent_at = chunk.sent_at
        chunk.state = IN_FLIGHT
        chunk.sent_at = now
        chunk.transmissions += 1
        self.flight_bytes += chunk.size
        self.lost_bytes -= chunk.size

    def mark_lost(self, chunk: Chunk) -> None:
        chunk.state = LOST
        self.flight_bytes -= chunk.size
        self.lost_bytes += chunk.size
        heapq.heappush(self.lost, chunk.tsn)

    def first_lost(self) -> Chunk | None:
        """What is to be repeated next; `repeat_first` takes it."""
        lost, chunks = self.lost, self.chunks
        while lost:
            chunk = chunks.get(lost[0])
            if chunk is not None and chunk.state == LOST:
                return chunk
            heapq.heappop(lost)
        return None

    def repeat_first(self, chunk: Chunk, now: float) -> None:
        """`chunk` is `first_lost`, and is sent again."""
        heapq.heappop(self.lost)
        self.resent(chunk, now)

    def acknowledge(self, cumulative_tsn: int, gaps: Sequence[tuple[int, int]]) -> AckResult:
        """Take in a SACK that the caller found to lie within what was sent. `gaps` are offsets, ascending."""
        result = AckResult()
        if cumulative_tsn > self.cumulative_tsn:
            pop = self.chunks.pop
            self._note([pop(tsn) for tsn in range(self.cumulative_tsn + 1, cumulative_tsn + 1)], result)
            self.cumulative_tsn = cumulative_tsn
            self._gap_acked.discard_through(cumulative_tsn)
            if self.advanced_tsn <= cumulative_tsn:
                self.advanced_tsn = cumulative_tsn
                self._skipped.clear()
        chunks = self.chunks
        fresh: list[Chunk] = []
        for first, last in gaps:
            if len(self._gap_acked) >= GAP_RANGES_MAX:
                break
            for low, high in self._gap_acked.add(cumulative_tsn + first, cumulative_tsn + last):
                fresh += [chunks[tsn] for tsn in range(low, high + 1)]
        if fresh:
            self._note(fresh, result)
        return result

    def _note(self, chunks: list[Chunk], result: AckResult) -> None:
        flight = acked = 0
        newest = result.newest
        for chunk in chunks:
            state = chunk.state
            if state > LOST:  # ACKED or ABANDONED
                continue
            chunk.state = ACKED
            acked += chunk.size
            if state == IN_FLIGHT:
                flight += chunk.size
            else:
                self.lost_bytes -= chunk.size
            if newest is None or chunk.serial > newest.serial:
                newest = chunk
            if chunk.transmissions == 2:
                result.ambiguous.append(chunk)
        self.flight_bytes -= flight
        result.bytes_acked += acked
        result.newest = newest

    def mark_lost_since(self, sent_before: float) -> list[Chunk]:
        """T3-rtx expired: of what is in flight, the first chunk is lost and all that was sent by then (RFC 8985 section
        6.3). Returns the chunks found lost now, in TSN order."""
        first = self.cumulative_tsn + 1
        found = [
            chunk
            for chunk in self.chunks.values()
            if chunk.state == IN_FLIGHT and (chunk.sent_at <= sent_before or chunk.tsn == first)
        ]
        size = 0
        for chunk in found:
            chunk.state = LOST
            size += chunk.size
        self.flight_bytes -= size
        self.lost_bytes += size
        self.lost = [chunk.tsn for chunk in self.chunks.values() if chunk.state == LOST]  # sorted, so a heap
        return found

    def renege(self) -> list[Chunk]:
        """RFC 9260 section 6.2.1: on T3 expiry with the first chunk gap-acknowledged but never cumulatively, the peer
        took its word back. Trust no gap report of before; returns the chunks that are missing again."""
        first = self.chunks.get(self.cumulative_tsn + 1)
        if first is None or first.state != ACKED:
            return []
        back = [self.chunks[tsn] for low, high in self._gap_acked for tsn in range(low, high + 1)]
        back = [chunk for chunk in back if chunk.state == ACKED]
        self._gap_acked.clear()
        for chunk in back:
            chunk.state = IN_FLIGHT
            self.flight_bytes += chunk.size
        return back

    def abandon(self, message: Message) -> None:
        """RFC 3758 section 3.5 rule A3: give up a message, whose unsent rest the caller has taken out of its queue."""
        for tsn in range(max(message.first_tsn, self.cumulative_tsn + 1), message.last_tsn + 1):
            part = self.chunks[tsn]
            if part.message is not message or part.state == ACKED or part.state == ABANDONED:
                continue
            if part.state == IN_FLIGHT:
                self.flight_bytes -= part.size
            else:
                self.lost_bytes -= part.size
            part.state = ABANDONED
            part.payload = b""

    def add_abandoned_end(self, message: Message, now: float) -> None:
        """Give a TSN to the unsent rest of an abandoned message and abandon that as well.

        Without it, FORWARD-TSN would end inside the message, and a peer that holds its begin would see the next
        message start before this one ended: usrsctp answers that with an ABORT.
        """
        chunk = Chunk(self.next_tsn, b"", b"", 0, message, now)
        chunk.state = ABANDONED
        message.last_tsn = self.next_tsn
        self.chunks[self.next_tsn] = chunk
        self.next_tsn += 1

    def advance(self, streams_max: int) -> bool:
        """Move Advanced.Peer.Ack.Point over what was abandoned (RFC 3758 section 3.5 rule C2); True when it moved.

        It stops before more than `streams_max` streams would have to be named in one FORWARD-TSN.
        """
        before = self.advanced_tsn
        tsn = before + 1
        while (chunk := self.chunks.get(tsn)) is not None:
            if chunk.state == ABANDONED:
                message = chunk.message
                key = (message.stream_id, message.unordered)
                if key not in self._skipped and len(self._skipped) >= streams_max:
                    break
                self._skipped[key] = (message.number, tsn)
                self.advanced_tsn = tsn
                tsn += 1
            elif chunk.state == ACKED:
                tsn = self._gap_acked.end_of(tsn) + 1
            else:
                break
        return self.advanced_tsn > before

    def forget_skipped(self, streams: Iterable[int]) -> None:
        """The peer has reset its side of these streams, so it has all that was sent on them: the next FORWARD-TSN must not
        name numbers of before, which count from zero again."""
        for stream in streams:
            self._skipped.pop((stream, False), None)
            self._skipped.pop((stream, True), None)

    def skipped(self) -> list[tuple[int, bool, int]]:
        """(stream, unordered, SSN or MID) of what lies between the cumulative TSN and the advanced one."""
        return [
            (stream, unordered, number)
            for (stream, unordered), (number, tsn) in self._skipped.items()
            if tsn > self.cumulative_tsn
        ]
