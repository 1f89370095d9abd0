"""Credit: one reliable channel whose reader has stopped does not stop the others of its connection.

SCTP has one receive window for all streams, so what nobody reads on one of them closes it for all, for the heartbeats of the
mesh, too. So a receiver tells a peer that understands it how much each reliable channel may send in all; what that leaves
unread does not count against the window. A peer that does not know of credit, or ignores it, is held back by the window.

A message costs its bytes and `CREDIT_MESSAGE_BYTES` on either side. Until the first word of the receiver, which comes after 256
KiB, the window alone holds: most channels never need one. A message may begin while anything is left.
"""

from __future__ import annotations

from psyne_mesh.webrtc.channel import Channel
from psyne_mesh.webrtc.sctp import CREDIT_MESSAGE_BYTES

# A channel may leave as much unread as the window is long, so that no path is slower for it; less when others are unread,
# too, but at least this part of the window: 512 KiB
SHARE = 8
STEPS = 16  # a channel is granted more when so little of the window was read: one word for some 220 packets
EXEMPT_WINDOWS = 2  # what all channels may leave unread together before it shrinks the window: nine that stand still
CREDIT_STREAM = 65_534  # the last that may be used (RFC 8831 section 6.5): a word of credit never waits behind data


class Credits:
    """The receiving half, for one connection.

    1. `watch` each reliable channel that opens. 2. When its `credit_left` has run out, `note_spent`. 3. `note_read` when
    the application has read a good deal. 4. While `is_due`, `take_due` before each flush. 5. `exempt_bytes` of what is
    unread do not count against the window. 6. `forget` a channel that has ended.
    """

    __slots__ = ("_due", "_exempt_each", "_exempt_max", "_share", "_step", "_told", "_window")

    def __init__(self, window_bytes: int, message_bytes_max: int) -> None:
        self._window = window_bytes
        self._share = window_bytes // SHARE
        self._step = window_bytes // STEPS
        self._exempt_each = window_bytes + self._share + message_bytes_max  # a batch may come before it is counted
        self._exempt_max = EXEMPT_WINDOWS * window_bytes
        self._told: dict[Channel, int] = {}  # what each may cost in all, as its sender knows
        self._due: dict[Channel, None] = {}

    def watch(self, channel: Channel) -> None:
        if channel.max_retransmits is None and channel.life_time is None:
            channel.credit_left = self._step

    def forget(self, channel: Channel) -> None:
        self._told.pop(channel, None)
        self._due.pop(channel, None)

    @property
    def is_due(self) -> bool:
        return bool(self._due)

    def note_spent(self, channel: Channel) -> None:
        channel.credit_left = self._step
        self._due[channel] = None

    def note_read(self) -> None:
        self._due |= dict.fromkeys(self._told)

    def take_due(self) -> list[tuple[Channel, int]]:
        """Channels and what each may cost in all from now on, where that is news."""
        news = []
        unread = sum(max(0, channel.unread) for channel in self._told)
        for channel in self._due:
            told = self._told.get(channel)
            mine = max(0, channel.unread)
            others = unread if told is None else unread - mine
            limit = channel.bytes_received + CREDIT_MESSAGE_BYTES * channel.messages_received - mine
            limit += max(self._share, self._window - others)
            if told is None or limit - told >= self._step:
                self._told[channel] = limit
                news.append((channel, limit))
        self._due.clear()
        return news

    @property
    def exempt_bytes(self) -> int:
        exempt = sum(min(max(0, channel.unread), self._exempt_each) for channel in self._told)
        return min(exempt, self._exempt_max)
