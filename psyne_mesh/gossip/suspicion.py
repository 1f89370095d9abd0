"""From accusations to verdicts: SWIM's suspicion with Lifeguard's timeout, which shrinks as others confirm.

A case speaks of one (subject, epoch, incarnation). A newer record of the subject closes it: that is the refutation.
"""

from __future__ import annotations

import math

from psyne_mesh.gossip import effects
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import CaseClosed, CaseOpened, Effects, SecondOpinionDue, VerdictReached
from psyne_mesh.gossip.policy import FULL
from psyne_mesh.gossip.records import DOWN
from psyne_mesh.identity import PeerId

_ACCUSERS_MAX = 16  # named in one case; more change nothing
_CASES_MAX = 2048  # open at the same time; the newest accusation is dropped (it will be heard again)
_OWN_PART = 0.5  # of the shortest timeout may have passed before our own link confirms a case
# In a large room a verdict waits so long for other open cases: who dies together goes together, in one change of the view
# (Rapid's cut detection), and a cut is one event.
_TOGETHER_S = 2.0
# Above such a round trip, about once around half the earth, another way than the silent one takes longer than the shortest
# timeout: to find it is to ask and to be answered, twice. At 0.8 s a rebound NAT cost 6 to 8 s, as the peer was given up just
# before it was heard again; with this 3.
_FAR_S, _FAR_ROUNDS = 0.25, 2.0
_MANY, _MANY_TOGETHER_S = 3, 2.5  # so many at once are no chance: more will be found dead, and are waited for
# So long before a verdict that rests on others' word alone, a neighbour is asked: a refutation goes along one tree, and may
# have been lost where a branch of it was deaf. A round trip and a few more.
_OPINION_S = 0.5
# When a cut heals, those beyond it bring verdicts on members that we never lost, and whose answers come later: who had few
# links left asks first whether it is deaf (`doubt`: 4 s). So for that long the word of others is not enough.
_HEALING_S = 5.0
_CONTESTED_S = 10.0  # a case against somebody whom we hear ourselves is kept so long, should our link go silent too


class Case:
    __slots__ = (
        "accusers",
        "answers_by",
        "deadline",
        "epoch",
        "incarnation",
        "news_at",
        "own",
        "rtt_s",
        "running",
        "since",
        "subject",
    )

    def __init__(self, subject: PeerId, epoch: int, incarnation: int, now: float) -> None:
        self.subject = subject
        self.epoch = epoch
        self.incarnation = incarnation
        self.accusers: dict[PeerId, int] = {}
        self.own = False
        self.rtt_s = 0.0  # of our own link
        self.running = False
        self.answers_by = -math.inf  # when neighbours that were asked for a second opinion have answered
        self.since = self.news_at = now
        self.deadline = now + _CONTESTED_S


