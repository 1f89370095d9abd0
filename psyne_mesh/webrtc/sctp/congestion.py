"""How much may be in flight (RFC 9260 section 7.2)."""

from __future__ import annotations

from psyne_mesh.webrtc.sctp.config import SctpConfig
from psyne_mesh.webrtc.sctp.hystart import HyStart


class CongestionWindow:
    """Slow start, congestion avoidance and fast recovery over bytes of user data.

    Acknowledgements come once per drained batch, not once per packet, so growth counts acknowledged bytes without
    RFC 9260's per-SACK limit of one MTU (its rule assumes a SACK for every second packet).
    """

    __slots__ = ("_config", "_hystart", "_partial_bytes_acked", "cwnd", "mtu", "recovery_exit", "ssthresh")

    def __init__(self, config: SctpConfig) -> None:
        self._config = config
        self.mtu = config.packet_bytes_base
        self.cwnd = config.initial_window_packets * self.mtu
        self.ssthresh = 1 << 40  # RFC 9260 section 7.2.1: arbitrarily high
        self._partial_bytes_acked = 0
        self._hystart = HyStart()
        self.recovery_exit: int | None = None  # highest TSN sent when fast recovery began

    @property
    def floor(self) -> int:
        return self._config.window_packets_min * self.mtu

    def mtu_changed(self, mtu: int) -> None:
        """A larger packet needs a larger floor, or one packet would fill the window."""
        self.mtu = mtu
        self.cwnd = max(self.cwnd, self.floor)

    def acked(self, n_bytes: int, was_full: bool) -> None:
        """The cumulative TSN moved and `n_bytes` left the network. `was_full`: the window had limited us."""
        if self.recovery_exit is not None or not was_full:
            return
        if self.cwnd <= self.ssthresh:
            self.cwnd += min(n_bytes, self.cwnd) // self._hystart.divisor  # section 7.2.1: slow start, at most doubling
            return
        self._partial_bytes_acked += n_bytes  # section 7.2.2
        while self._partial_bytes_acked >= self.cwnd:
            self._partial_bytes_acked -= self.cwnd
            self.cwnd += self.mtu

    def measured(self, rtt: float, cumulative_tsn: int, next_tsn: int) -> None:
        """A round trip was measured while the window limited us."""
        if self.cwnd <= self.ssthresh:
            self._hystart.measured(rtt, cumulative_tsn, next_tsn)
            if self._hystart.is_over:
                self.ssthresh = self.cwnd
                self._hystart = HyStart()

    def cumulative_tsn_moved(self, tsn: int) -> None:
        """Section 7.2.4: fast recovery ends when all that was outstanding at its begin is acknowledged."""
        if self.recovery_exit is not None and tsn >= self.recovery_exit:
            self.recovery_exit = None

    def lost(self, highest_tsn: int) -> bool:
        """Chunks were found lost. True when this opens a new fast recovery (section 7.2.4)."""
        if self.recovery_exit is not None:
            return False
        self.recovery_exit = highest_tsn
        self._halve()
        self.cwnd = self.ssthresh
        return True

    def timed_out(self) -> None:
        """T3-rtx expired (section 7.2.3): begin anew with one packet, of the base size (see `pmtud`)."""
        self.mtu = self._config.packet_bytes_base
        self._halve()
        self.cwnd = self.mtu
        self.recovery_exit = None

    def idled(self, periods: int) -> None:
        """Nothing was sent for `periods` RTOs (section 7.2.1): an old window says little about the path of now."""
        self.ssthresh = max(self.ssthresh, self.cwnd * 3 // 4)
        restart = min(self.cwnd, self._config.initial_window_packets * self.mtu)  # RFC 5681 section 4.1
        self.cwnd = max(self.cwnd >> min(periods, 32), restart)

    def _halve(self) -> None:
        self.ssthresh = max(self.cwnd // 2, self.floor)
        self._hystart = HyStart()
        self._partial_bytes_acked = 0
