"""HyStart++ (RFC 9406): leave slow start when round trips grow, before a queue on the path overflows."""

from __future__ import annotations

SAMPLES_MIN = 4  # RFC 9406 has 8 per round, of ACKs for every second packet; our SACKs cover whole batches
RTT_THRESHOLD_MIN_S = 0.004
RTT_THRESHOLD_MAX_S = 0.016
CSS_GROWTH_DIVISOR = 4
CSS_ROUNDS = 2  # RFC 9406 has 5, made for paced senders: unpaced, five more rounds triple the window

_UNKNOWN = float("inf")


def queueing_delay_max(base_rtt: float) -> float:
    """By how much round trips may grow before we take it for a queue (RFC 9406 section 4.2: RttThresh)."""
    return min(max(base_rtt / 8, RTT_THRESHOLD_MIN_S), RTT_THRESHOLD_MAX_S)


class HyStart:
    """`measured()` per acknowledgement in slow start; grow by 1/`divisor` of what was acknowledged, until `is_over`."""

    __slots__ = ("_baseline", "_css_rounds", "_last_min", "_round_end", "_round_min", "_samples", "divisor", "is_over")

    def __init__(self) -> None:
        self._last_min = _UNKNOWN
        self._round_min = _UNKNOWN
        self._samples = 0
        self._round_end = -1  # TSN that ends the round
        self._baseline = _UNKNOWN
        self._css_rounds = 0
        self.divisor = 1
        self.is_over = False

    def measured(self, rtt: float, cumulative_tsn: int, next_tsn: int) -> None:
        """RFC 9406 section 4.2."""
        self._round_min = min(self._round_min, rtt)
        self._samples += 1
        if self._samples >= SAMPLES_MIN:
            if self.divisor == 1:
                if self._round_min >= self._last_min + queueing_delay_max(self._last_min):
                    # Conservative slow start: go slowly while we find out whether the growth was no accident
                    self._baseline = self._round_min
                    self.divisor = CSS_GROWTH_DIVISOR
                    self._css_rounds = 0
            elif self._round_min < self._baseline:
                self._baseline = _UNKNOWN
                self.divisor = 1
        if cumulative_tsn >= self._round_end:
            self._round_end = next_tsn - 1
            self._last_min, self._round_min = self._round_min, _UNKNOWN
            self._samples = 0
            if self.divisor > 1:
                self._css_rounds += 1
                self.is_over = self._css_rounds >= CSS_ROUNDS
