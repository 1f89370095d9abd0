"""Round-trip times and the retransmission timeout (RFC 9260 section 6.3)."""

from __future__ import annotations

from psyne_mesh.webrtc.sctp.config import SctpConfig


class RtoEstimator:
    """Feed `measured()` with samples that no retransmission touched (Karn), and `expired()` with timeouts."""

    __slots__ = ("_config", "min_rtt", "rto", "rttvar", "srtt")

    def __init__(self, config: SctpConfig) -> None:
        self._config = config
        self.srtt: float | None = None
        self.rttvar = 0.0
        self.min_rtt: float | None = None
        self.rto = config.rto_initial_s

    def measured(self, rtt: float) -> None:
        """RFC 9260 section 6.3.1 rules C2 and C3; also ends any back-off."""
        rtt = max(rtt, 1e-6)
        if self.srtt is None:
            self.srtt = self.min_rtt = rtt
            self.rttvar = rtt / 2
        else:
            self.rttvar += (abs(self.srtt - rtt) - self.rttvar) / 4
            self.srtt += (rtt - self.srtt) / 8
            self.min_rtt = min(rtt, self.min_rtt or rtt)
        self.path_changed()

    def path_changed(self) -> None:
        """Ends any back-off: the timeouts were the old path's."""
        config = self._config
        if self.srtt is None:
            self.rto = config.rto_initial_s
            return
        rto = self.srtt + max(4 * self.rttvar, config.rtt_variance_min_s)
        self.rto = min(max(rto, config.rto_min_s), config.rto_max_s)

    def expired(self) -> None:
        """RFC 9260 section 6.3.3 rule E2: back off."""
        self.rto = min(self.rto * 2, self._config.rto_max_s)
