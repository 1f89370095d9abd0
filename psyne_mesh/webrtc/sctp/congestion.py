"""How much may be in flight: the window of RFC 9260 section 7.2, growing after a loss as CUBIC has it (RFC 9438), and
falling less when the loss was random, as Veno has it (Fu and Liew, "TCP Veno", IEEE JSAC 2003)."""

from __future__ import annotations

from psyne_mesh.webrtc.sctp.backlog import Backlog
from psyne_mesh.webrtc.sctp.config import SctpConfig
from psyne_mesh.webrtc.sctp.hystart import HyStart

CUBIC_C = 0.4  # RFC 9438 section 5: packets per second cubed
CUBIC_BETA = 0.7  # section 4.6: what a loss leaves of the window
CUBIC_ALPHA = 3 * (1 - CUBIC_BETA) / (1 + CUBIC_BETA)  # section 4.3: growth that is fair to Reno flows
VENO_BETA = 0.8  # Fu and Liew section III: what a loss leaves of the window while there is no queue
VENO_ALPHA = 1.0  # packets per round trip, Reno's own growth, while there is none


class CongestionWindow:
    """Slow start, congestion avoidance and fast recovery over bytes of user data.

    Acknowledgements come once per drained batch, not once per packet, so growth counts acknowledged bytes without
    RFC 9260's per-SACK limit of one MTU (its rule assumes a SACK for every second packet). Its congestion avoidance
    of one MTU per round trip would take minutes to fill a long path again after one loss: hence CUBIC.

    A loss while round trips are short is no sign of a full queue. Then the window falls to 0.8 and grows as Reno's, which on
    a path that loses at random carries 1.7 times what Reno or CUBIC do. As soon as three packets of ours, or a delay
    that others cause, stand in a queue, it is CUBIC and nothing else.
    """

    __slots__ = (
        "_backlog",
        "_config",
        "_epoch",
        "_hystart",
        "_k_s",
        "_w_est",
        "_w_max",
        "_was_random",
        "cwnd",
        "mtu",
        "recovery_exit",
        "ssthresh",
    )

    def __init__(self, config: SctpConfig) -> None:
        self._config = config
        self.mtu = config.packet_bytes_base
        self.cwnd = config.initial_window_packets * self.mtu
        self.ssthresh = 1 << 40  # RFC 9260 section 7.2.1: arbitrarily high
        self._hystart = HyStart()
        self._w_max = 0.0  # window before the last loss
        self._epoch: float | None = None  # when this phase of congestion avoidance began
        self._k_s = 0.0  # seconds from the epoch until the window is at _w_max again
        self._w_est = 0.0  # where a Reno flow would be
        self._was_random = False  # the last loss came while there was no queue
        self._backlog = Backlog()
        self.recovery_exit: int | None = None  # highest TSN sent when fast recovery began

    @property
    def floor(self) -> int:
        return self._config.window_packets_min * self.mtu

    def mtu_changed(self, mtu: int) -> None:
        """A larger packet needs a larger floor, or one packet would fill the window."""
        self.mtu = mtu
        self.cwnd = max(self.cwnd, self.floor)

    def measured(self, rtt: float, was_full: bool, cumulative_tsn: int, next_tsn: int) -> None:
        """A round trip was measured. `was_full`: the window had limited us."""
        self._backlog.measured(rtt, cumulative_tsn, next_tsn)
        if was_full and self.cwnd < self.ssthresh:
            self._hystart.measured(rtt, cumulative_tsn, next_tsn)
            if self._hystart.is_over:
                self.ssthresh = self.cwnd
                self._hystart = HyStart()

    def acked(self, n_bytes: int, was_full: bool, now: float, srtt: float) -> None:
        """The cumulative TSN moved and `n_bytes` left the network. `was_full`: the window had limited us."""
        if self.recovery_exit is not None:
            return
        if not was_full:
            self._epoch = None  # RFC 9438 section 5.8: time without need for more does not count
        elif self.cwnd < self.ssthresh:
            # RFC 9260 section 7.2.1: slow start, at most doubling, and ending at the threshold for acknowledgements
            # that come many at once
            self.cwnd = min(self.cwnd + min(n_bytes, self.cwnd) // self._hystart.divisor, self.ssthresh)
        else:
            self._avoid_congestion(n_bytes, now, srtt)

    def cumulative_tsn_moved(self, tsn: int) -> None:
        """RFC 9260 section 7.2.4: fast recovery ends when all that was outstanding at its begin is acknowledged."""
        if self.recovery_exit is not None and tsn >= self.recovery_exit:
            self.recovery_exit = None

    def lost(self, highest_tsn: int) -> bool:
        """Chunks were found lost. True when this opens a new fast recovery (section 7.2.4)."""
        if self.recovery_exit is not None:
            return False
        self.recovery_exit = highest_tsn
        self._reduce()
        self.cwnd = self.ssthresh
        return True

    def timed_out(self) -> None:
        """T3-rtx expired (section 7.2.3): begin anew with one packet, of the base size (see `pmtud`)."""
        self.mtu = self._config.packet_bytes_base
        self._reduce()
        self.cwnd = self.mtu
        self.recovery_exit = None

    def path_changed(self) -> None:
        """Another path, or one that carries again: begin as with the first packet (RFC 9260 section 6.4.2, RFC 9000 section
        9.4). What a silence has left of the window, and of the threshold, speaks of the silence."""
        self.mtu = self._config.packet_bytes_base
        self.cwnd = max(self.cwnd, self._config.initial_window_packets * self.mtu)
        self.ssthresh = 1 << 40
        self._hystart, self._backlog = HyStart(), Backlog()
        self._w_max, self._epoch, self.recovery_exit = 0.0, None, None

    def idled(self, periods: int) -> None:
        """Nothing was sent for `periods` RTOs (section 7.2.1): an old window says little about the path of now."""
        self.ssthresh = max(self.ssthresh, self.cwnd * 3 // 4)
        restart = min(self.cwnd, self._config.initial_window_packets * self.mtu)  # RFC 5681 section 4.1
        self.cwnd = max(self.cwnd >> min(periods, 32), restart)
        self._epoch = None

    def _avoid_congestion(self, n_bytes: int, now: float, srtt: float) -> None:
        """RFC 9438 sections 4.2 to 4.5, in bytes."""
        cwnd, mtu = self.cwnd, self.mtu
        if self._epoch is None:
            self._epoch = now
            self._w_est = float(cwnd)
            self._w_max = max(self._w_max, cwnd)
            self._k_s = ((self._w_max - cwnd) / mtu / CUBIC_C) ** (1 / 3)
        t = now - self._epoch + srtt
        target = CUBIC_C * (t - self._k_s) ** 3 * mtu + self._w_max
        target = min(max(target, cwnd), 1.5 * cwnd)
        alpha = VENO_ALPHA if self._was_random and self._has_no_queue else CUBIC_ALPHA
        self._w_est += alpha * n_bytes / cwnd * mtu
        self.cwnd = int(max(cwnd + (target - cwnd) * n_bytes / cwnd, self._w_est))

    @property
    def _has_no_queue(self) -> bool:
        return self._backlog.is_small(self.cwnd / self.mtu)

    def _reduce(self) -> None:
        cwnd = self.cwnd
        # What doubles its window may overrun a queue before any round trip tells of it: in slow start no loss is random
        self._was_random = cwnd >= self.ssthresh and self._has_no_queue
        # RFC 9438 section 4.7, fast convergence: a window that shrank twice makes room for newcomers
        makes_room = cwnd < self._w_max and not self._was_random
        self._w_max = cwnd * (1 + CUBIC_BETA) / 2 if makes_room else float(cwnd)
        self.ssthresh = max(int(cwnd * (VENO_BETA if self._was_random else CUBIC_BETA)), self.floor)
        self._epoch = None
        self._hystart = HyStart()
