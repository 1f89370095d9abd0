"""The receiving half: which TSNs have arrived, when to acknowledge them, how much window to offer.

TSNs are unwrapped here (plain growing integers), and what arrived above the cumulative TSN is kept as ranges.
"""

from __future__ import annotations

from itertools import islice

from psyne_mesh.webrtc.sctp import wire
from psyne_mesh.webrtc.sctp.config import SctpConfig
from psyne_mesh.webrtc.sctp.intervals import Intervals
from psyne_mesh.webrtc.sctp.reassembly import Reassembly
from psyne_mesh.webrtc.sctp.stats import Counters

TSN_DISTANCE_MAX = 0xFFFF  # a gap block reports 16-bit offsets: what lies further could not be acknowledged
DUPLICATES_REPORTED_MAX = 32  # further ones of one flush are counted, not listed
GAP_BLOCKS_MAX = 256  # the lowest ones; with the duplicates a SACK fits a packet of 1191 bytes. The rest comes later
# Fewer for what came in small packets since the last SACK: one of 93 bytes is not answered with a kilobyte
GAP_BLOCKS_MIN = 16
GAP_RANGES_MAX = (
    4096  # of what arrived above the cumulative TSN: a loss of 6 % of all that may be outstanding, evenly spread
)
# Held chunks are limited in number, too: many tiny ones must not outgrow the window, and what waits for one chunk is delivered
# in one call with it, which is to take milliseconds. So: one for each 256 bytes of a window, which is about what each costs
# beside its bytes, but not more than 4,096; in the windows of 4 MiB and more that large messages need, one for each KiB.
HELD_CHUNK_BYTES, HELD_CHUNKS_MAX, HELD_CHUNK_BYTES_LARGE = 256, 4096, 1024
UPDATE_BYTES = 4096  # a closed window is opened by at least this much (RFC 9260 section 6.2: no silly window)

_WORD = 0xFFFFFFFF


