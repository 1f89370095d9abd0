"""One SCTP association (RFC 9260) as a pure state machine: packets and the clock in, packets and events out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from psyne_mesh.errors import ClosedError, LocalError, ProtocolError, WouldBlock
from psyne_mesh.webrtc.sctp import wire
from psyne_mesh.webrtc.sctp.core import AssociationCore, State, exceeds
from psyne_mesh.webrtc.sctp.events import BufferedAmountLow, SctpEvent
from psyne_mesh.webrtc.sctp.honesty import Lie
from psyne_mesh.webrtc.sctp.inbound import Inbound
from psyne_mesh.webrtc.sctp.outbound import RENEGES_MAX
from psyne_mesh.webrtc.sctp.packets import PacketBuilder
from psyne_mesh.webrtc.sctp.pieces import MARK
from psyne_mesh.webrtc.sctp.send_queue import CREDIT_UNLIMITED, Message, SendStream
from psyne_mesh.webrtc.sctp.stats import SctpStats, snapshot

_PIECE = bytes((MARK,))
SHUTDOWN_REPEATS_MAX = 10  # also where association_retransmits_max is None: an end must come to an end


class Association(AssociationCore):
    """How to drive it:

    1. `connect(now)` on one side or on both; a side that was not told to connect answers all the same. Or, when the
       chunks of `Handshake.init_chunk()` went both ways beforehand, `agree` and `connect` on both.
    2. Give every packet that arrives to `receive(packet, now)`. It never raises for what is in it.
    3. After any input (a drained batch of packets is one input) send what `packets_to_send(now)` returns,
    4. take what `take_events()` returns, and
    5. call `handle_timeout(now)` when `next_timeout()` has come, then go on with 3.

    `now` is in seconds of any steady clock; `rng` should be a `random.SystemRandom` outside of tests, for tags and
    cookies come from it.
    """

    # ------------------------------------------------------------------------------------------------------- life cycle

    def agree(self, init: wire.Init, now: float) -> None:
        """The peer's INIT came with its description, as ours went with our own: the association stands from the next
        `connect` or packet on, without INIT, INIT-ACK and COOKIE-ECHO (draft-hancke-tsvwg-snap). Before `connect` only."""
        if self._state is State.CLOSED and not self._is_over:
            self._begin(self._handshake.cookie_from(init, now), now)
            self._state = State.AGREED

    def connect(self, now: float) -> None:
        """Send INIT, or stand at once after `agree`. Without effect when the handshake is already under way or through."""
        if self._is_over:
            raise ClosedError("the association has ended")
        if self._state is State.AGREED:
            self._enter_established(now)
        elif self._state is State.CLOSED:
            self._state = State.COOKIE_WAIT
            self._t1.start(self._handshake.init_chunk(), now, self._outbound.rto.rto)

    def note_rtt(self, rtt_s: float) -> None:
        """What the layer below has measured on this path: the first timeouts need no guess. Without effect once SCTP has
        measured by itself."""
        if self._outbound.rto.srtt is None:
            self._outbound.rto.measured(rtt_s)

    def begin_in_pieces(self, now: float) -> None:
        """The layer below has found that only small datagrams pass: do not find it out again by timeouts. Probes ask for
        more."""
        self._path.fell(now, is_established=self._state is State.ESTABLISHED)

    def shutdown(self, now: float) -> None:
        """Close when all that is queued has arrived (RFC 9260 section 9.2). Ends with `Closed`."""
        if self._state is State.ESTABLISHED:
            self._state = State.SHUTDOWN_PENDING
            self._advance_shutdown(now)
        elif not self._state.is_up:
            self._close("shut down before it was established", by_peer=False)

    def abort(self, now: float, reason: str = "") -> None:
        """Close at once, telling the peer; what is queued is lost (section 9.1). Ends with `Closed`."""
        self._abort(wire.CAUSE_USER_ABORT, reason or "closed by us", reason.encode())

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_established(self) -> bool:
        return self._state is State.ESTABLISHED

    # ------------------------------------------------------------------------------------------------------------ input

    def receive(self, packet: bytes | memoryview, now: float) -> None:
        """Take in exactly one SCTP packet. Bad ones are dropped and counted in `stats.discarded`."""
        if type(packet) is not bytes:
            packet = bytes(packet)
        if self._pieces is not None and packet[:1] == _PIECE:
            try:
                whole = self._pieces.join_untrusted(packet)
            except ProtocolError:
                self._counters.dropped("malformed")
                return
            if whole is None or whole[:1] == _PIECE:
                return
            packet = whole
        self._counters.packets_received += 1
        self._counters.bytes_received += len(packet)
        try:
            self._receive_untrusted(packet, now)
        except wire.NoUserData as empty:
            # RFC 9260 section 6.2. Dropping it would only hide that the peer's data has a hole for ever
            self._abort(wire.CAUSE_NO_USER_DATA, str(empty), wire.U32.pack(empty.tsn))
        except Lie as lie:
            self._abort(wire.CAUSE_PROTOCOL_VIOLATION, str(lie), str(lie).encode())
        except ProtocolError:
            self._counters.dropped("malformed")

    def handle_timeout(self, now: float) -> None:
        """Let every timer that is due expire."""
        if self._t1.handle_timeout(now) and exceeds(self._t1.expiries, self._config.init_retransmits_max):
            self._give_up("the peer does not answer the handshake")
        if not self._state.is_up or self._inbound is None:
            return
        self._inbound.handle_timeout(now)
        self._path.handle_timeout(now)
        if self._outbound.handle_timeout(now):
            if self._outbound.reneged > RENEGES_MAX:
                self._abort(
                    wire.CAUSE_PROTOCOL_VIOLATION, "the peer keeps taking back what it acknowledged", b"reneging"
                )
                return
            self._path.timed_out(now)
            self._fit_chunks()
            self._count_error()
        if self._heartbeat.handle_timeout(now):
            self._count_error()
        if self._shutdown_guard is not None and now >= self._shutdown_guard:
            self._give_up("the shutdown takes too long")
        if self._resets.handle_timeout(now):
            self._outbound.rto.expired()
            self._count_error()
        if self._t2.handle_timeout(now):
            self._count_error()
            if self._t2.expiries > SHUTDOWN_REPEATS_MAX:
                self._give_up("the peer does not answer the shutdown")

    def path_changed(self, now: float, *, carries: bool = True) -> None:
        """The layer below has another path, or its own again: repeat at once what was lost, at the next `handle_timeout`. Of
        one that may not carry yet only the first packet of it."""
        if self._state.is_up and self._inbound is not None:
            self._outbound.path_changed(now, carries=carries)

    def set_path_fixed(self, fixed: bool) -> None:
        """Whether the path can only end, but never shrink, as between two sockets of one machine: then chunks fill packets
        of the size that discovery found, where else none exceeds a base packet. A 64 KiB message is 5 chunks, not 58."""
        self._path_is_fixed = fixed
        if self._inbound is not None:
            self._fit_chunks()

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do, or None."""
        if self._is_over:
            return None
        inbound = self._inbound
        if inbound is None or not self._state.is_up:
            return self._t1.deadline
        # Asked after every packet, so it stands here unrolled
        outbound, earliest = self._outbound, math.inf
        if (deadline := outbound.t3) is not None:
            earliest = deadline
        if (deadline := outbound.rack.deadline) is not None and deadline < earliest:
            earliest = deadline
        if (deadline := outbound.tail_probe_at) is not None and deadline < earliest:
            earliest = deadline
        if (deadline := inbound.ack_deadline) is not None and deadline < earliest:
            earliest = deadline
        if (deadline := self._resets.deadline) is not None and deadline < earliest:
            earliest = deadline
        if (deadline := self._heartbeat.deadline) is not None and deadline < earliest:
            earliest = deadline
        if (deadline := self._path.deadline) is not None and deadline < earliest:
            earliest = deadline
        if (deadline := self._t2.deadline) is not None and deadline < earliest:
            earliest = deadline
        if (deadline := self._shutdown_guard) is not None and deadline < earliest:
            earliest = deadline
        return None if earliest == math.inf else earliest

    # ----------------------------------------------------------------------------------------------------------- output

    def packets_to_send(self, now: float) -> list[bytes]:
        """Packets for the network, each at most `path_mtu` long, but for path MTU probes. Call it once per drained
        batch: acknowledgements of the batch coalesce into one."""
        self._now = now
        packets, self._loose_packets = self._loose_packets, []
        if self._state is State.COOKIE_WAIT:
            if self._t1.due:
                self._t1.due = False
                packets.append(wire.seal(self._ports() + bytes(4), [self._t1.chunk]))  # section 8.5.1: INIT has tag 0
        elif self._state is State.COOKIE_ECHOED:
            if self._t1.due:
                packets.append(self._cookie_echo_packet(now))
        elif self._inbound is not None and self._state.is_up and not self._is_quiet(self._inbound):
            self._flush(packets, self._inbound, now)
        if not packets:
            return packets
        self._counters.packets_sent += len(packets)
        self._counters.bytes_sent += sum(map(len, packets))
        return packets

    def take_events(self) -> list[SctpEvent]:
        """What has happened since the last call, in order."""
        low_streams = self._outbound.queue.low_streams
        if low_streams:
            self._events += map(BufferedAmountLow, low_streams)
            low_streams.clear()
        events, self._events = self._events, []
        return events

    # --------------------------------------------------------------------------------------------------------- messages

    def send(
        self,
        stream_id: int,
        ppid: int,
        data: bytes,
        now: float,
        *,
        unordered: bool = False,
        max_retransmits: int | None = None,
        life_time: float | None = None,
    ) -> None:
        """Queue one message. It may be called before the association is established.

        max_retransmits, life_time (seconds): give the message up after that (RFC 7496), if the peer supports it.
        Raises LocalError for an empty message or a stream out of range, ClosedError when closed, closing or while the
        stream is being reset, WouldBlock when `send_buffer_bytes_max` would be exceeded.
        """
        if not self._state.takes_messages or self._is_over:
            raise ClosedError(f"the association is {self._state.value}")
        if not data:
            raise LocalError("SCTP carries no empty messages")
        queue = self._outbound.queue
        stream = queue.streams.get(stream_id)
        if stream is None:
            stream = self._stream(stream_id)
        if stream.resetting:
            raise ClosedError(f"stream {stream_id} is being reset")
        if queue.buffered and queue.buffered + len(data) > self._config.send_buffer_bytes_max:
            raise WouldBlock(f"{queue.buffered} bytes wait already")
        expires_at = None if life_time is None else now + life_time
        queue.push(stream, Message(stream_id, ppid, data, unordered, max_retransmits, expires_at, now))

    def set_bulk_allowance(self, n_bytes: float | None) -> None:
        """How much of reliable messages of normal priority the next `packets_to_send` may hold for the first time; None
        for as much as the windows allow. Everything else goes before them and is not counted."""
        self._outbound.bulk_allowance = n_bytes

    def set_priority(self, stream_id: int, priority: int) -> None:
        """The weight of a stream in the scheduler: 128, 256, 512 or 1024 of RFC 8831 section 6.4, or any from 1."""
        if not 1 <= priority <= 65535:
            raise LocalError(f"priority {priority}: must lie in [1, 65535]")
        self._stream(stream_id).weight = priority

    def set_credit(self, stream_id: int, n_bytes: int | None) -> None:
        """On this stream messages may begin until so many bytes of them, and `CREDIT_MESSAGE_BYTES` for each, have; the rest
        waits, and other streams go on. None: as much as the windows allow."""
        stream = self._outbound.queue.streams.get(stream_id)
        if stream is not None:
            credit = CREDIT_UNLIMITED if n_bytes is None else min(n_bytes, CREDIT_UNLIMITED)
            self._outbound.queue.set_credit(stream, credit)

    def unbegun_cost(self, stream_id: int) -> int:
        """Of what `send` took on this stream, what will cost credit yet."""
        stream = self._outbound.queue.streams.get(stream_id)
        return 0 if stream is None else self._outbound.queue.unbegun_cost(stream)

    def set_perishable(self, stream_id: int) -> None:
        """What comes on this stream in order is worth nothing when it had to wait for long, as after a break, for what
        the peer then gave up: it is dropped. For streams on which the peer repeats nothing."""
        if self._inbound is not None:
            self._inbound.reassembly.perishable.add(stream_id)

    def buffered_amount(self, stream_id: int) -> int:
        """Bytes that `send` took and that were not handed to the network yet."""
        stream = self._outbound.queue.streams.get(stream_id)
        return stream.buffered if stream is not None else 0

    def abandoned_messages(self, stream_id: int) -> tuple[int, int]:
        """How many messages of a stream were given up before any of them left, and after (RFC 7496 section 4.4)."""
        stream = self._outbound.queue.streams.get(stream_id)
        return (stream.abandoned_unsent, stream.abandoned_sent) if stream is not None else (0, 0)

    @property
    def total_buffered_amount(self) -> int:
        return self._outbound.queue.buffered

    @property
    def is_all_acknowledged(self) -> bool:
        """Nothing that was sent can still come to the peer as news."""
        outstanding = self._outbound.outstanding
        return not self._outbound.queue.buffered and outstanding.cumulative_tsn == outstanding.next_tsn - 1

    @property
    def outstanding_bytes(self) -> int:
        """User data that was sent and is neither acknowledged nor given up."""
        return self._outbound.outstanding.flight_bytes + self._outbound.outstanding.lost_bytes

    def set_buffered_amount_low_threshold(self, stream_id: int, n: int) -> None:
        self._stream(stream_id).low_threshold = n

    def set_unread(self, n_bytes: int, now: float) -> None:
        """Bytes that events delivered and the application has not consumed: they shrink the window we offer."""
        self._unread_bytes = n_bytes
        if self._inbound is not None:
            self._inbound.set_unread(n_bytes)

    def reset_streams(self, stream_ids: Sequence[int], now: float) -> None:
        """Close our direction of streams (RFC 6525), once what is queued on them has left. Ends with `StreamsReset`;
        until then they refuse messages. Streams whose reset is already under way are passed over."""
        if not self._state.takes_messages or self._is_over:
            raise ClosedError(f"the association is {self._state.value}")
        streams = [self._stream(stream_id) for stream_id in stream_ids]
        fresh = [stream for stream in streams if not stream.resetting]
        for stream in fresh:
            stream.resetting = True
        self._resets.request([stream.id for stream in fresh], self._outbound.queue)

    def _stream(self, stream_id: int) -> SendStream:
        if not 0 <= stream_id < self._outbound.streams:
            raise LocalError(f"stream {stream_id} is out of range: the association has {self._outbound.streams}")
        return self._outbound.queue.stream(stream_id)

    @property
    def srtt(self) -> float | None:
        """Smoothed round-trip time in seconds, None before the first measurement."""
        return self._outbound.rto.srtt

    @property
    def path_mtu(self) -> int:
        return self._path.current

    @property
    def stats(self) -> SctpStats:
        """A snapshot. The age of the oldest queued message is as of the last call that brought a `now`."""
        return snapshot(
            self._counters,
            self._outbound,
            self._now,
            state=self._state.value,
            a_rwnd_local_bytes=self._inbound.a_rwnd if self._inbound else self._config.receive_window_bytes,
            path_mtu=self._path.current,
            zero_checksum_out=self._zero_checksum_out,
            zero_checksum_in=self._config.zero_checksum,
        )

    # -------------------------------------------------------------------------------------------------------- sending

    def _is_quiet(self, inbound: Inbound) -> bool:
        """Nothing is to be said now. After most packets that come in it is so: their acknowledgement can wait."""
        outbound = self._outbound
        return not (
            inbound.has_sack_due
            or outbound.queue.scheduler
            or outbound.has_repairs
            or self._answers
            or self._t2.due
            or self._heartbeat.is_due
            or self._resets.has_work
            or self._path.wants_probe
            or self._state is not State.ESTABLISHED
        )

    def _flush(self, packets: list[bytes], inbound: Inbound, now: float) -> None:
        """Control chunks first (RFC 9260 section 6.10), then data."""
        outbound, rto = self._outbound, self._outbound.rto.rto
        builder = PacketBuilder(self._header, self._packet_bytes, zero_checksum=self._zero_checksum_out)
        for chunk in self._answers:
            builder.add(chunk)
        self._answers.clear()
        sends_data = self._state.sends_data
        sack = inbound.sack_if_due(with_data=sends_data and outbound.can_send)
        if sack is not None:
            builder.add(sack)
        if self._t2.due:
            self._t2.due = False
            builder.add(self._shutdown_chunk(inbound))
        heartbeat = self._heartbeat.chunk_to_send(now, rto)
        if heartbeat is not None:
            builder.add(heartbeat)
        self._add_resets(builder, now)
        if sends_data:
            sent = self._counters.user_bytes_sent
            outbound.fill(builder, now)
            if self._counters.user_bytes_sent > sent:
                self._heartbeat.data_sent(now)
                if self._resets.is_waiting:
                    builder.flush()  # control chunks do not follow DATA in a packet
                    self._add_resets(builder, now)
            if self._state is not State.ESTABLISHED:
                self._advance_shutdown(now)
        builder.flush()
        if self._pieces is not None and self._path.current < self._packet_bytes:
            for packet in builder.packets:
                packets += (
                    self._pieces.cut(packet, self._path.current) if len(packet) > self._path.current else [packet]
                )
        else:
            packets += builder.packets
        probe = self._path.take_probe(now, rto)
        if probe is not None:
            seal = wire.seal_without_checksum if self._zero_checksum_out else wire.seal
            packets.append(seal(self._header, self._heartbeat.probe(probe)))

    def _add_resets(self, builder: PacketBuilder, now: float) -> None:
        if not self._resets.has_work:
            return
        outbound = self._outbound
        for chunk in self._resets.chunks_to_send(now, outbound.rto.rto, outbound.queue, outbound.outstanding.next_tsn):
            builder.add(chunk)
        self._take_reset_events()

    def _cookie_echo_packet(self, now: float) -> bytes:
        """COOKIE-ECHO, with as much data as fits beside it (RFC 9260 section 5.1 rule C): the first message saves a
        round trip."""
        self._t1.due = False
        # Repeated, it is as short as can be: perhaps the path does not carry what went beside it
        is_short = self._pieces is not None and (self._t1.expiries or self._path.current < self._packet_bytes)
        mtu = self._config.packet_bytes_floor if is_short else self._packet_bytes
        builder = PacketBuilder(self._header, mtu, zero_checksum=False, packets_max=1)
        builder.add(self._t1.chunk)
        for chunk in self._answers:
            if len(chunk) <= builder.room:
                builder.add(chunk)
        self._answers.clear()
        self._outbound.fill_beside_cookie(builder, now)
        builder.flush()
        return builder.packets[0]
