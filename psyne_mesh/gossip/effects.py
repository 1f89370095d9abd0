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

from psyne_mesh.frozen import Frozen
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


class ProbeDue(Frozen):
    """Send a ping with this sequence to `peer`."""

    peer: PeerId
    sequence: int


class FrameDue(Frozen):
    """Send this ready frame to `peer`, unreliably."""

    peer: PeerId
    frame: bytes


class LinkImpaired(Frozen):
    """So many pings in a row are unanswered that frames on this link do not come through now: see `Detector.is_impaired`."""

    peer: PeerId


class LinkSilent(Frozen):
    """The link was silent for longer than our patience, and no helper reached the peer either."""

    peer: PeerId


class LinkHeard(Frozen):
    """A link that was reported silent speaks again."""

    peer: PeerId


class LinkBroken(Frozen):
    """Only others can reach the peer, for so long that the link should be made anew."""

    peer: PeerId


class CutOff(Frozen):
    """Nobody at all is heard, and this peer for so long that the link counts for nothing until it carries again."""

    peer: PeerId


class Deaf(Frozen):
    """For a long time most links have found that we do not hear them while they hear us."""


# -------------------------------------------------------------------------------------------------------- suspicion


class CaseOpened(Frozen):
    """The subject is suspected now."""

    subject: PeerId


class CaseClosed(Frozen):
    """The subject is no longer suspected."""

    subject: PeerId


class SecondOpinionDue(Frozen):
    """Others' word alone will be believed in a moment: a neighbour may know better."""

    subject: PeerId


class VerdictReached(Frozen):
    """The subject is down. `own`: our own link was among the evidence."""

    subject: PeerId
    epoch: int
    incarnation: int
    own: bool


# ----------------------------------------------------------------------------------------------------------- people


class Tell(Frozen):
    """Send this record or accusation to one neighbour, if we have a link to it."""

    peer: PeerId
    news: Record | Accusation


class TellAll(Frozen):
    """Send this to everybody whom we can reach. `urgent`: it answers an accusation, and must be as quick."""

    news: Record | Accusation
    urgent: bool = False


class Spread(Frozen):
    """New to us, so maybe to others: `via` brought it. `urgent` as in `TellAll`."""

    news: Record | Accusation
    via: PeerId | None
    urgent: bool = False


class Joined(Frozen):
    """A new member, or one that is back; `previous` is the newest record of its life before, if we knew one."""

    record: Record
    via: PeerId | None
    previous: Record | None


class Renamed(Frozen):
    """A member that we show has another name or other metadata."""

    record: Record


class Restarted(Frozen):
    """A member's new life, while its old one still counted as alive."""

    record: Record
    via: PeerId | None
    previous: Record


class Confirmed(Frozen):
    """A member of whom only a server had told us: now somebody brought it whom we are linked to."""

    record: Record
    via: PeerId


class Unvouched(Frozen):
    """Nobody whom we are linked to reaches this member."""

    peer: PeerId


class OrphanSilent(Frozen):
    """We looked after this member, for its neighbours may all be dead, and did not reach it."""

    peer: PeerId


class Gone(Frozen):
    """`missed`: it may have been taken from us by a cut, and is worth a knock."""

    peer: PeerId
    reason: LeaveReason
    missed: bool = True


class Proved(Frozen):
    """This key signed two records of one version, and is barred. News to us, so maybe to others."""

    proof: Proof


class Forgotten(Frozen):
    """Gone for so long that nothing of it can still be under way."""

    peer: PeerId


class OwnSeatKnown(Frozen):
    """An older life of ours held this seat."""

    seat: int


class CalledGone(Frozen):
    """Somebody holds us for down in this epoch: `Census.revive` says that we are not."""

    epoch: int


class LetGo(Frozen):
    """A neighbour, never lost to us, had held us for gone, and hears us again."""

    record: Record


class Superseded(Frozen):
    """The same key lives elsewhere, and is newer."""


# ------------------------------------------------------------------------------------------------------------ seats


class Seating(Frozen):
    """The holders changed."""

    seats: tuple[PeerId | None, ...]
    own: int | None


class ClaimDue(Frozen):
    """Put this seat (or none) into our record."""

    seat: int | None


class BallotDue(Frozen):
    """Put this ballot into our record."""

    ballot: tuple[tuple[int, bytes], ...]


class SeatLost(Frozen):
    """No seat is free for us."""


# ----------------------------------------------------------------------------------------------------------- wishes


class Part(Frozen):
    """Close this link in good order: it is not needed any more."""

    peer: PeerId
    reason: str


class DialWanted(Frozen):
    """A vacancy: dial this member once."""

    peer: PeerId


class Adopt(Frozen):
    """A newcomer whose walk ended here: dial it if there is room. Its record."""

    record: bytes


class Knock(Frozen):
    """Dial this member that was lost."""

    peer: PeerId


class DialDue(Frozen):
    """Now dial."""

    peer: PeerId


class ViewsDiffer(Frozen):
    """It is time to compare views with this neighbour: send it a summary."""

    peer: PeerId


class Withholding(Frozen):
    """These neighbours announce what they do not send."""

    peers: tuple[PeerId, ...]


class CutSeen(Frozen):
    lost: tuple[PeerId, ...]
    remaining: tuple[PeerId, ...]
    majority: bool


class CutMended(Frozen):
    returned: tuple[PeerId, ...]
    missing: tuple[PeerId, ...]


Probing: TypeAlias = ProbeDue | FrameDue | LinkImpaired | LinkSilent | LinkHeard | LinkBroken | CutOff | Deaf
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