class Suspicions:
    """Open cases. How to drive it:

    1. `accuse(...)` for every good accusation, our own included (`own=True`).
    2. `clear(subject)` when the subject is heard, `clear_older` when a newer record of it came.
    3. `handle_timeout(now)` at `deadline`.
    4. It says: `CaseOpened`, `CaseClosed`, `SecondOpinionDue`, `VerdictReached`.
    """

    def __init__(self, config: GossipConfig, out: Effects) -> None:
        self._config = config
        self._cases: dict[PeerId, Case] = {}
        self.effects = out
        self.deadline = math.inf
        self.policy = FULL
        self._heals_until = -math.inf
        self._held_since = 0.0  # the first of the verdicts that wait for others was due then
        self._held: dict[PeerId, None] = {}  # whose verdicts wait

    @property
    def deadline(self) -> float:
        return self.effects.timers[effects.SUSPICIONS]

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self.effects.timers[effects.SUSPICIONS] = deadline

    def is_suspected(self, subject: PeerId) -> bool:
        case = self._cases.get(subject)
        return case is not None and case.running

    def knows(self, subject: PeerId, version: tuple[int, int], accuser: PeerId, verdict: int) -> bool:
        """This accusation changes nothing: it is known, or as many of its kind as ever count."""
        case = self._cases.get(subject)
        if case is None or (case.epoch, case.incarnation) != version:
            return False
        if case.accusers.get(accuser, -1) >= verdict:
            return True
        enough = max(2, self._config.confirmations)
        if verdict == DOWN and len(case.accusers) > enough and DOWN in case.accusers.values():
            return True  # one verdict is all that our own link needs to hear
        return sum(v >= verdict for v in case.accusers.values()) > enough

    @property
    def suspected(self) -> list[PeerId]:
        return [subject for subject, case in self._cases.items() if case.running]

    def accuse(
        self,
        subject: PeerId,
        version: tuple[int, int],
        accuser: PeerId,
        verdict: int,
        now: float,
        *,
        own: bool,
        contested: bool,
        witnesses: int,
        rtt_s: float = 0.0,
    ) -> bool:
        """Add an accusation. `contested`: we hear the subject ourselves, so the case rests. `witnesses`: how many
        members besides us and the subject could confirm. `rtt_s`: of our own link, if we have one. True if it told us
        something new."""
        epoch, incarnation = version
        case = self._cases.get(subject)
        if case is not None and (case.epoch, case.incarnation) != version:
            if version < (case.epoch, case.incarnation):
                return False
            self.clear(subject)
            case = None
        if case is None:
            if len(self._cases) >= _CASES_MAX:
                return False
            case = self._cases[subject] = Case(subject, epoch, incarnation, now)
        known = case.accusers.get(accuser)
        news = known is None or verdict > known
        if news and (known is not None or len(case.accusers) < _ACCUSERS_MAX):
            if verdict != DOWN or DOWN not in case.accusers.values():  # the subject answers the first verdict, or none
                case.news_at = now
            case.accusers[accuser] = verdict
        case.own |= own
        case.rtt_s = max(case.rtt_s, rtt_s)
        if not contested and not case.running:
            # What our own link confirms counts from the first accusation: the subject has heard of it, too.
            case.running, case.since = (
                True,
                max(case.since, now - _OWN_PART * self._config.suspicion_min_s) if own else now,
            )
            self.effects.facts.append(CaseOpened(subject))
        if case.running:
            self._weigh(case, witnesses, now)
        self.deadline = min(self.deadline, self._due(case))
        return news

    def cut_heals(self, now: float) -> None:
        """Members that a cut had taken from us return, and with them verdicts that were spoken beyond it."""
        self._heals_until = now + _HEALING_S
        for case in self._cases.values():
            if case.running and case.own and DOWN in case.accusers.values():
                case.deadline = max(case.deadline, now + self._config.suspicion_min_s)

    def uncontested(self, subject: PeerId, witnesses: int, now: float) -> None:
        """We have no link any more that could speak for the subject: a case that rested goes on."""
        case = self._cases.get(subject)
        if case is not None and not case.running:
            case.running, case.since = True, now
            self.effects.facts.append(CaseOpened(subject))
            self._weigh(case, witnesses, now)
            self.deadline = min(self.deadline, self._due(case))

    def clear(self, subject: PeerId) -> None:
        case = self._cases.pop(subject, None)
        self._held.pop(subject, None)
        if case is not None and case.running:
            self.effects.facts.append(CaseClosed(subject))

    def clear_older(self, subject: PeerId, version: tuple[int, int]) -> bool:
        """A record of `version` came: a case about an older one is refuted. True if there was one."""
        case = self._cases.get(subject)
        refuted = case is not None and (case.epoch, case.incarnation) < version
        if refuted:
            self.clear(subject)
        return refuted

    def retract(self, subject: PeerId, own: PeerId) -> None:
        """We (`own`) take back what we said. What others say stands."""
        case = self._cases.get(subject)
        if case is None or not case.own:
            return
        case.own = False
        case.accusers.pop(own, None)
        if not case.accusers:
            self.clear(subject)

    def drop(self, subject: PeerId) -> None:
        """The subject is gone otherwise: no case, and no event about it."""
        self._cases.pop(subject, None)
        self._held.pop(subject, None)

    def handle_timeout(self, now: float) -> None:
        deadline = math.inf
        for case in self._cases.values():
            if self._wants_opinion(case) and case.deadline - _OPINION_S <= now:
                case.answers_by = max(now + _OPINION_S, self._heals_until)
                case.deadline = max(case.deadline, case.answers_by)
                self.effects.facts.append(SecondOpinionDue(case.subject))
        until = self._held_until(now)
        for case in list(self._cases.values()):
            if now < until and case.subject in self._held:
                case.deadline = max(case.deadline, until)
            if case.deadline > now:
                deadline = min(deadline, self._due(case))
                continue
            del self._cases[case.subject]
            if case.running and (case.own or len(case.accusers) > 1 or DOWN in case.accusers.values()):
                self.effects.facts.append(VerdictReached(case.subject, case.epoch, case.incarnation, case.own))
            elif case.running:
                self.effects.facts.append(
                    CaseClosed(case.subject)
                )  # nobody but one stranger ever said so, and it says no more
        self.deadline = deadline

    def _due(self, case: Case) -> float:
        """When the case is looked at again."""
        return case.deadline - _OPINION_S if self._wants_opinion(case) else case.deadline

    def _wants_opinion(self, case: Case) -> bool:
        return self.policy.together and case.running and not case.own and case.answers_by == -math.inf

    def _held_until(self, now: float) -> float:
        """Until when the verdicts that are due wait for the other cases; `now`: not at all."""
        running = [case for case in self._cases.values() if case.running]
        if not self.policy.together or not any(case.deadline <= now for case in running):
            return now
        if not self._held:
            self._held_since = now
        waiting = [case.subject for case in running if case.deadline <= now or case.subject in self._held]
        self._held = dict.fromkeys(waiting)
        if len(waiting) >= _MANY:
            until = self._held_since + _MANY_TOGETHER_S
        else:
            until = min(max(case.deadline for case in running), self._held_since + _TOGETHER_S)
        if until <= now:
            self._held.clear()
        return until

    def note_loop_lag(self, seconds: float) -> None:
        """We stood still: a refutation that came meanwhile was not heard, so every case gets that time back."""
        for case in self._cases.values():
            case.since += seconds
            case.deadline += seconds
        self.deadline += seconds

    def _weigh(self, case: Case, witnesses: int, now: float) -> None:
        """Lifeguard section IV-B: max(Min, Max - (Max - Min) * log(C + 1) / log(K + 1))."""
        low = self._config.suspicion_min_s + _FAR_ROUNDS * max(0.0, case.rtt_s - _FAR_S)
        high = max(low, self._config.suspicion_max_s)
        accusers = len(case.accusers)
        downs = sum(verdict == DOWN for verdict in case.accusers.values())
        if case.own and downs > 0 and now >= self._heals_until:
            case.deadline = now  # another has waited the whole timeout already, and our own link agrees
            return
        wanted = min(self._config.confirmations, witnesses)
        confirmed = accusers - 1
        timeout = low
        if wanted > 0:
            timeout = max(low, high - (high - low) * math.log(confirmed + 1) / math.log(wanted + 1))
        if not case.own and accusers < 2:
            # One stranger's word: the subject gets all the time to refute it, and the stranger to wait for its own verdict.
            timeout = high if downs else 2 * high
        case.deadline = case.since + timeout
        if case.own and downs > 0:
            # A cut heals: the verdict may be on who was beyond it for the other, and our link has just come or gone with that.
            case.deadline = max(case.deadline, now + low)
        if confirmed < wanted and not case.own:
            # A stranger's verdict that comes late, when our own time is over, is not believed on arrival: the subject has
            # heard of it no sooner than we, and its answer is on the way.
            case.deadline = max(case.deadline, case.news_at + low)
        if not case.own:
            case.deadline = max(case.deadline, case.answers_by)
