"""What an association tells its owner, in the past tense. All are frozen; `MessageReceived` is a tuple for speed."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from psyne_mesh.frozen import Frozen


class Established(Frozen):
    """The handshake is complete, both directions work. Comes once, before every other event but `Closed`."""


class MessageReceived(NamedTuple):
    """A whole user message. On an ordered stream it comes after all messages sent before it, or their abandonment."""

    stream_id: int
    ppid: int
    data: bytes
    unordered: bool = False


class StreamsResetByPeer(Frozen):
    """The peer closed its side of these streams (RFC 6525): every message it sent on them was delivered before."""

    stream_ids: tuple[int, ...]


class StreamsReset(Frozen):
    """The peer has done what `reset_streams` asked. From now on our next message on them starts a new generation."""

    stream_ids: tuple[int, ...]
    error: str = ""  # "" when performed; else why the peer refused. Either way the request is over.


class BufferedAmountLow(Frozen):
    """`buffered_amount(stream_id)` fell from above its threshold to the threshold or below."""

    stream_id: int


class Restarted(Frozen):
    """The peer began anew (RFC 9260 section 5.2.4 action A). Everything queued or half received is gone, both ways."""


class Closed(Frozen):
    """The association has ended; comes once, last. `by_peer`: it aborted or shut down first."""

    reason: str
    by_peer: bool


SctpEvent: TypeAlias = (
    Established | MessageReceived | StreamsResetByPeer | StreamsReset | BufferedAmountLow | Restarted | Closed
)
