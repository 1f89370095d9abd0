"""What the machines decided, carried out: their facts, frames and wishes are drained until none has anything to say."""

from __future__ import annotations

import math

import attrs

from psyne_mesh.gossip import codec, effects, events
from psyne_mesh.gossip.broadcast_wire import ASK, encode_haves, grafted
from psyne_mesh.gossip.core import Core
from psyne_mesh.gossip.costs import ASKED_LINE
from psyne_mesh.gossip.dialer import Dialer
from psyne_mesh.gossip.doubt import Doubt
from psyne_mesh.gossip.events import CloseLink, Dial, Evicted, PeerDiscovered, PeerLeft
from psyne_mesh.gossip.healing import Cuts, Knocker
from psyne_mesh.gossip.records import Record, record_untrusted
from psyne_mesh.identity import PeerId

_LET_GO_GAP_S = 10.0  # what neighbours say of one verdict comes within that: a guess, some round trips
_REST_MAX_S = 3600.0  # of a deaf node
_KEEP_CROSS_LINK_S = 60.0  # a link across a healed cut is not called surplus before


class Outcome:
    """`settle(now)` after every input: drains the effects, see there for the order."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._effects = core.effects
        self._crossing: dict[PeerId, None] = {}
        self._let_go_at = -math.inf

    def settle(self, now: float) -> None:
        core, out = self._core, self._effects
        if not core.running:
            return
        if core.seats.enabled:
            core.seat_everybody(now)
        if out.probing or out.facts or out.frames or out.wishes or out.timers[effects.DIALS] <= now:
            self._drain(now)

    def _drain(self, now: float) -> None:
        core, out = self._core, self._effects
        while out.probing or out.facts or out.frames or out.wishes or out.timers[effects.DIALS] <= now:
            while out.probing or out.facts:
                for found in out.probing:
                    self._probed(found, now)
                out.probing.clear()
                for fact in out.facts:  # it grows meanwhile
                    self._carry_out(fact, now)
                    if not core.running:
                        out.forget()
                        return
                out.facts.clear()
                if core.seats.enabled:
                    core.seat_everybody(now)
            if core.aside:
                out.forget()
                return
            for frame in out.frames:
                neighbour = core.links.get(frame.peer)
                if neighbour is not None:
                    core.emit(frame)
                    if frame.frame[1] == codec.GRAFT:
                        neighbour.cost.asked(ASKED_LINE * grafted(frame.frame))
            out.frames.clear()
            for wish in out.wishes:
                self._grant(wish, now)
            out.wishes.clear()
            if out.timers[effects.DIALS] <= now:
                core.dialer.handle_timeout(now)

    def _probed(self, found: effects.Probing, now: float) -> None:
        core = self._core
        match found:
            case effects.ProbeDue(peer, sequence):
                neighbour = core.links.get(peer)
                if neighbour is not None:
                    core.send_probe(codec.PING, sequence, neighbour)
            case effects.FrameDue(peer, frame):
                if peer in core.links:
                    core.send(peer, frame, reliable=False)
            case effects.LinkImpaired(peer):
                if not core.policy.links_all:
                    core.broadcast.branch_impaired(peer)
            case effects.LinkSilent(peer):
                core.census.link_silent(peer, now, core.links[peer].probe.srtt if peer in core.links else 0.0)
            case effects.LinkHeard(peer):
                core.census.link_heard(peer)
            case effects.LinkBroken(peer):
                self._renew_link(peer, now)
            case effects.CutOff(peer):
                if not core.policy.links_all:  # else everybody is watched by ourselves: its silence will be told
                    core.hang_up(peer, "timeout", now)
            case effects.Deaf():
                self._stand_aside(now)

    def _carry_out(self, fact: effects.Fact, now: float) -> None:
        """The most frequent come first."""
        core = self._core
        match fact:
            case effects.Spread(news, via, urgent):
                core.exchange.spread(news, via, now, core.broadcast.eager, urgent=urgent)
            case effects.Tell(peer, news):
                core.tell(peer, news)
            case effects.TellAll(news, urgent):
                core.tell_all(news, now, urgent=urgent)
            case effects.CaseOpened(peer):
                if core.membership.is_alive(peer):  # else it was told gone meanwhile: the last word
                    self._effects.events.append(events.PeerSuspected(peer))
                    core.cuts.lost(peer, now)
            case effects.CaseClosed(peer):
                if core.membership.is_alive(peer):
                    self._effects.events.append(events.PeerResumed(peer))
                    core.cuts.back(peer, now)
            case effects.SecondOpinionDue(subject):
                core.second_opinion(subject)
            case effects.OrphanSilent(peer):
                if peer not in core.links:
                    core.census.link_silent(peer, now)
            case effects.VerdictReached():
                core.census.verdict(fact, now)
            case effects.Joined(record, via, previous):
                core.announce(record, via)
                self._effects.events.append(PeerDiscovered(record))
                self._keep_seat(record.peer, previous, record, now)
                core.cuts.back(record.peer, now)
                if core.cuts.is_healing:
                    core.census.suspicions.cut_heals(now)
                core.resize(now)
                core.want_member(record, now)
                if record.peer not in core.links and (core.policy.links_all or via is None):
                    core.vouching.arm(now)
            case effects.Confirmed(record, by):
                core.announce(record, by)
                core.want_member(record, now)
            case effects.Unvouched(peer):
                core.census.unvouched(peer, now)
            case effects.Restarted(record, via, old):
                core.announce(record, via)
                self._effects.events += (PeerLeft(record.peer, "superseded"), PeerDiscovered(record))
                self._keep_seat(record.peer, old, record, now)
                if via != record.peer:  # the link that we have was its old life's
                    core.hang_up(record.peer, "superseded", now)
                core.want_member(record, now)
            case effects.Gone(peer, reason, missed):
                self._gone(peer, reason, now, missed=missed)
            case effects.Proved(proof):
                core.hang_up(proof.peer, "two-faced", now)
                self._effects.events.append(events.TwoFaced(proof.peer, proof))
                core.tell_all(proof, now)
            case effects.Forgotten(peer):
                core.broadcast.streams.forget(peer)
            case effects.CalledGone(epoch):
                if not core.doubts(now):
                    core.census.revive(epoch, now)
            case effects.LetGo(record):
                self._let_go(record, now)
            case effects.Renamed(record):
                self._effects.events.append(events.PeerRenamed(record))
            case effects.Superseded():
                self._stop("superseded")
            case _:
                self._seat(fact, now)

    def _seat(self, fact: effects.Fact, now: float) -> None:
        core = self._core
        state = core.census.state
        match fact:
            case effects.Seating(seats, own):
                self._effects.events.append(events.SeatsChanged(seats, own))
            case effects.SeatLost():
                self._effects.events.append(Evicted("capacity"))
            case effects.ClaimDue(seat):
                ballot = state.ballot if seat is not None else ()
                core.census.reissue(now, attrs.evolve(state, seat=seat, ballot=ballot))
            case effects.BallotDue(ballot):
                core.census.reissue(now, attrs.evolve(state, ballot=ballot))
            case effects.OwnSeatKnown(seat_before):
                core.seats.held_before(seat_before)

    def _grant(self, wish: effects.Wish, now: float) -> None:
        core = self._core
        match wish:
            case effects.Part(peer, reason):
                core.part(peer, reason, now)
            case effects.DialWanted(peer):
                core.dialer.want(peer, now)
            case effects.DialDue(peer):
                record = core.record_to_dial(peer)
                if record is not None:
                    core.outputs.append(Dial(peer, record))
            case effects.Adopt(data):
                peer = record_untrusted(data).peer
                if core.membership.is_alive(peer) and len(core.links) < core.overlay.target + 2:
                    core.dialer.want(peer, now)
            case effects.Knock(peer):
                core.stats.knocks += 1
                core.dialer.want(peer, now)
            case effects.ViewsDiffer(peer):
                self._compare_with(peer, now)
            case effects.Withholding(peers):
                self._withheld(peers, now)
            case effects.CutSeen(lost, remaining, majority):
                self._effects.events.append(events.PartitionSuspected(lost, remaining, majority))
            case effects.CutMended(returned, missing):
                self._effects.events.append(events.PartitionHealed(returned, missing))
                self._cross(returned, now)

    # ----------------------------------------------------------------------------------------------------- people

    def _gone(self, peer: PeerId, reason: events.LeaveReason, now: float, *, missed: bool) -> None:
        core = self._core
        self._effects.events.append(PeerLeft(peer, reason))
        if peer not in core.hints or missed:
            core.dialer.drop(peer)
        core.kept_seats.pop(peer, None)
        core.router.gone(peer)
        core.hang_up(peer, reason, now)
        core.neighbours.close(peer)  # nor do helpers look for it any more
        if reason == "timeout" and missed:
            core.cuts.lost(peer, now)
            core.knocker.arm(now)
            if core.policy.knows_all and not core.policy.links_all:
                core.orphans.lost(now)
        else:
            core.cuts.forget(peer)
        core.resize(now)

    def _let_go(self, record: Record, now: float) -> None:
        """In a full mesh each member says for itself whether it had let us go. In a larger room verdicts are everybody's."""
        core = self._core
        if core.policy.links_all:
            self._effects.events.append(events.LetGo(record))
        elif now - self._let_go_at >= _LET_GO_GAP_S:
            self._let_go_at = now
            known = [core.membership.record(peer) for peer in core.membership.alive]
            self._effects.events += [events.LetGo(member) for member in known if member is not None]

    def _keep_seat(self, peer: PeerId, previous: Record | None, record: Record, now: float) -> None:
        """Who restarts keeps its seat for a while, until its new life claims it."""
        core = self._core
        if previous is not None and previous.seat is not None and record.seat is None and core.seats.enabled:
            core.kept_seats[peer] = (previous, now + core.config.seat_hold_s)
            self._effects.timers[effects.SEATING] = now

    def _stand_aside(self, now: float) -> None:
        """We are deaf: for the others we are a member that never answers and never goes, to us everybody seems to come and
        go. So we say goodbye, part from everybody and come back after a rest that doubles each time."""
        core = self._core
        if core.aside or not core.links:
            return
        self._effects.timers[effects.COMEBACK] = now + core.rest_s
        core.rest_s = min(_REST_MAX_S, 2 * core.rest_s)
        core.census.depart(now)
        core.tell_all(core.census.own, now)
        known = [core.membership.record(peer) for peer in core.links if core.membership.is_alive(peer)]
        core.contacts = [record for record in known if record is not None]
        for peer in list(core.links):
            core.hang_up(peer, "deaf", now)
        for peer in list(core.membership.alive):
            core.census.forget(peer, "timeout", now)
        core.neighbours.hearings.clear()
        core.doubt = Doubt(self._effects)
        core.dialer = Dialer(core.config, core.rng, self._effects)

    def come_back(self, now: float) -> None:
        """The rest is over: like a newcomer that knows its old neighbours."""
        core = self._core
        self._effects.timers[effects.COMEBACK] = math.inf
        core.cuts, core.knocker = Cuts(core.config, self._effects), Knocker(core.config, core.rng, self._effects)
        core.introduced = False
        core.census.arrive(now)
        contacts, core.contacts = core.contacts, []
        for record in contacts:
            core.census.learn(record, now, None)

    def _stop(self, reason: events.EvictionReason) -> None:
        core = self._core
        self._effects.events.append(Evicted(reason))
        core.outputs += [CloseLink(peer, reason) for peer in core.links]
        core.neighbours.clear()
        core.running = False

    # ------------------------------------------------------------------------------------------------------- links

    def _renew_link(self, peer: PeerId, now: float) -> None:
        core = self._core
        if peer in core.links:
            core.part(peer, "impaired", now)
            core.dialer.drop(peer)
            if core.policy.links_all:
                core.dialer.want(peer, now + core.config.dial_backoff_min_s)

    def _compare_with(self, peer: PeerId, now: float) -> None:
        core = self._core
        known = core.broadcast.haves(now)
        core.exchange.send_summary(peer)
        if known:  # who has none is asked by those who have
            core.exchange.sync.differed()
            core.send(peer, encode_haves(known, ASK))

    def _withheld(self, withholding: tuple[PeerId, ...], now: float) -> None:
        """Part from neighbours that announce what they do not send, and find out at once who else is like them: somebody
        may have surrounded us."""
        core = self._core
        if core.policy.links_all:
            return
        for peer in withholding:
            core.part(peer, "withholding", now)
        ask = encode_haves(core.broadcast.haves(now), ASK)
        for peer in core.links:
            core.send(peer, ask)

    def _cross(self, returned: tuple[PeerId, ...], now: float) -> None:
        core = self._core
        if core.policy.links_all:
            return
        for peer in core.knocker.cross_links(list(returned), len(core.membership)):
            if core.membership.is_alive(peer) and peer not in core.links:
                self._crossing[peer] = None
                core.dialer.want(peer, now)

    def link_opened(self, peer: PeerId, now: float) -> None:
        """A link that crosses a healed cut is kept. Who had lost all links asks former neighbours why."""
        core = self._core
        if len(core.links) == 1:
            core.ask_former(now)
            core.seats.met_others(now)
        if peer in self._crossing:
            del self._crossing[peer]
            core.overlay.keep(peer, now + _KEEP_CROSS_LINK_S)
