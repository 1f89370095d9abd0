"""What the machines of one node have to say, in one place: every fact, frame, wish and timer of theirs, and its order.

A machine appends to the `Effects` that its parent gave it and knows nobody else. The parent drains it after each input:

1. What `probing` found out: a ping's round trip counts from now.
2. `facts`, first in, first out; to carry one out may add more.
3. `frames` that machines finished, unless their link is gone by then.
4. `wishes` that may cost links: so what was to be said over those has been said. Then again from the start.

`events` are for the room, `timers` the deadlines of all machines by name.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import attrs

from psyne_mesh.gossip.events import Event, LeaveReason, SendFrame
from psyne_mesh.gossip.proofs import Proof
from psyne_mesh.gossip.records import Accusation, Record
from psyne_mesh.identity import PeerId

# The timers, in the order in which those that are due at the same time are served.
PROBES: Final = 0
SUSPICIONS: Final = 1
RENEWAL: Final = 2  # of our own record
FLUSH: Final = 3  # news that wait to be sent together
SYNC: Final = 4
DOUBT: Final = 5
OVERLAY: Final = 6
SHUFFLE: Final = 7
TREE_KEEPER: Final = 8
BROADCAST: Final = 9
LOSING: Final = 10  # a cut is gathering
RETURNING: Final = 11  # and its end
KNOCKS: Final = 12
SEATING: Final = 13  # a seat that is held for somebody becomes free
SEATS: Final = 14
DIALS: Final = 15
COMEBACK: Final = 16  # while we stand aside, the only one that counts
VOUCHES: Final = 17  # members without a link are looked for
ORPHANS: Final = 18  # whom nobody may be left to miss
_TIMERS: Final = 19


class Effects:
    """One for each node."""

    __slots__ = ("events", "facts", "frames", "probing", "timers", "wishes")

    def __init__(self) -> None:
        self.probing: list[Probing] = []
        self.facts: list[Fact] = []
        self.frames: list[SendFrame] = []
        self.wishes: list[Wish] = []
        self.events: list[Event] = []
        self.timers: list[float] = [math.inf] * _TIMERS

    def forget(self) -> None:
        """Nobody is there to hear it."""
        self.probing.clear()
        self.facts.clear()
        self.frames.clear()
        self.wishes.clear()


# ---------------------------------------------------------------------------------------------------------- probing


@attrs.frozen
class ProbeDue:
    """Send a ping with this sequence to `peer`."""

    peer: PeerId
    sequence: int


@attrs.frozen
class FrameDue:
    """Send this ready frame to `peer`, unreliably."""

    peer: PeerId
    frame: bytes


@attrs.frozen
class LinkImpaired:
    """So many pings in a row are unanswered that frames on this link do not come through now: see `Detector.is_impaired`."""

    peer: PeerId


@attrs.frozen
class LinkSilent:
    """The link was silent for longer than our patience, and no helper reached the peer either."""

    peer: PeerId


@attrs.frozen
class LinkHeard:
    """A link that was reported silent speaks again."""

    peer: PeerId


@attrs.frozen
class LinkBroken:
    """Only others can reach the peer, for so long that the link should be made anew."""

    peer: PeerId


@attrs.frozen
class Deaf:
    """For a long time most links have found that we do not hear them while they hear us."""


# -------------------------------------------------------------------------------------------------------- suspicion


@attrs.frozen
class CaseOpened:
    """The subject is suspected now."""

    subject: PeerId


@attrs.frozen
class CaseClosed:
    """The subject is no longer suspected."""

    subject: PeerId


@attrs.frozen
class SecondOpinionDue:
    """Others' word alone will be believed in a moment: a neighbour may know better."""

    subject: PeerId


@attrs.frozen
class VerdictReached:
    """The subject is down. `own`: our own link was among the evidence."""

    subject: PeerId
    epoch: int
    incarnation: int
    own: bool


# ----------------------------------------------------------------------------------------------------------- people


@attrs.frozen
class Tell:
    """Send this record or accusation to one neighbour, if we have a link to it."""

    peer: PeerId
    news: Record | Accusation


@attrs.frozen
class TellAll:
    """Send this to everybody whom we can reach. `urgent`: it answers an accusation, and must be as quick."""

    news: Record | Accusation
    urgent: bool = False


