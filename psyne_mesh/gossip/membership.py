"""The view of the room: the newest signed record of every member, who is gone, and hashes over the whole.

Pure data under one rule: records of a key are ordered by (epoch, incarnation, state), and being down is final for an
epoch. A member that was called down wrongly returns with a higher epoch, which only it can sign.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING

from psyne_mesh.gossip.codec import raw_of
from psyne_mesh.gossip.records import ALIVE, Record
from psyne_mesh.gossip.view_hash import ViewHash, bucket_of
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import forget_oldest

if TYPE_CHECKING:
    import random
    from collections.abc import Container

_EARLY_S = 0.001
_GONE_MAX = 4096  # records of members that are gone; of the longest gone only the version stays
_VOUCHERS_MAX = 32  # remembered of one member, as many as a full mesh has links; who vouched longest ago is forgotten
_WHOLE_S = 60.0  # so long whole: twice as long as messages are kept for repair, many rounds of comparing views
_LOST_WHOLE_S = 600.0  # those lost to silence: newcomers hear of them (see `exchange`), and may knock
_KNOCKED = 4  # of the lost stay whole, however long ago: somebody knocks on their doors
_CUT_KEPT = 64  # and so many that were lost together: one knock is answered, and all the others are found
_TOGETHER_S = 3.0  # losses that are no further apart
_TOGETHER_MIN = 3
_PAST_S = (
    3600.0  # versions of the gone: no node rests longer and comes back with records as old as that (see `outcome`)
)
_PAST_MIN, _PAST_PER_MEMBER = 64, 4  # and so many of them, but never more than `_GONE_MAX`
_TIDY_S = 30.0  # between two looks at who is gone for long
# A member comes back, or begins a new life, so often at once, then once in this time (guesses: a process that crashes at its
# start and is started again at once is slower). More are refused: each is two or three events for the room's user.
_LIVES_MAX, _LIFE_EVERY_S = 8, 2.0
_PAST = struct.Struct(">QQBd")  # epoch, incarnation, status, since


class Status(IntEnum):
    ALIVE = 0
    DOWN = 1  # silent, by verdict
    LEFT = 2  # by its own word


class Change(Enum):
    """What a record did to the view."""

    STALE = auto()  # older than what we have
    SAME = auto()  # exactly what we have
    JOINED = auto()  # not known before, or gone before: now a member
    UPDATED = auto()  # a member says something new
    RESTARTED = auto()  # a member's new life, while the old one still counted as alive
    LEFT = auto()  # a member says goodbye
    NOTED = auto()  # newer knowledge of somebody who is no member and does not become one
    REFUSED = auto()  # the table is full


class Member:
    """`via` is the link that brought the newest record: a first step towards the member. `closed`: it is down because
    it was expelled, or nobody ever met it, so there is no use in waiting for it. `place` is its index among the living, or
    -1. `lives_until`: when the lives that it began will all count no more. `hint`: only a server told us of it, or a ticket:
    somebody to dial, of whom nothing is passed on. `revived`: it was down, and is back. `met`: we had a link with it once.
    `vouched_at`: when a link of ours, or a neighbour, last stood for it; `vouchers`: which neighbours did, and when."""

    __slots__ = (
        "closed",
        "hint",
        "lives_until",
        "met",
        "place",
        "record",
        "revived",
        "seen_at",
        "since",
        "status",
        "via",
        "vouched_at",
        "vouchers",
    )

    def __init__(self, record: Record, status: Status, now: float, via: PeerId | None) -> None:
        self.record = record
        self.status = status
        self.seen_at = now  # when the newest record came; its lifetime counts from here
        self.since = now  # when it got its present status, or began its present life
        self.via = via
        self.closed = False
        self.place = -1
        self.lives_until = -math.inf
        self.hint = via is None
        self.met = False
        self.revived = False
        self.vouched_at = now
        self.vouchers: OrderedDict[PeerId, float] | None = None


class Membership:
    """All that is known of the others, and `own`, the record of ourselves. How to drive it:

    1. `apply(record, now, via)` for each verified record; act on the `Change`.
    2. `mark_down(peer, now)` after a verdict; `forget(peer, now)` when a lobby has no place for a record; `tidy(now)` now and
       then.
    3. Read `alive` (a list in no special order, for `rng.choice`), `get`, `buckets`, `view_hash`.
    """

    def __init__(self, members_max: int, lifetime_max_s: float = math.inf) -> None:
        self._members_max = members_max
        self._lifetime_max_s = lifetime_max_s
        self._table: dict[PeerId, Member] = {}
        self._gone: dict[PeerId, None] = {}  # down and left, the longest gone first
        self._past: dict[bytes, bytes] = {}  # versions of those gone for long, by raw id, in the order of their going
        self._tidy_at = -math.inf
        self._expiry_at = math.inf  # no living member's record expires before that
        self.alive: list[PeerId] = []
        self.hints: dict[PeerId, None] = {}  # those of the living whom only a server told us of
        self.hash = ViewHash()
        self.changed_at = 0.0
        self.seat_changes = 0  # grows with whatever may change who holds which seat
        self.own: Record | None = None

    def __len__(self) -> int:
        """How many others are alive."""
        return len(self.alive)

    def standing(self, origin: PeerId) -> int:
        """Of an author of broadcasts: nobody invents members as cheaply as keys. In a lobby, and just after joining, honest
        ones are strangers, too."""
        if self.is_alive(origin) or (self.own is not None and origin == self.own.peer):
            return 2
        return 1 if origin in self._table else 0

    def is_alive(self, peer: PeerId) -> bool:
        member = self._table.get(peer)
        return member is not None and member.place >= 0

    def was_lost(self, record: Record) -> bool:
        """Its subject was a member in this stay of it (between a join and a departure), and is none now."""
        member = self._table.get(record.peer)
        if member is not None:
            return member.place < 0 and record.joined_at <= member.record.epoch
        past = self._past.get(raw_of(record.peer)) if self._past else None
        return past is not None and record.joined_at <= _PAST.unpack(past)[0]

    def get(self, peer: PeerId) -> Member | None:
        return self._table.get(peer)

    def record(self, peer: PeerId) -> Record | None:
        member = self._table.get(peer)
        return member.record if member is not None else None

    @property
    def buckets(self) -> list[bytes]:
        return self.hash.buckets

    @property
    def view_hash(self) -> bytes:
        return self.hash.whole

    def set_own(self, record: Record, now: float) -> None:
        self.own = record
        self.hash.put(record.peer, record.version_hash)
        self.changed_at = now
        self.seat_changes += 1

    def compare(self, record: Record) -> Change:
        """STALE or SAME for a record that teaches nothing; NOTED for one worth verifying."""
        member = self._table.get(record.peer)
        if member is None:
            past = self._past.get(raw_of(record.peer)) if self._past else None
            return Change.STALE if past is not None and record.order[:2] < _PAST.unpack(past)[:2] else Change.NOTED
        if record.order > member.record.order:
            return Change.NOTED
        return Change.SAME if record.order == member.record.order else Change.STALE

    def is_hasty(self, record: Record, now: float) -> bool:
        """One more life of a member that has begun too many just now. Who compares views with us brings it again."""
        member = self._table.get(record.peer)
        if member is None or now >= member.lives_until or record.state != ALIVE:
            return False
        old = member.record
        begins = record.epoch > old.epoch if member.place < 0 else record.joined_at != old.joined_at
        return begins and member.lives_until - now > (_LIVES_MAX - 1) * _LIFE_EVERY_S

    def apply(self, record: Record, now: float, via: PeerId | None, age: float = 0.0) -> Change:
        change = self.compare(record)
        if change is not Change.NOTED:
            return change
        member = self._table.get(record.peer)
        if member is None:
            past = self._past.pop(raw_of(record.peer), None) if self._past else None
            if past is not None and record.epoch == _PAST.unpack(past)[0]:
                _, _, status, since = _PAST.unpack(past)
                self._remember_gone(record, Status(status), since)
                return Change.NOTED
            if record.state != ALIVE:
                self._remember_gone(record, Status.LEFT, now)
                return Change.NOTED
            if len(self.alive) >= self._members_max:
                return Change.REFUSED
            member = self._table[record.peer] = Member(record, Status.ALIVE, now, via)
            if age:
                member.seen_at -= age
            self._expiry_at = min(self._expiry_at, self._expiry(member))
            self._enter(member, now)
            return Change.JOINED
        if via is not None and member.hint:
            self.confirm(record.peer, now)
        change = self._renew(member, record, now, via)
        if age and member.record is record:
            member.seen_at -= age
        self._expiry_at = min(self._expiry_at, self._expiry(member))
        return change

    def confirm(self, peer: PeerId, now: float) -> None:
        """Somebody whom we are linked to brought this hint's record."""
        member = self._table.get(peer)
        if member is not None and member.hint:
            member.hint, member.vouched_at = False, now
            self.seat_changes += 1
            self.hints.pop(peer, None)
            if member.place >= 0:
                self._show(member, now)

    def met(self, peer: PeerId, now: float) -> None:
        """We have, or had until now, a link with this member."""
        member = self._table.get(peer)
        if member is not None:
            self.seat_changes += not member.met
            member.met, member.vouched_at = True, now

    def vouched(self, peer: PeerId, by: PeerId, now: float) -> None:
        """A neighbour reached it."""
        member = self._table.get(peer)
        if member is not None:
            member.vouched_at = now
            if member.vouchers is None:
                member.vouchers = OrderedDict()
            member.vouchers.pop(by, None)
            member.vouchers[by] = now
            forget_oldest(member.vouchers, _VOUCHERS_MAX)

    def n_vouchers(self, peer: PeerId, since: float, links: Container[PeerId]) -> int:
        """How many of those whom we are linked to have stood for that member since then."""
        member = self._table.get(peer)
        if member is None or member.vouchers is None:
            return 0
        return sum(at > since and by in links for by, at in member.vouchers.items())

    def backed(self, since: float, links: Container[PeerId], needed: int) -> int:
        """For how many without a link so many stand: a few can make up as many as they like."""
        return sum(peer not in links and self.n_vouchers(peer, since, links) >= needed for peer in self.alive)

    def renew_vouchers(self, now: float) -> None:
        """From now on everybody needs one."""
        for peer in self.alive:
            self._table[peer].vouched_at = now

    def stood_still(self, seconds: float) -> None:
        """Nobody's voucher was heard meanwhile."""
        for member in self._table.values():
            member.vouched_at += seconds

    def unproven(self) -> PeerId | None:
        """A member that a newcomer with a link may take the place of: nobody whom we ever met, and hints first."""
        strangers = [member for peer in self.alive if not (member := self._table[peer]).met]
        return min(strangers, key=_standing).record.peer if strangers else None

    def mark_down(self, peer: PeerId, now: float, *, closed: bool = False) -> None:
        member = self._table.get(peer)
        if member is not None and member.status is Status.ALIVE:
            member.closed = closed
            self._exit(member, Status.DOWN, now)

    def forget(self, peer: PeerId, now: float) -> None:
        member = self._table.get(peer)
        if member is not None and member.status is Status.ALIVE:
            self._exit(member, Status.LEFT, now)
        self._table.pop(peer, None)
        self._gone.pop(peer, None)

    def remember_down(self, record: Record, since: float) -> None:
        """Somebody unknown to us is known to be gone."""
        if record.peer not in self._table and raw_of(record.peer) not in self._past:
            self._remember_gone(record, Status.DOWN, since)

    def down(self) -> list[Member]:
        """Members lost to silence, the longest lost first: they may be worth a knock."""
        gone = (self._table[peer] for peer in self._gone)
        return [member for member in gone if member.status is Status.DOWN and not member.closed]

    def is_past(self, peer: PeerId, epoch: int) -> bool:
        """That life, or a later one, is over for so long that nothing of it can still be under way."""
        past = self._past.get(raw_of(peer)) if self._past else None
        return past is not None and epoch <= _PAST.unpack(past)[0]

    def clock_went_back(self, record: Record) -> None:
        """Somebody long gone says over its own link that it lives an earlier life: that is no late rumour."""
        past = self._past.get(raw_of(record.peer)) if self._past else None
        if past is not None and record.epoch < _PAST.unpack(past)[0]:
            del self._past[raw_of(record.peer)]

    def tidy(self, now: float) -> list[PeerId]:
        """Keep only the version of those gone for long, which is what keeps a late rumour from reviving them. Returns whom
        it was done to."""
        if now < self._tidy_at:
            return []
        self._tidy_at = now + _TIDY_S
        for raw in [raw for raw, past in self._past.items() if now - _PAST.unpack(past)[3] > _PAST_S]:
            del self._past[raw]
        late = [peer for peer in self._gone if now - self._table[peer].since > _WHOLE_S]
        spared = self._worth_a_knock(now) if late else set()
        late = [peer for peer in late if peer not in spared]
        for peer in late:
            self._shorten(peer)
        return late

    def random_alive(self, rng: random.Random, count: int) -> list[PeerId]:
        return rng.sample(self.alive, min(count, len(self.alive)))

    def entries(self, buckets_mask: int) -> list[Member]:
        """All that we know in the buckets of the mask, alive and gone, ourselves not."""
        wanted = frozenset(digit for digit in "0123456789abcdef" if buckets_mask >> bucket_of(digit) & 1)
        return [member for peer, member in self._table.items() if peer[0] in wanted and not member.hint]

    def expired(self, now: float) -> list[PeerId]:
        if now < self._expiry_at:
            return []  # the usual answer, without a look at everybody
        members = [self._table[peer] for peer in self.alive]
        self._expiry_at = min(map(self._expiry, members), default=math.inf)
        return [m.record.peer for m in members if now - m.seen_at > self.lifetime_s(m.record)]

    def lifetime_s(self, record: Record) -> float:
        """For so long the record counts here without a renewal, whatever its signer wishes."""
        return min(record.lifetime, self._lifetime_max_s)

    # -------------------------------------------------------------------------------------------------- helpers

    def _expiry(self, member: Member) -> float:
        """When the record of a member runs out, a moment early: sums of floats are not exact."""
        return member.seen_at + self.lifetime_s(member.record) - _EARLY_S

    def _renew(self, member: Member, record: Record, now: float, via: PeerId | None) -> Change:
        old, peer = member.record, record.peer
        if member.status is Status.ALIVE:
            if record.epoch > old.epoch:
                member.since = now
            self.seat_changes += _seating(record) != _seating(old)
            member.record, member.seen_at, member.via = record, now, via
            self._show(member, now)
            if record.state != ALIVE:
                self._exit(member, Status.LEFT, now)
                return Change.LEFT
            if record.joined_at == old.joined_at:
                return Change.UPDATED
            _count_life(member, now)
            return Change.RESTARTED
        returns = record.state == ALIVE and record.epoch > old.epoch
        if returns:
            member.hint = via is None
        if returns and len(self.alive) >= self._members_max:
            return Change.REFUSED
        member.record, member.seen_at, member.via = record, now, via
        if not returns:
            # A down verdict is final for its epoch: the member has to raise it, and is told so by an accusation.
            member.status = Status.LEFT if record.state != ALIVE else member.status
            return Change.NOTED
        del self._gone[peer]
        self._enter(member, now)
        return Change.JOINED

    def _remember_gone(self, record: Record, status: Status, now: float) -> None:
        member = self._table[record.peer] = Member(record, status, now, None)
        member.hint = False
        self._gone[record.peer] = None
        self._trim_gone()

    def _trim_gone(self) -> None:
        while len(self._gone) > _GONE_MAX:
            self._shorten(next(iter(self._gone)))

    def _worth_a_knock(self, now: float) -> set[PeerId]:
        """Of the lost: the last few, and some that were lost together, as by a cut."""
        lost = self.down()
        worth = {
            m.record.peer for i, m in enumerate(lost) if now - m.since <= _LOST_WHOLE_S or i >= len(lost) - _KNOCKED
        }
        kept = 0
        for i, member in enumerate(lost):
            company = lost[max(0, i - _TOGETHER_MIN + 1) : i + _TOGETHER_MIN]
            together = sum(abs(other.since - member.since) <= _TOGETHER_S for other in company)
            if together >= _TOGETHER_MIN and kept < _CUT_KEPT:
                kept += 1
                worth.add(member.record.peer)
        return worth

    def _shorten(self, peer: PeerId) -> None:
        del self._gone[peer]
        member = self._table.pop(peer)
        record, past = member.record, self._past
        past[raw_of(peer)] = _PAST.pack(record.epoch, record.incarnation, member.status, member.since)
        while len(past) > min(_GONE_MAX, max(_PAST_MIN, _PAST_PER_MEMBER * len(self.alive))):
            del past[next(iter(past))]

    def _enter(self, member: Member, now: float) -> None:
        peer = member.record.peer
        member.revived = member.status is not Status.ALIVE
        member.status, member.since, member.closed = Status.ALIVE, now, False
        self.seat_changes += 1
        member.vouched_at = now
        _count_life(member, now)
        member.place = len(self.alive)
        self.alive.append(peer)
        if member.hint:
            self.hints[peer] = None
        self._show(member, now)

    def _exit(self, member: Member, status: Status, now: float) -> None:
        peer = member.record.peer
        member.status, member.since = status, now
        self.seat_changes += 1
        place, last = member.place, self.alive.pop()
        member.place = -1
        if last != peer:
            self.alive[place] = last
            self._table[last].place = place
        if member.hint:
            del self.hints[peer]
        else:
            self.hash.drop(peer)
            self.changed_at = now
        self._gone[peer] = None
        self._trim_gone()

    def _show(self, member: Member, now: float) -> None:
        """Its newest record counts in the hashes; of a hint none does."""
        if not member.hint:
            self.hash.put(member.record.peer, member.record.version_hash)
            self.changed_at = now


def _seating(record: Record) -> tuple[object, ...]:
    """What counts of a record when seats are given."""
    return record.seat, record.ballot, record.joined_at


def _standing(member: Member) -> tuple[bool, float]:
    return not member.hint, member.vouched_at


def _count_life(member: Member, now: float) -> None:
    member.lives_until = max(member.lives_until, now) + _LIFE_EVERY_S
