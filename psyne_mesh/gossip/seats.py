"""Who has which of the room's N numbered seats, decided by everybody alike and by nobody alone.

A claim is part of a member's signed record, and so is a ballot: whom it sees in which seat. A seat has one holder whatever
is claimed, so there are never more than N:

- A living holder that stood for a while keeps its seat, whoever claims it: a thousand new keys move nobody.
- Unless those who held seats before it did name another in their ballots. On the two sides of a cut that has healed they
  are the same, so both sides name the same holder where both gave a seat away.
- Of claimants that are all new, the one with most votes of claimants, then the lowest H(room, seat, peer).

Votes and evidence come from `proven` members only: whom we met over a link in a full mesh. A record alone proves a key.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

from psyne_mesh.frozen import Frozen
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

_NOBODY: Mapping[int, PeerId] = {}
_ALONE_S = 1.0  # nobody known after that: we are the first
_UNSYNCED_S = 5.0  # members are known but none could be reached: claim all the same
_SYNCED_S = (0.1, 0.3)  # from the first words of a neighbour to our claim: the rest of its view is still coming
_YIELD_S = (0.4, 0.6)  # a lost claim is given up after that: views may still be converging
_DENIED_S = 20.0  # a seat that others kept for its holder: half of `seat_hold_s`, which is for crashes
_VOTE_S = (0.8, 1.2)  # so long a seating stands before we vote for it
_WAIT_S = (0.3, 1.5)  # who waits for a seat does not jump at it: others wait, too
_TENURE_S = (
    3.0  # a seat that was held for so long is not lost to a newcomer; claims that race each other differ by less
)
_SENIOR_S = 5.0  # who sat so long before another is its senior. Less may have been the other way round elsewhere
_ARRIVAL_S = 2.0  # so long after our first link the view of the others is still coming
_TENURES_PER_SEAT, _TENURES_MIN = (
    4,
    64,
)  # who held a seat and since when; of the others it is forgotten, the oldest first


class Claim(Frozen):
    """`peer` wants `seat`, or held it until it fell silent a short while ago. `proven`: we know that somebody is there.
    `ballot`: whom it sees where."""

    peer: PeerId
    seat: int
    proven: bool = True
    ballot: Ballot = ()


class Seats:
    """How to drive it:

    1. `start(now)`; `synced(now)` when a neighbour has told its view; `held_before(seat)` if an older life had one.
    2. `met_others(now)` when a first link is there.
    3. `view(claims, now)` whenever records changed, and at `deadline`, before `handle_timeout(now)`.
    4. It says: `Seating`, `ClaimDue`, `BallotDue`, `SeatLost`.
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
        self.contested = False  # some seat is claimed more than once
        self.effects = out
        self._free: list[int] = list(range(self._count))
        self._tenures: dict[PeerId, float] = {}  # who held a seat, and since when
        self._judged: dict[int, PeerId] = {}
        self._seated_at: dict[int, float] = {}  # seat -> when its present holder got it
        self._met_at = math.inf  # when we first had a link
        self._denied_until: dict[int, float] = {}  # seats that went to others when we claimed them
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

    def met_others(self, now: float) -> None:
        """Until now we were alone: whoever we saw in a seat held it in our eyes only."""
        self._seated_at = dict.fromkeys(self._seated_at, now)
        self._met_at = min(self._met_at, now)

    def view(self, claims: Iterable[Claim], now: float) -> None:
        """Seat everybody anew. `claims` holds our own, too, if we have one."""
        claims = [claim for claim in claims if claim.seat < self._count]
        self._judged.clear()
        seats = self._assign(claims, now)
        judged = self._judged.values()  # it was not new claims that gave them their seats
        denied = [seat for seat, until in self._denied_until.items() if now < until]
        self._free = _free(self._count, claims, denied)
        self.contested = len({claim.seat for claim in claims}) < len(claims)
        for seat, peer in enumerate(seats):
            if peer != self.seats[seat]:
                self._seated_at[seat] = now - _TENURE_S if peer in judged else now
            if peer is not None and peer not in self._tenures:
                # Who sits there when we come was there before us.
                newcomer = now - self._met_at < _ARRIVAL_S
                self._tenures[peer] = -math.inf if newcomer and peer != self._own else now
                if len(self._tenures) > max(_TENURES_MIN, _TENURES_PER_SEAT * self._count):
                    del self._tenures[next(iter(self._tenures))]
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

    def _assign(self, claims: list[Claim], now: float) -> tuple[PeerId | None, ...]:
        proven = [claim for claim in claims if claim.proven]
        held = {
            claim.seat: claim.peer
            for claim in proven
            if self.seats[claim.seat] == claim.peer and now - self._seated_at.get(claim.seat, now) >= _TENURE_S
        }
        if len(held) < len(claims):
            claimants: dict[int, list[PeerId]] = {}
            for claim in claims:
                claimants.setdefault(claim.seat, []).append(claim.peer)
            for seat, incumbent in list(held.items()):
                if len(claimants[seat]) > 1 and (rivals := [peer for peer in claimants[seat] if peer != incumbent]):
                    held[seat] = self._judge(seat, incumbent, rivals, proven)
                    self._judged[seat] = held[seat]
        return assign(self._room, self._count, claims, [claim.ballot for claim in proven], held)

    def _judge(self, seat: int, incumbent: PeerId, rivals: list[PeerId], proven: list[Claim]) -> PeerId:
        """Who sat before the incumbent did are the ones to ask: no newcomers are among them, and on the two sides of a cut
        that has healed they are the same."""
        since = min(self._tenures.get(peer, math.inf) for peer in [incumbent, *rivals])
        seniors = [
            claim
            for claim in proven
            if claim.peer != incumbent
            and claim.peer not in rivals
            and self._tenures.get(claim.peer, math.inf) <= since - _SENIOR_S
        ]
        asked = {peer: (seat, vote_of(peer)) for peer in [incumbent, *rivals]}
        votes = {peer: sum(vote in claim.ballot for claim in seniors) for peer, vote in asked.items()}
        most = max(votes.values())
        best = [peer for peer in votes if votes[peer] == most] if most else [incumbent]
        oldest = min(self._tenures.get(peer, math.inf) for peer in best)
        if incumbent in best and oldest < self._tenures.get(incumbent, math.inf):
            best = [peer for peer in best if self._tenures.get(peer, math.inf) == oldest]
        return min(best, key=lambda peer: _rank(self._room, seat, peer))

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
        assert self.claimed is not None  # the caller looked
        self._denied_until[self.claimed] = now + _DENIED_S
        self._free = [seat for seat in self._free if seat != self.claimed]
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


