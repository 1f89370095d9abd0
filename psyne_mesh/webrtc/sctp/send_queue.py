"""Messages that wait for their first transmission, by stream."""

from __future__ import annotations

from collections import deque

from psyne_mesh.webrtc.sctp.scheduler import Scheduler

PRIORITY_NORMAL = 256  # RFC 8831 section 6.4
CREDIT_MESSAGE_BYTES = (
    64  # what a message costs of a stream's credit besides its bytes, so that empty ones are bounded too
)
CREDIT_UNLIMITED = 1 << 60


class Message:
    """One user message on its way out."""

    __slots__ = (
        "data",
        "expires_at",
        "first_tsn",
        "last_tsn",
        "max_retransmits",
        "next_fsn",
        "number",
        "offset",
        "ppid",
        "queued_at",
        "size",
        "stream_id",
        "unordered",
    )

    def __init__(
        self,
        stream_id: int,
        ppid: int,
        data: bytes,
        unordered: bool,
        max_retransmits: int | None,
        expires_at: float | None,
        queued_at: float,
    ) -> None:
        self.stream_id = stream_id
        self.ppid = ppid
        self.data = data
        self.size = len(data)
        self.offset = 0  # where the unsent rest begins
        self.unordered = unordered
        self.max_retransmits = max_retransmits
        self.expires_at = expires_at
        self.queued_at = queued_at
        self.number = 0  # SSN or MID, given with the first fragment
        self.next_fsn = 0
        self.first_tsn = self.last_tsn = -1


class SendStream:
    """One outgoing stream. It lives from its first use to the end of the association, or to its reset."""

    __slots__ = (
        "abandoned_sent",
        "abandoned_unsent",
        "buffered",
        "credit",
        "id",
        "low_threshold",
        "messages",
        "next_ordered",
        "next_unordered",
        "resetting",
        "weight",
    )

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.messages: deque[Message] = deque()
        self.buffered = 0  # bytes that wait for their first transmission
        self.low_threshold = 0
        self.weight = PRIORITY_NORMAL
        self.credit = CREDIT_UNLIMITED  # bytes of messages that may begin; see `SendQueue.set_credit`
        self.next_ordered = 0  # SSN, or MID of ordered messages
        self.next_unordered = 0  # MID of unordered messages
        self.resetting = False
        self.abandoned_unsent = 0  # RFC 7496: messages given up before their first fragment left
        self.abandoned_sent = 0  # and after

    @property
    def is_bulk(self) -> bool:
        """Its first message may wait: it is reliable and of normal priority. A position is worth nothing later."""
        message = self.messages[0]
        return message.max_retransmits is None and message.expires_at is None and self.weight <= PRIORITY_NORMAL

    def number(self, message: Message, interleaving: bool) -> None:
        """Give a message whose first fragment leaves its MID, or its SSN when it is ordered."""
        if message.unordered:
            message.number = self.next_unordered
            self.next_unordered = (self.next_unordered + 1) & 0xFFFFFFFF
        else:
            message.number = self.next_ordered
            self.next_ordered = (self.next_ordered + 1) & (0xFFFFFFFF if interleaving else 0xFFFF)


