"""What holds for all in a room: its clock, its seats, its host, and what the host decides."""

from __future__ import annotations

from typing import Any

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.room.messages import Message
from psyne_mesh.room.parts import Parts
from psyne_mesh.room.peer import Peer, Player
from psyne_mesh.room.state_views import WrittenState
from psyne_mesh.room.tagged import encode_tagged

# Days: a timer is for a round, not for a calendar.
DELAY_MAX_S = 7 * 86_400.0


@uninterrupted
class Governing:
    """A part of `Room`."""

    player: Player
    _parts: Parts
    _room_state: WrittenState

    def _joined(self) -> Any:
        raise NotImplementedError

    def _player(self, peer_id: PeerId | None) -> Peer | Player | None:
        raise NotImplementedError

    def time(self) -> float:
        """Seconds of the room's clock, the same for all to within `time_error()`: it never goes back, and runs at most 5 %
        fast or slow while it is corrected. It is right half a second after the first link; until then it is our own."""
        self._joined()
        return self._parts.timekeeper.time()

    def time_error(self) -> float:
        """How far `time()` may be from the median of all clocks, in seconds; infinite before it is set."""
        self._joined()
        return self._parts.timekeeper.error()

    @property
    def seats(self) -> tuple[PeerId | None, ...]:
        """Who has which of the `max_players` seats; the index is the number of the seat."""
        seats: tuple[PeerId | None, ...] = self._joined().node.seats
        return seats

    @property
    def host(self) -> Peer | Player | None:
        """The player whose decisions count, `room.player` if it is us; None on the side of a cut that has no majority, and in a
        room's first two seconds. It costs nothing until somebody in the room asks."""
        self._joined()
        return self._player(self._parts.hosting.host())

    @property
    def is_host(self) -> bool:
        """Whether our decisions count right now. Ask before each: a lease also runs out while we stand still."""
        return bool(self._joined()) and self._parts.hosting.is_host()

    @property
    def voters(self) -> frozenset[PeerId]:
        """The players whose votes make the host."""
        return self._parts.hosting.voters()

    @property
    def term(self) -> int:
        """Which host this is, counted; it never falls. What carries an older one is refused."""
        return self._parts.hosting.term

    # --------------------------------------------------------------------------------------------- what the host decides

    @property
    def state(self) -> WrittenState:
        """The room's own small map: everybody reads it, the host writes it (`NotHost` for the others), and the next host goes
        on with it. `StateChanged` tells of each change, with `owner` None."""
        self._parts.hosting.start()
        return self._room_state

    def after(self, seconds: float, message: Message) -> str:
        """`room.after(3.0, RoundEnds())`: everybody gets `TimerFired(message)` then, fired by whoever is host by that time. The
        host sets it (`NotHost` for the others); what is returned is its name for `cancel_timer`.

        Raises `InvalidConfig` for a time that is none, `UnserialisableMessage`, `MessageTooLarge` when too many timers wait.
        """
        if not isinstance(seconds, int | float) or not 0 <= seconds < DELAY_MAX_S:
            raise InvalidConfig(f"after({seconds!r}, ...): must be seconds from 0 to {DELAY_MAX_S:g}")
        self._joined()
        self._parts.hosting.start()
        return self._parts.states.after(float(seconds), encode_tagged(message))

    def cancel_timer(self, name: str) -> None:
        """Take back what `after` set, on any host. One that has fired, or was never set, is no error."""
        self._joined()
        self._parts.states.cancel_timer(name)

    # --------------------------------------------------------------------------------------------------------- kick and ban

    def kick(self, peer: Peer | PeerId, reason: str = "") -> None:
        """Bar a player for the life of the room, which its host may (`NotHost` for the others). The others get `PeerLeft` with
        "kicked", the player `Evicted`; its key finds nobody here any more, and newcomers do not let it in either."""
        self._joined()
        self._parts.hosting.start()
        self._parts.barring.kick(peer, reason)

    def vote_kick(self, peer: Peer | PeerId, reason: str = "") -> None:
        """Our vote to bar a player, good for half a minute. With the votes of more than half of the seats that are held it is
        done, against the host, too; of two players neither can. Everybody sees `VoteCast`."""
        self._joined()
        self._parts.barring.vote(peer, reason)

    @property
    def barred(self) -> frozenset[PeerId]:
        """Who is barred from the room, as far as we know."""
        return frozenset(self._parts.barring.barred)
