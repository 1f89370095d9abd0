"""What the peer's chunks do to an association: the state machine of RFC 9260 section 4, seen from the network."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.sctp import wire
from psyne_mesh.webrtc.sctp.config import SctpConfig
from psyne_mesh.webrtc.sctp.control_timer import ControlTimer
from psyne_mesh.webrtc.sctp.cookie import StaleCookie, StateCookie
from psyne_mesh.webrtc.sctp.events import Closed, Established, Restarted, SctpEvent, StreamsReset
from psyne_mesh.webrtc.sctp.handshake import CookieVerdict, Handshake, fault_of
from psyne_mesh.webrtc.sctp.heartbeat import Heartbeat
from psyne_mesh.webrtc.sctp.inbound import Inbound
from psyne_mesh.webrtc.sctp.ootb import answer_out_of_the_blue
from psyne_mesh.webrtc.sctp.outbound import Outbound
from psyne_mesh.webrtc.sctp.pieces import Pieces
from psyne_mesh.webrtc.sctp.pmtud import LARGE_LOST_MAX, PathMtu
from psyne_mesh.webrtc.sctp.reassembly import HELD_LIFE_S
from psyne_mesh.webrtc.sctp.reset import StreamResets
from psyne_mesh.webrtc.sctp.stats import Counters

if TYPE_CHECKING:
    from random import Random

# Of one packet. Honest peers bundle one SACK, one FORWARD-TSN, a RE-CONFIG or a few, and what they answer or report; whatever
# is beyond is dropped, as if lost
COSTLY_CHUNKS_MAX = 8
CONTROL_CHUNKS_MAX = 64
_COSTLY = frozenset({wire.SACK, wire.FORWARD_TSN, wire.I_FORWARD_TSN, wire.RE_CONFIG})
ANSWERS_MAX = 16  # answers (ERROR, HEARTBEAT-ACK, INIT-ACK...) of one flush; the peer repeats what goes unanswered
# RFC 9260 section 9.2, T5-shutdown-guard in RTO.Max, for a peer that goes on sending. It recommends 5; silent peers are to be
# given the whole time of T2's ten repetitions
SHUTDOWN_GUARD_RTOS = 12


class State(enum.Enum):
    """RFC 9260 section 4, and AGREED: both INITs came with the descriptions, and nothing may be sent yet."""

    CLOSED = "closed"
    AGREED = "agreed"
    COOKIE_WAIT = "cookie-wait"
    COOKIE_ECHOED = "cookie-echoed"
    ESTABLISHED = "established"
    SHUTDOWN_PENDING = "shutdown-pending"
    SHUTDOWN_SENT = "shutdown-sent"
    SHUTDOWN_RECEIVED = "shutdown-received"
    SHUTDOWN_ACK_SENT = "shutdown-ack-sent"

    # What may be done in it; plain attributes, for a set of enum members is slow to ask
    is_up: bool
    takes_data: bool  # RFC 9260 section 6
    sends_data: bool
    takes_messages: bool  # from the owner


for _state in State:
    _state.is_up = _state not in (State.CLOSED, State.AGREED, State.COOKIE_WAIT, State.COOKIE_ECHOED)
    _state.takes_data = _state in (State.ESTABLISHED, State.SHUTDOWN_PENDING, State.SHUTDOWN_SENT)
    _state.sends_data = _state in (State.ESTABLISHED, State.SHUTDOWN_PENDING, State.SHUTDOWN_RECEIVED)
    _state.takes_messages = _state is State.ESTABLISHED or not _state.is_up


class AssociationCore:
    """The parts of an association, and how what arrives moves them. `Association` adds what its owner asks for."""

    def __init__(self, config: SctpConfig, *, rng: Random, handshake: Handshake | None = None) -> None:
        self._config = config
        self._handshake = handshake or Handshake(config, rng)
        self._state = State.CLOSED
        self._is_over = False  # Closed was told
        self._was_established = False
        self._peer_tag = 0
        self._header = b""  # ports and verification tag of our packets
        self._data_kind = wire.DATA
        self._zero_checksum_out = False
        self._counters = Counters()
        self._outbound = Outbound(config, self._counters, self._handshake.initial_tsn, rng)
        self._inbound: Inbound | None = None  # from the cookie on
        self._resets = StreamResets(self._handshake.initial_tsn)
        self._path = PathMtu(config)
        self._path_is_fixed = False  # see `Association.set_path_fixed`
        self._pieces = Pieces() if config.cuts_packets else None
        self._heartbeat = Heartbeat(config.heartbeat_interval_s, rng)
        self._t1 = ControlTimer(config.rto_max_s)  # T1-init or T1-cookie
        self._t2 = ControlTimer(config.rto_max_s)  # T2-shutdown
        self._shutdown_guard: float | None = None  # RFC 9260 section 9.2: when a shutdown has taken too long, T5
        self._errors = 0  # RFC 9260 section 8.1: expiries since the peer was heard last
        self._unread_bytes = 0
        self._closed_by_peer = False  # the peer began the shutdown
        self._now = 0.0  # of the last input, for the statistics
        self._answers: list[bytes] = []  # control chunks for the next flush
        self._loose_packets: list[bytes] = []  # packets that are not part of this association's normal flow
        self._events: list[SctpEvent] = []
        self.undelivered: dict[
            tuple[int, int], int
        ] = {}  # once it is over, by stream and PPID: see `Outbound.undelivered`

    # -------------------------------------------------------------------------------------------- packets that came in

    def _receive_untrusted(self, packet: bytes, now: float) -> None:
        """RFC 9260 sections 6.8 (checksum), 8.4 (out of the blue) and 8.5 (verification tag)."""
        self._now = now
        source, destination, tag, checksum, chunks = wire.parse_packet_untrusted(packet)
        config = self._config
        if source != config.remote_port or destination != config.local_port:
            self._counters.dropped("ports")
            return
        first = chunks[0][0]
        # RFC 9653 section 5.3: zero passes where we said so, but never for what opens an association
        may_be_zero = config.zero_checksum and first not in (wire.INIT, wire.COOKIE_ECHO)
        if (checksum or not may_be_zero) and not wire.checksum_is_right(packet):
            self._counters.dropped("checksum")
            return
        if first == wire.INIT:
            if tag or len(chunks) > 1:
                self._counters.dropped("tag")  # section 8.5.1 A; an INIT stands alone
            else:
                self._init_received(packet, *chunks[0][2:], now)
        elif first == wire.COOKIE_ECHO:
            if self._cookie_echo_received(packet, *chunks[0][2:], tag, now):
                self._chunks_received(packet, chunks[1:], now)
        elif self._tag_is_right(tag, first, chunks[0][1]):
            if self._state is State.AGREED:
                self._enter_established(now)  # the peer's side stood first
            self._chunks_received(packet, chunks, now)
        elif self._state is State.CLOSED or (first == wire.SHUTDOWN_ACK and not self._state.is_up):
            answer = answer_out_of_the_blue(first)  # section 8.5.1 E for the SHUTDOWN-ACK
            if answer:
                self._send_loose(tag, answer)
            self._counters.dropped("out_of_the_blue")
        else:
            self._counters.dropped("tag")

    def _tag_is_right(self, tag: int, first: int, flags: int) -> bool:
        """Section 8.5.1 B and C: ABORT and SHUTDOWN-COMPLETE may carry our own tag back, and then say so."""
        if self._state is State.CLOSED:
            return False
        if first in (wire.ABORT, wire.SHUTDOWN_COMPLETE) and flags & wire.FLAG_T:
            return tag == self._peer_tag != 0
        return tag == self._handshake.tag

    def _chunks_received(self, packet: bytes, chunks: list[tuple[int, int, int, int]], now: float) -> None:
        inbound = self._inbound
        if inbound is not None:
            inbound.reassembly.now = now
        data_kind = self._data_kind if self._state.takes_data else -1
        had_data = False
        costly_left, control_left = COSTLY_CHUNKS_MAX, CONTROL_CHUNKS_MAX
        for kind, flags, start, end in chunks:
            if kind == data_kind and inbound is not None:
                had_data = True
                inbound.data_received(packet, flags, start, end)
                continue
            handler = _HANDLERS.get(kind)
            control_left -= 1
            if kind in _COSTLY:
                costly_left -= 1
            if costly_left < 0 or control_left < 0:
                self._counters.dropped("too_many_control_chunks")
                break
            if handler is not None:
                handler(self, packet, start, end, now)
                if self._is_over:
                    return
                data_kind = self._data_kind if self._state.takes_data else -1  # a COOKIE-ACK opens the door for DATA
            elif kind in (wire.DATA, wire.I_DATA):
                self._counters.dropped("unexpected_data")  # closing, or not the kind that was agreed on
            elif kind != wire.PAD:
                # RFC 9260 section 3.2: bit 6 says report, bit 7 says go on with the next chunk
                if kind & 0x40:
                    self._report(wire.CAUSE_UNRECOGNIZED_CHUNK, packet[start:end])
                self._counters.dropped("unknown_chunk")
                if not kind & 0x80:
                    break
        if had_data and inbound is not None:
            inbound.packet_ended(now)
            self._data_settled(inbound, now)

    def _data_settled(self, inbound: Inbound, now: float) -> None:
        """Hand up what became whole, make deferred resets, report bad streams."""
        self._take_messages(inbound)
        if inbound.deferred_streams and self._resets.settle(inbound, now):
            self._take_reset_events()
            self._take_messages(inbound)
        for stream in inbound.invalid_streams:
            self._report(wire.CAUSE_INVALID_STREAM, wire.U16.pack(stream) + bytes(2))
        inbound.invalid_streams.clear()
        if self._state is State.SHUTDOWN_SENT:
            self._t2.again(now)  # section 9.2: answer DATA with SACK and SHUTDOWN at once
            inbound.ack_now = True

    def _take_messages(self, inbound: Inbound) -> None:
        ready = inbound.reassembly.ready
        if ready:
            counters = self._counters
            counters.messages_received += len(ready)
            for message in ready:
                counters.user_bytes_received += len(message.data)
            self._events += ready
            ready.clear()

    # ------------------------------------------------------------------------------------------------------- handshake

    def _init_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        """Sections 5.1, 5.2.1 and 5.2.2: answer, and keep nothing."""
        init = wire.parse_init_untrusted(packet, start, end)
        fault = fault_of(init)
        if fault is not None:
            self._counters.dropped("init")
            if init.tag:  # section 3.3.2: without a tag there is nobody to answer to
                self._send_loose(init.tag, wire.error_chunk(wire.ABORT, [wire.parameter(*fault)]))
            return
        if self._is_over:
            self._send_loose(init.tag, wire.error_chunk(wire.ABORT, []))
            return
        if self._state is State.SHUTDOWN_ACK_SENT:
            self._t2.due = True  # section 9.2: it has not heard of the end: say it again
            return
        standing = (self._handshake.tag, self._peer_tag) if self._state.is_up else None
        self._send_loose(init.tag, self._handshake.init_ack_chunk(init, now, standing))

    def _init_ack_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        if self._state is not State.COOKIE_WAIT:
            return  # section 5.2.3
        if not _stands_alone(packet, start, end):
            self._counters.dropped("bundled")
            return
        init = wire.parse_init_untrusted(packet, start, end)
        fault = fault_of(init)
        if fault is None and not init.cookie:
            fault = wire.CAUSE_MISSING_PARAMETER, b"\0\0\0\1\0\7"  # one: the state cookie
        if fault is not None:
            self._peer_tag = init.tag
            self._abort(fault[0], f"the peer's INIT-ACK cannot be used: {wire.describe_cause(fault[0], b'')}", fault[1])
            return
        if init.unrecognized:
            self._report(wire.CAUSE_UNRECOGNIZED_PARAMETERS, b"".join(init.unrecognized))
        self._begin(self._handshake.cookie_from(init, now), now)
        self._state = State.COOKIE_ECHOED
        self._t1.start(wire.chunk(wire.COOKIE_ECHO, 0, init.cookie), now, self._outbound.rto.rto)

    def _cookie_echo_received(self, packet: bytes, start: int, end: int, tag: int, now: float) -> bool:
        """Sections 5.1.5 and 5.2.4; True when the rest of the packet is to be read."""
        try:
            cookie = self._handshake.open_cookie_untrusted(packet[start + 4 : end], now)
        except StaleCookie as stale:
            cause = wire.parameter(wire.CAUSE_STALE_COOKIE, wire.U32.pack(min(int(stale.age_s * 1e6), 2**32 - 1)))
            self._send_loose(stale.peer_tag, wire.error_chunk(wire.ERROR, [cause]))
            raise
        if self._is_over or tag != cookie.local_tag:
            self._counters.dropped("cookie")
            return False
        verdict = self._handshake.judge(cookie, self._peer_tag)
        if verdict is CookieVerdict.DISCARD:
            self._counters.dropped("cookie")
            return False
        if verdict is CookieVerdict.REPEATED:
            self._answer(wire.chunk(wire.COOKIE_ACK, 0, b""))
            self._enter_established(now)
            return True
        if self._state is State.SHUTDOWN_ACK_SENT:
            self._t2.due = True
            self._report(wire.CAUSE_COOKIE_IN_SHUTDOWN, b"")
            return False
        if self._state.is_up:
            self._restart(cookie)
        self._begin(cookie, now)
        self._answers.append(wire.chunk(wire.COOKIE_ACK, 0, b""))
        self._enter_established(now)
        return True

    def _cookie_ack_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        if self._state is State.COOKIE_ECHOED:
            self._enter_established(now)

    def _begin(self, cookie: StateCookie, now: float) -> None:
        """Both sides' offers are known: set up the two halves."""
        self._peer_tag = cookie.peer_tag
        self._header = self._ports() + wire.U32.pack(cookie.peer_tag)
        self._data_kind = wire.I_DATA if cookie.interleaving else wire.DATA
        self._zero_checksum_out = cookie.zero_checksum
        self._inbound = Inbound(
            self._config,
            self._counters,
            initial_tsn=cookie.peer_initial_tsn,
            streams=cookie.inbound_streams,
            interleaving=cookie.interleaving,
        )
        self._inbound.set_unread(self._unread_bytes)
        self._outbound.start(cookie.a_rwnd, cookie.outbound_streams, cookie.interleaving, cookie.forward_tsn)
        self._resets.start(cookie.peer_initial_tsn, supported=cookie.re_config)

    def _fit_chunks(self) -> None:
        # A chunk cannot be cut again (RFC 9260 section 6.9): none exceeds what the path carries under all circumstances
        self._outbound.cut_for(self._packet_bytes if self._path_is_fixed else self._config.packet_bytes_base)

    @property
    def _packet_bytes(self) -> int:
        """How long packets are built; what is longer than the path carries then goes in pieces."""
        return max(self._path.current, self._config.packet_bytes_base)

    def _enter_established(self, now: float) -> None:
        self._t1.stop()
        if self._state.is_up:
            return
        self._state = State.ESTABLISHED
        self._path.start(now)
        self._heartbeat.data_sent(now)
        if not self._was_established:
            self._was_established = True
            self._events.append(Established())

    def _restart(self, cookie: StateCookie) -> None:
        """Section 5.2.4 action A: the peer lost its state; so do we."""
        self._handshake.tag = cookie.local_tag
        self._outbound.restart(cookie.local_initial_tsn)
        self._resets = StreamResets(cookie.local_initial_tsn)
        self._path = PathMtu(self._config)
        self._t2.stop()
        self._shutdown_guard = None
        self._answers.clear()
        self._errors = 0
        self._state = State.COOKIE_ECHOED
        self._events.append(Restarted())

    # ----------------------------------------------------------------------------------------- chunks of a standing one

    def _sack_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        if not self._state.is_up:
            return
        before = self._outbound.outstanding.cumulative_tsn
        if not self._outbound.sack_received(wire.parse_sack_untrusted(packet, start, end), now):
            self._counters.dropped("sack")
            return
        if self._outbound.outstanding.cumulative_tsn > before:
            self._errors = 0
            self._path.data_acked(now)
        if self._outbound.large_losses.count >= LARGE_LOST_MAX and not self._path_is_fixed:
            self._outbound.large_losses.count = 0
            self._path.narrowed(now)
            self._fit_chunks()
        if self._state is not State.ESTABLISHED:
            self._advance_shutdown(now)

    def _forward_tsn_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        self._skip(wire.parse_forward_tsn_untrusted(packet, start, end), wire.DATA, now)

    def _i_forward_tsn_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        self._skip(wire.parse_i_forward_tsn_untrusted(packet, start, end), wire.I_DATA, now)

    def _skip(self, forward: tuple[int, list[tuple[int, bool, int]]], kind: int, now: float) -> None:
        inbound = self._inbound
        if inbound is None or not self._state.takes_data or kind != self._data_kind or not self._outbound.forward_tsn:
            self._counters.dropped("unexpected_forward_tsn")
            return
        inbound.reassembly.held_life_s = max(HELD_LIFE_S, 2 * (self._outbound.rto.srtt or 0.0))
        inbound.forward(*forward)
        self._data_settled(inbound, now)

    def _heartbeat_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        # An answer as long as the question must not exceed the path MTU
        if self._state.is_up and wire.HEADER_BYTES + end - start + 3 <= self._packet_bytes:
            self._answer(wire.chunk(wire.HEARTBEAT_ACK, 0, packet[start + 4 : end]))

    def _heartbeat_ack_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        rtt, size = self._heartbeat.acked_untrusted(packet, start, end, now)
        if size:
            self._path.probe_acked(size, now)
            self._outbound.congestion.mtu_changed(self._packet_bytes)
            self._fit_chunks()
        if rtt is not None:
            self._outbound.rto.measured(rtt)
        if size or rtt is not None:
            self._errors = 0

    def _re_config_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        if self._inbound is None or not self._state.is_up:
            return
        self._take_messages(self._inbound)  # what came before the reset is told before it
        self._resets.received_untrusted(packet, start, end, self._inbound, self._outbound.queue, now)
        self._take_reset_events()
        self._take_messages(self._inbound)

    def _error_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        causes = wire.parse_parameters_untrusted(packet, start + 4, end)
        self._counters.dropped("error_reported_by_peer")
        if self._state is State.COOKIE_ECHOED and any(cause == wire.CAUSE_STALE_COOKIE for cause, _ in causes):
            # Section 5.2.6: begin with a new INIT
            self._state = State.COOKIE_WAIT
            self._peer_tag = 0
            self._t1.start(self._handshake.init_chunk(), now, self._outbound.rto.rto)

    def _abort_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        try:
            causes = wire.parse_parameters_untrusted(packet, start + 4, end)
        except ProtocolError:
            causes = []  # an ABORT ends the association whatever it says
        text = "; ".join(wire.describe_cause(cause, value) for cause, value in causes[:4])
        self._close(f"aborted by the peer: {text}" if text else "aborted by the peer", by_peer=True)

    def _shutdown_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        """Section 9.2."""
        if not self._state.is_up or self._state is State.SHUTDOWN_ACK_SENT:
            return
        (tsn,) = wire.U32.unpack_from(packet, start + 4)
        self._outbound.sack_received(wire.Sack(tsn, self._outbound.peer_a_rwnd, [], ()), now)
        if self._state is State.SHUTDOWN_SENT:
            self._enter_shutdown_ack_sent(now)
            return
        self._closed_by_peer = True
        self._state = State.SHUTDOWN_RECEIVED
        self._advance_shutdown(now)

    def _shutdown_ack_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        if self._state in (State.SHUTDOWN_SENT, State.SHUTDOWN_ACK_SENT):
            self._send_loose(self._peer_tag, wire.chunk(wire.SHUTDOWN_COMPLETE, 0, b""))
            self._close("shut down", by_peer=self._closed_by_peer)
        elif not self._state.is_up:
            self._send_loose(self._handshake.tag, wire.chunk(wire.SHUTDOWN_COMPLETE, wire.FLAG_T, b""))

    def _shutdown_complete_received(self, packet: bytes, start: int, end: int, now: float) -> None:
        if self._state is State.SHUTDOWN_ACK_SENT and _stands_alone(packet, start, end):
            self._close("shut down", by_peer=self._closed_by_peer)

    def _ports(self) -> bytes:
        return wire.PARAM_HEADER.pack(self._config.local_port, self._config.remote_port)

    def _answer(self, chunk: bytes) -> None:
        if len(self._answers) < ANSWERS_MAX:
            self._answers.append(chunk)

    def _report(self, cause: int, value: bytes) -> None:
        """ERROR with one cause, cut to what is worth sending back."""
        self._answer(wire.error_chunk(wire.ERROR, [wire.parameter(cause, value[:256])]))

    def _send_loose(self, tag: int, chunk: bytes) -> None:
        """A packet of its own: it has another tag than the flow of packets, or comes before or after it."""
        if len(self._loose_packets) < ANSWERS_MAX:
            self._loose_packets.append(wire.seal(self._ports() + wire.U32.pack(tag), [chunk]))

    # ---------------------------------------------------------------------------------------------------------- ending

    def _advance_shutdown(self, now: float) -> None:
        """Section 9.2: when nothing is outstanding any more, say so."""
        if not self._outbound.is_idle or self._resets.is_waiting:
            return
        if self._state is State.SHUTDOWN_PENDING:
            self._state = State.SHUTDOWN_SENT
            self._t2.start(b"", now, self._outbound.rto.rto)
            self._shutdown_guard = now + SHUTDOWN_GUARD_RTOS * self._config.rto_max_s
        elif self._state is State.SHUTDOWN_RECEIVED:
            self._enter_shutdown_ack_sent(now)

    def _enter_shutdown_ack_sent(self, now: float) -> None:
        self._state = State.SHUTDOWN_ACK_SENT
        self._t2.start(b"", now, self._outbound.rto.rto)

    def _shutdown_chunk(self, inbound: Inbound) -> bytes:
        if self._state is State.SHUTDOWN_ACK_SENT:
            return wire.chunk(wire.SHUTDOWN_ACK, 0, b"")
        return wire.chunk(wire.SHUTDOWN, 0, wire.U32.pack(inbound.cumulative_tsn & 0xFFFFFFFF))

    def _count_error(self) -> None:
        """Section 8.1."""
        self._errors += 1
        if exceeds(self._errors, self._config.association_retransmits_max):
            self._give_up("the peer does not answer")

    def _give_up(self, reason: str) -> None:
        """End it, and say so: perhaps only the way back is broken."""
        self._abort(wire.CAUSE_USER_ABORT, reason, b"no answer")

    def _abort(self, cause: int, reason: str, value: bytes) -> None:
        if self._is_over:
            return
        causes = [wire.parameter(cause, value[:512])]
        if self._peer_tag:
            self._send_loose(self._peer_tag, wire.error_chunk(wire.ABORT, causes))
        elif self._state is State.COOKIE_WAIT and cause == wire.CAUSE_INVALID_PARAMETER:
            # Section 8.5.1 B: the peer gave us no tag, so the packet carries our own, and the T bit says so
            self._send_loose(self._handshake.tag, wire.error_chunk(wire.ABORT, causes, flags=wire.FLAG_T))
        self._close(reason, by_peer=False)

    def _close(self, reason: str, *, by_peer: bool) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._state = State.CLOSED
        self._t1.stop()
        self._t2.stop()
        self._answers.clear()
        self.undelivered = self._outbound.undelivered()
        self._outbound.restart(0)
        self._inbound = None
        self._events.append(Closed(reason, by_peer))

    def _take_reset_events(self) -> None:
        for event in self._resets.events:
            if isinstance(event, StreamsReset) and not event.error:
                self._outbound.outstanding.forget_skipped(event.stream_ids)
        self._events += self._resets.events
        self._resets.events.clear()