class SendQueue:
    """All outgoing streams and the order in which they are served. The limit on its bytes is the association's."""

    __slots__ = (
        "_held_back",
        "begun_bytes",
        "begun_bytes_max",
        "buffered",
        "drained",
        "fragment_bytes_max",
        "interleaving",
        "low_streams",
        "scheduler",
        "streams",
    )

    def __init__(self) -> None:
        self.streams: dict[int, SendStream] = {}  # at most 65535: the stream ids
        self.scheduler = Scheduler()
        self.buffered = 0
        self.interleaving = False  # this and the next two are settled by the handshake
        self.fragment_bytes_max = 1000
        # Interleaved messages share the peer's window while they are incomplete: were they to fill it, none of them could
        # ever end, since there is no partial delivery. So another one begins only while all of them fit into this much.
        self.begun_bytes_max = 2**21
        self.begun_bytes = 0  # whole sizes of the messages of which a part has left
        self._held_back: list[SendStream] = []
        self.drained: list[int] = []  # streams to be reset that have nothing more to send, not yet told
        self.low_streams: list[int] = []  # streams whose buffered amount fell to their threshold, not yet told

    def stream(self, stream_id: int) -> SendStream:
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self.streams[stream_id] = SendStream(stream_id)
        return stream

    def push(self, stream: SendStream, message: Message) -> None:
        size = message.size
        stream.buffered += size
        self.buffered += size
        stream.messages.append(message)
        if len(stream.messages) == 1 and stream.credit > 0:
            self.scheduler.add(stream, self._next_size(message))

    def sent(self, stream: SendStream, size: int) -> None:
        """`size` bytes of the first message of `stream`, which the scheduler picked, have left."""
        before = stream.buffered
        stream.buffered = left = before - size
        self.buffered -= size
        if left <= stream.low_threshold < before:
            self.low_streams.append(stream.id)
        messages = stream.messages
        message = messages[0]
        if message.offset < message.size:
            if message.offset == size:
                self.begun_bytes += message.size
            if not self.interleaving:
                self.scheduler.locked = stream
            elif len(self.scheduler.heap) > 1:
                self.scheduler.charge(stream, self._next_size(message))
            return
        messages.popleft()
        stream.credit -= message.size + CREDIT_MESSAGE_BYTES
        if message.size > size:
            self._ended(message)
        scheduler = self.scheduler
        scheduler.locked = None
        if not messages:
            scheduler.remove(stream)
            if stream.resetting:
                self.drained.append(stream.id)
        elif stream.credit <= 0:
            scheduler.remove(stream)
        elif len(scheduler.heap) > 1:
            scheduler.charge(stream, self._next_size(messages[0]))

    def hold_back(self, stream: SendStream) -> bool:
        """Whether the long first message of `stream`, which the scheduler picked, must wait until another one has ended.
        If so the stream stands aside until then."""
        message = stream.messages[0]
        if not self.begun_bytes or self.begun_bytes + message.size <= self.begun_bytes_max:
            return False
        self.scheduler.remove(stream)
        self._held_back.append(stream)
        return True

    def set_credit(self, stream: SendStream, credit: int) -> None:
        """So many bytes of messages may begin on the stream from now on; with none left it stands aside."""
        waits = stream.messages and not stream.messages[0].offset
        had, stream.credit = stream.credit > 0, credit
        if not waits or had == (credit > 0):
            return
        if credit > 0:
            self.scheduler.add(stream, self._next_size(stream.messages[0]))
        elif stream in self._held_back:
            self._held_back.remove(stream)
        else:
            self.scheduler.remove(stream)

    def unbegun_cost(self, stream: SendStream) -> int:
        """What the messages will cost that wait and have not begun."""
        messages = stream.messages
        if not messages:
            return 0
        begun = messages[0].size - messages[0].offset if messages[0].offset else 0
        return stream.buffered - begun + CREDIT_MESSAGE_BYTES * (len(messages) - (begun > 0))

    def discard(self, stream: SendStream) -> None:
        """Give up what is unsent of the first message of `stream`."""
        message = stream.messages[0]
        self._forget(stream, message)
        begun, message.offset = message.offset, message.size
        stream.messages.popleft()
        if stream in self._held_back:
            self._held_back.remove(stream)
        else:
            self.scheduler.remove(stream)
        if begun:
            self._ended(message)
            stream.credit -= message.size + CREDIT_MESSAGE_BYTES
        if stream.messages and stream.credit > 0:
            self.scheduler.add(stream, self._next_size(stream.messages[0]))
        elif stream.resetting and not stream.messages:
            self.drained.append(stream.id)

    def discard_rest_of(self, message: Message) -> bool:
        """Give up what is unsent of a message of which fragments were sent; False when there is nothing."""
        if message.offset >= message.size:
            return False
        self.discard(self.streams[message.stream_id])
        return True

    def clear(self) -> None:
        """Forget every message and stream number; thresholds and priorities stay."""
        self.scheduler = Scheduler()
        self.buffered = self.begun_bytes = 0
        self._held_back.clear()
        self.drained.clear()
        for stream in self.streams.values():
            stream.messages.clear()
            stream.buffered = stream.next_ordered = stream.next_unordered = 0
            stream.resetting = False
            stream.credit = CREDIT_UNLIMITED

    def clear_from(self, streams: int) -> None:
        """The peer takes only `streams` streams: drop what waits on the others (RFC 9260 section 5.1.1)."""
        for stream in self.streams.values():
            while stream.id >= streams and stream.messages:
                stream.abandoned_unsent += 1
                self.discard(stream)

    def oldest_queued_at(self) -> float | None:
        return min((s.messages[0].queued_at for s in self.streams.values() if s.messages), default=None)

    def _ended(self, message: Message) -> None:
        """A message of which parts had left is through, or given up: who stood aside may try again."""
        self.begun_bytes -= message.size
        held_back, self._held_back = self._held_back, []
        for stream in held_back:
            self.scheduler.add(stream, self._next_size(stream.messages[0]))

    def _forget(self, stream: SendStream, message: Message) -> None:
        size = message.size - message.offset
        before = stream.buffered
        stream.buffered -= size
        self.buffered -= size
        if stream.buffered <= stream.low_threshold < before:
            self.low_streams.append(stream.id)

    def _next_size(self, message: Message) -> int:
        # Without interleaving the unit that is scheduled is the message: nothing may come between its fragments
        rest = message.size - message.offset
        return min(rest, self.fragment_bytes_max) if self.interleaving else rest
