"""What was sent reliably and did not come, as events: not one for each message."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import trio

from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.room.events import MessagesLost, MessagesUndelivered
from psyne_mesh.room.never_came import NeverCame
from psyne_mesh.room.peer import Peer

# Of one player and channel the first loss is told at once, further ones together after so long.
TOGETHER_S = 1.0
# Players and channels that are remembered for that; beyond it an event may come sooner.
REMEMBERED_MAX = 1024


class _Key(NamedTuple):
    """here: it came and found no room, so its sender must be told."""

    peer: Peer
    channel: str | None
    ours: bool
    here: bool


@uninterrupted
class Losses:
    """1. `lost` and `undelivered` as they are found out, from anywhere in the room. 2. One task is in `run()`.

    publish: gets the events. tell: gets peer, channel and count of what the peer does not know. tell_author: gets the peer
    and how many of its broadcasts nobody could give, in all.
    """

    def __init__(
        self, publish: Callable[[MessagesLost | MessagesUndelivered], None], tell: Callable[[Peer, str, int], None],
        tell_author: Callable[[PeerId, int], None],
    ) -> None:  # fmt: skip
        self._publish = publish
        self._tell = tell
        self._tell_author = tell_author
        self._never_came = NeverCame()
        self._told_at: dict[_Key, float] = {}
        self._counts: dict[_Key, int] = {}
        self._something = trio.lowlevel.ParkingLot()

    def lost(self, peer: Peer, channel: str | None, count: int, *, here: bool = False) -> None:
        self._note(_Key(peer, channel, False, here), count)

    def never_came(self, author: Peer, count: int) -> None:
        """Broadcasts that others carried: whichever channels they were of, nobody could give them."""
        self._note(_Key(author, None, False, False), count)
        self._never_came.lost(author.id, author.stay, count, trio.current_time())
        self._something.unpark_all()

    def never_arrived(self, peer: Peer, count: int) -> None:
        """The player says that so many of our broadcasts never came there, in all."""
        self.undelivered(peer, None, self._never_came.news(peer.id, peer.stay, count))

    def undelivered(self, peer: Peer, channel: str | None, count: int) -> None:
        self._note(_Key(peer, channel, True, False), count)

    async def run(self) -> None:
        while True:
            due = min((self._told_at[key] + TOGETHER_S for key in self._counts), default=math.inf)
            with trio.move_on_at(min(due, self._never_came.next_timeout())):
                await self._something.park()
            now = trio.current_time()
            for author, count in self._never_came.due(now):
                self._tell_author(author, count)
            for key in [key for key in self._counts if self._told_at[key] + TOGETHER_S <= now]:
                self._say(key, self._counts.pop(key), now)

    def _note(self, key: _Key, count: int) -> None:
        if count <= 0:
            return
        now = trio.current_time()
        if now - self._told_at.get(key, -math.inf) >= TOGETHER_S and key not in self._counts:
            self._say(key, count, now)
            return
        self._counts[key] = self._counts.get(key, 0) + count
        self._something.unpark_all()

    def _say(self, key: _Key, count: int, now: float) -> None:
        self._told_at.pop(key, None)
        self._told_at[key] = now
        while len(self._told_at) > REMEMBERED_MAX and (oldest := next(iter(self._told_at))) not in self._counts:
            del self._told_at[oldest]
        if key.here and key.channel is not None:
            self._tell(key.peer, key.channel, count)
        event = MessagesUndelivered if key.ours else MessagesLost
        self._publish(event(key.peer, key.channel, count))
