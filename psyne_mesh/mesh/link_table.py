"""Why each link exists, and what becomes of it. Pure: the mesh's tasks and the simulator drive the same object.

A link belongs to the mesh, not to a room: rooms order links (`dial`) and give them up (`unwant`), peers offer them, and
the transport below says what came of it. What a link *is* on the wire is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

import attrs

from psyne_mesh.frozen import Frozen
from psyne_mesh.identity import PeerId
from psyne_mesh.mesh.dial_limits import DialLimits, handshakes_max
from psyne_mesh.mesh.restarts import Restarts

# Links to peers that fell silent are kept so long, and so many: a partition may last for a while.
ASLEEP_S = 1800.0
ASLEEP_MAX = 64
# A link outlives the last room of its two players for so long: a guess, some round trips of signaling and of joining.
LINGER_S = 2.0
# So often those who wait to be dialled are looked at, while nothing else happens: half as long as the lag is remembered.
LOOK_AGAIN_S = 0.25
# One is begun after the other, so much later: by then it shows how late the last has made the loop. A room of 16 is dialled in
# 150 ms.
STARTS_APART_S = 0.01
# The one reason of a `LinkDown`. Whyever a link was closed, by whichever side: that says nothing of a room, as several share
# it. Who leaves a room says so in its record.
CLOSED = "closed"
ASLEEP = "asleep"
"""The cause of a `DialFailed` when the link is kept for a silent peer: it knocks by itself."""


class Dialing(Frozen):
    """Offer, answer and handshake are under way."""


class Open(Frozen):
    """It carries, and rooms may count on it."""


class Lingering(Frozen):
    """Open, but no room wants it any more. One may again in a moment: players go from a lobby to a game together."""

    until: float


class Asleep(Frozen):
    """The peer is silent and was given up by its rooms. Keys and queues are kept, and the first sign of life revives it."""

    since: float


class Closing(Frozen):
    """It was given up, and still flushes what was sent reliably. `was_open`: it carried until then."""

    reason: str
    was_open: bool


Phase: TypeAlias = Dialing | Open | Lingering | Asleep | Closing


_DIALING: Final = Dialing()


@attrs.define(eq=False)
class TableLink:
    """One attempt at a link, and the link that it became. Only the table writes to it."""

    peer: PeerId
    session: str
    offerer: bool
    born: float
    phase: Phase = _DIALING
    was_open: bool = False
    # It took the place of a link that rooms count on: if it fails, they must hear of a link that went down.
    replaces_open: bool = False
    newest_heard_ms: int = 0  # by the peer's clock: when the newest envelope of this session expires

    @property
    def is_asleep(self) -> bool:
        return isinstance(self.phase, Asleep)

    @property
    def is_superseded(self) -> bool:
        """Open still, for last words, but the peer has restarted: nothing that is sent here reaches it."""
        return isinstance(self.phase, Closing) and self.phase.reason == "superseded"


class StartLink(Frozen):
    """Have the transport offer a link, or answer the offer of `link.session`. Followed by `opened` or `gone`."""

    link: TableLink


class HangUp(Frozen):
    """Have the transport close it, behind what was sent reliably. Followed by `gone`."""

    link: TableLink
    reason: str


class SleepLink(Frozen):
    """Have the transport keep it and knock. Followed by `revived`, or `gone`."""

    link: TableLink


Output: TypeAlias = StartLink | HangUp | SleepLink


class LinkUp(Frozen):
    """For the node of `room`: it has a link to `peer`. Comes again when a sleeping link was revived."""

    room: str
    peer: PeerId


class LinkDown(Frozen):
    """For the node of `room`: the link that it had is gone."""

    room: str
    peer: PeerId
    reason: str


class DialFailed(Frozen):
    """For the node of `room`: no link came of it. `error` is what the transport raised, if it did."""

    room: str
    peer: PeerId
    cause: str
    error: Exception | None = None


Event: TypeAlias = LinkUp | LinkDown | DialFailed


class RoomView(Protocol):
    """What the table asks about a room."""

    def knows(self, peer: PeerId) -> bool:
        """The peer is a member now."""
        ...

    @property
    def knows_all(self) -> bool:
        """Every member is known: whoever is not is a stranger."""
        ...

    @property
    def is_large(self) -> bool:
        """There may be members whom we are not meant to have a link to."""
        ...


class _Fate(Enum):
    CLOSE = "close"
    LINGER = "linger"
    SLEEP = "sleep"


# What becomes of an open link when its last room gives it up, by the reason that the room's gossip has. In a small room a
# busy path that is cut looks impaired before its peer seems gone; in a large one others stand in for it.
_FATES: Mapping[tuple[str, bool], _Fate] = {
    ("timeout", False): _Fate.SLEEP, ("timeout", True): _Fate.SLEEP, ("impaired", False): _Fate.SLEEP,
    ("left", False): _Fate.LINGER, ("left", True): _Fate.LINGER,
}  # fmt: skip


class LinkTable:
    """1. `enter(room, view)` and `depart(room, now)` as rooms come and go; `close()`, then `hang_up_all()`, at the end.
    2. `dial(room, peer, now)` and `unwant(room, peer, reason, now)` for what the gossip of a room orders.
    3. `offer_received(peer, session, expires_at_ms, now)` for an offer of a session that is not the link's, and
       `envelope_received(link, expires_at_ms)` for whatever is of its own.
    4. `opened(link)`, `revived(link)`, `gone(link, cause, error)` as the transport finds out; `closing(link, reason)` when it,
       or the peer, hangs up by itself.
    5. After each: obey `take_outputs()`, hand `take_events()` to the rooms; `handle_timeout(now)` at `next_timeout()`.

    `new_session` names attempts: unique among those of this player, and short. `lag_s` tells how late our loop is, in a
    program that has one. The later it is, the fewer handshakes are begun; the others wait for those that are under way.
    """

    def __init__(
        self, me: PeerId, new_session: Callable[[], str], lag_s: Callable[[float], float] | None = None
    ) -> None:
        self._me = me
        self._has_loop = lag_s is not None
        self._lag_s = lag_s or (lambda now: 0.0)
        self._begin_at = -math.inf  # when the next may be begun
        self._waiting: dict[PeerId, set[str]] = {}  # whom to dial when others stand, and the rooms that want it
        self._new_session = new_session
        self._links: dict[PeerId, TableLink] = {}
        self._rooms: dict[str, RoomView] = {}
        self._limits = DialLimits()
        self._restarts = Restarts()
        self._outputs: list[Output] = []
        self._events: list[Event] = []
        self._deadline = math.inf
        self._closed = False
        self.offers_refused = 0  # of peers or sessions that have no claim to a link

    @property
    def links(self) -> Mapping[PeerId, TableLink]:
        """The newest link of each peer. One that was superseded by a newer is gone from here."""
        return MappingProxyType(self._links)

    @property
    def has_open(self) -> bool:
        return any(link.was_open for link in self._links.values())

    # ---------------------------------------------------------------------------------------------------------- rooms

    def enter(self, room: str, view: RoomView) -> None:
        self._rooms[room] = view

    def depart(self, room: str, now: float) -> None:
        """The room has ended: its links linger for the next one."""
        self._rooms.pop(room, None)
        for peer in list(self._waiting):
            self._wait_no_more(room, peer)
        for peer in list(self._links):
            self._give_up(room, peer, "left", now, large=False)

    def close(self) -> None:
        """Nothing is dialled or answered any more, and what its last room gives up is hung up at once."""
        self._closed = True
        self._waiting.clear()

    def hang_up_all(self) -> None:
        for link in self._links.values():
            self._hang_up(link, "left")

    def dial(self, room: str, peer: PeerId, now: float) -> None:
        """The room wants a link. It is told at once when there is one, or one is asleep."""
        link = self._links.get(peer)
        if link is None:
            if not self._closed:
                self._waiting.setdefault(peer, set()).add(room)
                self._start_waiting(now)
        elif link.is_asleep:
            self._events.append(DialFailed(room, peer, ASLEEP))
        elif link.was_open:
            self._events.append(LinkUp(room, peer))

    def unwant(self, room: str, peer: PeerId, reason: str, now: float) -> None:
        """The room has no use for the link any more. It ends when no other room knows the peer."""
        view = self._rooms.get(room)  # None: it has just ended
        self._give_up(room, peer, reason, now, large=view is None or view.is_large)

    def _give_up(self, room: str, peer: PeerId, reason: str, now: float, *, large: bool) -> None:
        self._wait_no_more(room, peer)
        link = self._links.get(peer)
        others = any(name != room and view.knows(peer) for name, view in self._rooms.items())
        restarted = reason == "superseded" and self._restarts.ends_link(peer, room, now)
        if link is None or (others and not restarted):  # what an earlier run left behind serves no room
            return
        fate = _FATES.get((reason, large), _Fate.CLOSE)
        if fate is _Fate.CLOSE or not link.was_open or self._closed:
            self._hang_up(link, reason)
        elif fate is _Fate.LINGER and isinstance(link.phase, Open):
            link.phase = Lingering(now + LINGER_S)
            self._deadline = min(self._deadline, now + LINGER_S)
        elif fate is _Fate.SLEEP and isinstance(link.phase, Open | Lingering):
            self._sleep(link, now)

    def _sleep(self, link: TableLink, now: float) -> None:
        """Sleeping links cost a check every few seconds; the one that sleeps longest goes first."""
        asleep = sorted(
            (other.phase.since, other.peer) for other in self._links.values() if isinstance(other.phase, Asleep)
        )
        for _, peer in asleep[: max(0, len(asleep) + 1 - ASLEEP_MAX)]:
            self._hang_up(self._links[peer], "timeout")
        link.phase = Asleep(now)
        self._deadline = min(self._deadline, now + ASLEEP_S)
        self._outputs.append(SleepLink(link))

    # ---------------------------------------------------------------------------------------------------------- peers

    def offer_received(self, peer: PeerId, session: str, expires_at_ms: int, now: float) -> bool:
        """A peer offers a link, in an envelope that expires then by its own clock. Whether to answer it: then the newest
        output is the `StartLink`."""
        link = self._links.get(peer)
        if self._closed or peer == self._me or not self._has_claim(peer, link, expires_at_ms, now):
            return False
        if link is not None and isinstance(link.phase, Dialing) and link.offerer and self._me > peer:
            return False  # glare: both offered, and the higher id's offer stands (perfect negotiation's impolite peer)
        successor = self._start(peer, session, now, offerer=False)
        if link is not None:
            successor.replaces_open = link.was_open or link.replaces_open
            self._hang_up(link, "superseded")
        return True

    def _has_claim(self, peer: PeerId, link: TableLink | None, expires_at_ms: int, now: float) -> bool:
        # Held back on the way: its sender has said something newer about the link that stands. Clocks may be set back, so who
        # restarts after that waits here until its dead link has fallen silent.
        held_back = link is not None and not link.is_asleep and expires_at_ms < link.newest_heard_ms
        if held_back or not (link is not None or self._has_room(peer)) or not self._limits.allow(peer, now):
            self.offers_refused += 1
            return False
        return True

    def _has_room(self, peer: PeerId) -> bool:
        answered = (link for link in self._links.values() if not link.offerer and not link.is_asleep)
        strangers = sum(not self._knows(link.peer) for link in answered)
        return self._limits.has_room(len(self._links), strangers=strangers, known=self._knows(peer))

    def envelope_received(self, link: TableLink, expires_at_ms: int) -> None:
        """Something of the link's session, sealed for as long as its sender's clock says."""
        link.newest_heard_ms = max(link.newest_heard_ms, expires_at_ms)

    def hears_over_mesh(self, room: str, origin: PeerId) -> bool:
        """Whether an envelope counts that members handed on instead of signaling. Any neighbour can make up origins and keys
        for them, so only where we would know the origin; a newcomer's record travels ahead of its offers."""
        view = self._rooms.get(room)
        if view is None or (view.knows_all and not view.knows(origin) and origin not in self._links):
            self.offers_refused += 1
            return False
        return True

    # ------------------------------------------------------------------------------------------------------ transport

    def opened(self, link: TableLink) -> None:
        """The transport carries in both directions."""
        if self._links.get(link.peer) is link and isinstance(link.phase, Dialing):
            link.phase, link.was_open = Open(), True
            self._tell_up(link.peer)
            self._hurry()

    def revived(self, link: TableLink) -> None:
        """A sleeping link carries again."""
        if self._links.get(link.peer) is link and link.is_asleep:
            link.phase = Open()
            self._tell_up(link.peer)

    def closing(self, link: TableLink, reason: str) -> None:
        """The transport or the peer hangs up by itself; `gone` follows."""
        if not isinstance(link.phase, Closing):
            link.phase = Closing(reason, link.was_open)

    def gone(self, link: TableLink, cause: str, error: Exception | None = None) -> None:
        """The transport has ended, or never began. `cause` is for logs, where the link never opened."""
        if self._links.get(link.peer) is not link:
            return  # superseded: its successor speaks for the peer
        del self._links[link.peer]
        self._hurry()
        for room in self.rooms_of(link.peer):
            if link.was_open or link.replaces_open:
                self._events.append(LinkDown(room, link.peer, CLOSED))
            else:
                self._events.append(DialFailed(room, link.peer, cause, error))

    def _hurry(self) -> None:
        """A handshake is over: the next may begin."""
        if self._waiting:
            self._deadline = -math.inf

    def rooms_of(self, peer: PeerId) -> list[str]:
        """Rooms that a link of the peer concerns. One that a peer opened may come before its record: with a single room there
        is no doubt, and where no room knows the peer all are asked."""
        if len(self._rooms) == 1:
            return list(self._rooms)
        return [room for room, view in self._rooms.items() if view.knows(peer)] or list(self._rooms)

    # ----------------------------------------------------------------------------------------------- time and outputs

    def next_timeout(self) -> float:
        """When `handle_timeout` is due; infinity for never."""
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        self._deadline = math.inf
        self._start_waiting(now)
        for link in list(self._links.values()):
            match link.phase:
                case Lingering(until=until) if until <= now:
                    link.phase = Open()
                    if not self._knows(link.peer):
                        self._hang_up(link, "left")
                case Asleep(since=since) if since + ASLEEP_S <= now:
                    self._hang_up(link, "timeout")
                case Lingering(until=due):
                    self._deadline = min(self._deadline, due)
                case Asleep(since=since):
                    self._deadline = min(self._deadline, since + ASLEEP_S)
                case _:
                    pass

    def take_outputs(self) -> list[Output]:
        taken, self._outputs = self._outputs, []
        return taken

    def take_events(self) -> list[Event]:
        taken, self._events = self._events, []
        return taken

    # -------------------------------------------------------------------------------------------------------- helpers

    def _start(self, peer: PeerId, session: str, now: float, *, offerer: bool) -> TableLink:
        self._waiting.pop(peer, None)
        link = self._links[peer] = TableLink(peer, session, offerer, now)
        self._outputs.append(StartLink(link))
        return link

    def _start_waiting(self, now: float) -> None:
        """Dial those that wait, the first first, as far as the loop bears it."""
        under_way = sum(isinstance(link.phase, Dialing) for link in self._links.values())
        free = handshakes_max(self._lag_s(now)) - under_way
        apart_s = STARTS_APART_S if self._has_loop else 0.0
        while self._waiting and free >= 1 and now >= self._begin_at:
            self._start(next(iter(self._waiting)), self._new_session(), now, offerer=True)
            free, self._begin_at = free - 1, now + apart_s
        if self._waiting:
            self._deadline = min(self._deadline, now + LOOK_AGAIN_S if free < 1 else self._begin_at)

    def _wait_no_more(self, room: str, peer: PeerId) -> None:
        rooms = self._waiting.get(peer, set())
        rooms.discard(room)
        if not rooms:
            self._waiting.pop(peer, None)

    def _hang_up(self, link: TableLink, reason: str) -> None:
        self.closing(link, reason)
        self._outputs.append(HangUp(link, reason))

    def _tell_up(self, peer: PeerId) -> None:
        self._events += [LinkUp(room, peer) for room in self.rooms_of(peer)]

    def _knows(self, peer: PeerId) -> bool:
        return any(view.knows(peer) for view in self._rooms.values())
