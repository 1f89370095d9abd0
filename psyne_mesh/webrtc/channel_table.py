"""The data channels of one SCTP association: announcing, routing, closing (RFC 8831 section 6, RFC 8832 section 6)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import (
    ClosedError,
    InvalidConfig,
    LocalError,
    MessageTooLarge,
    ProtocolError,
    UnserialisableMessage,
    WouldBlock,
)
from psyne_mesh.frozen import Frozen
from psyne_mesh.webrtc import sctp
from psyne_mesh.webrtc.channel import (
    PPID_BINARY,
    PPID_BINARY_EMPTY,
    PPID_DCEP,
    PPID_STRING,
    PPID_STRING_EMPTY,
    BufferedAmountLow,
    Channel,
    ChannelClosed,
    ChannelEvent,
    ChannelOpened,
    ChannelStats,
    MessageReceived,
)
from psyne_mesh.webrtc.credit import CREDIT_STREAM, Credits
from psyne_mesh.webrtc.dcep import (
    ACK,
    CREDIT,
    encode_credit,
    encode_open,
    parse_credit_untrusted,
    parse_dcep_untrusted,
)

_EMPTY = b"\x00"
_STREAM_ID_MAX = 65_534  # RFC 8831 section 6.5: 65535 is reserved
_RESET = -1  # stands among early messages, in the place of a PPID, for "the peer reset the stream here"
_NEVER_LOW = -1  # a low-water mark that is never reached: nobody has asked for the event yet
_REFUSED = DataChannelConfig(label="refused stream")

# werift 0.25 numbers its channels by ICE's roles, not by those of DTLS: as offerer and DTLS client it takes 1, 3, 5...
_IDS_LEFT_ALONE = 100


class ChannelLimits(Frozen, kw_only=True):
    """What one peer may make us hold, and what we make it hold. What it opens takes no room from what we open.

    channels_max: channels of ours alive at once.
    peer_channels_max: the peer's: two rooms with 256 each. Its OPEN beyond it is refused by a reset, and twice that many
        streams end the connection.
    peer_words_bytes_max: labels and protocols of those, all together; RFC 8832 lets each have 64 KiB of both. 512 channels
        of rooms have 74 KB. Its OPEN beyond it is refused in the same way.
    early_bytes_max, early_messages_max: messages for streams that no channel claims yet, over all streams. A message
        beyond it closes its stream.
    """

    channels_max: int = 1024
    peer_channels_max: int = 512
    peer_words_bytes_max: int = 2**18
    early_bytes_max: int = 2**20
    early_messages_max: int = 4096


class ChannelTable:
    """All channels of one association.

    1. `create` channels at any time; they wait until `start` brings the association and the DTLS role of this side.
    2. `announce` when the association begins to connect.
    3. Give every list of the association's events to `handle_events`, in their order.
    4. Call `send` and `close`, then drain the association's packets.
    5. Drain `take_events`.

    Early data: a message on a stream without a channel (a negotiated channel that this side has not created yet, or an
    unordered message that overtook its OPEN) is kept until the channel appears, within `ChannelLimits`.
    """

    def __init__(self, limits: ChannelLimits) -> None:
        self.max_message_size = 0
        self._association: sctp.Association  # from `start` on
        self._limits = limits
        self._by_id: dict[int, Channel] = {}
        self._by_peer: dict[int, int] = {}  # those ids of them that the peer opened, or wanted to: bytes of its words
        self._peer_words_bytes = 0
        self._waiting: list[Channel] = []  # created, in-band, before the DTLS role was known
        self._early: dict[int, list[tuple[int, bytes]]] = {}
        self._early_bytes = self._early_messages = 0
        self._first_id: int | None = None  # of our parity
        self._skips = 0
        self._events: list[ChannelEvent] = []
        self._credits: Credits | None = None
        self.messages_discarded = 0

    @property
    def early_bytes(self) -> int:
        """Bytes held for streams without a channel; they count as unread."""
        return self._early_bytes

    def start(
        self,
        association: sctp.Association,
        *,
        is_dtls_client: bool,
        max_message_size: int,
        leaves_low_ids: bool = False,
        credits: Credits | None = None,
    ) -> None:
        """In-band channels get their ids. `max_message_size`: bytes of the largest message that `send` accepts.
        `leaves_low_ids`: the peer may number its channels by another rule, so ours begin above those. `credits`: for a peer
        that knows of them."""
        self._association = association
        self._credits = credits
        self.max_message_size = max_message_size
        self._first_id = 0 if is_dtls_client else 1  # RFC 8832 section 6
        self._skips = _IDS_LEFT_ALONE if leaves_low_ids else 0
        for channel in self._waiting:
            self._assign_id(channel)
        self._waiting.clear()

    def announce(self, now: float) -> None:
        """Queue the OPENs of all channels made so far: they travel beside SCTP's cookie, a round trip earlier."""
        for channel in list(self._by_id.values()):
            with contextlib.suppress(LocalError):  # `_open` tries again and tells
                self._queue_open(channel, now)

    def create(self, config: DataChannelConfig, now: float) -> Channel:
        """A new channel; it opens when the association is established. Raises `InvalidConfig` when its id is taken."""
        encode_open(config)  # refuses what could not be announced later
        if len(self._by_id) - len(self._by_peer) + len(self._waiting) >= self._limits.channels_max:
            raise InvalidConfig(f"a connection carries at most {self._limits.channels_max} channels of ours at once")
        channel = Channel(config)
        if channel.id is not None:
            if channel.id in self._by_id:
                raise InvalidConfig(f"channel id {channel.id} is in use")
            self._by_id[channel.id] = channel
        elif self._first_id is None:
            self._waiting.append(channel)
        else:
            self._assign_id(channel)
        if self._first_id is not None and self._association.is_established:
            try:
                self._open(channel, now)
            except LocalError:
                self._forget(channel)
                raise
        return channel

    def send(self, channel: Channel, data: str | bytes | bytearray | memoryview, now: float) -> None:
        """Queues one message. Raises a `LocalError` and changes nothing when it cannot."""
        if channel.state != "open":
            if channel.state == "connecting":
                raise WouldBlock("the channel is not open yet; wait for it")
            raise ClosedError("the channel is closed")
        payload: bytes
        if isinstance(data, str):
            try:
                payload, ppid = data.encode(), PPID_STRING
            except UnicodeEncodeError as error:
                raise UnserialisableMessage("text with lone surrogates has no UTF-8 form") from error
        elif isinstance(data, bytes | bytearray | memoryview):
            payload, ppid = bytes(data), PPID_BINARY  # no copy when it is bytes already
        else:
            raise UnserialisableMessage(f"a channel carries str and bytes, not {type(data).__name__}")
        size = len(payload)
        if size > self.max_message_size:
            raise MessageTooLarge(size, self.max_message_size)
        if not size:
            payload, ppid = _EMPTY, PPID_STRING_EMPTY if ppid == PPID_STRING else PPID_BINARY_EMPTY
        assert channel.id is not None
        self._association.send(
            channel.id,
            ppid,
            payload,
            now,
            unordered=channel.unordered and channel.confirmed,
            max_retransmits=channel.max_retransmits,
            life_time=channel.life_time,
        )
        channel.messages_sent += 1
        channel.bytes_sent += size

    def note_unread(self) -> int:
        """The application has read, or left unread, a good deal. How many bytes of all that is unread, which `Channel.unread`
        has by channel, do not count against the window."""
        if self._credits is None:
            return 0
        self._credits.note_read()
        return self._credits.exempt_bytes

    def send_credits(self, now: float) -> None:
        """Before each flush, after the application has had what came: tell the peer how much its channels may send."""
        if self._credits is None or not self._credits.is_due or CREDIT_STREAM in self._by_id:
            return
        for channel, limit in self._credits.take_due():
            if channel.id is not None and channel.state == "open":
                with contextlib.suppress(LocalError):  # no room in the queue: the next word says more
                    self._association.set_priority(CREDIT_STREAM, 1024)
                    self._association.send(CREDIT_STREAM, PPID_DCEP, encode_credit(channel.id, limit), now)

    def buffered_amount(self, channel: Channel) -> int:
        """Bytes accepted by `send` that have not gone out for the first time."""
        if channel.id is None or self._first_id is None:
            return 0
        return self._association.buffered_amount(channel.id)

    def set_buffered_amount_low_threshold(self, channel: Channel, threshold: int) -> None:
        """Bytes. For an open channel."""
        if channel.state == "open" and channel.id is not None:
            self._association.set_buffered_amount_low_threshold(channel.id, threshold)

    def close(self, channel: Channel, now: float) -> None:
        """Ends the channel once everything queued on it is sent. May be called in any state, and twice."""
        if channel.state == "connecting" and (channel.config.negotiated or not channel.open_queued):
            self._forget(channel)
            self._announce_closed(channel)
        elif channel.state in ("connecting", "open"):
            self._begin_closing(channel, now)

    def close_all(self, reason: str, *, by_peer: bool) -> None:
        """The association is gone: every channel that still lived is closed with `reason`."""
        channels = [*self._by_id.values(), *self._waiting]
        by_id = dict(self._by_id)
        self._by_id.clear()
        self._by_peer.clear()
        self._peer_words_bytes = 0
        self._waiting.clear()
        self._early.clear()
        self._early_bytes = self._early_messages = 0
        for (stream_id, ppid), count in (self._association.undelivered if self._first_id is not None else {}).items():
            if ppid != PPID_DCEP and (ended := by_id.get(stream_id)) is not None:
                ended.undelivered += count
        for channel in channels:
            channel.close_reason = channel.close_reason or reason
            channel.closed_by_peer = channel.closed_by_peer or by_peer
            self._announce_closed(channel)

    def channel(self, stream_id: int) -> Channel | None:
        """The channel on that stream that takes messages now."""
        channel = self._by_id.get(stream_id)
        return channel if channel is not None and channel.state == "open" and not channel.incoming_reset else None

    def take_events(self) -> list[ChannelEvent]:
        events, self._events = self._events, []
        return events

    def stats(self) -> list[ChannelStats]:
        return [
            ChannelStats(
                id=channel.id,
                label=channel.label,
                state=channel.state,
                messages_sent=channel.messages_sent,
                messages_received=channel.messages_received,
                bytes_sent=channel.bytes_sent,
                bytes_received=channel.bytes_received,
                buffered_amount=self.buffered_amount(channel),
            )
            for channel in [*self._by_id.values(), *self._waiting]
            if channel.announced
        ]

    # ------------------------------------------------------------------------------------------------------- from SCTP

    def handle_events(self, events: Sequence[sctp.SctpEvent], now: float) -> sctp.SctpEvent | None:
        """What the association reported. Returns the event that ended it, if there was one; the rest of the end is the
        owner's."""
        by_id, emit = self._by_id, self._events.append
        for event in events:
            if type(event) is sctp.MessageReceived:
                # The hot path: a message for an open channel. Everything unusual goes through _handle_unusual.
                channel = by_id.get(event.stream_id)
                ppid, data = event.ppid, event.data
                if channel is not None and channel.state == "open" and not channel.incoming_reset:
                    channel.confirmed = True
                    channel.express_over = True
                    channel.credit_left -= len(data) + sctp.CREDIT_MESSAGE_BYTES
                    if channel.credit_left < 0 and self._credits is not None:
                        self._credits.note_spent(channel)
                    if ppid == PPID_BINARY:
                        channel.messages_received += 1
                        channel.bytes_received += len(data)
                        emit(MessageReceived(channel, data))
                        continue
                    if ppid == PPID_STRING:
                        try:
                            text = data.decode()
                        except UnicodeDecodeError:
                            self._fail(channel, "a text message is not UTF-8", now)
                            continue
                        channel.messages_received += 1
                        channel.bytes_received += len(data)
                        emit(MessageReceived(channel, text))
                        continue
                self._handle_unusual(event.stream_id, channel, ppid, data, now)
            elif type(event) is sctp.BufferedAmountLow:
                channel = by_id.get(event.stream_id)
                if channel is not None and channel.announced and channel.state == "open":
                    emit(BufferedAmountLow(channel))
            elif type(event) is sctp.StreamsResetByPeer:
                self._handle_resets_by_peer(event.stream_ids, now)
            elif type(event) is sctp.StreamsReset:
                self._handle_resets(event.stream_ids, now)
            elif type(event) is sctp.Established:
                self._open_all(now)
            else:
                return event
        return None

    def _handle_unusual(self, stream_id: int, channel: Channel | None, ppid: int, data: bytes, now: float) -> None:
        if ppid == PPID_DCEP and stream_id == CREDIT_STREAM and data[:1] == CREDIT and self._credits is not None:
            self._handle_credit_untrusted(data)
        elif channel is None:
            if ppid == PPID_DCEP and data[:1] != ACK:
                self._handle_open_untrusted(stream_id, data, now)
            elif ppid != PPID_DCEP:
                self._keep_early(stream_id, ppid, data, now)
        elif channel.incoming_reset:
            # The peer saw both resets through, and its acknowledgement of ours got lost: this is the next life of the
            # stream. It waits in the early buffer until that acknowledgement is here.
            self._keep_early(stream_id, ppid, data, now)
        elif channel.state != "open":
            self.messages_discarded += 1  # W3C: a channel that is closing delivers nothing more
        elif ppid == PPID_DCEP:
            if data[:1] != ACK:  # RFC 8832 section 6: an OPEN on a stream in use closes the channel there
                self._fail(channel, "the peer opened a channel on a stream in use", now)
        elif ppid in (PPID_STRING_EMPTY, PPID_BINARY_EMPTY):
            channel.messages_received += 1
            self._events.append(MessageReceived(channel, "" if ppid == PPID_STRING_EMPTY else b""))
        else:  # RFC 8831 section 6.6: unsupported identifiers close the channel, and only it
            self._fail(channel, f"the peer used the unknown payload protocol {ppid}", now)

    def _handle_credit_untrusted(self, data: bytes) -> None:
        """Work: none that depends on what waits."""
        with contextlib.suppress(ProtocolError):
            stream_id, limit = parse_credit_untrusted(data)
            channel = self._by_id.get(stream_id)
            if channel is not None and channel.state == "open" and channel.max_retransmits is None is channel.life_time:
                spent = channel.bytes_sent + sctp.CREDIT_MESSAGE_BYTES * channel.messages_sent
                self._association.set_credit(stream_id, limit - spent + self._association.unbegun_cost(stream_id))

    def _handle_open_untrusted(self, stream_id: int, data: bytes, now: float) -> None:
        try:
            config = parse_dcep_untrusted(data)
        except ProtocolError:
            config = None
        peers_parity = self._first_id is not None and (stream_id % 2 != self._first_id or stream_id < self._skips)
        if config is None or not peers_parity or not self._has_room_for_peers(config):
            self._refuse(stream_id, now)
            return
        try:
            self._set_up_stream(stream_id, config.priority)
        except LocalError:  # the peer gave us no outgoing stream of that number
            self._refuse(stream_id, now)
            return
        channel = Channel(config)
        channel.id, channel.state, channel.confirmed = stream_id, "open", True
        if config.max_retransmits == 0:
            self._association.set_perishable(stream_id)
        self._keep_for_peer(stream_id, channel)
        self._watch_credit(channel)
        with contextlib.suppress(LocalError):  # no room in the queue: our first message confirms as well
            self._association.send(stream_id, PPID_DCEP, ACK, now)
        self._events.append(ChannelOpened(channel, by_peer=True))
        self._replay_early(stream_id, now)

    def _has_room_for_peers(self, config: DataChannelConfig) -> bool:
        limits = self._limits
        words = self._peer_words_bytes + _words_bytes(config)
        return len(self._by_peer) < limits.peer_channels_max and words <= limits.peer_words_bytes_max

    def _handle_resets_by_peer(self, stream_ids: Sequence[int], now: float) -> None:
        """Work: the streams that are named. Those without a channel are too many all at once as they are one by one."""
        if self._are_too_many(len(set(stream_ids).difference(self._by_id)), now):
            return
        for stream_id in stream_ids:
            channel = self._by_id.get(stream_id)
            if channel is None:
                # A negotiated channel came and went before this side created it: its data goes, and the answer that
                # RFC 8831 section 6.7 asks for is given.
                self._drop_early(stream_id)
                channel = self._refuse(stream_id, now)
            elif channel.incoming_reset:
                early = self._early.get(stream_id)  # the end of the next life of the stream, see _handle_unusual
                if early and early[-1][0] != _RESET:  # else it ends before it began
                    self._keep_early(stream_id, _RESET, b"", now)
                continue
            elif channel.state == "open":
                channel.closed_by_peer = True
                self._association.set_credit(stream_id, None)  # nobody reads any more: what waits may go
                self._begin_closing(channel, now)
            channel.incoming_reset = True
            self._finish_if_both(channel, now)

    def _handle_resets(self, stream_ids: Iterable[int], now: float) -> None:
        for stream_id in stream_ids:
            channel = self._by_id.get(stream_id)
            if channel is not None and channel.state == "closing":
                channel.outgoing_reset = True
                self._finish_if_both(channel, now)

    # ---------------------------------------------------------------------------------------------------------- states

    def _assign_id(self, channel: Channel) -> None:
        assert self._first_id is not None
        stream_id = self._first_id + self._skips
        while stream_id in self._by_id:
            stream_id += 2
        # channels_max keeps this far below _STREAM_ID_MAX and below the 1024 streams that older stacks negotiate.
        channel.id = stream_id
        self._by_id[stream_id] = channel

    def _open_all(self, now: float) -> None:
        for channel in list(self._by_id.values()):
            try:
                self._open(channel, now)
            except LocalError as error:  # its id lies above the number of streams that the peer takes
                channel.close_reason = str(error)
                self._forget(channel)
                self._announce_closed(channel)

    def _open(self, channel: Channel, now: float) -> None:
        if channel.state != "connecting":
            return
        assert channel.id is not None
        self._queue_open(channel, now)
        channel.state = "open"
        self._watch_credit(channel)
        self._events.append(ChannelOpened(channel, by_peer=False))
        self._replay_early(channel.id, now)

    def _queue_open(self, channel: Channel, now: float) -> None:
        assert channel.id is not None
        self._set_up_stream(channel.id, channel.config.priority or 1)
        if not channel.open_queued:
            self._association.send(channel.id, PPID_DCEP, encode_open(channel.config), now)
            channel.open_queued = True

    def _set_up_stream(self, stream_id: int, priority: int) -> None:
        self._association.set_priority(stream_id, priority)
        self._association.set_buffered_amount_low_threshold(stream_id, _NEVER_LOW)

    def _watch_credit(self, channel: Channel) -> None:
        if self._credits is not None:
            self._credits.watch(channel)

    def _fail(self, channel: Channel, reason: str, now: float) -> None:
        channel.close_reason = reason
        self._begin_closing(channel, now)

    def _refuse(self, stream_id: int, now: float) -> Channel:
        """A stream that gets no channel: reset it, and remember it until both directions are through."""
        channel = Channel(_REFUSED, announced=False)
        channel.id, channel.state = stream_id, "open"
        self._keep_for_peer(stream_id, channel)
        self._begin_closing(channel, now)
        self._are_too_many(0, now)
        return channel

    def _are_too_many(self, more: int, now: float) -> bool:
        """Whether the peer has begun so many streams, with `more`, that this is the end."""
        if len(self._by_peer) + more < 2 * self._limits.peer_channels_max:
            return False
        self._association.abort(now, "too many streams")
        return True

    def _keep_for_peer(self, stream_id: int, channel: Channel) -> None:
        self._by_id[stream_id] = channel
        self._by_peer[stream_id] = 0 if channel.config is _REFUSED else _words_bytes(channel.config)
        self._peer_words_bytes += self._by_peer[stream_id]

    def _begin_closing(self, channel: Channel, now: float) -> None:
        assert channel.id is not None
        channel.state = "closing"
        try:
            self._association.reset_streams([channel.id], now)
        except LocalError:  # the association is shutting down, or has no such stream: there is nothing to reset
            channel.outgoing_reset = True

    def _finish_if_both(self, channel: Channel, now: float) -> None:
        """RFC 8831 section 6.7: an id is free again only after both directions were reset."""
        if channel.incoming_reset and channel.outgoing_reset:
            self._forget(channel)
            self._announce_closed(channel)
            assert channel.id is not None
            self._replay_early(channel.id, now)

    def _forget(self, channel: Channel) -> None:
        if self._credits is not None:
            self._credits.forget(channel)
        if channel in self._waiting:
            self._waiting.remove(channel)
        elif channel.id is not None:
            del self._by_id[channel.id]
            self._peer_words_bytes -= self._by_peer.pop(channel.id, 0)

    def _announce_closed(self, channel: Channel) -> None:
        channel.state = "closed"
        if channel.announced:
            self._events.append(ChannelClosed(channel, channel.closed_by_peer, channel.close_reason))

    # ------------------------------------------------------------------------------------------------------ early data

    def _keep_early(self, stream_id: int, ppid: int, data: bytes, now: float) -> None:
        if (
            self._early_bytes + len(data) > self._limits.early_bytes_max
            or self._early_messages >= self._limits.early_messages_max
        ):
            self.messages_discarded += 1
            self._drop_early(stream_id)
            if stream_id not in self._by_id:
                self._refuse(stream_id, now)
            return
        self._early.setdefault(stream_id, []).append((ppid, data))
        self._early_bytes += len(data)
        self._early_messages += 1

    def _take_early(self, stream_id: int) -> list[tuple[int, bytes]]:
        messages = self._early.pop(stream_id, [])
        self._early_messages -= len(messages)
        self._early_bytes -= sum(len(data) for _, data in messages)
        return messages

    def _drop_early(self, stream_id: int) -> None:
        self.messages_discarded += len(self._take_early(stream_id))

    def _replay_early(self, stream_id: int, now: float) -> None:
        messages = self._take_early(stream_id)
        self.handle_events(
            [
                sctp.StreamsResetByPeer((stream_id,))
                if ppid == _RESET
                else sctp.MessageReceived(stream_id, ppid, data, False)
                for ppid, data in messages
            ],
            now,
        )


def _words_bytes(config: DataChannelConfig) -> int:
    return len(config.label.encode()) + len(config.protocol.encode())
