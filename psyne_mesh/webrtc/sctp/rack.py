"""RACK-TLP loss detection (RFC 8985), carried over from TCP: time decides what is lost, not the count of reports.

Chunks stand in the order of their last transmission. When a later one was acknowledged and an earlier one is still
missing after a round trip and a reordering window, the earlier one is lost. Each step costs what it finds.
"""

from __future__ import annotations

from collections import deque

from psyne_mesh.webrtc.sctp.outstanding import IN_FLIGHT, Chunk

LOSSES_PER_CALL_MAX = 2000  # the rest is found at once, in the next call
_MULTIPLIER_MAX = 16
_MULTIPLIER_LASTS = 16  # recoveries that a widened window survives: RFC 8985 section 6.2 step 4


class Rack:
    """1. `sent(chunk)` per transmission. 2. `acked(...)` per SACK. 3. `detect_losses(now, ...)` returns the lost ones.

    `deadline` is when `detect_losses` should run again without a SACK (the reordering timer).
    """

    __slots__ = ("_multiplier", "_multiplier_left", "_newest_serial", "_order", "_rtt", "_serial", "deadline")

    def __init__(self) -> None:
        self._serial = 0
        self._order: deque[tuple[int, Chunk]] = deque()  # transmissions; void when the chunk has another serial since
        self._newest_serial = 0  # of the transmissions known to have arrived
        self._rtt = 0.0
        self._multiplier = 1
        self._multiplier_left = 0
        self.deadline: float | None = None

    def sent(self, chunk: Chunk) -> None:
        self._serial = chunk.serial = serial = self._serial + 1
        self._order.append((serial, chunk))

    def acked(self, newest: Chunk, now: float, min_rtt: float | None) -> None:
        """`newest` is the most lately sent of the chunks that a SACK newly acknowledged (section 6.2 steps 1-2)."""
        rtt = now - newest.sent_at
        if newest.transmissions == 1:
            self._rtt = rtt
        elif min_rtt is not None and rtt < min_rtt:
            return  # the acknowledgement is that of an earlier transmission
        self._newest_serial = max(self._newest_serial, newest.serial)

    def duplicate_reported(self, rtt: float) -> None:
        """The peer got something twice: a retransmission was in vain, so wait longer next time (step 4). `rtt` is how
        long the first transmission and its acknowledgement took in truth."""
        self._rtt = max(self._rtt, rtt)
        self._multiplier = min(self._multiplier + 1, _MULTIPLIER_MAX)
        self._multiplier_left = _MULTIPLIER_LASTS

    def recovered(self) -> None:
        """A fast recovery ended."""
        self._multiplier_left -= 1
        if self._multiplier_left <= 0:
            self._multiplier = 1

    def detect_losses(self, now: float, min_rtt: float, srtt: float, reported_tsn: int) -> list[Chunk]:
        """Section 6.2 step 5. The count of later reports (DupThresh) is left out: bundled chunks would inflate it.
        Above `reported_tsn` nothing is known: a SACK of many gap blocks was cut there."""
        patience = self.patience(min_rtt, srtt)
        order, newest_serial = self._order, self._newest_serial
        lost: list[Chunk] = []
        self.deadline = None
        while order:
            serial, chunk = order[0]
            if chunk.serial == serial and chunk.state == IN_FLIGHT:
                if serial > newest_serial or chunk.tsn > reported_tsn:
                    break
                if now < chunk.sent_at + patience:
                    self.deadline = chunk.sent_at + patience
                    break
                if len(lost) >= LOSSES_PER_CALL_MAX:
                    self.deadline = now
                    break
                lost.append(chunk)
            order.popleft()
        return lost

    def patience(self, min_rtt: float, srtt: float) -> float:
        """For how long after its transmission a chunk may still be on its way (steps 3 and 4)."""
        return self._rtt + min(self._multiplier * min_rtt / 4, srtt)

    def newest_in_flight(self) -> Chunk | None:
        """The chunk whose retransmission makes the best tail loss probe (section 7.3): the last one sent."""
        order = self._order
        while order:
            serial, chunk = order[-1]
            if chunk.serial == serial and chunk.state == IN_FLIGHT:
                return chunk
            order.pop()
        return None