class Inbound:
    """1. `data_received` per DATA or I-DATA chunk. 2. `packet_ended` per packet that had one. 3. `sack_if_due` per
    flush. 4. Drain `reassembly.ready`. `ack_deadline` is the delayed acknowledgement's timer."""

    __slots__ = (
        "_ack_delay",
        "_advertised",
        "_bytes_acked",
        "_bytes_offered",
        "_counters",
        "_deferred_tsn",
        "_duplicates",
        "_gaps",
        "_held_back",
        "_held_chunks_max",
        "_is_first_packet",
        "_packets_unacked",
        "_streams",
        "_window",
        "_wire_next",
        "ack_deadline",
        "ack_now",
        "cumulative_tsn",
        "deferred_streams",
        "interleaving",
        "invalid_streams",
        "reassembly",
        "unread_bytes",
    )

    def __init__(
        self, config: SctpConfig, counters: Counters, *, initial_tsn: int, streams: int, interleaving: bool
    ) -> None:
        self._window = config.receive_window_bytes
        few = min(self._window // HELD_CHUNK_BYTES, HELD_CHUNKS_MAX)
        self._held_chunks_max = max(few, self._window // HELD_CHUNK_BYTES_LARGE)
        self._bytes_offered = 4 * self._window // self._held_chunks_max
        self._bytes_acked = 0  # of packets that had come when the last SACK left
        self._ack_delay = config.ack_delay_max_s
        self._counters = counters
        self._streams = streams
        self.interleaving = interleaving
        self.reassembly = Reassembly(interleaving=interleaving)
        self.cumulative_tsn = initial_tsn - 1
        self._wire_next = initial_tsn  # low 32 bits of cumulative_tsn + 1
        self._gaps = Intervals()
        self._duplicates: list[int] = []
        self._packets_unacked = 0
        self._advertised = self._window
        self._is_first_packet = True
        self.ack_now = False
        self.ack_deadline: float | None = None
        self.unread_bytes = 0  # delivered and still held by the application
        self.invalid_streams: list[int] = []  # to be reported (RFC 9260 section 6.5)
        self.deferred_streams: set[int] = set()  # RFC 6525 section 5.2.2 E3: deferred reset processing
        self._deferred_tsn = -1
        self._held_back: dict[int, list[tuple[int, int, int, int, bytes]]] = {}  # by stream, until its reset

    # ---------------------------------------------------------------------------------------------------------- input

    def data_received(self, packet: bytes, flags: int, start: int, end: int) -> None:
        """One DATA chunk (or I-DATA when interleaving is on) that lies at packet[start:end]. Raises NoUserData."""
        if self.interleaving:
            tsn, stream, _, number, ppid = wire.I_DATA_FIELDS.unpack_from(packet, start + 4)
            payload = packet[start + 20 : end]
        else:
            tsn, stream, number, ppid = wire.DATA_FIELDS.unpack_from(packet, start + 4)
            payload = packet[start + 16 : end]
        if not payload:
            raise wire.NoUserData(tsn)
        reassembly = self.reassembly
        if (
            tsn == self._wire_next
            and not self._gaps
            and reassembly.held_bytes + self.unread_bytes < self._window
            and reassembly.held_chunks < self._held_chunks_max
        ):
            self.cumulative_tsn = unwrapped = self.cumulative_tsn + 1
            self._wire_next = (tsn + 1) & _WORD
            if flags & wire.FLAG_IMMEDIATE:
                self.ack_now = True
        else:
            unwrapped = self._accept_out_of_order(tsn, flags)
            if unwrapped < 0:
                return
        self._counters.chunks_received += 1
        if stream >= self._streams:
            if len(self.invalid_streams) < DUPLICATES_REPORTED_MAX:
                self.invalid_streams.append(stream)
            return
        if self.deferred_streams and stream in self.deferred_streams and unwrapped > self._deferred_tsn:
            reassembly.hold(payload)
            self._held_back.setdefault(stream, []).append((unwrapped, number, ppid, flags, payload))
            return
        if self.interleaving:
            reassembly.add_i_data(stream, number, ppid, flags, payload)
        else:
            reassembly.add_data(unwrapped, stream, number, ppid, flags, payload)

    def packet_ended(self, now: float) -> None:
        """All chunks of a packet that had DATA were given."""
        self._packets_unacked += 1
        if self._gaps or self._is_first_packet:
            self.ack_now = True  # RFC 9260 section 6.7: report a gap at once. And let the peer learn its RTT early
            self._is_first_packet = False
        if self.ack_deadline is None:
            self.ack_deadline = now + self._ack_delay

    def forward(self, tsn: int, skipped: list[tuple[int, bool, int]]) -> None:
        """FORWARD-TSN or I-FORWARD-TSN (RFC 3758 section 3.6)."""
        self.ack_now = True
        new = wire.unwrap(self.cumulative_tsn, tsn)
        if new <= self.cumulative_tsn:
            return  # a repetition: our SACK was lost, so it is sent again
        self._gaps.discard_through(new)
        self._move_to(self._gaps.end_of(new + 1))
        self.reassembly.forward(self.cumulative_tsn, [entry for entry in skipped if entry[0] < self._streams])

    def set_unread(self, n_bytes: int) -> None:
        """A reader that made room again must tell a peer that waits for it, not at every message though."""
        self.unread_bytes = n_bytes
        gained = self.a_rwnd - self._advertised
        if gained >= self._window // 4 or self._advertised < UPDATE_BYTES <= self.a_rwnd:
            self.ack_now = True

    # ------------------------------------------------------------------------------------------------ acknowledgement

    @property
    def a_rwnd(self) -> int:
        """The window to offer (RFC 9260 section 6.2): what is left of it in bytes, and less when tiny chunks have used
        up three quarters of their number."""
        reassembly = self.reassembly
        by_count = (self._held_chunks_max - reassembly.held_chunks) * self._bytes_offered
        return max(0, min(self._window - reassembly.held_bytes - self.unread_bytes, by_count))

    def handle_timeout(self, now: float) -> None:
        if self.ack_deadline is not None and now >= self.ack_deadline:
            self.ack_now = True

    @property
    def has_sack_due(self) -> bool:
        """RFC 9260 section 6.2: at least every second packet is acknowledged, with a drained batch as its unit."""
        return self.ack_now or self._packets_unacked >= 2

    def sack_if_due(self, *, with_data: bool) -> bytes | None:
        """A SACK, when it is time for one. `with_data`: DATA leaves anyhow, so an acknowledgement may ride along."""
        if self.has_sack_due or (with_data and self._packets_unacked):
            return self._make_sack()
        return None

    def _make_sack(self) -> bytes:
        base = self.cumulative_tsn
        came, self._bytes_acked = self._counters.bytes_received - self._bytes_acked, self._counters.bytes_received
        blocks_max = min(GAP_BLOCKS_MIN + came // 4, GAP_BLOCKS_MAX)
        gaps = [(low - base, high - base) for low, high in islice(self._gaps, blocks_max)]
        duplicates, self._duplicates = self._duplicates, []
        self._packets_unacked = 0
        self.ack_now = False
        self.ack_deadline = None
        self._advertised = self.a_rwnd
        return wire.sack_chunk(base, self._advertised, gaps, duplicates)

    # ---------------------------------------------------------------------------------------------------- stream reset

    def reset_when(self, streams: list[int], last_tsn: int) -> bool:
        """The peer wants its streams reset after `last_tsn`. False: not all data is here yet, the reset is deferred
        (RFC 6525 section 5.2.2 E3) and `deferred_done` tells when it was made."""
        unwrapped = wire.unwrap(self.cumulative_tsn, last_tsn)
        if unwrapped <= self.cumulative_tsn:
            self.deferred_streams.difference_update(streams)
            self.reassembly.reset(streams)
            self._replay_held_back(streams)
            return True
        self.deferred_streams.update(streams)
        self._deferred_tsn = max(self._deferred_tsn, unwrapped)
        return False

    def reset_all(self, last_tsn: int) -> list[int] | None:
        """The same for every stream that has been used, if all data up to `last_tsn` is here; else None."""
        if wire.unwrap(self.cumulative_tsn, last_tsn) > self.cumulative_tsn:
            return None
        streams = self.reassembly.reset_all()
        self.deferred_streams.clear()
        self._replay_held_back(list(self._held_back))
        return streams

    def deferred_done(self) -> list[int]:
        """The streams whose deferred reset has just become possible, after making it."""
        if not self.deferred_streams or self.cumulative_tsn < self._deferred_tsn:
            return []
        streams = sorted(self.deferred_streams)
        self.deferred_streams.clear()
        self._deferred_tsn = -1
        self.reassembly.reset(streams)
        self._replay_held_back(streams)
        return streams

    # --------------------------------------------------------------------------------------------------------- helpers

    def _accept_out_of_order(self, tsn: int, flags: int) -> int:
        """Note a TSN that is not simply the next one. Returns it unwrapped, or -1 when its chunk is to be dropped."""
        unwrapped = wire.unwrap(self.cumulative_tsn, tsn)
        if unwrapped <= self.cumulative_tsn or unwrapped in self._gaps:
            self.ack_now = True  # RFC 9260 section 6.2: a duplicate may mean that our SACK was lost
            self._counters.duplicates_received += 1
            if len(self._duplicates) < DUPLICATES_REPORTED_MAX:
                self._duplicates.append(tsn)
            return -1
        if unwrapped - self.cumulative_tsn > TSN_DISTANCE_MAX:
            self._counters.dropped("tsn_too_far")
            return -1
        if not self._has_room(1) and not (
            # RFC 9260 section 6.2: a full receiver drops new data. What fills the first hole may still come, up to
            # twice the limits, for it can let go of what is held
            unwrapped == self.cumulative_tsn + 1 and self.unread_bytes < self._window and self._has_room(2)
        ):
            self.ack_now = True
            self._counters.dropped("window_full")
            return -1
        gaps = self._gaps
        if (
            len(gaps) >= GAP_RANGES_MAX
            and unwrapped != self.cumulative_tsn + 1
            and unwrapped - 1 not in gaps
            and unwrapped + 1 not in gaps
        ):
            self._counters.dropped("too_many_gaps")  # as if lost: inserting one more would move all of them
            return -1
        if flags & wire.FLAG_IMMEDIATE:
            self.ack_now = True
        if unwrapped == self.cumulative_tsn + 1:
            end = self._gaps.end_of(unwrapped + 1)
            self._gaps.discard_through(end)
            self._move_to(end)
            self.ack_now = True
        else:
            self._gaps.add(unwrapped, unwrapped)
        return unwrapped

    def _has_room(self, times: int) -> bool:
        """Whether what is held and unread lies below the limits, taken `times` times."""
        reassembly = self.reassembly
        return (
            reassembly.held_bytes + self.unread_bytes < times * self._window
            and reassembly.held_chunks < times * self._held_chunks_max
        )

    def _move_to(self, cumulative_tsn: int) -> None:
        self._gaps.discard_through(cumulative_tsn)
        self.cumulative_tsn = cumulative_tsn
        self._wire_next = (cumulative_tsn + 1) & _WORD

    def _replay_held_back(self, streams: list[int]) -> None:
        reassembly = self.reassembly
        for stream in streams:
            for tsn, number, ppid, flags, payload in self._held_back.pop(stream, ()):
                reassembly.release((payload,))
                if self.interleaving:
                    reassembly.add_i_data(stream, number, ppid, flags, payload)
                else:
                    reassembly.add_data(tsn, stream, number, ppid, flags, payload)
