"""One data channel (RFC 8831): its state and counters, and what can happen to it."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import attrs

from psyne_mesh.config import DataChannelConfig

# RFC 8831 section 8 (IANA: SCTP payload protocol identifiers). SCTP carries no empty message: section 6.6 sends one
# byte under an identifier of its own instead. 52 and 54, the fragments of early drafts, count as unknown.
PPID_DCEP = 50
PPID_STRING = 51
PPID_BINARY = 53
PPID_STRING_EMPTY = 56
PPID_BINARY_EMPTY = 57

_NEVER = 1 << 60
ChannelState: TypeAlias = Literal["connecting", "open", "closing", "closed"]


class Channel:
    """The pure half of a data channel. `ChannelTable` changes it; everybody may read it. Compared by identity.

    id: the SCTP stream in both directions; `None` until the DTLS roles are known.
    state: the four of W3C RTCDataChannelState. A channel announced in-band is open as soon as its OPEN is on the way.
    """

    __slots__ = (
        "announced",
        "bytes_received",
        "bytes_sent",
        "close_reason",
        "closed_by_peer",
        "config",
        "confirmed",
        "credit_left",
        "express",
        "express_heard",
        "express_over",
        "express_phase",
        "express_phase_heard",
        "id",
        "incoming_reset",
        "life_time",
        "max_retransmits",
        "messages_received",
        "messages_sent",
        "open_queued",
        "outgoing_reset",
        "state",
        "thins",
        "undelivered",
        "unordered",
        "unread",
    )

    def __init__(self, config: DataChannelConfig, *, announced: bool = True) -> None:
        self.config = config
        self.id = config.id
        self.state: ChannelState = "connecting"
        self.unordered = not config.ordered
        self.max_retransmits = config.max_retransmits
        life_time_ms = config.max_packet_life_time_ms
        self.life_time = None if life_time_ms is None else life_time_ms / 1000
        # RFC 8832 section 6: all user data goes ordered until anything has come back on the stream.
        self.confirmed = config.negotiated
        self.open_queued = config.negotiated  # nothing more has to be said to open it
        self.incoming_reset = False  # the peer has reset its outgoing stream: nothing more of this generation will come
        self.outgoing_reset = False  # the peer has acknowledged the reset of ours
        self.announced = announced  # False: a stream that was refused; the application never hears of it
        self.thins = False  # a later message makes an earlier one worthless, says the owner: none waits for long
        self.express = False  # what is sent goes beside SCTP now, if it is small
        # Of an ordered channel, which may go over to SCTP and come back: the how manyth time it is, here and there, modulo 8;
        # the newest record that had a message of the peer's; whether one by SCTP came since.
        self.express_phase = self.express_phase_heard = 0
        self.express_heard = -1
        self.express_over = False
        self.close_reason = ""
        self.closed_by_peer = False
        self.credit_left = _NEVER  # bytes that may come before the peer is told of more credit, see `credit.py`
        self.unread = (
            0  # bytes that came and the application still holds, `UNREAD_OVERHEAD_BYTES` for each message included
        )
        # Of a reliable channel whose connection ended: how many of our messages the peer had not acknowledged. Some may have
        # arrived, their acknowledgements not
        self.undelivered = 0
        self.messages_sent = self.messages_received = self.bytes_sent = self.bytes_received = 0

    @property
    def may_lose(self) -> bool:
        """Its messages may be lost."""
        return self.max_retransmits is not None or self.life_time is not None

    @property
    def label(self) -> str:
        return self.config.label

    def __repr__(self) -> str:
        return f"<Channel {self.id} {self.config.label!r} {self.state}>"


class ChannelOpened(NamedTuple):
    """Messages can be sent. `by_peer`: the peer's OPEN announced this channel, and this is the first you hear of it."""

    channel: Channel
    by_peer: bool


class MessageReceived(NamedTuple):
    """A whole message came in on a channel that has been opened. `data` is `str` or `bytes` as the peer sent it."""

    channel: Channel
    data: str | bytes


class BufferedAmountLow(NamedTuple):
    """What waits to be sent on the channel fell to its low-water mark, having been above."""

    channel: Channel


class ChannelClosed(NamedTuple):
    """The channel is over: both directions are reset, or the connection ended. Comes once, after its last message.

    `reason` is empty after an ordinary close. A channel that never opened gets it too.
    """

    channel: Channel
    by_peer: bool
    reason: str


ChannelEvent: TypeAlias = ChannelOpened | MessageReceived | BufferedAmountLow | ChannelClosed


@attrs.frozen(kw_only=True)
class ChannelStats:
    """Counters of one channel. Bytes are of user data; `buffered_amount` was accepted and is not yet on the network."""

    id: int | None
    label: str
    state: ChannelState
    messages_sent: int
    messages_received: int
    bytes_sent: int
    bytes_received: int
    buffered_amount: int
