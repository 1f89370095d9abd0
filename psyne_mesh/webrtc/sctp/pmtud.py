"""Path MTU discovery by probes (RFC 8899), climbing a ladder of likely sizes.

A probe is a HEARTBEAT with padding; its acknowledgement proves the size. Data packets never exceed `current`, and where
the path may shrink no single chunk exceeds the base size, so whatever was lost in a black hole can be sent again in base
packets. On a path that cannot shrink a repetition may be longer than the size to which a timeout has lowered `current`.
"""

from __future__ import annotations

from collections.abc import Iterable

from psyne_mesh.webrtc.sctp.config import SctpConfig

PROBES_MAX = 3  # RFC 8899 section 5.1.2 MAX_PROBES
BASE_TIMEOUTS_MAX = 2  # of T3-rtx in a row: with the least RTO they take a second, and a silence is mostly shorter
PROBE_TIMER_MIN_S = 1.0  # RFC 8899 section 5.1.1: not below one second


# So many large chunks lost one after the other within so long are a black hole: where one packet in twenty is lost at random
# that happens once in 160,000 times, and costs a round trip in pieces.
LARGE_LOST_MAX = 4
LARGE_LOST_S = 3.0


class LargeLosses:
    """What is large is lost, and nothing else (RFC 8899 section 4.3): where it is not repeated, T3-rtx does not expire
    while what is small is acknowledged. 1. `lost(sizes, now)` of what may be lost. 2. `count = 0` when one above `above` was
    acknowledged. 3. `count` says enough at `LARGE_LOST_MAX`."""

    __slots__ = ("_since", "above", "count")

    def __init__(self, above: int) -> None:
        self.above = above  # bytes
        self.count = 0
        self._since = 0.0

    def lost(self, sizes: Iterable[int], now: float) -> None:
        lost = min(
            LARGE_LOST_MAX // 2, sum(size > self.above for size in sizes)
        )  # a queue that overflows loses many at once
        if lost and (not self.count or now - self._since > LARGE_LOST_S):
            self.count, self._since = 0, now
        self.count += lost


class PathMtu:
    """1. `start`. 2. Per flush `take_probe` gives a size to send. 3. `probe_acked`. 4. `timed_out` on T3 expiry.
    5. `handle_timeout` at `deadline`."""

    __slots__ = (
        "_attempts",
        "_base",
        "_best",
        "_ceiling",
        "_floor",
        "_ladder",
        "_probe",
        "_raise_s",
        "_return_s",
        "_timeouts",
        "_wanted",
        "current",
        "deadline",
    )

    def __init__(self, config: SctpConfig) -> None:
        self._base = config.packet_bytes_base
        top = config.packet_bytes_max
        rungs = {size for size in config.packet_bytes_ladder if self._base < size <= top} | {top}
        self._floor = min(config.packet_bytes_floor, self._base) if config.cuts_packets else self._base
        low = {size for size in config.packet_bytes_ladder_low if self._floor < size < self._base} | {self._base}
        self._ladder = sorted((rungs | low) - {self._floor}) if config.path_mtu_discovery else []
        self._return_s = min(config.path_mtu_return_s, config.path_mtu_raise_s)
        self._timeouts = 0  # of T3-rtx, one after the other
        self._raise_s = config.path_mtu_raise_s
        self._ceiling = top + 1  # sizes from here on failed lately
        self._wanted: int | None = None  # size to be probed at the next flush
        self._probe: int | None = None  # size of the probe that is under way
        self._attempts = 0
        self.current = self._best = self._base
        self.deadline: float | None = None

    def start(self, now: float) -> None:
        """The association is established: search from the base upward."""
        self._climb(now)

    def fell(self, now: float, *, is_established: bool) -> None:
        """Whoever used the path before has found that it carries less than the base: begin in pieces."""
        if self.current <= self._base:
            self.current = self._floor
            self._probe = None
            if is_established:
                self.start(now)

    @property
    def wants_probe(self) -> bool:
        return self._wanted is not None

    def take_probe(self, now: float, rto: float) -> int | None:
        """The size of the probe to send now, or None."""
        size = self._wanted
        if size is None:
            return None
        self._wanted, self._probe = None, size
        self._attempts += 1
        self.deadline = now + max(rto, PROBE_TIMER_MIN_S)
        return size

    def probe_acked(self, size: int, now: float) -> None:
        if size == self._probe:
            self._probe = None
            self.current = max(self.current, size)
            self._best = max(self._best, size)
            self._climb(now)

    def handle_timeout(self, now: float) -> None:
        if self.deadline is None or now < self.deadline:
            return
        self.deadline = None
        if self._probe is None:  # PMTU_RAISE_TIMER: the path may have changed for the better
            self._ceiling = (self._ladder[-1] if self._ladder else self.current) + 1
            self._climb(now)
        elif self._attempts < PROBES_MAX:
            self._wanted, self._probe = self._probe, None
        else:
            self._ceiling, self._probe = self._probe, None
            self._climb(now)

    def timed_out(self, now: float) -> None:
        """T3-rtx expired: perhaps a black hole (RFC 8899 section 4.3). Retransmit in base packets, and ask with a
        probe whether the larger size still passes. When that is repeated in vain, the hole may be narrower than the base:
        then packets go in pieces, and probes look for what passes."""
        self._timeouts += 1
        if self.current > self._base:
            self._wanted, self._probe, self._attempts = self.current, None, 0
            self.current = self._base
        elif self._timeouts >= BASE_TIMEOUTS_MAX and self.current > self._floor:
            self.current = self._floor
            self._ceiling = self._ladder[-1] + 1 if self._ladder else self._floor
            self._probe = None
            self._climb(now)

    def narrowed(self, now: float) -> None:
        """Large chunks are lost, and small ones come: as if it had been repeated in vain."""
        self._timeouts = BASE_TIMEOUTS_MAX
        self.timed_out(now)
        self._timeouts = 0

    def data_acked(self, now: float) -> None:
        """The cumulative TSN has moved. After a silence, whatever probes found in it says nothing: ask anew."""
        if self._timeouts >= BASE_TIMEOUTS_MAX and self.current < self._best:
            self._ceiling = self._ladder[-1] + 1 if self._ladder else self.current
            if self._probe is None:
                self._climb(now)
        self._timeouts = 0

    def _climb(self, now: float) -> None:
        """Probe the next rung, or rest until the raise timer. Below the base the first is the base: where packets are lost at
        random the fall was in vain, and each rung more is one that may fail."""
        self._attempts = 0
        lowest = self._base if self.current < self._base < self._ceiling else self.current + 1
        self._wanted = next((size for size in self._ladder if lowest <= size < self._ceiling), None)
        rest_s = self._return_s if self.current < self._best else self._raise_s
        self.deadline = now + rest_s if self._wanted is None and self._ladder else None
