"""Who has which of the room's N numbered seats, decided by everybody alike and by nobody alone.

A claim is part of a member's signed record. A seat has one holder whatever is claimed: the claimant with most votes
(every member's record names whom it sees in which seat), then the lowest H(room, seat, peer). So there are never more
than N, and after a heal all who hold the same records name the same holders; incumbents win because they were voted for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

import attrs

from psyne_mesh.gossip import effects
from psyne_mesh.gossip.codec import raw_of
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import BallotDue, ClaimDue, Effects, Seating, SeatLost
from psyne_mesh.gossip.records import BALLOT_ID_BYTES, BALLOT_MAX
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random

Ballot: TypeAlias = tuple[tuple[int, bytes], ...]
"""(seat, first bytes of the holder's id) for each seat that the voter sees taken."""

_ALONE_S = 1.0  # nobody known after that: we are the first
_UNSYNCED_S = 5.0  # members are known but none could be reached: claim all the same
_SYNCED_S = (0.1, 0.3)  # from the first words of a neighbour to our claim: the rest of its view is still coming
_YIELD_S = (0.4, 0.6)  # a lost claim is given up after that: views may still be converging
_VOTE_S = (0.8, 1.2)  # so long a seating stands before we vote for it
_WAIT_S = (0.3, 1.5)  # who waits for a seat does not jump at it: others wait, too


@attrs.frozen
class Claim:
    """`peer` wants `seat`, or held it until it fell silent a short while ago."""

    peer: PeerId
    seat: int


class Seats:
    """How to drive it:

    1. `start(now)`; `synced(now)` when a neighbour has told its view; `held_before(seat)` if an older life had one.
    2. `view(claims, ballots, now)` whenever records changed, and at `deadline`, before `handle_timeout(now)`.
    3. It says: `Seating`, `ClaimDue`, `BallotDue`, `SeatLost`.
    """

    def __init__(
        self, config: GossipConfig, room: bytes, own: PeerId, rng: random.Random, out: Effects, *, wanted: bool
    ) -> None:
        self._count = config.max_players
        self.enabled = self._count > 0
        self._room = room
        self._own = own
        self._rng = rng
        self._wanted = wanted and self._count > 0
        self.seats: tuple[PeerId | None, ...] = (None,) * self._count
        self.claimed: int | None = None
        self.effects = out
        self._free: list[int] = list(range(self._count))
        self._before: int | None = None
        self._ballot: Ballot = ()
        self._knows_others = False
        self._told_lost = False
        self._claim_at = self._yield_at = self._vote_at = math.inf
        self._unsynced_until = math.inf

    @property
    def deadline(self) -> float:
        return self.effects.timers[effects.SEATS]

    def _arm(self) -> None:
        self.effects.timers[effects.SEATS] = min(self._claim_at, self._yield_at, self._vote_at)

    @property
    def own_seat(self) -> int | None:
        """The seat that we hold, not only claim."""
        return self.claimed if self.claimed is not None and self.seats[self.claimed] == self._own else None

    def start(self, now: float) -> None:
        if self._wanted:
            self._claim_at = now + _ALONE_S
            self._unsynced_until = now + _UNSYNCED_S
            self._arm()

    def synced(self, now: float) -> None:
        if self._unsynced_until != math.inf:
            self._unsynced_until = math.inf
            self._claim_at = now + self._rng.uniform(*_SYNCED_S)
            self._arm()

    def held_before(self, seat: int) -> None:
        if self._before is None and seat < self._count:
            self._before = seat

    def view(self, claims: Iterable[Claim], ballots: Iterable[Ballot], now: float) -> None:
        """Seat everybody anew. `claims` holds our own, too, if we have one; `ballots` those of members who claim."""
        claims = [claim for claim in claims if claim.seat < self._count]
        seats = assign(self._room, self._count, claims, ballots)
        taken = {claim.seat for claim in claims}
        self._free = [seat for seat in range(self._count) if seat not in taken]
        self._knows_others = any(claim.peer != self._own for claim in claims)
        if seats != self.seats:
            before = self.own_seat
            self.seats = seats
            self.effects.facts.append(Seating(seats, self.own_seat))
            if before is None and self.own_seat is not None:
                self._told_lost = False
        self._react(now)
        self._arm()

    def handle_timeout(self, now: float) -> None:
        if now >= self._claim_at:
            self._claim_at = math.inf
            self._try_claim(now)
        if now >= self._yield_at:
            self._yield_at = math.inf
            if self.claimed is not None and self.own_seat is None:
                self._give_up(now)
        if now >= self._vote_at:
            self._vote_at = math.inf
            ballot = self._wanted_ballot()
            if ballot != self._ballot and self.own_seat is not None:
                self._ballot = ballot
                self.effects.facts.append(BallotDue(ballot))
        self._arm()

    # --------------------------------------------------------------------------------------------------- helpers

    def _react(self, now: float) -> None:
        if not self._wanted:
            return
        rng = self._rng
        if self.claimed is not None and self.own_seat is None:
            if self._yield_at == math.inf:
                self._yield_at = now + rng.uniform(*_YIELD_S)
        elif self.claimed is None and self._told_lost and self._free and self._claim_at == math.inf:
            self._claim_at = now + rng.uniform(*_WAIT_S)
        if self.own_seat is not None and self._vote_at == math.inf and self._wanted_ballot() != self._ballot:
            self._vote_at = now + rng.uniform(*_VOTE_S)

    def _try_claim(self, now: float) -> None:
        if self.claimed is not None:
            return
        if self._unsynced_until != math.inf:
            if self._knows_others and now < self._unsynced_until:
                self._claim_at = self._unsynced_until
                return
            self._unsynced_until = math.inf
        if self._before is not None and self.seats[self._before] in (None, self._own):
            self._claim(self._before)
        elif self._free:
            self._claim(self._rng.choice(self._free))
        else:
            self._lose()

    def _give_up(self, now: float) -> None:
        if self._free:
            self._claim(self._rng.choice(self._free))
            return
        self.claimed = None
        self._ballot = ()
        self.effects.facts.append(ClaimDue(None))
        self._lose()

    def _claim(self, seat: int) -> None:
        self.claimed = seat
        self._before = None
        self.effects.facts.append(ClaimDue(seat))

    def _lose(self) -> None:
        if not self._told_lost:
            self._told_lost = True
            self.effects.facts.append(SeatLost())

    def _wanted_ballot(self) -> Ballot:
        if self._count > BALLOT_MAX:
            return ()
        return tuple((seat, vote_of(peer)) for seat, peer in enumerate(self.seats) if peer is not None)


def assign(room: bytes, count: int, claims: Iterable[Claim], ballots: Iterable[Ballot]) -> tuple[PeerId | None, ...]:
    """The holder of each seat; a pure function of what the records say, so equal views seat equally."""
    votes: dict[tuple[int, bytes], int] = {}
    for ballot in ballots:
        for vote in dict.fromkeys(ballot):
            votes[vote] = votes.get(vote, 0) + 1
    best: dict[int, tuple[int, bytes, PeerId]] = {}
    for claim in claims:
        standing = -votes.get((claim.seat, vote_of(claim.peer)), 0), _rank(room, claim.seat, claim.peer), claim.peer
        if claim.seat not in best or standing < best[claim.seat]:
            best[claim.seat] = standing
    return tuple(best[seat][2] if seat in best else None for seat in range(count))


def vote_of(peer: PeerId) -> bytes:
    return raw_of(peer)[:BALLOT_ID_BYTES]


def _rank(room: bytes, seat: int, peer: PeerId) -> bytes:
    return blake2b(seat.to_bytes(2, "big") + raw_of(peer), key=room, digest_size=8).digest()
