"""Who is the host of a room, with a fence: a lease that only a majority renews, and terms that only grow.

As in Raft's leases (Ongaro, 2014, 6.4.1): a member that hears a host's beat promises not to vote for anybody else
for LEASE_S; a host may act as long as LEASE_S since it sent a beat that a majority has answered. So a new host is
elected only when the old one knows that it is none, whatever happened to either. On a cut the side with a majority
of the roster has a host, and the other side knows that it has none. The roster is part of what the host says, and
changes by one member at a time, so that any two majorities meet in somebody.

Two players have no majority but both. If the host leaves in order, the other is host at once. Else the one with the
lower seat becomes host alone once the other was silent for ALONE_S, the other one after ORPHAN_S. The cost: in a cut
that lasts longer than ORPHAN_S both go on with a host, and what the one with the lower term decided meanwhile is gone
when they meet again.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal

import msgspec

BEAT_S = 0.4
LEASE_S = 1.6
"""Four beats: three lost in a row cost an election, one in 1,000 at 10 % loss. A killed host is replaced within 3 s."""
MARGIN = 0.05
"""A lease ends so much earlier at the host than the promises at its members: their clocks run at rates that differ
by far less.
"""
RANK_S = 0.25
"""Members stand for election one after the other, the lowest seat first: more than a round trip apart, or votes
split.
"""
RANKS_MAX = 4
ELECTION_S = 0.5
"""Between a vote and the first beat of who was elected: nobody else stands meanwhile. A split vote costs as much."""
ALONE_S = 3.0
ORPHAN_S = 45.0
"""As long as the seat of a crashed player waits for it."""
RESEND_S = 0.15
RESENDS = 2
"""A vote or its answer that was lost is asked for again, before the candidate begins anew."""
FIRST_BEATS = 3
"""Of a new host, one soon after the other: nobody waits for a lost one."""
ASK_AGAIN_S = 0.4
MEMBERS_MAX = 1024
TERM_MAX = 1 << 53

Member = Hashable


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A member of the roster: its seat, and who has it."""

    seat: int
    member: Member


class Beat(msgspec.Struct, frozen=True, array_like=True, tag="beat"):
    """The host of `term` says that it lives. `version` counts the rosters of this term."""

    term: int
    sequence: int
    version: int
    roster: tuple[Place, ...]


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """To a beat. `term` is above the beat's when the answering member knows better."""

    term: int
    sequence: int
    version: int


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """Vote for me in `term`. (`known_term`, `known_version`): the newest roster that the candidate knows. `is_trial`:
    would you? Terms grow only once a majority would (pre-vote: Ongaro, 9.6), so that who was cut off does not topple
    the host when it is back.
    """

    term: int
    known_term: int
    known_version: int
    is_trial: bool = False


class Grant(msgspec.Struct, frozen=True, array_like=True, tag="grant"):
    """`term` is the candidate's where it is granted, else the newest that the member knows."""

    term: int
    is_granted: bool
    is_trial: bool = False


class Resign(msgspec.Struct, frozen=True, array_like=True, tag="resign"):
    """The host of `term` goes, and asks that nobody waits for its lease to end."""

    term: int


HostWord = Beat | Answer | Ask | Grant | Resign


class HostChanged(msgspec.Struct, frozen=True):
    """`host` is the host of `term`; None: there is none that we know of, or our own lease has run out."""

    term: int
    host: Member | None