def assign(
    room: bytes, count: int, claims: Iterable[Claim], ballots: Iterable[Ballot], held: Mapping[int, PeerId] = _NOBODY
) -> tuple[PeerId | None, ...]:
    """The holder of each seat: who `held` it, else a pure function of what the records say, so equal views seat equally."""
    claimants: dict[int, list[PeerId]] = {}
    for claim in claims:
        if claim.seat not in held:
            claimants.setdefault(claim.seat, []).append(claim.peer)
    seats: dict[int, PeerId] = {**held, **{seat: peers[0] for seat, peers in claimants.items()}}
    contested = {seat: peers for seat, peers in claimants.items() if len(peers) > 1}
    if contested:  # votes and ranks cost most of a seating, and mostly nobody needs them
        votes: dict[tuple[int, bytes], int] = {}
        for ballot in ballots:
            for vote in dict.fromkeys(ballot):
                votes[vote] = votes.get(vote, 0) + 1
        for seat, peers in contested.items():
            standings = [(-votes.get((seat, vote_of(peer)), 0), _rank(room, seat, peer), peer) for peer in peers]
            seats[seat] = min(standings)[2]
    return tuple(map(seats.get, range(count)))


def _free(count: int, claims: list[Claim], denied: list[int]) -> list[int]:
    """Seats that nobody claims; if there are none, those that nobody claims of whom we know that it is there. Of these a
    `denied` one is not tried again at once: others know its holder."""
    taken = {claim.seat for claim in claims}
    sure = {claim.seat for claim in claims if claim.proven}
    free = [seat for seat in range(count) if seat not in taken]
    return free or [seat for seat in range(count) if seat not in sure and seat not in denied]


def vote_of(peer: PeerId) -> bytes:
    return raw_of(peer)[:BALLOT_ID_BYTES]


def _rank(room: bytes, seat: int, peer: PeerId) -> bytes:
    return blake2b(seat.to_bytes(2, "big") + raw_of(peer), key=room, digest_size=8).digest()
