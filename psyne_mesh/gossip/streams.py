"""Per-origin order: each message of an origin's life is delivered once, in sequence, across gaps and restarts."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.events import BroadcastReceived, BroadcastsSkipped
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    from collections.abc import Callable

# Origins remembered. The one silent for longest is forgotten first, but none for one of lower standing: a forgotten stream
# begins at its floor again, and what was delivered would be delivered twice.
_STREAMS_MAX = 1024
_LOOKS = 2
_PENDING_MAX = 512  # messages of one origin that wait for an earlier one; the newest is dropped, and repaired later
_NEWCOMERS_GAP_S = 0.5  # what a newcomer lacks may well be history: it does not wait long for it


class Broadcasted(Protocol):
    """A message, as far as order goes. `floor` is the oldest sequence that its origin thought could still be repaired."""

    @property
    def origin(self) -> PeerId: ...
    @property
    def epoch(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def floor(self) -> int: ...
    @property
    def payload(self) -> bytes: ...


class Stream:
    """One life of one origin: `expected` is the sequence to deliver next; `begun`: something was delivered."""

    __slots__ = ("active_at", "asked_to", "begun", "epoch", "expected", "give_up_at", "pending", "standing")

    def __init__(self, epoch: int, expected: int) -> None:
        self.begun = False
        self.epoch = epoch
        self.expected = expected
        self.pending: dict[int, tuple[bytes, float] | None] = {}  # None: history, which is stepped over in silence
        self.give_up_at = math.inf
        self.standing = 0  # when its newest message came
        self.asked_to = expected  # what is missing before that was asked for
        self.active_at = -math.inf  # when its newest message was sent, as far as known

    @property
    def high(self) -> int:
        """The newest sequence that we hold."""
        return max(self.pending, default=self.expected - 1)


class Streams:
    """How to drive it: `accept` for each new message, `handle_timeout` at `deadline`. What is delivered is an event.

    `standing(origin)`: 0 for strangers ... 2 for members.
    """

    def __init__(self, config: GossipConfig, standing: Callable[[PeerId], int], out: Effects) -> None:
        self._gap_timeout_s = config.gap_timeout_s
        self._standing = standing
        self._streams: dict[PeerId, Stream] = {}
        # Who stands how, as of its newest message, the one silent for longest first: a place is found without a search.
        self._standings: tuple[dict[PeerId, None], ...] = ({}, {}, {})
        self._waiting: dict[PeerId, None] = {}  # streams with a gap
        self.effects = out
        self.delivered = 0
        self.deadline = math.inf
        self.skipped = 0
        self.refused = 0  # of strangers, while the table was full of members

    def get(self, origin: PeerId) -> Stream | None:
        return self._streams.get(origin)

    def is_new(self, origin: PeerId, epoch: int, sequence: int) -> bool:
        stream = self._streams.get(origin)
        if stream is None or epoch > stream.epoch:
            return True
        return epoch == stream.epoch and sequence >= stream.expected and sequence not in stream.pending

    def position(self, origin: PeerId, epoch: int, expected: int) -> Stream | None:
        """The stream of that life of `origin`, opened at `expected` if it is new; None for an older life, and for a stranger
        in a table full of members."""
        stream = self._streams.get(origin)
        if stream is None or epoch > stream.epoch:
            self.forget(origin)
            standing = self._standing(origin)
            if len(self._streams) >= _STREAMS_MAX and not self._make_room(standing):
                self.refused += 1
                return None
            stream = self._streams[origin] = Stream(epoch, expected)
            stream.standing = standing
            self._standings[standing][origin] = None
        return stream if stream.epoch == epoch else None

    def forget(self, origin: PeerId) -> None:
        """It is gone for so long that nothing of it can still be under way."""
        stream = self._streams.pop(origin, None)
        if stream is not None:
            self._standings[stream.standing].pop(origin, None)
            self._waiting.pop(origin, None)

    def accept(
        self, message: Broadcasted, now: float, sent_at: float, *, silently: bool = False, newcomer: bool = False
    ) -> Stream | None:
        """Take a new message. `silently`: it was sent before our time, so it only closes a gap. `newcomer`: our time has
        only begun."""
        origin, sequence, floor = message.origin, message.sequence, message.floor
        stream = self.position(origin, message.epoch, floor)
        if stream is None or sequence < stream.expected:
            return None
        if len(stream.pending) >= _PENDING_MAX and sequence != stream.expected:
            return None
        stream.active_at = max(stream.active_at, sent_at)
        self._stand(origin, stream)
        stream.pending[sequence] = None if silently else (message.payload, sent_at)
        if stream.expected < floor:
            self._skip(origin, stream, floor, now)
        history = newcomer and not stream.begun
        self._flush(origin, stream, _NEWCOMERS_GAP_S if history else self._gap_timeout_s, now)
        return stream

    def recent(self, since: float) -> list[tuple[PeerId, Stream]]:
        """Streams that had a message since then."""
        return [(origin, stream) for origin, stream in self._streams.items() if stream.active_at >= since]

    def handle_timeout(self, now: float) -> None:
        if now < self.deadline:
            return
        for origin in list(self._waiting):
            stream = self._streams[origin]
            if stream.give_up_at <= now:
                stream.give_up_at = math.inf
                self._skip(origin, stream, min(stream.pending), now)
                self._flush(origin, stream, self._gap_timeout_s, now)
        self.deadline = min((self._streams[origin].give_up_at for origin in self._waiting), default=math.inf)

    def _stand(self, origin: PeerId, stream: Stream) -> None:
        """To the end of those that stand as it does now."""
        self._standings[stream.standing].pop(origin, None)
        stream.standing = self._standing(origin)
        self._standings[stream.standing][origin] = None

    def _make_room(self, standing: int) -> bool:
        """Forget the stream silent for longest of those that stand lowest, if it stands no higher. Bound: two looks at most
        at streams whose origin has risen or fallen since its last message."""
        for place in range(standing + 1):
            for origin in list(islice(self._standings[place], _LOOKS)):
                now_stands = self._standing(origin)
                if now_stands <= standing:
                    self.forget(origin)
                    return True
                self._stand(origin, self._streams[origin])
        return False

    def _skip(self, origin: PeerId, stream: Stream, to: int, now: float) -> None:
        """Nobody can give what lies before `to`."""
        lost = to - stream.expected - sum(sequence < to for sequence in stream.pending)
        if lost and stream.begun:  # else it is history
            self.effects.events.append(BroadcastsSkipped(origin, lost))
        for sequence in sorted(stream.pending):
            if sequence >= to:
                break
            self._deliver(origin, stream, sequence, now)
            self.skipped -= 1
        self.skipped += to - stream.expected
        stream.expected = to

    def _flush(self, origin: PeerId, stream: Stream, patience_s: float, now: float) -> None:
        pending = stream.pending
        if stream.expected in pending:
            while stream.expected in pending:
                self._deliver(origin, stream, stream.expected, now)
                stream.expected += 1
            stream.give_up_at = math.inf
        if pending:
            self._waiting[origin] = None
        else:
            self._waiting.pop(origin, None)
        if pending and stream.give_up_at == math.inf:
            stream.give_up_at = now + patience_s
            self.deadline = min(self.deadline, stream.give_up_at)

    def _deliver(self, origin: PeerId, stream: Stream, sequence: int, now: float) -> None:
        message = stream.pending.pop(sequence)
        if message is not None:
            stream.begun = True
            payload, sent_at = message
            self.delivered += 1
            self.effects.events.append(BroadcastReceived(origin, payload, sequence, now - sent_at))