class HostLease:
    """1. `start(now)` by who founds the room; everybody else hears of it. 2. `receive(member, word, now)` for what
    linked members say.
    3. `set_members(places, now)` whenever the seated members that we are linked with change. 4.
    `handle_timeout(now)` at `next_timeout()`. 5. `resign(now)` before leaving, and `left(member, now)` for who said
    goodbye. 6. After each: send `take_outputs()`,
    unreliable; `take_events()`.

    `host(now)` is the one whose writes count; `is_host(now)` asks for ourselves, and is what every write of a host
    must ask.
    """

    def __init__(self, me: Member, now: float) -> None:
        self.me = me
        self.term = 0
        self._host: Member | None = None
        self._told: HostChanged | None = None
        self._roster: tuple[Place, ...] = ()
        self._version = (0, 0)  # term and number of the roster that we know
        self._promised_until = now + LEASE_S
        self._heard_at = now
        self._lost: Member | None = None  # the host before
        self._voted: tuple[int, Member] | None = None
        self._followed: tuple[int, Member] | None = None  # the one host of that term, for us
        self._rival_at: float | None = None  # since when we know of another host of our term
        self._places: dict[Member, int] = {}
        self._state: Literal["member", "candidate", "host"] = "member"
        self._grants: set[Member] = set()
        self._is_trial = False
        self._is_handed_over = False  # the last host resigned: nobody else can be one, so no trial is needed
        self._is_pair_known = False  # both of a roster of two hold it
        self._asked_at = now
        self._resends = 0
        self._first_beats = 0
        self._replied: set[Member] = set()
        self._sequence = 0
        self._sent: dict[int, float] = {}
        self._pending: tuple[Member, tuple[Place, ...]] | None = None  # the next roster, and who must hold it first
        self._answers: dict[
            Member, tuple[int, int]
        ] = {}  # newest beat answered, and the version of the roster that it held
        self._lease_until = now
        self._beat_at = now
        self._outputs: list[tuple[Member, HostWord]] = []
        self._events: list[HostChanged] = []

    # ------------------------------------------------------------------------------------------- questions

    @property
    def roster(self) -> tuple[Place, ...]:
        """The members whose votes count, by the newest word of a host."""
        return self._roster

    def is_host(self, now: float) -> bool:
        return self._state == "host" and now < self._lease_until

    def host(self, now: float) -> Member | None:
        """Whose writes count now; None on the side of a cut that has no majority."""
        if self._state == "host":
            return self.me if now < self._lease_until else None
        return self._host if now < self._promised_until else None

    def accepts(self, member: Member, term: int) -> bool:
        """Whether a write that `member` made as the host of `term` counts."""
        return term == self.term and member == self._host

    # ------------------------------------------------------------------------------------------------------------------ verbs

    def start(self, now: float) -> None:
        """Found the room: we are its host, and its roster."""
        self._roster = (Place(self._places.get(self.me, 0), self.me),)
        self._win(max(self.term, 0) + 1, now)

    def set_members(self, places: dict[Member, int], now: float) -> None:
        """Seats of the members that are here, ourselves among them."""
        self._places = dict(places)
        if self._state == "host":
            self._change_roster(now)

    def receive(self, member: Member, word: HostWord, now: float) -> None:
        if not 0 < word.term < TERM_MAX:
            return
        if isinstance(word, Beat):
            self._on_beat(member, word, now)
        elif isinstance(word, Answer):
            self._on_answer(member, word, now)
        elif isinstance(word, Ask):
            self._on_ask(member, word, now)
        elif isinstance(word, Grant):
            self._on_grant(member, word, now)
        elif word.term == self.term and member == self._host and self._state == "member":
            self._give_up(now)
        self._tell(now)

    def next_timeout(self) -> float:
        if self._state == "host":
            return min(self._beat_at, max(self._lease_until, self._beat_at))
        if self._state == "candidate":
            return self._asked_at + RESEND_S * (self._resends + 1) if self._resends < RESENDS else self._asks_again_at()
        return self._stands_at()

    def handle_timeout(self, now: float) -> None:
        if self._state == "host":
            if now >= self._lease_until + LEASE_S and len(self._roster) > 1:
                self._follow(None, now)  # nobody answers any more: let others, or ourselves, stand anew
            elif now >= self._beat_at:
                self._beat(now)
        elif now >= self.next_timeout():
            if self._state == "candidate" and self._resends < RESENDS:
                self._resends += 1
                self._send_ask()
            else:
                self._stand(now)
        self._tell(now)

    def resign(self, now: float) -> None:
        """We leave: a successor is elected within a round trip instead of after our lease."""
        if self._state == "host":
            for place in self._others():
                self._outputs.append((place.member, Resign(self.term)))
            self._follow(None, now)
            self._promised_until = now + LEASE_S
        self._tell(now)

    def left(self, member: Member, now: float) -> None:
        """It said goodbye to all, and decides nothing any more: as good as its resignation."""
        if member == self._host and self._state == "member":
            self._give_up(now)
        self._tell(now)

    def take_outputs(self) -> list[tuple[Member, HostWord]]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_events(self) -> list[HostChanged]:
        events, self._events = self._events, []
        return events

    # -------------------------------------------------------------------------------------------- the host

    def _others(self) -> list[Place]:
        return [place for place in self._roster if place.member != self.me]

    def _majority(self) -> int:
        return len(self._roster) // 2 + 1

    def _win(self, term: int, now: float) -> None:
        self.term, self._state, self._host = term, "host", self.me
        self._voted = self._followed = (term, self.me)
        self._rival_at = None
        self._version = (term, 0)
        self._first_beats = FIRST_BEATS
        self._pending = None
        self._answers.clear()
        self._sent.clear()
        self._grants.clear()
        self._lease_until = now if len(self._roster) > 1 else now + LEASE_S
        self._change_roster(now)
        self._beat(now)
        self._tell(now)

    def _beat(self, now: float) -> None:
        if self._rival_at is not None and now - self._rival_at >= BEAT_S:
            self._win(self.term + 1, now)  # nobody has yielded whom we hear
            return
        self._beat_at = now + (BEAT_S if not self._first_beats else RESEND_S)
        self._first_beats = max(0, self._first_beats - 1)
        self._sequence += 1
        self._sent[self._sequence] = now
        while len(self._sent) > 16:
            del self._sent[next(iter(self._sent))]
        if len(self._roster) == 1:
            self._lease_until = now + LEASE_S
        beat = Beat(self.term, self._sequence, self._version[1], self._roster)
        if self._pending is not None:
            ahead = Beat(self.term, self._sequence, self._version[1] + 1, self._pending[1])
            self._outputs.append((self._pending[0], ahead))
        self._outputs += [
            (p.member, beat) for p in self._others() if self._pending is None or p.member != self._pending[0]
        ]
        # Who has a seat and is not in the roster yet hears who the host is, too; it has no vote.
        known = {place.member for place in self._roster}
        self._outputs += [(member, beat) for member in self._places if member not in known]

    def _on_answer(self, member: Member, answer: Answer, now: float) -> None:
        if answer.term > self.term:
            self._adopt(answer.term, now)
        if self._state != "host" or answer.term != self.term:
            return
        if answer.version < 0:  # it follows another host of this term, whom we may not hear ourselves
            self._rival_at = now if self._rival_at is None else self._rival_at
            return
        self._answers[member] = max(self._answers.get(member, (0, 0)), (answer.sequence, answer.version))
        held = [self._answers[place.member][0] for place in self._others() if place.member in self._answers]
        needed = self._majority() - 1
        if len(held) >= needed > 0:
            sent = self._sent.get(sorted(held, reverse=True)[needed - 1])
            if sent is not None:
                self._lease_until = max(self._lease_until, sent + LEASE_S * (1 - MARGIN))
        if len(self._roster) == 2 and member in {place.member for place in self._others()}:
            self._is_pair_known = self._answers[member][1] >= self._version[1]
        self._change_roster(now)

    def _change_roster(self, now: float) -> None:
        """By one member, once a majority holds the present one, and while we may act."""
        roster = {place.member: place.seat for place in self._roster}
        held = sum(
            place.member == self.me or self._answers.get(place.member, (0, -1))[1] >= self._version[1]
            for place in self._roster
        )
        if held < self._majority() or (now >= self._lease_until and len(self._roster) > 1):
            return
        gone = sorted(
            (seat, str(member)) for member, seat in roster.items() if member not in self._places and member != self.me
        )
        new = sorted((seat, str(member)) for member, seat in self._places.items() if member not in roster)
        if gone:
            names = {str(member): member for member in roster}
            del roster[names[gone[0][1]]]
        elif new and len(roster) < MEMBERS_MAX:
            names = {str(member): member for member in self._places}
            roster[names[new[0][1]]] = new[0][0]
        else:
            return
        self._take_roster(
            tuple(sorted((Place(seat, member) for member, seat in roster.items()), key=lambda p: p.seat)), now
        )

    def _take_roster(self, roster: tuple[Place, ...], now: float) -> None:
        """The lower seat of two may go on alone by the roster that it holds, so it must hold the next one before we do."""
        lower = (
            [place.member for place in self._others() if place.seat < self._seat()] if len(self._roster) == 2 else []
        )
        if lower and self._pending is None:
            self._pending = (lower[0], roster)
            self._beat(now)
            return
        if lower and self._answers.get(lower[0], (0, -1))[1] <= self._version[1]:
            return
        if len(self._roster) == 1:
            self._lease_until = now  # a second founder may be among them: whom it follows, its answer tells
        self._roster = roster if self._pending is None else self._pending[1]
        self._pending = None
        self._version = (self.term, self._version[1] + 1)
        self._is_pair_known = False
        self._beat(now)

    # --------------------------------------------------------------------------------------------- members

    def _adopt(self, term: int, now: float) -> None:
        self.term = term
        self._follow(None, now)

    def _give_up(self, now: float) -> None:
        """Its host has handed over: nobody waits for its lease to end."""
        self._follow(None, now)
        self._promised_until = now
        self._is_handed_over = True

    def _follow(self, host: Member | None, now: float) -> None:
        if self._state == "host":
            self._lease_until = now
        self._state = "member"
        self._lost = self._host if host is None and self._host is not None else self._lost
        self._host = host
        self._grants.clear()

    def _on_beat(self, member: Member, beat: Beat, now: float) -> None:
        if len(beat.roster) > MEMBERS_MAX:
            return
        is_rival = (
            beat.term == self.term
            and self._followed is not None
            and self._followed[0] == beat.term
            and self._followed[1] != member
        )
        if is_rival and self._state == "host":
            self._meet(member, beat, now)
        if is_rival or beat.term < self.term:
            self._outputs.append((member, Answer(self.term, beat.sequence, -1)))
            return
        self.term = beat.term
        self._voted = self._followed = (beat.term, member)
        if self._host != member or self._state != "member":
            self._follow(member, now)
        if (beat.term, beat.version) >= self._version:
            self._version, self._roster = (beat.term, beat.version), beat.roster
            self._is_pair_known = True  # whoever made it holds it, too
        self._promised_until = now + LEASE_S
        self._heard_at = now
        self._is_handed_over = False
        self._outputs.append((member, Answer(beat.term, beat.sequence, self._version[1])))

    def _meet(self, member: Member, beat: Beat, now: float) -> None:
        """Two hosts of one term: both founded the room before they saw each other, or went on alone in a long cut of two.
        Nobody follows both: the lower seat begins a new term, and acts once a majority of its own roster holds it.
        """
        seats = {place.member: place.seat for place in (*beat.roster, *self._roster)} | self._places
        if seats.get(self.me, MEMBERS_MAX) < seats.get(member, MEMBERS_MAX):
            self._win(self.term + 1, now)
        else:
            self._follow(None, now)
            self._promised_until = now + LEASE_S

    def _on_ask(self, member: Member, ask: Ask, now: float) -> None:
        is_free = now >= self._promised_until and not (self._state == "host" and now < self._lease_until)
        is_first = ask.term > self.term or (ask.term == self.term and self._voted in (None, (ask.term, member)))
        if not (is_free and is_first and (ask.known_term, ask.known_version) >= self._version):
            self._outputs.append((member, Grant(self.term, is_granted=False, is_trial=ask.is_trial)))
            return
        if not ask.is_trial:
            self.term = ask.term
            self._voted = (ask.term, member)
            self._follow(None, now)
            self._promised_until = now + ELECTION_S
        self._outputs.append((member, Grant(ask.term, is_granted=True, is_trial=ask.is_trial)))

    # --------------------------------------------------------------------------------------- candidates

    def _stands_at(self) -> float:
        """When we stand for election, if no host is heard until then."""
        if self.me not in {place.member for place in self._roster}:
            return self._promised_until + ORPHAN_S
        return self._promised_until + min(self._rank(), RANKS_MAX) * RANK_S

    def _asks_again_at(self) -> float:
        return self._asked_at + ASK_AGAIN_S + min(self._rank(), RANKS_MAX) * RANK_S

    def _rank(self) -> int:
        """How many others stand before us."""
        here = [place for place in self._roster if place.member in self._places or place.member == self.me]
        return sum(place.seat < self._seat() and place.member not in (self._lost, self._host) for place in here)

    def _seat(self) -> int:
        return next((place.seat for place in self._roster if place.member == self.me), MEMBERS_MAX)

    def _stand(self, now: float) -> None:
        if self.me not in {place.member for place in self._roster}:
            self._promised_until = now
            return
        others = self._others()
        if not others:
            self._win(self.term + 1, now)
            return
        if self._may_go_on_alone(now):
            self._roster = (Place(self._seat(), self.me),)
            self._win(self.term + 1, now)
            return
        self._follow(None, now)
        self._state = "candidate"
        self._ask(now, is_trial=not self._is_handed_over)

    def _may_go_on_alone(self, now: float) -> bool:
        """Of a roster of two, which both hold, the other is not here any more."""
        others = self._others()
        if len(others) != 1 or not self._is_pair_known or others[0].member in self._places:
            return False
        return self._is_handed_over or now - self._heard_at >= (ALONE_S if self._seat() < others[0].seat else ORPHAN_S)

    def _ask(self, now: float, *, is_trial: bool) -> None:
        self._is_trial, self._asked_at = is_trial, now
        if not is_trial:
            self.term += 1
            self._voted = (self.term, self.me)
        self._grants, self._replied, self._resends = {self.me}, {self.me}, 0
        self._send_ask()

    def _send_ask(self) -> None:
        ask = Ask(self.term + self._is_trial, *self._version, self._is_trial)
        self._outputs += [(place.member, ask) for place in self._others() if place.member not in self._replied]

    def _on_grant(self, member: Member, grant: Grant, now: float) -> None:
        wanted = self.term + self._is_trial
        if not grant.is_granted:
            if grant.term > self.term:
                self._adopt(grant.term, now)
        elif self._state == "candidate" and (grant.term, grant.is_trial) == (wanted, self._is_trial):
            if member in {place.member for place in self._roster}:
                self._grants.add(member)
                self._replied.add(member)
            if len(self._grants) >= self._majority():
                if self._is_trial:
                    self._ask(now, is_trial=False)
                else:
                    self._win(self.term, now)
                    # Who voted votes for nobody else meanwhile: the votes are the first lease, and the first beat its word.
                    self._lease_until = max(self._lease_until, self._asked_at + ELECTION_S * (1 - MARGIN))

    def _tell(self, now: float) -> None:
        seen = HostChanged(self.term, self.host(now))
        if (
            self._told is None
            or seen.host != self._told.host
            or (seen.host is not None and seen.term != self._told.term)
        ):
            self._told = seen
            self._events.append(seen)
