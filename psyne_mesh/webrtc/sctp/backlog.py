"""Whether our own packets stand in a queue on the path: a loss without one is the path's noise (TCP Veno, Fu and Liew 2003).

A drop-tail queue is full when it drops, and then the round trips of the last round were long. Wireless links lose while
they are short.
"""

from __future__ import annotations

from psyne_mesh.webrtc.sctp.hystart import queueing_delay_max

BACKLOG_PACKETS_MAX = 3  # Veno's beta
_UNKNOWN = float("inf")


class Backlog:
    """`measured()` per round trip that was measured. The shortest one of two rounds counts: delayed acknowledgements and
    a busy receiver make others longer, a standing queue makes all of them so."""

    __slots__ = ("_base", "_last_min", "_round_end", "_round_min", "_shortest")

    def __init__(self) -> None:
        self._base = _UNKNOWN  # shortest round trip ever. On a path that became longer all losses count as congestion
        self._round_min = _UNKNOWN
        self._last_min = _UNKNOWN  # of the round before
        self._shortest = _UNKNOWN  # of the last two whole rounds
        self._round_end = -1  # TSN that ends the round

    def measured(self, rtt: float, cumulative_tsn: int, next_tsn: int) -> None:
        if rtt < self._round_min:
            self._round_min = rtt
            if rtt < self._base:
                self._base = rtt
        if cumulative_tsn >= self._round_end:
            self._round_end = next_tsn - 1
            self._shortest = min(self._last_min, self._round_min)
            self._last_min, self._round_min = self._round_min, _UNKNOWN

    def is_small(self, window_packets: float) -> bool:
        """Of a window of so many packets fewer than three wait in a queue, and together with what others have there they
        wait no longer than HyStart++ allows. False before a round was measured."""
        rtt = self._shortest
        if rtt == _UNKNOWN:
            return False
        waiting = rtt - self._base
        return waiting <= queueing_delay_max(self._base) and window_packets * waiting < BACKLOG_PACKETS_MAX * rtt
