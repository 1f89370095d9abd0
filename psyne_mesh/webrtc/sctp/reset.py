"""Stream reset (RFC 6525): closing a direction of a stream so that its numbers may begin anew."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from struct import Struct

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.sctp import wire
from psyne_mesh.webrtc.sctp.events import StreamsReset, StreamsResetByPeer
from psyne_mesh.webrtc.sctp.inbound import Inbound
from psyne_mesh.webrtc.sctp.send_queue import SendQueue

# A peer that has not heard yet that its deferred request was made asks again within its RTO, hardly longer than this.
REPEATED_WITHIN_S = 5.0
STREAMS_PER_REQUEST_MAX = 500  # two bytes each: one request fits a base packet
ALL_STREAMS_EVERY_S = 1.0  # a request of twelve bytes for all streams looks at all of them, so not more often than this

# Results (RFC 6525 section 4.4)
NOTHING_TO_DO = 0
PERFORMED = 1
DENIED = 2
BUSY = 4  # another request is under way at the peer
BAD_SEQUENCE_NUMBER = 5
IN_PROGRESS = 6
_REFUSALS = {DENIED: "denied", 3: "wrong SSN", BAD_SEQUENCE_NUMBER: "bad sequence number"}

_OUTGOING = Struct("!III")  # request number, response number, sender's last TSN
_WORD = 0xFFFFFFFF


class StreamResets:
    """1. `request` streams. 2. Per flush `chunks_to_send`. 3. `received` per RE-CONFIG chunk. 4. `settle` after data.
    5. `handle_timeout` at `deadline`; it says how often a request went unanswered."""

    __slots__ = (
        "_all_asked_at",
        "_asked",
        "_last_request",
        "_last_result",
        "_last_tsn",
        "_made_at",
        "_made_late",
        "_next_request",
        "_peer_waits",
        "_pending",
        "_ready",
        "_request",
        "_responses",
        "_send_request",
        "_streams",
        "_supported",
        "deadline",
        "events",
    )

    def __init__(self, local_initial_tsn: int) -> None:
        # Streams whose reset waits, at most 65535: `_pending` have something to send, `_ready` have not, in order
        self._pending: set[int] = set()
        self._ready: dict[int, None] = {}
        self._streams: list[int] = []  # of the request that is under way; one at a time (section 5.1.1)
        self._request = b""
        self._last_tsn = 0  # of that request, unwrapped
        self._send_request = False
        self._peer_waits = False  # it answered "in progress", or "busy": we ask again, under the next number
        self._next_request = local_initial_tsn
        self._last_request = 0  # number of the peer's latest request
        self._last_result = NOTHING_TO_DO
        self._asked = b""  # last TSN and streams of the peer's request that is deferred,
        self._made_late = b""  # and of the one that was made last after it was deferred,
        self._made_at = 0.0  # at that time
        self._all_asked_at = -ALL_STREAMS_EVERY_S
        self._responses: list[bytes] = []
        self._supported = True
        self.deadline: float | None = None
        self.events: list[StreamsReset | StreamsResetByPeer] = []

    def start(self, peer_initial_tsn: int, *, supported: bool) -> None:
        """The peer is known. Section 5.1: request numbers begin at the initial TSN."""
        self._last_request = (peer_initial_tsn - 1) & _WORD
        self._supported = supported

    def request(self, streams: Iterable[int], queue: SendQueue) -> None:
        """Streams that the caller has marked as `resetting`."""
        for stream_id in streams:
            if queue.stream(stream_id).messages:
                self._pending.add(stream_id)
            else:
                self._ready[stream_id] = None

    @property
    def is_waiting(self) -> bool:
        """Whether a reset of ours is not through."""
        return bool(self._pending or self._ready or self._streams)

    @property
    def has_work(self) -> bool:
        """Whether `chunks_to_send` may have anything."""
        return bool(self._responses or self._pending or self._ready or self._streams)

    def chunks_to_send(self, now: float, rto: float, queue: SendQueue, next_tsn: int) -> list[bytes]:
        """RE-CONFIG chunks for this flush. A stream's request waits until its queue is empty; what is still in flight
        is covered by the TSN in the request. Work: what has become ready since, never all that waits."""
        chunks = [wire.chunk(wire.RE_CONFIG, 0, response) for response in self._responses]
        self._responses.clear()
        for stream_id in queue.drained:
            if stream_id in self._pending:
                self._pending.remove(stream_id)
                self._ready[stream_id] = None
        queue.drained.clear()
        if not self._streams and self._ready:
            ready = list(islice(self._ready, STREAMS_PER_REQUEST_MAX))
            if self._supported:
                self._begin(ready, next_tsn - 1)
            else:
                self._refused_for_all(ready, queue)
        if self._peer_waits and self.deadline is None:
            self.deadline = now + rto
        if self._send_request:
            self._send_request = False
            self.deadline = now + rto
            chunks.append(wire.chunk(wire.RE_CONFIG, 0, self._request))
        return chunks

    def handle_timeout(self, now: float) -> bool:
        """True when the peer left our request unanswered for an RTO."""
        if self.deadline is None or now < self.deadline:
            return False
        self.deadline = None
        self._send_request = True
        if not self._peer_waits:
            return True
        # An answered number is spent: dcSCTP repeats its "in progress" to it for ever, and looks again at the next one
        self._peer_waits = False
        self._next_request = (self._next_request + 1) & _WORD
        self._write_request()
        return False  # section 5.2.7: it does answer

    def received_untrusted(
        self, packet: bytes, start: int, end: int, inbound: Inbound, queue: SendQueue, now: float
    ) -> None:
        """A RE-CONFIG chunk: one or two parameters (section 3.1). Raises ProtocolError."""
        for kind, value in wire.parse_parameters_untrusted(packet, start + 4, end)[:2]:
            if kind == wire.PARAM_RECONFIG_RESPONSE:
                self._response_received(value, queue)
            elif kind == wire.PARAM_OUTGOING_RESET:
                self._outgoing_reset_received(value, inbound, now)
            elif kind == wire.PARAM_INCOMING_RESET:
                self._incoming_reset_received(value, queue, now)
            elif kind in (wire.PARAM_TSN_RESET, wire.PARAM_ADD_OUTGOING, wire.PARAM_ADD_INCOMING):
                self._refuse(value)

    def settle(self, inbound: Inbound, now: float) -> bool:
        """Data has arrived: make a deferred reset (section 5.2.2 E3) and tell the peer, who need not ask again. True
        when there was one."""
        streams = inbound.deferred_done()
        if streams:
            self._last_result = PERFORMED
            self._asked, self._made_late, self._made_at = b"", self._asked, now
            self._respond(self._last_request, PERFORMED)
            self.events.append(StreamsResetByPeer(tuple(streams)))
        return bool(streams)

    # --------------------------------------------------------------------------------------------------------- helpers

    def _begin(self, streams: list[int], last_tsn: int) -> None:
        for stream in streams:
            del self._ready[stream]
        self._streams = streams
        self._last_tsn = last_tsn
        self._write_request()
        self._send_request = True

    def _write_request(self) -> None:
        head = _OUTGOING.pack(self._next_request, self._last_request, self._last_tsn & _WORD)
        body = head + b"".join(wire.U16.pack(stream) for stream in self._streams)
        self._request = wire.parameter(wire.PARAM_OUTGOING_RESET, body)

    def _refused_for_all(self, streams: list[int], queue: SendQueue) -> None:
        for stream in streams:
            del self._ready[stream]
            queue.stream(stream).resetting = False
        self.events.append(StreamsReset(tuple(streams), "the peer does not support stream reset"))

    def _response_received(self, value: bytes, queue: SendQueue) -> None:
        if len(value) < 8:
            raise ProtocolError("short re-configuration response")
        number, result = wire.U32.unpack_from(value)[0], wire.U32.unpack_from(value, 4)[0]
        if not self._streams or number != self._next_request:
            return  # an answer that came twice
        if result in (IN_PROGRESS, BUSY):
            self._peer_waits = True
            self.deadline = None  # begins anew: the peer may still say by itself that it is done, as we do in `settle`
            return
        self.deadline = None
        self._send_request = self._peer_waits = False
        self._next_request = (self._next_request + 1) & _WORD
        streams, self._streams = self._streams, []
        for stream_id in streams:
            stream = queue.stream(stream_id)
            stream.resetting = False
            if result in (NOTHING_TO_DO, PERFORMED):
                stream.next_ordered = stream.next_unordered = 0
        refusal = "" if result in (NOTHING_TO_DO, PERFORMED) else _REFUSALS.get(result, f"result {result}")
        self.events.append(StreamsReset(tuple(streams), refusal))

    def _outgoing_reset_received(self, value: bytes, inbound: Inbound, now: float) -> None:
        if len(value) < 12:
            raise ProtocolError("short outgoing SSN reset request")
        number, _, last_tsn = _OUTGOING.unpack_from(value)
        if not self._is_next(number, repeatable=self._last_result == IN_PROGRESS):
            return
        made_late, self._made_late = self._made_late, b""
        if value[8:] == made_late and now - self._made_at <= REPEATED_WITHIN_S:
            # The same under another number: it had not heard yet that the reset was made, and the streams may live again
            self._last_result = PERFORMED
            self._respond(number, PERFORMED)
            return
        self._asked = value[8:]
        streams = [stream for (stream,) in wire.U16.iter_unpack(value[12 : len(value) & ~1])]
        if self._is_made(streams, inbound, last_tsn):
            self._last_result = PERFORMED
            self._asked = b""
        else:
            self._last_result = IN_PROGRESS
        self._respond(number, self._last_result)

    def _is_made(self, streams: list[int], inbound: Inbound, last_tsn: int) -> bool:
        """Whether the reset was made; if not, `settle` makes it. One of all streams (section 4.1: none is listed) is not
        noted though: the peer asks again."""
        if streams:
            made = inbound.reset_when(streams, last_tsn)
        else:
            everything = inbound.reset_all(last_tsn)
            made = everything is not None
            streams = everything or []
        if made:
            self.events.append(StreamsResetByPeer(tuple(streams)))
        return made

    def _incoming_reset_received(self, value: bytes, queue: SendQueue, now: float) -> None:
        """Section 5.2.3: the peer asks us to reset our side."""
        if len(value) < 4:
            raise ProtocolError("short incoming SSN reset request")
        (number,) = wire.U32.unpack_from(value)
        if not self._is_next(number, repeatable=False):
            return
        asked = [stream for (stream,) in wire.U16.iter_unpack(value[4 : len(value) & ~1])]
        if not asked:
            if now - self._all_asked_at < ALL_STREAMS_EVERY_S:
                self._last_result = DENIED
                self._respond(number, DENIED)
                return
            self._all_asked_at = now
            asked = list(queue.streams)
        fresh = [s for s in asked if s in queue.streams and not queue.streams[s].resetting]
        for stream_id in fresh:
            queue.streams[stream_id].resetting = True
        self.request(fresh, queue)
        # Our own outgoing request is the answer proper; it may have to wait for queued data
        self._last_result = PERFORMED if fresh else NOTHING_TO_DO
        self._respond(number, self._last_result)

    def _refuse(self, value: bytes) -> None:
        if len(value) < 4:
            raise ProtocolError("short re-configuration request")
        (number,) = wire.U32.unpack_from(value)
        if self._is_next(number, repeatable=False):
            self._last_result = DENIED
            self._respond(number, DENIED)

    def _is_next(self, number: int, *, repeatable: bool) -> bool:
        """Whether a request is to be carried out (section 5.2.1); if not, it has been answered here."""
        if number == (self._last_request + 1) & _WORD:
            self._last_request = number
            return True
        if number == self._last_request:
            if repeatable:
                return True
            self._respond(number, self._last_result)  # our answer was lost
            return False
        self._respond(number, BAD_SEQUENCE_NUMBER)
        return False

    def _respond(self, number: int, result: int) -> None:
        if len(self._responses) < 4:  # one chunk of the peer asks for two at most; a flood gets no more
            self._responses.append(
                wire.parameter(wire.PARAM_RECONFIG_RESPONSE, wire.U32.pack(number) + wire.U32.pack(result))
            )