@attrs.frozen
class Spread:
    """New to us, so maybe to others: `via` brought it. `urgent` as in `TellAll`."""

    news: Record | Accusation
    via: PeerId | None
    urgent: bool = False


@attrs.frozen
class Joined:
    """A new member, or one that is back; `previous` is the newest record of its life before, if we knew one."""

    record: Record
    via: PeerId | None
    previous: Record | None


@attrs.frozen
class Renamed:
    """A member that we show has another name or other metadata."""

    record: Record


@attrs.frozen
class Restarted:
    """A member's new life, while its old one still counted as alive."""

    record: Record
    via: PeerId | None
    previous: Record


@attrs.frozen
class Confirmed:
    """A member of whom only a server had told us: now somebody brought it whom we are linked to."""

    record: Record
    via: PeerId


@attrs.frozen
class Unvouched:
    """Nobody whom we are linked to reaches this member."""

    peer: PeerId


@attrs.frozen
class OrphanSilent:
    """We looked after this member, for its neighbours may all be dead, and did not reach it."""

    peer: PeerId


@attrs.frozen
class Gone:
    """`missed`: it may have been taken from us by a cut, and is worth a knock."""

    peer: PeerId
    reason: LeaveReason
    missed: bool = True


@attrs.frozen
class Proved:
    """This key signed two records of one version, and is barred. News to us, so maybe to others."""

    proof: Proof


@attrs.frozen
class Forgotten:
    """Gone for so long that nothing of it can still be under way."""

    peer: PeerId


@attrs.frozen
class OwnSeatKnown:
    """An older life of ours held this seat."""

    seat: int


@attrs.frozen
class CalledGone:
    """Somebody holds us for down in this epoch: `Census.revive` says that we are not."""

    epoch: int


@attrs.frozen
class LetGo:
    """A neighbour, never lost to us, had held us for gone, and hears us again."""

    record: Record


@attrs.frozen
class Superseded:
    """The same key lives elsewhere, and is newer."""


# ------------------------------------------------------------------------------------------------------------ seats


@attrs.frozen
class Seating:
    """The holders changed."""

    seats: tuple[PeerId | None, ...]
    own: int | None


@attrs.frozen
class ClaimDue:
    """Put this seat (or none) into our record."""

    seat: int | None


@attrs.frozen
class BallotDue:
    """Put this ballot into our record."""

    ballot: tuple[tuple[int, bytes], ...]


@attrs.frozen
class SeatLost:
    """No seat is free for us."""


# ----------------------------------------------------------------------------------------------------------- wishes


@attrs.frozen
class Part:
    """Close this link in good order: it is not needed any more."""

    peer: PeerId
    reason: str


@attrs.frozen
class DialWanted:
    """A vacancy: dial this member once."""

    peer: PeerId


@attrs.frozen
class Adopt:
    """A newcomer whose walk ended here: dial it if there is room. Its record."""

    record: bytes


@attrs.frozen
class Knock:
    """Dial this member that was lost."""

    peer: PeerId


@attrs.frozen
class DialDue:
    """Now dial."""

    peer: PeerId


@attrs.frozen
class ViewsDiffer:
    """It is time to compare views with this neighbour: send it a summary."""

    peer: PeerId


@attrs.frozen
class Withholding:
    """These neighbours announce what they do not send."""

    peers: tuple[PeerId, ...]


@attrs.frozen
class CutSeen:
    lost: tuple[PeerId, ...]
    remaining: tuple[PeerId, ...]
    majority: bool


@attrs.frozen
class CutMended:
    returned: tuple[PeerId, ...]
    missing: tuple[PeerId, ...]


Probing: TypeAlias = ProbeDue | FrameDue | LinkImpaired | LinkSilent | LinkHeard | LinkBroken | Deaf
Fact: TypeAlias = (
    CaseOpened
    | CaseClosed
    | SecondOpinionDue
    | VerdictReached
    | Tell
    | TellAll
    | Spread
    | Joined
    | Renamed
    | Restarted
    | Confirmed
    | Unvouched
    | OrphanSilent
    | Gone
    | Proved
    | Forgotten
    | OwnSeatKnown
    | CalledGone
    | LetGo
    | Superseded
    | Seating
    | ClaimDue
    | BallotDue
    | SeatLost
)
Wish: TypeAlias = Part | DialWanted | Adopt | Knock | DialDue | ViewsDiffer | Withholding | CutSeen | CutMended
