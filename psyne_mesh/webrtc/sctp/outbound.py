"""The sending half: from queued messages to chunks in packets, their acknowledgement, loss and abandonment."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from psyne_mesh.webrtc.sctp import wire
from psyne_mesh.webrtc.sctp.config import SctpConfig
from psyne_mesh.webrtc.sctp.congestion import CongestionWindow
from psyne_mesh.webrtc.sctp.honesty import CHUNKS_BEHIND, Honesty, Lie
from psyne_mesh.webrtc.sctp.outstanding import ACKED, IN_FLIGHT, LOST, Chunk, Outstanding
from psyne_mesh.webrtc.sctp.packets import PacketBuilder
from psyne_mesh.webrtc.sctp.pmtud import LargeLosses
from psyne_mesh.webrtc.sctp.rack import Rack
from psyne_mesh.webrtc.sctp.rto import RtoEstimator
from psyne_mesh.webrtc.sctp.send_queue import SendQueue, SendStream
from psyne_mesh.webrtc.sctp.stats import Counters

if TYPE_CHECKING:
    from random import Random

    from psyne_mesh.webrtc.sctp.scheduler import Entry

# Gap blocks have 16-bit offsets; an eighth of that fills 4 MiB with chunks of 512 bytes. What one SACK may acknowledge, take
# back or call lost is bounded by it: some 3 ms of a desktop's core
TSNS_OUTSTANDING_MAX = 0x1FFF
GAP_BLOCKS_COMPLETE = 16  # a SACK with fewer gap blocks than this was surely not cut: see `inbound`
AMBIGUOUS_MAX = 64  # acknowledged repetitions that are remembered; older ones are forgotten
FRAGMENT_BYTES_MIN = 128  # a fragment fills up a packet only when at least this much fits
FORWARD_STREAMS_MAX = 140  # streams named in one (I-)FORWARD-TSN: 8 bytes each fit a base packet
TAIL_PROBES_MAX = 2  # in a row
PEER_ACK_DELAY_MAX_S = 0.2  # RFC 9260 section 6.2; usrsctp and aiortc take all of it
WINDOW_PROBE_INTERVAL_MAX_S = 5.0  # the SACK that opens the window may be lost
# Looking through what is outstanding takes 0.2 us a chunk: a window that opens and closes all the time gets 1 % of a core
REOPENED_S_PER_CHUNK = 2e-5
# What is repeated before T3-rtx expires is paid for with twice what arrives, so two of three packets may be lost. A peer that
# keeps asking (it acknowledges one chunk in a thousand, or its window opens and closes) gets this much and one window in
# advance, then a packet per RTO.
REPEATS_PER_ACKED = 2
REPEATS_BYTES_FREE = 65_536
ASKING_CHUNKS_MAX = 64  # of those that T3-rtx found lost: more than its first packets hold
RENEGES_MAX = (
    3  # RFC 9260 section 6.2.1 lets a receiver take its word back; none in use does, and each time costs a long look
)

_WORD = 0xFFFFFFFF
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Outbound:
    """1. `queue.push` messages. 2. Per flush `fill` a packet builder. 3. `sack_received` per SACK. 4. `handle_timeout`
    when `t3`, `rack.deadline` or `tail_probe_at` has come; it says when T3-rtx expired."""

    __slots__ = (
        "_ambiguous",
        "_config",
        "_counters",
        "_force_one",
        "_forward_due",
        "_forward_sent_at",
        "_heard",
        "_last_sent_at",
        "_path_began_at",
        "_path_is_new",
        "_peer_ack_delay",
        "_peer_credit",
        "_probe_sent_at",
        "_probe_tsn",
        "_probes_unanswered",
        "_reopened",
        "_reopened_at",
        "_repeats_left",
        "_reported_tsn",
        "_window_bytes_min",
        "bulk_allowance",
        "congestion",
        "forward_tsn",
        "honesty",
        "large_losses",
        "outstanding",
        "peer_a_rwnd",
        "queue",
        "rack",
        "reneged",
        "rto",
        "streams",
        "t3",
        "tail_probe_at",
    )

    def __init__(self, config: SctpConfig, counters: Counters, initial_tsn: int, rng: Random) -> None:
        self._config = config
        self.honesty = Honesty(rng)
        self._counters = counters
        self.queue = SendQueue()
        self.rto = RtoEstimator(config)
        self.streams = config.streams_max  # how many the peer takes, once it is known
        self.bulk_allowance: float | None = None  # bytes of it that one `fill` may send; None: what the windows allow
        self._window_bytes_min = config.packet_bytes_base  # a smaller window of the peer's is closed
        self._begin(initial_tsn)

    def _begin(self, initial_tsn: int) -> None:
        self.outstanding = Outstanding(initial_tsn)
        self.congestion = CongestionWindow(self._config)
        self.rack = Rack()
        self.large_losses = LargeLosses(self._config.packet_bytes_floor)
        self.peer_a_rwnd = 0
        self._peer_credit = 0  # what the peer's window still takes
        self.forward_tsn = False  # the peer understands RFC 3758
        self.t3: float | None = None
        self.tail_probe_at: float | None = None
        self._probe_tsn = -1  # TSN of a tail loss probe that is not answered
        self._probe_sent_at = 0.0
        self._peer_ack_delay = self._config.ack_delay_max_s  # as long as ours, until probes turn out to be needless
        self._probes_unanswered = 0
        self._ambiguous: dict[int, float] = {}  # TSN on the wire -> RTT if its first transmission arrived
        self._reported_tsn = initial_tsn  # up to here the last SACK speaks
        self._repeats_left = REPEATS_BYTES_FREE  # bytes of chunks
        self.reneged = 0  # how often the peer took back what it had reported
        self._force_one = False  # one packet may leave in spite of the congestion window
        self._reopened = False  # the peer's window, and what it dropped is not looked for yet
        self._reopened_at = 0.0  # when that may be done again
        self._heard = False  # a SACK came since T3-rtx expired last
        self._forward_due = False
        self._forward_sent_at = -1.0
        self._last_sent_at: float | None = None
        self._path_is_new = False  # and T3-rtx is to repeat what the one before has swallowed
        self._path_began_at = float("-inf")

    def start(self, a_rwnd: int, streams: int, interleaving: bool, forward_tsn: bool) -> None:
        """The handshake told us the peer's window and abilities."""
        self.streams = streams
        self.peer_a_rwnd = self._peer_credit = a_rwnd
        self.queue.interleaving = interleaving
        self.cut_for(self._config.packet_bytes_base)
        self.queue.begun_bytes_max = a_rwnd // 2
        self.forward_tsn = forward_tsn
        self.queue.clear_from(streams)

    def cut_for(self, packet_bytes: int) -> None:
        """From now on a chunk may fill a packet of this size."""
        room = (packet_bytes - wire.HEADER_BYTES) & ~3
        self.queue.fragment_bytes_max = room - (20 if self.queue.interleaving else 16)
        self._window_bytes_min = packet_bytes

    def undelivered(self) -> dict[tuple[int, int], int]:
        """By stream and PPID: reliable messages that wait or were not acknowledged to the last fragment. Costs what is held."""
        outstanding = {
            id(chunk.message): chunk.message for chunk in self.outstanding.chunks.values() if chunk.state < ACKED
        }
        waiting = {id(message): message for stream in self.queue.streams.values() for message in stream.messages}
        counts: dict[tuple[int, int], int] = {}
        for message in (outstanding | waiting).values():
            if message.max_retransmits is None and message.expires_at is None:
                key = (message.stream_id, message.ppid)
                counts[key] = counts.get(key, 0) + 1
        return counts

    def restart(self, initial_tsn: int) -> None:
        """The peer began anew: all that was queued or in flight is lost."""
        self.queue.clear()
        self.honesty.kept = None
        self._begin(initial_tsn)

    # ---------------------------------------------------------------------------------------------------------- sending

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing is unacknowledged."""
        return not self.outstanding.chunks and not self.queue.scheduler

    @property
    def has_repairs(self) -> bool:
        """Whether `fill` may have something besides fresh messages."""
        return bool(self._force_one or self._forward_due or self._reopened or self.outstanding.lost)

    @property
    def can_send(self) -> bool:
        """Whether `fill` is likely to put data into a packet."""
        if self._force_one or self._forward_due:
            return True
        may_be_fresh = self.queue.scheduler and (self.bulk_allowance is None or self.bulk_allowance > 0)
        may_be_repeated = self.outstanding.lost and self._repeats_left > 0
        return bool(may_be_fresh or may_be_repeated) and (self.outstanding.flight_bytes < self.congestion.cwnd)

    def fill(self, builder: PacketBuilder, now: float) -> None:
        """Put FORWARD-TSN, lost chunks and fresh ones into packets as far as the windows allow."""
        if self._reopened and now >= self._reopened_at:
            self._window_opened(now)
        if self._forward_due:
            self._send_forward(builder, now)
        sent_before = self._counters.user_bytes_sent + self._counters.retransmissions
        if self.outstanding.lost:
            self._send_lost(builder, now)
        if self.queue.scheduler and not self.outstanding.lost:
            self._send_fresh(builder, now)
        if self._forward_due and not builder.is_spent:  # something expired on the way
            builder.flush()  # control chunks do not follow DATA in a packet
            self._send_forward(builder, now)
        if self._counters.user_bytes_sent + self._counters.retransmissions > sent_before:
            self._last_sent_at = now
            if self.t3 is None:
                self.t3 = now + self.rto.rto
            self._arm_tail_probe(now)

    def fill_beside_cookie(self, builder: PacketBuilder, now: float) -> None:
        """Like `fill`, beside a COOKIE-ECHO: whenever that is repeated, what went with it is as well."""
        self.outstanding.mark_lost_since(now)
        self.t3 = None
        self.fill(builder, now)

    def _send_fresh(self, builder: PacketBuilder, now: float) -> None:
        queue, table, congestion = self.queue, self.outstanding, self.congestion
        scheduler = queue.scheduler
        if table.flight_bytes == 0 and self._last_sent_at is not None and now - self._last_sent_at > self.rto.rto:
            congestion.idled(int((now - self._last_sent_at) / self.rto.rto))
        interleaving = queue.interleaving
        header_bytes = 20 if interleaving else 16
        fragment_max = queue.fragment_bytes_max
        cwnd = congestion.cwnd
        if table.flight_bytes >= cwnd:
            return
        bulk_end = None if self.bulk_allowance is None else table.flight_bytes + self.bulk_allowance
        aside: list[Entry] = []
        while (stream := scheduler.pick()) is not None:
            message = stream.messages[0]
            if message.expires_at is not None and now > message.expires_at:
                self._expire(stream, now)
                continue
            if bulk_end is not None and table.flight_bytes >= bulk_end and stream.is_bulk:
                if scheduler.locked is not None:
                    break  # nothing may come between its fragments
                aside.append(scheduler.set_aside())
                continue
            size = message.size - message.offset
            if interleaving and size > fragment_max and not message.offset and queue.hold_back(stream):
                continue
            room = builder.room - header_bytes
            if size > room or size > fragment_max:
                # A message that fits one packet is not split: losing half of it would be losing all of it
                if room >= FRAGMENT_BYTES_MIN and (message.offset or size > fragment_max):
                    size = min(size, room, fragment_max)
                else:
                    builder.flush()
                    if table.flight_bytes >= cwnd or builder.is_spent:
                        break
                    continue
            if size > self._peer_credit:
                # RFC 9260 section 6.1 rule A: with nothing in flight one chunk may probe a closed window
                if table.flight_bytes or table.lost_bytes:
                    break
            elif table.next_tsn - table.cumulative_tsn > TSNS_OUTSTANDING_MAX:
                break
            if self.honesty.acked_bytes >= self.honesty.every and self._may_keep_back(stream, size):
                self._keep_back(builder, stream, size, now)
            else:
                self._send_piece(builder, stream, size, now)
        scheduler.put_back(aside)

    def _may_keep_back(self, stream: SendStream, size: int) -> bool:
        message, fragment_max = stream.messages[0], self.queue.fragment_bytes_max
        is_patient = message.max_retransmits is None and message.expires_at is None
        # By its own stream, and by what both windows let go: a lone message must not wait for T3-rtx
        is_followed = (
            stream.buffered - size >= CHUNKS_BEHIND * fragment_max
            and min(stream.credit, self._peer_credit - size) >= fragment_max
        )
        return is_patient and is_followed and self.congestion.recovery_exit is None and self.honesty.is_due()

    def _keep_back(self, builder: PacketBuilder, stream: SendStream, size: int, now: float) -> None:
        """Do as if the next chunk were sent, and lost."""
        table, n_parts, room = self.outstanding, len(builder.parts), builder.room
        self._send_piece(builder, stream, size, now)
        del builder.parts[n_parts:]
        builder.room = room
        chunk = table.chunks[table.next_tsn - 1]
        chunk.state = LOST
        table.flight_bytes -= size
        table.lost_bytes += size
        self.honesty.keep_back(chunk)

    def _send_piece(self, builder: PacketBuilder, stream: SendStream, size: int, now: float) -> None:
        """Give the next `size` bytes of the stream's first message a TSN and put them into the open packet. This runs
        once per chunk, so what `Outstanding.add` and `_append` would do stands here in full."""
        queue, table, counters = self.queue, self.outstanding, self._counters
        message = stream.messages[0]
        tsn = table.next_tsn
        table.next_tsn = tsn + 1
        offset = message.offset
        message.offset = end = offset + size
        flags = wire.FLAG_UNORDERED if message.unordered else 0
        if offset == 0:
            flags |= wire.FLAG_BEGIN
            message.first_tsn = tsn
            if queue.interleaving or not message.unordered:
                stream.number(message, queue.interleaving)
        message.last_tsn = tsn
        if end == message.size:
            flags |= wire.FLAG_END
            counters.messages_sent += 1
        payload = message.data if size == message.size else message.data[offset:end]
        if queue.interleaving:
            header = wire.I_DATA_HEADER.pack(
                wire.I_DATA,
                flags,
                20 + size,
                tsn & _WORD,
                stream.id,
                0,
                message.number,
                message.next_fsn if offset else message.ppid,
            )
            message.next_fsn += 1
        else:
            header = wire.DATA_HEADER.pack(
                wire.DATA, flags, 16 + size, tsn & _WORD, stream.id, message.number, message.ppid
            )
        table.chunks[tsn] = chunk = Chunk(tsn, header, payload, size, message, now)
        table.flight_bytes += size
        self.rack.sent(chunk)
        self._peer_credit -= size
        counters.user_bytes_sent += size
        builder.parts += (header, payload, _PADDING[size & 3]) if size & 3 else (header, payload)
        builder.room -= len(header) + ((size + 3) & ~3)
        queue.sent(stream, size)

    def _send_lost(self, builder: PacketBuilder, now: float) -> None:
        table, congestion = self.outstanding, self.congestion
        # RFC 9260 section 7.2.4 rule 3: on entering fast recovery one packet leaves in spite of the window
        if (table.flight_bytes >= congestion.cwnd or self._repeats_left <= 0) and not self._force_one:
            return
        forced, self._force_one = self._force_one, False
        begun = False
        while (chunk := table.first_lost()) is not None:
            expires_at = chunk.message.expires_at
            if expires_at is not None and now > expires_at and self.forward_tsn:
                self._abandon(chunk, now)
                continue
            if len(chunk.header) + chunk.size > builder.room:
                builder.flush()
                if builder.is_spent or (
                    begun
                    and (table.flight_bytes >= congestion.cwnd or self._window_is_closed or self._repeats_left <= 0)
                ):
                    break
                forced = forced and not begun
            begun = True
            table.repeat_first(chunk, now)
            self.rack.sent(chunk)
            if chunk.tsn == table.cumulative_tsn + 1 and chunk.transmissions == 2:
                self.t3 = now + self.rto.rto  # RFC 9260 section 7.2.4 rule 4; only once, or T3-rtx might never expire
            self._counters.retransmissions += 1
            if not forced:
                self._repeats_left -= chunk.size
            self._append(builder, chunk)

    def _append(self, builder: PacketBuilder, chunk: Chunk) -> None:
        size = chunk.size
        builder.parts += (chunk.header, chunk.payload, _PADDING[size & 3])
        builder.room -= len(chunk.header) + ((size + 3) & ~3)

    # -------------------------------------------------------------------------------------------- acknowledgement, loss

    def sack_received(self, sack: wire.Sack, now: float) -> bool:
        """Take in a SACK; False when it acknowledges what was never sent, and so changes nothing. Raises `Lie`. Work: its
        gap blocks, and the chunks that it acknowledges or that are lost by it; each is that once a transmission."""
        table = self.outstanding
        cumulative = wire.unwrap(table.cumulative_tsn, sack.cumulative_tsn)
        highest = cumulative + sack.gaps[-1][1] if sack.gaps else cumulative
        if highest >= table.next_tsn:
            return False
        if cumulative < table.cumulative_tsn:
            return True  # RFC 9260 section 6.2.1 rule D i: out of order
        if self.honesty.kept is not None and self.honesty.is_lie(cumulative, sack.gaps):
            raise Lie("the peer acknowledges what it did not get")
        moved = cumulative > table.cumulative_tsn
        was_full = table.flight_bytes + self.congestion.mtu > self.congestion.cwnd
        result = table.acknowledge(cumulative, sack.gaps)
        if result.newest is not None and result.newest.transmissions == 1:
            # Karn's rule (RFC 9260 section 6.3.1 C5); an older chunk would measure how long its SACK was lost
            rtt = now - result.newest.sent_at
            self.rto.measured(rtt)
            self.congestion.measured(rtt, was_full, cumulative, table.next_tsn)
        for duplicate in sack.duplicates:
            rtt_of_first = self._ambiguous.pop(duplicate, None)
            if rtt_of_first is not None:
                self.rto.measured(rtt_of_first)
                self.rack.duplicate_reported(rtt_of_first)
        if result.ambiguous:
            self._note_ambiguous(result.ambiguous, now)
        if (chunk := self.honesty.release(highest)) is not None:
            heapq.heappush(table.lost, chunk.tsn)
        if result.bytes_acked:
            self.honesty.acked_bytes += result.bytes_acked
            self._repeats_left = min(
                self._repeats_left + REPEATS_PER_ACKED * result.bytes_acked, self.congestion.cwnd + REPEATS_BYTES_FREE
            )
        if moved:
            self._cumulative_moved(result.bytes_acked, was_full, bool(sack.duplicates), now)
        elif self.honesty.kept is not None:
            self.congestion.acked(result.bytes_acked, was_full, now, self.rto.srtt or 0.0)
        if self._window_is_closed and sack.a_rwnd >= self._window_bytes_min:
            self._reopened = True
        self._heard = True
        self.peer_a_rwnd = sack.a_rwnd
        self._peer_credit = sack.a_rwnd - table.flight_bytes - table.lost_bytes
        if result.newest is not None:
            self.rack.acked(result.newest, now, self.rto.min_rtt)
            if self.large_losses.count and result.newest.size > self.large_losses.above:
                self.large_losses.count = 0
            self._reported_tsn = highest if len(sack.gaps) >= GAP_BLOCKS_COMPLETE else table.next_tsn
            self._detect_losses(now)
        # RFC 3758 section 3.5 rules C1-C3, with one round trip's patience for the answer to the last FORWARD-TSN
        if table.advance(FORWARD_STREAMS_MAX) or (
            table.advanced_tsn > cumulative and now - self._forward_sent_at > (self.rto.srtt or 0.0)
        ):
            self._forward_due = True
        if result.newest is not None:
            self._probes_unanswered = 0
            self._arm_tail_probe(now)
        return True

    def _note_ambiguous(self, chunks: list[Chunk], now: float) -> None:
        """Remember how long chunks that were sent twice took from their first transmission. Should the peer
        report one as a duplicate, that first one did arrive, and this was its round trip: without such samples
        (Karn's rule forbids others) a path whose RTT has grown would be flooded with needless repetitions for ever."""
        for chunk in chunks:
            self._ambiguous[chunk.tsn & _WORD] = now - chunk.first_sent_at
        while len(self._ambiguous) > AMBIGUOUS_MAX:
            del self._ambiguous[next(iter(self._ambiguous))]

    def _cumulative_moved(self, bytes_acked: int, was_full: bool, has_duplicates: bool, now: float) -> None:
        table, congestion = self.outstanding, self.congestion
        was_recovering = congestion.recovery_exit is not None
        congestion.cumulative_tsn_moved(table.cumulative_tsn)
        if was_recovering and congestion.recovery_exit is None:
            self.rack.recovered()
        # As in RFC 9002 section 7.3.2 and Linux: what ends a recovery was sent after its begin, and counts
        congestion.acked(bytes_acked, was_full, now, self.rto.srtt or 0.0)
        if 0 <= self._probe_tsn <= table.cumulative_tsn:
            self._probe_tsn = -1
            if has_duplicates:  # in vain: the peer may only have waited
                self._peer_ack_delay = min(2 * self._peer_ack_delay, PEER_ACK_DELAY_MAX_S)
            elif now - self._probe_sent_at >= (self.rto.min_rtt or 0.0):
                # RFC 8985 section 7.4: if the peer got the chunk only by the probe, the probe repaired a loss
                self._peer_ack_delay = max(self._peer_ack_delay / 2, self._config.ack_delay_max_s)
                congestion.lost(table.next_tsn - 1)
        # RFC 9260 section 6.3.2 rules R2 and R3
        self.t3 = now + self.rto.rto if table.chunks else None

    @property
    def _window_is_closed(self) -> bool:
        return self.peer_a_rwnd < self._window_bytes_min

    def _window_opened(self, now: float) -> None:
        """While the window was closed the peer dropped what came: do not wait for T3-rtx to repeat it."""
        self._reopened = False
        if not self._window_is_closed:
            self._reopened_at = now + len(self.outstanding.chunks) * REOPENED_S_PER_CHUNK
            self._mark_overdue_lost(now)
            self._force_one = self._repeats_left > 0

    def _mark_overdue_lost(self, now: float, *, patient: bool = True) -> list[Chunk]:
        """Take for lost what is in flight for longer than a round trip, and ask for a quick answer to the first of it."""
        estimator = self.rto
        patience = self.rack.patience(estimator.min_rtt or 0.0, estimator.srtt or 0.0) if patient else 0.0
        found = self.outstanding.mark_lost_since(now - patience)
        for chunk in found[:ASKING_CHUNKS_MAX]:
            chunk.ask_at_once()
        return found

    def _detect_losses(self, now: float) -> None:
        estimator = self.rto
        found = self.rack.detect_losses(
            now, estimator.min_rtt or 0.0, estimator.srtt or estimator.rto, self._reported_tsn
        )
        if not found:
            return
        table = self.outstanding
        self._counters.fast_retransmissions += len(found)
        self.large_losses.lost([chunk.size for chunk in found if chunk.message.max_retransmits is not None], now)
        self._give_up_or_keep(found, now)
        # What the path before has lost says nothing of this one
        is_of_before = found[-1].sent_at < self._path_began_at  # the last sent of them
        if is_of_before or self.congestion.lost(table.next_tsn - 1):
            self._force_one = bool(table.lost)

    def _give_up_or_keep(self, found: list[Chunk], now: float) -> None:
        """Mark chunks lost, and abandon those whose message allows no more (RFC 3758 section 3.5 rule A3, RFC 7496)."""
        table = self.outstanding
        for chunk in found:
            if chunk.state == IN_FLIGHT:
                table.mark_lost(chunk)
            message = chunk.message
            limit = message.max_retransmits
            if (
                chunk.state == LOST
                and self.forward_tsn
                and (
                    (limit is not None and chunk.transmissions > limit)
                    or (message.expires_at is not None and now > message.expires_at)
                )
            ):
                self._abandon(chunk, now)

    def _abandon(self, chunk: Chunk, now: float) -> None:
        message, table = chunk.message, self.outstanding
        if self.queue.discard_rest_of(message):
            table.add_abandoned_end(message, now)
        table.abandon(message)
        self.queue.stream(message.stream_id).abandoned_sent += 1
        self._counters.messages_abandoned_sent += 1
        if table.advance(FORWARD_STREAMS_MAX):
            self._forward_due = True

    def _expire(self, stream: SendStream, now: float) -> None:
        """The lifetime of the stream's first message ended before all of it was sent (RFC 7496 section 3.1)."""
        message, table = stream.messages[0], self.outstanding
        if message.offset and self.forward_tsn:
            self.queue.discard(stream)
            table.add_abandoned_end(message, now)
            table.abandon(message)
            stream.abandoned_sent += 1
            self._counters.messages_abandoned_sent += 1
            if table.advance(FORWARD_STREAMS_MAX):
                self._forward_due = True
            if self.t3 is None:
                self.t3 = now + self.rto.rto
        elif message.offset:
            message.expires_at = None  # the peer cannot be told to skip it: it must arrive
        else:
            self.queue.discard(stream)
            stream.abandoned_unsent += 1
            self._counters.messages_abandoned_unsent += 1

    def _send_forward(self, builder: PacketBuilder, now: float) -> None:
        self._forward_due = False
        table = self.outstanding
        if table.advanced_tsn <= table.cumulative_tsn:
            return
        builder.add(wire.forward_tsn_chunk(table.advanced_tsn, table.skipped(), interleaving=self.queue.interleaving))
        self._forward_sent_at = now
        if self.t3 is None:
            self.t3 = now + self.rto.rto

    # ----------------------------------------------------------------------------------------------------------- timers

    def handle_timeout(self, now: float) -> bool:
        """True when T3-rtx expired and that speaks against the peer."""
        if self.rack.deadline is not None and now >= self.rack.deadline:
            self._detect_losses(now)
        if self.t3 is not None and now >= self.t3:
            return self._t3_expired(now)
        if self.tail_probe_at is not None and now >= self.tail_probe_at:
            self._probe_tail(now)
        return False

    def path_changed(self, now: float, *, carries: bool) -> None:
        """What is outstanding went into the old path: T3-rtx expires now, without what it had backed off to. `carries`: as far
        as is known; else one packet is enough to ask."""
        self.rto.path_changed()
        self._path_is_new = carries
        if self.outstanding.chunks:
            self.t3 = now
        elif carries:
            self._begin_path(now)

    def _begin_path(self, now: float) -> None:
        self._path_is_new = False
        self.congestion.path_changed()
        self._repeats_left = max(self._repeats_left, self.congestion.cwnd)
        self._path_began_at = now

    def _t3_expired(self, now: float) -> bool:
        """RFC 9260 section 6.3.3."""
        table = self.outstanding
        self.t3 = self.tail_probe_at = None
        if not table.chunks:
            return False
        self._counters.timeouts += 1
        self.rto.expired()
        if table.renege():
            self.reneged += 1
        self._probe_tsn = -1
        self._probes_unanswered = 0
        # Of what went into the path before nothing is expected, unless it was this one a moment ago
        is_first = self._path_is_new and now - self._path_began_at > self.rto.rto
        self._give_up_or_keep(self._mark_overdue_lost(now, patient=not is_first), now)
        self._forward_due = table.advanced_tsn > table.cumulative_tsn
        self._force_one = bool(table.lost)
        self.t3 = now + self.rto.rto
        heard, self._heard = self._heard, False
        if self._path_is_new:
            self._begin_path(now)
            return True
        if heard and self._window_is_closed:
            self.t3 = now + min(self.rto.rto, WINDOW_PROBE_INTERVAL_MAX_S)
            return False  # RFC 9260 section 6.1 rule A: a closed window is neither congestion nor a dead peer
        if heard and not table.lost_bytes:
            # The end of what may not be repeated is lost, and no probe could have asked for it. A loss like any other: one
            # packet's window would make the next messages late. RFC 9002 section 7.6 falls so far only when it persists
            self.congestion.lost(table.next_tsn - 1)
        else:
            self.congestion.timed_out()
        return True

    def _arm_tail_probe(self, now: float) -> None:
        """RFC 8985 section 7.2: two round trips without an answer, sooner than T3-rtx. Unlike there, also while losses are
        being repaired, and once more when the probe stays unanswered: a batch has one SACK here, and where one packet
        in twenty is lost, every tenth probe or its answer is. RFC 9002 section 6.2.4 sends two as well."""
        self.tail_probe_at = None
        srtt, flight = self.rto.srtt, self.outstanding.flight_bytes
        if srtt is None or not flight or self._probes_unanswered >= TAIL_PROBES_MAX:
            return
        if self._probes_unanswered:
            timeout = 1.25 * srtt  # nobody delays the answer to a probe
        else:
            timeout = 2 * srtt
            if flight <= self.congestion.mtu:
                timeout += self._peer_ack_delay  # it may delay the acknowledgement of a single packet
        if self.t3 is None or now + timeout < self.t3:
            self.tail_probe_at = now + timeout

    def _probe_tail(self, now: float) -> None:
        self.tail_probe_at = None
        chunk = self.rack.newest_in_flight()
        if chunk is None:
            return
        limit = chunk.message.max_retransmits
        if limit is not None and chunk.transmissions > limit:
            return  # it may not be sent again: T3-rtx will give it up
        self._counters.tail_probes += 1
        if not self._probes_unanswered:
            self._probe_sent_at = now
        self._probes_unanswered += 1
        self._probe_tsn = chunk.tsn
        chunk.ask_at_once()
        self.outstanding.mark_lost(chunk)
        self._force_one = True
