"""Who belongs to the room: takes records, accusations and proofs from anywhere, weighs them, and says what changed.

Parent of `Membership` (the newest record of everybody) and `Suspicions` (open cases). Owns our own record, because only
the subject may raise its numbers: incarnation against a suspicion, epoch against a verdict.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

import attrs

from psyne_mesh.gossip import effects
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import (
    CalledGone,
    Confirmed,
    Effects,
    Forgotten,
    Gone,
    Joined,
    LetGo,
    OwnSeatKnown,
    Proved,
    Renamed,
    Restarted,
    Spread,
    Superseded,
    Tell,
    TellAll,
    VerdictReached,
)
from psyne_mesh.gossip.events import LeaveReason
from psyne_mesh.gossip.freshness import FRESH_S, RENEW_WITHIN_S, Freshness, founded_by
from psyne_mesh.gossip.membership import Change, Member, Membership, Status
from psyne_mesh.gossip.policy import FULL, Policy
from psyne_mesh.gossip.proofs import Proof, contradict, prove, verify_proof_untrusted
from psyne_mesh.gossip.records import (
    ALIVE,
    DOWN,
    LEAVING,
    SUSPECT,
    Accusation,
    OwnState,
    Record,
    RoomKey,
    Signer,
    Verify,
    accuse,
    verify_accusation_untrusted,
    verify_record_untrusted,
)
from psyne_mesh.gossip.suspicion import Suspicions
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket, forget_oldest

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

_JOINING_S = 10.0  # so long after `start` an older life of our own key makes us raise our epoch instead of giving way
_RENEWALS_MAX = 3  # and at most so often: two live processes with one key must not chase each other
# Who was called gone and has come back speaks of what it missed meanwhile: for so long its accusations wait for another.
_RETURNED_S = 10.0
# A record may claim a day. Longer than so many of our own lifetimes nobody is a member here without a renewal, so that who
# signs records of made-up members must go on doing so.
_LIFETIMES = 2
# A member cannot lose us and find us again sooner; and as many members as a room has can have done so.
# A member that we found again less than that ago was lost in the same break in which it lost us.
_SAME_BREAK_S = 5.0
_LET_GO_GAP_S, _LET_GO_MAX = 2.0, 1024
_SPECTATORS = 4  # members over `max_players` that are shown, ourselves counted
_APART_BITS = 10  # a life that follows one of our key that we only heard of: two of us must not take the same number
_BARRED_MAX = 256  # keys with two faces; the oldest is forgotten
_STRANGERS, _STRANGERS_PER_S = 16.0, 1.0  # proofs about nobody here that are passed on: keys cost nothing
_PROOFS_TOLD = 4  # to each new neighbour, the newest: the others reached everybody as they were found
_REFUTE_GAP_S = 0.2  # an accuser can make us sign and spread at most so often


class Census:
    """How to drive it:

    1. `start(now)`; then `learn(record, now, via)` and `hear(accusation, now, via, ...)`, which raise `ProtocolError`
       for what is badly signed.
       `convict(proof, now)` likewise.
    2. `link_silent`, `link_heard` tell what our own links saw.
    3. `reissue(now, state, urgent=...)` at `renew_at`. `suspicions` has a timer of its own: `verdict(case, now)` for each of
       its verdicts.
    """

    def __init__(
        self,
        config: GossipConfig,
        identity: Signer,
        room: RoomKey,
        rng: random.Random,
        verify: Verify,
        state: OwnState,
        fresh: Freshness,
        out: Effects,
        now: float,
    ) -> None:
        self._config = config
        self._identity = identity
        self._room = room
        self._rng = rng
        self._verify = verify
        self.state = state
        self.membership = Membership(_members_max(config), _LIFETIMES * config.record_lifetime_s)
        self.suspicions = Suspicions(config, out)
        self.effects = out
        self.fresh = fresh
        self.own = state.sign(room, identity, 0, fresh.seconds(now))
        self.membership.set_own(self.own, -math.inf)
        self._policy = FULL
        self.accusations_refused = 0
        self.records_refused = 0
        self.refutations = 0
        self.verdicts = 0
        self.verified = 0  # signatures checked
        self._started_at = 0.0
        self._renewals = 0
        self.renew_at = math.inf
        self._refuted_at = {
            SUSPECT: -math.inf,
            DOWN: -math.inf,
        }  # a verdict is not kept waiting by the suspicion before it
        self._let_go_at: OrderedDict[PeerId, float] = (
            OrderedDict()
        )  # when who told us last that it had held us for gone
        self._expelled: dict[PeerId, None] = {}
        self._barred: OrderedDict[PeerId, tuple[Proof, float]] = OrderedDict()  # and until when
        self._convictions = TokenBucket(burst=_STRANGERS, per_second=_STRANGERS_PER_S, now=now)

    @property
    def renew_at(self) -> float:
        return self.effects.timers[effects.RENEWAL]

    @renew_at.setter
    def renew_at(self, renew_at: float) -> None:
        self.effects.timers[effects.RENEWAL] = renew_at

    def follow(self, policy: Policy, now: float) -> None:
        """In a lobby nobody compares views, so a renewal that is lost must be followed by another one in time."""
        if self._policy.knows_all and not policy.knows_all:
            self.renew_at = min(self.renew_at, now + self._renewal_s * 0.5 * self._rng.random())
        self._policy = self.suspicions.policy = policy

    # ------------------------------------------------------------------------------------------------- own record

    def start(self, now: float) -> None:
        """Nothing is signed anew: signaling shows the first record, and nobody signs two of one version."""
        self._started_at = now
        self._renew_later(now)

    def reissue(self, now: float, state: OwnState | None = None, *, urgent: bool = False) -> None:
        """Sign a newer record, with the next incarnation of `state` or of what it said before, and tell everybody."""
        state = state or self.state
        self.state = attrs.evolve(state, incarnation=state.incarnation + 1)
        self._sign(now)
        self.effects.facts.append(TellAll(self.own, urgent))

    def depart(self, now: float) -> None:
        """Say that we leave; `arrive` takes it back. The caller tells whom it can reach."""
        self.state = attrs.evolve(
            self.state, incarnation=self.state.incarnation + 1, state=LEAVING, seat=None, ballot=()
        )
        self._sign(now)

    def arrive(self, now: float) -> None:
        self.state = attrs.evolve(self.state, epoch=self.state.epoch + 1, incarnation=0, state=ALIVE)
        self._sign(now)

    def _sign(self, now: float) -> None:
        self.own = self.state.sign(self._room, self._identity, self.fresh.instance, self.fresh.seconds(now))
        self._renew_later(now)

    @property
    def _renewal_s(self) -> float:
        return min(self._config.record_lifetime_s, RENEW_WITHIN_S)

    def _renew_later(self, now: float) -> None:
        self.membership.set_own(self.own, now)
        part = 0.6 + 0.2 * self._rng.random() if self._policy.knows_all else 0.35 + 0.15 * self._rng.random()
        self.renew_at = now + self._renewal_s * part

    def _own_record_seen(self, record: Record, now: float) -> None:
        """Our own key: an older life of ours, a copy of our newest record, or a second process that uses our key."""
        own = self.own
        if record.encoded == own.encoded:
            return
        if record.order <= own.order:
            if record.seat is not None and record.joined_at != own.joined_at:
                self.verified += 1
                verify_record_untrusted(record, self._room, self._verify)
                self.effects.facts.append(OwnSeatKnown(record.seat))
            return
        self.verified += 1
        verify_record_untrusted(record, self._room, self._verify)
        joining = now - self._started_at < _JOINING_S and self._renewals < _RENEWALS_MAX
        if record.epoch > own.epoch and not joining and record.joined_at != own.joined_at:
            self.effects.facts.append(Superseded())
            return
        self._renewals += 1
        epoch, incarnation = record.epoch, record.incarnation
        if record.state != ALIVE or record.epoch > own.epoch:
            epoch, incarnation = record.epoch + 1 + self._rng.getrandbits(_APART_BITS), -1
        self.reissue(now, attrs.evolve(self.state, epoch=epoch, incarnation=incarnation))

    # ----------------------------------------------------------------------------------------------------- records

    def expel(self, peer: PeerId, now: float) -> None:
        self._expelled[peer] = None
        self._lose(peer, "kicked", now, closed=True)

    def is_shut_out(self, peer: PeerId, now: float) -> bool:
        """Expelled, or barred for its two faces."""
        barred = self._barred.get(peer) if self._barred else None
        return peer in self._expelled or (barred is not None and now < barred[1])

    def is_believable(self, record: Record, now: float, via: PeerId) -> bool:
        """Whether it is of today and of our room, as far as we know. Its own author need not show that: it is there."""
        if via == record.peer:
            return True
        known = (self.membership.record(record.peer), self.membership.record(via))
        instances = [r.instance for r in known if r is not None]
        return self.fresh.is_timely(record.at, now) and self.fresh.honours(record.instance, now, *instances)

    def honours(self, instance: int, signer: PeerId, now: float) -> bool:
        """Whether a word of `signer` that names this instance of the room counts."""
        record = self.membership.record(signer)
        return self.fresh.honours(instance, now, *(() if record is None else (record.instance,)))

    def agree(self, instance: int, now: float, *, founding: bool = False) -> None:
        """On the room's number, as a record or a neighbour says. Who had none goes by anybody's, even by what a server shows,
        and signs it when it signs the next time: a neighbour hears it from its hello."""
        known = self.fresh.instance
        if instance and self.state.state == ALIVE and self.fresh.adopt(instance, now) and (known or founding):
            self.reissue(now)

    def introduced(self, instance: int, by: PeerId, now: float) -> None:
        """A neighbour's hello. If neither knows the room's number, the two have founded it."""
        record = self.membership.record(by)
        if not (instance or self.fresh.instance) and record is not None:
            self.agree(founded_by(self.own, record), now, founding=True)
        else:
            self.agree(instance, now)

    def learn(self, record: Record, now: float, via: PeerId | None, age: float = 0.0) -> None:
        """`age`: so many seconds ago its subject was last known to live."""
        peer = record.peer
        if peer == self.own.peer:
            self._own_record_seen(record, now)
            return
        known = self.membership.get(peer)
        if known is not None and known.record is record and known.status is Status.ALIVE:
            if via is not None and known.hint:
                self._confirm(known, via, now)
            return  # by far the most records are heard again and again
        if self.is_shut_out(peer, now):
            return
        if via == peer:
            self.membership.clock_went_back(record)
        if self.membership.compare(record) is not Change.NOTED:
            if known is not None and contradict(known.record, record):
                self.verified += 1
                verify_record_untrusted(record, self._room, self._verify)
                self.convict(prove(known.record, record), now)
            elif via is not None and known is not None and known.hint and known.status is Status.ALIVE:
                self._confirm_by_older(known, record, via, now)
            else:
                self._answer_old_record(record, via)
            return
        if self.membership.is_hasty(record, now) or not (via is None or self.is_believable(record, now, via)):
            self.records_refused += 1
            return
        self.verified += 1
        verify_record_untrusted(record, self._room, self._verify)
        if record.instance != self.fresh.instance:
            self.agree(record.instance, now)
        previous = self.membership.record(peer)
        was_hint = known is not None and known.hint
        change = self.membership.apply(record, now, via, age)
        if change is Change.REFUSED and via == peer and (stranger := self.membership.unproven()) is not None:
            self.forget(stranger, "capacity", now)  # who is linked to us comes before who is only told of
            change = self.membership.apply(record, now, via, age)
        if change is Change.REFUSED:
            self.records_refused += 1
            return
        refutes = False
        if change in (Change.RESTARTED, Change.LEFT):
            self.suspicions.drop(peer)
        else:
            refutes = self.suspicions.clear_older(peer, record.order[:2])
        if change is Change.NOTED:
            member = self.membership.get(peer)
            if member is not None and via is not None:
                self.tell_down(via, member)
            return
        if change is Change.JOINED:
            self.effects.facts.append(Joined(record, via, previous))
        elif change is Change.RESTARTED and previous is not None:
            self.effects.facts.append(Restarted(record, via, previous))
        elif change is Change.LEFT:
            self.effects.facts.append(Gone(peer, record.leave_reason))
        elif previous is not None and not was_hint and _says(previous) != _says(record):
            self.effects.facts.append(Renamed(record))
        if (
            previous is not None
            and previous.seat is not None
            and via == peer
            and record.joined_at != previous.joined_at
        ):
            self.effects.facts.append(Tell(peer, previous))  # it may not know which seat it had before it crashed
        if via is not None:  # a server's word is not passed on
            if was_hint and change is Change.UPDATED:
                self.effects.facts.append(Confirmed(record, via))
            self.effects.facts.append(Spread(record, via, refutes))

    def _confirm(self, member: Member, via: PeerId, now: float) -> None:
        """A neighbour knows somebody as well of whom only a server told us."""
        self.membership.confirm(member.record.peer, now)
        self.effects.facts += (Confirmed(member.record, via), Spread(member.record, via))

    def _confirm_by_older(self, member: Member, record: Record, via: PeerId, now: float) -> None:
        """The neighbour's record of it is no newer than the server's; of the same stay it says the same."""
        if (
            record.state == ALIVE
            and record.joined_at == member.record.joined_at
            and self.is_believable(record, now, via)
        ):
            self.verified += 1
            verify_record_untrusted(record, self._room, self._verify)
            self._confirm(member, via, now)

    def learn_gone(self, record: Record, seconds: float, now: float, via: PeerId) -> None:
        """A neighbour lost this member before our time. No event: for us it never was here; unless a server showed it to us."""
        known = self.membership.get(record.peer)
        if record.peer == self.own.peer or record.state != ALIVE or (known is not None and not known.hint):
            return
        if not self.is_believable(record, now, via):
            self.records_refused += 1
            return
        self.verified += 1
        verify_record_untrusted(record, self._room, self._verify)
        if known is not None:
            if known.status is Status.ALIVE:  # else it was told gone already
                self.effects.facts.append(Gone(record.peer, "timeout", missed=False))
            self.membership.forget(record.peer, now - seconds)
            self.suspicions.drop(record.peer)
        self.membership.remember_down(record, now - seconds)

    def _answer_old_record(self, record: Record, via: PeerId | None) -> None:
        """Somebody believes a member alive that we know better: tell it at once (memberlist#345)."""
        member = self.membership.get(record.peer)
        if member is None or via is None or record.state != ALIVE:
            return
        if via == record.peer and member.record.order > record.order:
            self.effects.facts.append(Tell(via, member.record))  # it restarted, and its clock had gone back
        self.tell_down(via, member)

    def tell_down(self, to: PeerId, member: Member) -> None:
        """Let a neighbour know our verdict, signed, so that the subject can raise its epoch."""
        if member.status is Status.DOWN:
            self.effects.facts.append(Tell(to, self.accusation(member, DOWN)))

    def expire(self, now: float, spare: Mapping[PeerId, object]) -> None:
        """Records that nobody renewed are no members, unless we hear them ourselves (`spare`). In a lobby most renewals do
        not reach us, so that says nothing of the member: we have lost sight of it."""
        for peer in self.membership.expired(now):
            if peer in spare:
                continue
            if self._policy.knows_all:
                self._lose(peer, "timeout", now)
            else:
                self.forget(peer, "capacity", now)
        self.effects.facts += [Forgotten(peer) for peer in self.membership.tidy(now)]

    def unvouched(self, peer: PeerId, now: float) -> None:
        """Nobody whom we are linked to reaches it. Whom only a server told of is forgotten; who was brought by a member is
        down, so that it does not come again with the next who heard of it."""
        member = self.membership.get(peer)
        if member is None or member.status is not Status.ALIVE:
            return
        if member.hint:
            self.membership.forget(peer, now)
            self.suspicions.drop(peer)
            self.effects.facts.append(Gone(peer, "timeout", member.met))
        elif self._lose(peer, "timeout", now, closed=not member.met):
            self.verdicts += member.met

    def forget(self, peer: PeerId, reason: LeaveReason, now: float) -> None:
        """A lobby has a better use for this place in its table."""
        if self.membership.is_alive(peer):
            self.membership.forget(peer, now)
            self.suspicions.drop(peer)
            self.effects.facts.append(Gone(peer, reason))

    # ------------------------------------------------------------------------------------------------------ proofs

    def convict(self, proof: Proof, now: float) -> None:
        """Both signatures are good, or `ProtocolError`. The key is barred until its younger record is as old as no word may be;
        by then nobody believes either, and everybody lets it in again at the same time."""
        peer, (one, other) = proof.peer, (proof.one, proof.other)
        timely = [record.at for record in (one, other) if self.fresh.is_timely(record.at, now)]
        if peer == self.own.peer or self.is_shut_out(peer, now) or not timely:
            return
        self.verified += 2
        verify_proof_untrusted(proof, self._room, self._verify)
        self._barred.pop(peer, None)
        self._barred[peer] = proof, now + max(timely) - self.fresh.seconds(now) + FRESH_S
        forget_oldest(self._barred, _BARRED_MAX)
        known = self._lose(peer, "two-faced", now, closed=True)
        if self._convictions.allow(now) or known:
            self.effects.facts.append(Proved(proof))

    def proofs(self, now: float) -> list[Proof]:
        """What a new neighbour should know of those who are barred."""
        return [proof for proof, until in list(self._barred.values())[-_PROOFS_TOLD:] if now < until]

    # ------------------------------------------------------------------------------------------------- accusations

    def accusation(self, member: Member, verdict: int) -> Accusation:
        record = member.record
        instance = self.fresh.instance
        return accuse(self._room, self._identity, record.peer, record.epoch, record.incarnation, verdict, instance)

    def hear(self, accusation: Accusation, now: float, via: PeerId | None, *, contested: bool, linked: bool) -> None:
        """`contested`: our own link hears the subject right now; `linked`: there is one."""
        subject = accusation.subject
        if accusation.accuser == self.own.peer or accusation.accuser in self._expelled:
            return
        if subject == self.own.peer:
            self._refute(accusation, now, via)
            return
        member = self.membership.get(subject)
        if member is None or member.status is not Status.ALIVE:
            return
        version, ours = (accusation.epoch, accusation.incarnation), member.record.order[:2]
        if version < ours:
            if via is not None:  # refuted already: pass the refutation on
                self.effects.facts.append(Tell(via, member.record))
            return
        accuser = self.membership.get(accusation.accuser)
        if version > ours or accuser is None or accuser.status is not Status.ALIVE or not self._counts(accusation, now):
            self.accusations_refused += 1  # memberlist#358: nobody but the subject raises an incarnation
            return
        if self.suspicions.knows(subject, version, accusation.accuser, accusation.verdict):
            return
        self.verified += 1
        verify_accusation_untrusted(accusation, self._room, accuser.record.public_key, self._verify)
        returned = accuser.record.epoch != accuser.record.joined_at and now - accuser.since < _RETURNED_S
        news = self.suspicions.accuse(
            subject,
            version,
            accusation.accuser,
            accusation.verdict,
            now,
            own=False,
            contested=contested or returned,
            witnesses=self._witnesses(),
        )
        if news:
            if linked and via != subject:
                self.effects.facts.append(Tell(subject, accusation))
            self.effects.facts.append(Spread(accusation, via))

    def _refute(self, accusation: Accusation, now: float, via: PeerId | None) -> None:
        version, ours = (accusation.epoch, accusation.incarnation), self.own.order[:2]
        accuser = self.membership.get(accusation.accuser)
        if version < ours and via is not None:
            self.effects.facts.append(Tell(via, self.own))
        if accusation.verdict == DOWN and via == accusation.accuser and accuser is not None:
            self._note_let_go(accusation, accuser, now)
        verdict = DOWN if accusation.verdict == DOWN else SUSPECT
        if version != ours or accuser is None or now - self._refuted_at[verdict] < _REFUTE_GAP_S:
            return
        if not self._counts(accusation, now):
            self.accusations_refused += 1
            return
        self.verified += 1
        verify_accusation_untrusted(accusation, self._room, accuser.record.public_key, self._verify)
        self._refuted_at[verdict] = now
        if verdict == DOWN:
            self.effects.facts.append(CalledGone(accusation.epoch))
            return
        self.refutations += 1
        self.reissue(now, urgent=True)

    def _counts(self, accusation: Accusation, now: float) -> bool:
        return self.honours(accusation.instance, accusation.accuser, now)

    def _note_let_go(self, accusation: Accusation, accuser: Member, now: float) -> None:
        """A neighbour that we never lost says itself that it had: we were silent, and it hears us again. It may say so of this
        stay only, and as often as a member can be lost and found."""
        peer = accuser.record.peer
        due = accuser.status is Status.ALIVE and now - self._let_go_at.get(peer, -math.inf) >= _LET_GO_GAP_S
        # Else we had lost each other, and know
        never_lost = not accuser.revived or now - accuser.since >= _SAME_BREAK_S
        due = due and never_lost and self._counts(accusation, now)
        if due and self.own.joined_at <= accusation.epoch <= self.own.epoch:
            self.verified += 1
            verify_accusation_untrusted(accusation, self._room, accuser.record.public_key, self._verify)
            self._let_go_at[peer] = now
            forget_oldest(self._let_go_at, _LET_GO_MAX)
            self.effects.facts.append(LetGo(accuser.record))

    def revive(self, epoch: int, now: float) -> None:
        """That life of ours was called over: begin another one, if we have not yet."""
        if epoch == self.state.epoch and self.state.state == ALIVE:
            self.refutations += 1
            self.reissue(now, attrs.evolve(self.state, epoch=epoch + 1, incarnation=-1), urgent=True)

    def link_silent(self, peer: PeerId, now: float, rtt_s: float = 0.0) -> None:
        member = self.membership.get(peer)
        if member is None or member.status is not Status.ALIVE:
            return
        accusation = self.accusation(member, SUSPECT)
        known = self.suspicions.knows(peer, member.record.order[:2], self.own.peer, SUSPECT)
        # What enough others have said already needs no further voice; but the subject should know that we miss it.
        self.effects.facts.append(Tell(peer, accusation) if known else TellAll(accusation))
        self.suspicions.accuse(
            peer,
            member.record.order[:2],
            self.own.peer,
            SUSPECT,
            now,
            own=True,
            contested=False,
            witnesses=self._witnesses(),
            rtt_s=rtt_s,
        )

    def link_closed(self, peer: PeerId, now: float) -> None:
        """Our link cannot speak for the peer any more."""
        self.suspicions.uncontested(peer, self._witnesses(), now)

    def link_heard(self, peer: PeerId) -> None:
        self.suspicions.clear(peer)

    def _lose(self, peer: PeerId, reason: LeaveReason, now: float, *, closed: bool = False) -> bool:
        if not self.membership.is_alive(peer):
            return False
        member = self.membership.get(peer)
        self.membership.mark_down(peer, now, closed=closed)
        self.suspicions.drop(peer)
        self.effects.facts.append(Gone(peer, reason, member is None or member.met or not closed))
        return True

    def _witnesses(self) -> int:
        return max(0, len(self.membership) - 1) if self._policy.knows_all else 0

    def verdict(self, case: VerdictReached, now: float) -> None:
        member = self.membership.get(case.subject)
        if member is None or member.record.order[:2] != (case.epoch, case.incarnation):
            return
        if not self._policy.knows_all and not case.own:
            # In a lobby only those pass an accusation on who know its subject: that may never hear of it.
            self.forget(case.subject, "capacity", now)
        elif self._lose(case.subject, "timeout", now):
            self.verdicts += 1
            if case.own:  # who only heard of it has nothing to add
                self.effects.facts.append(TellAll(self.accusation(member, DOWN)))


def _members_max(config: GossipConfig) -> int:
    """How many others are shown: in a room with seats no more than fit in, and some who wait or watch."""
    if not config.max_players:
        return config.full_knowledge_max
    return min(config.full_knowledge_max, config.max_players + _SPECTATORS - 1)


def _says(record: Record) -> tuple[str, bytes]:
    """What a member says about itself to people."""
    return record.name, record.metadata