def _stands_alone(packet: bytes, start: int, end: int) -> bool:
    """Section 6.10: INIT, INIT-ACK and SHUTDOWN-COMPLETE share their packet with no other chunk."""
    return start == wire.HEADER_BYTES and end + 3 >= len(packet)


def exceeds(count: int, limit: int | None) -> bool:
    return limit is not None and count > limit


_Handler: TypeAlias = Callable[[AssociationCore, bytes, int, int, float], None]
_HANDLERS: dict[int, _Handler] = {
    wire.SACK: AssociationCore._sack_received,
    wire.INIT_ACK: AssociationCore._init_ack_received,
    wire.COOKIE_ACK: AssociationCore._cookie_ack_received,
    wire.HEARTBEAT: AssociationCore._heartbeat_received,
    wire.HEARTBEAT_ACK: AssociationCore._heartbeat_ack_received,
    wire.FORWARD_TSN: AssociationCore._forward_tsn_received,
    wire.I_FORWARD_TSN: AssociationCore._i_forward_tsn_received,
    wire.RE_CONFIG: AssociationCore._re_config_received,
    wire.ERROR: AssociationCore._error_received,
    wire.ABORT: AssociationCore._abort_received,
    wire.SHUTDOWN: AssociationCore._shutdown_received,
    wire.SHUTDOWN_ACK: AssociationCore._shutdown_ack_received,
    wire.SHUTDOWN_COMPLETE: AssociationCore._shutdown_complete_received,
}
