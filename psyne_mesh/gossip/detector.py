"""SWIM probing of the links that exist, with Lifeguard's local health: who answers, and who has fallen silent.

The detector knows links only. What a silence means for the room (accusations, confirmations, verdicts) is the business
of `suspicion`; siblings never meet.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from psyne_mesh.gossip import codec, effects
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import (
    CutOff,
    Deaf,
    Effects,
    FrameDue,
    LinkBroken,
    LinkHeard,
    LinkImpaired,
    LinkSilent,
    ProbeDue,
)
from psyne_mesh.gossip.hearing import deaf_for
from psyne_mesh.gossip.neighbours import Neighbour, Neighbours, Probe
from psyne_mesh.gossip.policy import FULL, Policy
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random

_TICK_S = 0.1  # while some link is late, it is pinged so often: with 10 % loss, six more round trips fit before it is
# called silent; else only pings that are due wake us
_GRAIN_S = 0.01  # no two checks of silence are closer: sums of floats must not make us wake for ever
# A member of a small room is pinged so often in one interval, by all its neighbours together: the more of them there are,
# the less often each of them asks. Whoever finds it silent alarms the others, who then ask at once.
_CONTACTS = 4
_LULL = 0.25  # a link on which anything came in the last part of that time is not asked
_SPREAD = 0.2  # the two ends of a link do not ask at the same moment
_LATE_MIN_S = 0.15  # an answer is late after that, or a round trip with its variation: then we ask faster
# Silence counts from our first unanswered ping, not from the last word: so `suspect_after_s` shrinks to this part of it, or
# to a round trip and so many intervals.
_UNANSWERED = 0.6
_RTT_MARGIN = 0.9
_ACCUSED = 0.6  # and while others call it silent, too, to this part
_ACCUSED_S = 3.0  # for so long
_ASK_AGAIN_S = 0.2  # a member that spoke less than that ago is not asked because of an accusation
_INDIRECT_AT = 0.5  # indirect probes start at this part of the patience, so that answers can still come in
# A link whose peer only others reach for so long is closed and dialled anew. Where nobody at all is heard it is we who are cut
# off: then the links fall asleep, as they are the one way back.
_IMPAIRED_CLOSE_S = 10.0
_SAMPLE_ROUNDS = 8  # our own RTT sample is renewed after so many, even while the other side does the pinging
_HELPS_MAX = 64  # indirect probes that we do for others at the same time; more get no answer
_PENDING_MAX = 16  # unanswered pings remembered for each link; the oldest is forgotten


class Detector:
    """Probes links. How to drive it:

    1. `link_up(neighbour, now, rtt)`, `link_lost(neighbour, now)` and `Neighbours.close` follow the links; `heard(neighbour,
       now)` for every frame of a link.
    2. `ping_received`, `ack_received`, `ping_req_received`, `indirect_received` feed the probe frames; `accused` says
       that somebody calls a peer silent.
    3. `handle_timeout(now)` when `deadline` is reached.
    4. It says: `ProbeDue`, `FrameDue`, `LinkImpaired`, `LinkSilent`, `LinkHeard`, `LinkBroken`,
       `Deaf`.
    """

    def __init__(self, config: GossipConfig, rng: random.Random, neighbours: Neighbours, out: Effects) -> None:
        self._config = config
        self._rng = rng
        self._neighbours = neighbours
        self._watched = neighbours.watched
        self.effects = out
        self.deadline = math.inf
        self.local_health = 0  # Lifeguard's LHM score: 0 healthy ... local_health_max - 1
        self.follow(FULL)
        self.suspicions_raised = 0
        self._sequence = 0
        self._lag_known_at = -math.inf
        self._better_at = 0.0
        self._judge_at = self._alone_at = 0.0
        self._late_then = 0  # how many links were late then
        self._looked_at = -math.inf  # when we last looked at all links at once
        self._helps: dict[
            int, tuple[PeerId, int, PeerId, float]
        ] = {}  # our ping -> (asker, its sequence, target, nack at)

    @property
    def deadline(self) -> float:
        return self.effects.timers[effects.PROBES]

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self.effects.timers[effects.PROBES] = deadline

    def follow(self, policy: Policy) -> None:
        """Stretch times by its pace, and patience by a little more: a large room probes less and has more to lose by a
        rash word, which everybody hears."""
        pace = policy.pace
        self.interval = self._config.ping_interval_s * pace
        self.patience_min: float = _UNANSWERED * self._config.suspect_after_s * pace**1.5
        self._contacts: float = _CONTACTS / pace**0.75  # with `pace` itself one crash of ten among 256 takes over 5 s

    # ---------------------------------------------------------------------------------------------------- links

    def link_up(self, neighbour: Neighbour, now: float, rtt: float | None, *, at_once: bool = False) -> None:
        """`at_once`: the first ping does not wait for its turn."""
        probe = neighbour.probe
        if rtt is not None:
            probe.srtt, probe.rttvar = rtt, rtt / 2
        probe.ping_at = now if at_once else now + self._calm() * self._rng.random()
        self.deadline = min(self.deadline, probe.ping_at)

    def link_lost(self, neighbour: Neighbour, now: float) -> None:
        """The link broke without a word: helpers are asked; then `LinkSilent` comes, or the peer is theirs to watch."""
        probe = neighbour.probe
        probe.lost = True
        # Ask now, and leave them time to answer.
        probe.waiting_since = probe.alive_at = now - _INDIRECT_AT * self.patience(probe, now)
        self.deadline = now

    def heard(self, neighbour: Neighbour, now: float) -> None:
        probe = neighbour.probe
        probe.heard_at = probe.alive_at = now
        probe.waiting_since = math.inf
        if probe.missed:
            probe.missed = 0
            probe.impaired = False
            probe.nacks_due.clear()
        if probe.silent:
            probe.silent = False
            self.effects.probing.append(LinkHeard(neighbour.peer))

    def note_alive(self, peer: PeerId, now: float) -> None:
        """The peer's process lives, its loop stands still: it is not missed, and what it answers late is no round trip."""
        neighbour = self._watched.get(peer)
        if neighbour is not None:
            self.heard(neighbour, now)
            neighbour.probe.pending.clear()

    def note_rtt(self, peer: PeerId, rtt: float) -> None:
        neighbour = self._watched.get(peer)
        if neighbour is not None and 0.0 <= rtt < 60.0:
            _smooth(neighbour.probe, rtt)

    def note_loop_lag(self, seconds: float, now: float) -> None:
        """We were deaf for so long: nobody's silence in that time counts, and our health is worse (Lifeguard)."""
        self._lag_known_at = now
        if seconds < self.interval / 5:
            return
        self._worsen(min(3, math.ceil(seconds / self.interval)))
        for neighbour in self._watched.values():
            probe = neighbour.probe
            probe.heard_at += seconds
            probe.alive_at += seconds
            if probe.waiting_since < now:
                probe.waiting_since = min(now, probe.waiting_since + seconds)

    def stood_still(self, now: float) -> None:
        """Our process did, for longer than the buffers in front of it last: what was lost is no deafness."""
        self._neighbours.hearings.stood_still(now)
        for neighbour in self._watched.values():
            neighbour.loss.stood_still(now)

    def patience(self, probe: Probe, now: float) -> float:
        """A link that owes us an answer for so long is a suspicion."""
        rto = probe.srtt + 4 * probe.rttvar
        patience = max(self.patience_min, rto + self.interval * _RTT_MARGIN) * (1 + self.local_health)
        return patience * _ACCUSED if now - probe.accused_at < _ACCUSED_S else patience

    def accused(self, peer: PeerId, now: float) -> bool:
        """Somebody calls `peer` silent: we ask it at once ourselves. True as long as our own link does not confirm it."""
        neighbour = self._watched.get(peer)
        if neighbour is None or neighbour.probe.silent or neighbour.probe.lost:
            return False
        probe = neighbour.probe
        probe.accused_at = now
        if probe.waiting_since == math.inf and now - probe.heard_at > _ASK_AGAIN_S:
            self._ping(neighbour, now)
            self.deadline = min(self.deadline, now + _late_after(probe))
        return now - probe.waiting_since < self.patience_min

    # --------------------------------------------------------------------------------------------------- frames

    def ping_received(self, neighbour: Neighbour, now: float, srtt_of_peer: float) -> None:
        probe = neighbour.probe
        probe.probed_at = now
        if srtt_of_peer and not probe.srtt:
            probe.srtt, probe.rttvar = srtt_of_peer, srtt_of_peer / 2

    def ack_received(self, neighbour: Neighbour, sequence: int, now: float) -> float | None:
        """The measured round trip in seconds, or None if the ack answers no ping of ours."""
        probe = neighbour.probe
        sent = probe.pending.pop(sequence, None)
        if sent is None:
            return None
        rtt = max(0.0, now - sent)
        _smooth(probe, rtt)
        probe.sampled_at = now
        help_for = self._helps.pop(sequence, None) if self._helps else None
        if help_for is not None:
            asker, asked, target, _ = help_for
            self.effects.probing.append(FrameDue(asker, codec.indirect(asked, target, alive=True)))
        return rtt

    def ping_req_received(self, asker: PeerId, sequence: int, target: PeerId, now: float) -> None:
        neighbour = self._watched.get(target)
        if neighbour is None:
            self.effects.probing.append(FrameDue(asker, codec.indirect(sequence, target, alive=False)))
            return
        if len(self._helps) >= _HELPS_MAX:
            return  # limit of _helps: the newest request is dropped; the asker has other helpers
        nack_at = now + nack_after_s(self.patience_min)
        self._helps[self._ping(neighbour, now)] = (asker, sequence, target, nack_at)
        self.deadline = min(self.deadline, nack_at)

    def indirect_received(self, helper: PeerId, target: PeerId, alive: bool, now: float) -> None:
        neighbour = self._watched.get(target)
        if neighbour is None:
            return
        probe = neighbour.probe
        if alive:
            probe.alive_at = now
            probe.nacks_due.clear()
            if probe.silent:
                probe.silent = False
                self.effects.probing.append(LinkHeard(target))
            if probe.lost:
                self._neighbours.close(target)
        elif helper in probe.nacks_due:
            probe.nacks_due.remove(helper)

    # --------------------------------------------------------------------------------------------------- timers

    def handle_timeout(self, now: float) -> None:
        timers = self.effects.timers
        late_by = now - max(timers[effects.PROBES], self._lag_known_at)
        if late_by > self.interval / 2:
            self.note_loop_lag(late_by, now)
        self._neighbours.awake_at = now
        self._nack_late_helps(now)
        calm = self._calm()
        late, asked_at = 0, -math.inf
        deadline = math.inf
        for neighbour in self._watched.values():
            probe = neighbour.probe
            if now >= probe.ping_at and not probe.lost:
                self._ping_if_due(neighbour, probe, calm, now)
            if probe.waiting_since == math.inf:
                deadline = min(deadline, probe.ping_at)
                continue
            late_at = probe.waiting_since + _late_after(probe)
            if now < late_at and not probe.lost:
                deadline = min(deadline, max(late_at, now + _GRAIN_S))
                continue
            late += 1
            asked_at = max(asked_at, probe.waiting_since)
            self._chase(neighbour, probe, now)
        if late > 1 and (now - self._looked_at > calm or late >= 2 * self._late_then):
            self._late_then = late
            self._look_round(now, asked_at)
        if self.local_health:
            if not late and now >= self._better_at:
                self.local_health -= 1  # Lifeguard: -1 for a good probe; for us, an interval in which nobody was late
            if late or now >= self._better_at:
                self._better_at = now + self.interval
            deadline = min(deadline, self._better_at)
        if late:
            deadline = min(deadline, now + min(_TICK_S, self.interval / 4))
        for _, _, _, nack_at in self._helps.values():
            deadline = min(deadline, nack_at)
        timers[effects.PROBES] = deadline
        if now >= self._judge_at:
            self._judge_at = now + self.interval
            if self.seems_deaf:
                self.effects.probing.append(Deaf())

    @property
    def is_calm(self) -> bool:
        """Nobody is late, so a ping may come a little later."""
        if self.local_health:
            return False
        probes = (neighbour.probe for neighbour in self._watched.values())
        return not any(probe.missed or probe.silent or probe.lost for probe in probes)

    @property
    def seems_deaf(self) -> bool:
        """For long, most links have found that we do not hear them while they hear us."""
        return deaf_for(neighbour.loss for neighbour in self._watched.values()) >= self._config.deaf_after_s

    def _calm(self) -> float:
        """One ping on each link in this time, from either side, while all is well."""
        return max(self.interval, self.interval * len(self._watched) / self._contacts)

    def _ping_if_due(self, neighbour: Neighbour, probe: Probe, calm: float, now: float) -> None:
        """One ping in `calm` seconds tells both sides what they want to know, and so do other frames while they come. But a
        single frame does not put a ping off for long: one that travels the whole room would bring all links into step,
        and a crash right behind it would be found late. Now and then we ask all the same, for the round trip and what
        else an answer says."""
        if now < probe.young_until:
            calm = self.interval
        due = max(probe.probed_at + calm * probe.spread, probe.heard_at + calm * _LULL)
        probe.ping_at = min(due, probe.sampled_at + _SAMPLE_ROUNDS * calm)
        if now >= probe.ping_at:
            probe.spread = 1 + _SPREAD * (2 * self._rng.random() - 1)
            probe.ping_at = now + calm * probe.spread
            if probe.waiting_since == math.inf:  # else it is asked faster, anyhow
                self._ask(neighbour, now)

    def _ask(self, neighbour: Neighbour, now: float) -> None:
        neighbour.probe.probed_at = now
        self._ping(neighbour, now)

    def _chase(self, neighbour: Neighbour, probe: Probe, now: float) -> None:
        """A late link: ping fast, then ask helpers, then give it up."""
        config = self._config
        waiting = now - probe.waiting_since
        if now >= probe.fast_at:
            settled = probe.silent and waiting > 4 * self.patience_min
            probe.fast_at = now + (self.interval if settled else 0.0)
            probe.missed += 1
            if probe.missed == config.missed_pings:
                probe.impaired = True
                self.effects.probing.append(LinkImpaired(neighbour.peer))
            if not probe.lost:
                self._ping(neighbour, now)
        patience = self.patience(probe, now)
        unseen = min(waiting, now - probe.alive_at)
        owing = [helper.probe for peer in probe.nacks_due if (helper := self._watched.get(peer)) is not None]
        again_s = max(patience * (1 - _INDIRECT_AT), _nacks_within(owing, self.patience_min))
        if unseen >= _INDIRECT_AT * patience and now - probe.asked_at >= again_s:
            # Lifeguard: a helper that did not even nack speaks against ourselves; unless it has fallen silent as well.
            self._worsen(sum(self._is_good(helper) for helper in probe.nacks_due))
            probe.asked_at = now
            probe.nacks_due = self._ask_helpers(neighbour)
            if not probe.nacks_due and len(self._watched) > 1 and now >= self._alone_at:
                self._alone_at = now + self.interval
                self._worsen(1)  # nobody at all is heard: are we deaf?
        if unseen >= patience and probe.impaired and not probe.silent:
            probe.silent = True
            self.suspicions_raised += 1
            self.effects.probing.append(LinkSilent(neighbour.peer))
        elif not probe.silent and waiting > _IMPAIRED_CLOSE_S:
            if probe.alive_at > probe.waiting_since:
                self.effects.probing.append(LinkBroken(neighbour.peer))
            elif all(other.probe.impaired for other in self._watched.values()):
                self.effects.probing.append(CutOff(neighbour.peer))

    def _look_round(self, now: float, since: float) -> None:
        """Two late links may be the first sign of something larger: whoever has not spoken since the last of them was
        asked is asked at once. And again when twice as many are late."""
        self._looked_at = now
        for neighbour in self._watched.values():
            if neighbour.probe.waiting_since == math.inf and neighbour.probe.heard_at < since:
                self._ask(neighbour, now)

    def _is_good(self, peer: PeerId) -> bool:
        neighbour = self._watched.get(peer)
        return neighbour is not None and neighbour.probe.missed == 0

    def _ask_helpers(self, neighbour: Neighbour) -> list[PeerId]:
        """The half that was heard last: after a cut, the other half may be on the far side without our knowing yet."""
        count = self._config.indirect_probes
        good = [other for other in self._watched.values() if other.probe.missed == 0 and other is not neighbour]
        good.sort(key=lambda other: -other.probe.heard_at)
        fresh = [other.peer for other in good[: max(count, len(good) // 2)]]
        helpers = self._rng.sample(fresh, min(len(fresh), count))
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        frame = codec.ping_req(self._sequence, neighbour.peer)
        for helper in helpers:
            self.effects.probing.append(FrameDue(helper, frame))
        return helpers

    def _ping(self, neighbour: Neighbour, now: float) -> int:
        probe = neighbour.probe
        sequence = self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        pending = probe.pending
        if len(pending) >= _PENDING_MAX:
            del pending[next(iter(pending))]
        pending[sequence] = now
        probe.waiting_since = min(probe.waiting_since, now)
        self.effects.probing.append(ProbeDue(neighbour.peer, sequence))
        return sequence

    def _nack_late_helps(self, now: float) -> None:
        for sequence, (asker, asked, target, nack_at) in list(self._helps.items()) if self._helps else ():
            if now >= nack_at:
                del self._helps[sequence]
                self.effects.probing.append(FrameDue(asker, codec.indirect(asked, target, alive=False)))

    def _worsen(self, points: int) -> None:
        self.local_health = min(self._config.local_health_max - 1, self.local_health + points)


def nack_after_s(patience_s: float) -> float:
    """So long a helper waits for an answer. memberlist: 80 % of the time, which is short when the asker has heard of
    accusations."""
    return 0.8 * (1 - _INDIRECT_AT) * _ACCUSED * patience_s


def _nacks_within(helpers: list[Probe], patience_s: float) -> float:
    """Helpers that have said nothing by then owe us an answer: they wait themselves, and are a round trip away."""
    return max((nack_after_s(patience_s) + _late_after(probe) for probe in helpers), default=0.0)


def _late_after(probe: Probe) -> float:
    """An answer that takes longer than that is late."""
    return max(_LATE_MIN_S, probe.srtt + 4 * probe.rttvar)


def _smooth(probe: Probe, rtt: float) -> None:
    """RFC 6298 section 2."""
    if not probe.srtt:
        probe.srtt, probe.rttvar = rtt, rtt / 2
    else:
        probe.rttvar += (abs(probe.srtt - rtt) - probe.rttvar) / 4
        probe.srtt += (rtt - probe.srtt) / 8
    probe.srtt_wire = min(65_535, int(probe.srtt * 10_000))
