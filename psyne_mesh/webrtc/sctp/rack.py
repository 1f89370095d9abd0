"""RACK-TLP loss detection (RFC 8985), carried over from TCP: time decides what is lost, not the count of reports.

Chunks stand in the order of their last transmission. When a later one was acknowledged and an earlier one is still
missing after a round trip and a reordering window, the earlier one is lost. Each step costs what it finds.
"""

from __future__ import annotations

from collections import deque

from psyne_mesh.webrtc.sctp.outstanding import IN_FLIGHT, Chunk

_MULTIPLIER_MAX = 16
_MULTIPLIER_LASTS = 16  # recoveries that a widened window survives: RFC 8985 section 6.2 step 4


class Rack:
    """1. `sent(chunk)` per transmission. 2. `acked(...)` per SACK. 3. `detect_losses(now)` returns the lost ones.

    `deadline` is when `detect_losses` should run again without a SACK (the reordering timer).
    """

    __slots__ = (
        "_multiplier",
        "_multiplier_left",
        "_newest_sent_at",
        "_newest_tsn",
        "_order",
        "_rtt",
        "deadline",
    )

    def __init__(self) -> None:
        self._order: deque[Chunk] = deque()  # every transmission; a chunk sent again stands in it twice
        self._newest_sent_at = -1.0
        self._newest_tsn = -1
        self._rtt = 0.0
        self._multiplier = 1
        self._multiplier_left = 0
        self.deadline: float | None = None

    def sent(self, chunk: Chunk) -> None:
        chunk.in_order += 1
        self._order.append(chunk)

    def acked(self, newest: Chunk, now: float, min_rtt: float | None) -> None:
        """`newest` is the most lately sent of the chunks that a SACK newly acknowledged (section 6.2 steps 1-2)."""
        rtt = now - newest.sent_at
        if newest.transmissions > 1 and min_rtt is not None and rtt < min_rtt:
            return  # the acknowledgement is that of an earlier transmission
        self._rtt = rtt
        if (newest.sent_at, newest.tsn) > (self._newest_sent_at, self._newest_tsn):
            self._newest_sent_at, self._newest_tsn = newest.sent_at, newest.tsn

    def duplicate_reported(self) -> None:
        """The peer got something twice: a retransmission was in vain, so wait longer next time (step 4)."""
        self._multiplier = min(self._multiplier + 1, _MULTIPLIER_MAX)
        self._multiplier_left = _MULTIPLIER_LASTS

    def recovered(self) -> None:
        """A fast recovery ended."""
        self._multiplier_left -= 1
        if self._multiplier_left <= 0:
            self._multiplier = 1

    def detect_losses(self, now: float, min_rtt: float, srtt: float) -> list[Chunk]:
        """Section 6.2 step 5. The count of later reports (DupThresh) is left out: bundled chunks would inflate it."""
        patience = self._rtt + min(self._multiplier * min_rtt / 4, srtt)
        order = self._order
        lost: list[Chunk] = []
        self.deadline = None
        while order:
            chunk = order[0]
            if chunk.in_order > 1 or chunk.state != IN_FLIGHT:
                chunk.in_order -= 1
                order.popleft()
                continue
            sent_at = chunk.sent_at
            if sent_at > self._newest_sent_at or (sent_at == self._newest_sent_at and chunk.tsn >= self._newest_tsn):
                break
            if now < sent_at + patience:
                self.deadline = sent_at + patience
                break
            chunk.in_order -= 1
            order.popleft()
            lost.append(chunk)
        return lost

    def timed_out(self) -> None:
        """T3-rtx expired: everything in flight is taken for lost and will be sent, and noted, again."""
        for chunk in self._order:
            chunk.in_order = 0
        self._order.clear()
        self.deadline = None

    def newest_in_flight(self) -> Chunk | None:
        """The chunk whose retransmission makes the best tail loss probe (section 7.3): the last one sent."""
        order = self._order
        while order:
            if order[-1].state == IN_FLIGHT:
                return order[-1]
            order.pop().in_order -= 1
        return None
