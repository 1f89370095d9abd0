"""What holds for all in a room, for a game's loop: its clock, its seats, its host, and what the host decides."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

from psyne_mesh.identity import PeerId
from psyne_mesh.room import room as trio_room
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import Me, Peer, Player
from psyne_mesh.room.state_views import WrittenState
from psyne_mesh.sync.thread import NetworkThread

# Between two looks at the room's clock, which our own continues: it may be corrected by 5 ms in that time.
TELL_TIME_S = 0.1


class Governing:
    """A part of `Room`."""

    def __init__(self, thread: NetworkThread[Any], room: trio_room.Room) -> None:
        self._thread = thread
        self._room = room
        self._parts = trio_room.inside(room).parts
        self._me = Me(room.me)
        self._me.state = WrittenState(self._parts.states.own, partial(thread.call, self._parts.states.write))
        self._state: WrittenState | None = None
        self._told, self._told_at, self._shown = 0.0, -math.inf, -math.inf
        self._told_error = math.inf

    def time(self) -> float:
        """Seconds of the room's clock, the same for all players to within `time_error()`: it never goes back. Asked of the
        network's thread ten times a second at most, and counted on in between.
        """
        now = self._look()
        self._shown = max(self._shown, self._told + now - self._told_at)
        return self._shown

    def time_error(self) -> float:
        """How far `time()` may be from the median of all players' clocks, in seconds; infinite before it is set."""
        self._look()
        return self._told_error

    def _look(self) -> float:
        """Our own clock, as of which the time and its error, which belong together, are known."""
        now = time.perf_counter()
        if now - self._told_at >= TELL_TIME_S:
            self._told, self._told_error = self._thread.call(lambda: (self._room.time(), self._room.time_error()))
            now = self._told_at = time.perf_counter()
        return now

    @property
    def seats(self) -> tuple[PeerId | None, ...]:
        """Who has which of the `max_players` seats; the index is the number of the seat."""
        return self._thread.call(lambda: self._room.seats)

    @property
    def host(self) -> Peer | Player | None:
        """The player whose decisions count, `net.player` if it is us; None while there is none. `HostChanged` tells of each
        change.
        """
        return self._thread.call(lambda: self._room.host)

    @property
    def is_host(self) -> bool:
        """Whether our decisions count right now."""
        return self._thread.call(lambda: self._room.is_host)

    @property
    def voters(self) -> frozenset[PeerId]:
        """The players whose votes make the host."""
        return self._room.voters

    @property
    def term(self) -> int:
        """Which host this is, counted; it never falls."""
        return self._room.term

    @property
    def state(self) -> WrittenState:
        """The room's own small map: everybody reads it, the host writes it (`NotHost` for the others), and the next host goes
        on with it. `StateChanged` tells of each change, with `owner` None."""
        if self._state is None:
            self._thread.call(lambda: self._room.state)  # from now on somebody asks for the host
            self._state = WrittenState(
                self._parts.states.hosted, partial(self._thread.call, self._parts.states.write_state)
            )
        return self._state

    def after(self, seconds: float, message: Message) -> str:
        """`net.after(3.0, RoundEnds())`: everybody gets `TimerFired(message)` then, fired by whoever is host by that time. The
        host sets it (`NotHost` for the others); what is returned is its name for `cancel_timer`."""
        return self._thread.call(self._room.after, seconds, message)

    def cancel_timer(self, name: str) -> None:
        """Take back what `after` set, on any host. One that has fired, or was never set, is no error."""
        self._thread.call(self._room.cancel_timer, name)

    def kick(self, peer: Peer | PeerId, reason: str = "") -> None:
        """Bar a player for the life of the room, which its host may (`NotHost` for the others)."""
        self._thread.call(self._room.kick, peer, reason)

    def vote_kick(self, peer: Peer | PeerId, reason: str = "") -> None:
        """Our vote to bar a player, good for half a minute. With the votes of more than half of the seats that are held it is
        done. Everybody sees `VoteCast`."""
        self._thread.call(self._room.vote_kick, peer, reason)

    @property
    def barred(self) -> frozenset[PeerId]:
        """Who is barred from the room, as far as we know."""
        return self._thread.call(lambda: self._room.barred)
