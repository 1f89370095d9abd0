"""What the machines decided, carried out: their outboxes are drained until none has anything to say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from psyne_mesh.gossip import census, codec, events
from psyne_mesh.gossip import detector as probes
from psyne_mesh.gossip import seats as seating
from psyne_mesh.gossip.broadcast_wire import ASK, encode_haves
from psyne_mesh.gossip.core import Core
from psyne_mesh.gossip.dialer import Dialer
from psyne_mesh.gossip.events import CloseLink, Dial, Evicted, PeerDiscovered, PeerLeft
from psyne_mesh.gossip.healing import CutMended, Cuts, CutSeen, Knocker
from psyne_mesh.gossip.hearing import Doubt
from psyne_mesh.gossip.overlay import Mode, Part
from psyne_mesh.gossip.records import Record, record_untrusted
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    from collections.abc import Sized

_REST_MAX_S = 3600.0  # of a deaf node
_KEEP_CROSS_LINK_S = 60.0  # a link across a healed cut is not called surplus before


class Outcome:
    """`settle(now)` after every input. Each pass moves facts from one machine to the others."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._crossing: dict[PeerId, None] = {}
        self._boxes = self._outboxes()

    def _outboxes(self) -> tuple[Sized, ...]:
        """Whatever can have something to say. The machines keep these very lists, so that one look at all of them is
        cheap: after most inputs they are empty."""
        core = self._core
        exchange, broadcast, router, walks = core.exchange, core.broadcast, core.router, core.walks
        return (
            core.detector.outbox,
            core.census.outbox,
            core.census.suspicions.outbox,
            exchange.outbox,
            exchange.sync.partners,
            broadcast.outbox,
            broadcast.streams.delivered,
            broadcast.withholding,
            router.outbox,
            router.arrived,
            walks.outbox,
            walks.adopt,
            core.overlay.outbox,
            core.cuts.outbox,
            core.knocker.knocks,
            core.dialer.dials,
        )

    def settle(self, now: float) -> None:
        core = self._core
        if not core.running:
            return
        if core.seats.enabled:
            core.seat_everybody(now)
            self._seats(now)
        if any(self._boxes) or core.dialer.deadline <= now:
            self._carry_out(now)

    def _carry_out(self, now: float) -> None:
        core = self._core
        people, detector = core.census, core.detector
        while detector.outbox or people.outbox or people.suspicions.outbox:
            drained = detector.outbox.copy()
            detector.outbox.clear()
            for said in drained:
                self._probes(said, now)
            people.settle(now)
            facts = people.outbox.copy()
            people.outbox.clear()
            for fact in facts:
                self._people(fact, now)
            if not core.running:
                return
            if core.seats.enabled:
                core.seat_everybody(now)
                self._seats(now)
        if not core.aside:
            self._move(now)

    def _move(self, now: float) -> None:
        """Most calls find nothing to do here: the tests are cheaper than the calls behind them."""
        core = self._core
        exchange, broadcast, router = core.exchange, core.broadcast, core.router
        spoken = exchange.outbox or exchange.sync.partners or broadcast.outbox or broadcast.streams.delivered
        if spoken or router.outbox or router.arrived or core.walks.outbox:
            self._frames(now)
        if broadcast.withholding:
            self._withheld(now)
        dialer = core.dialer
        wished = core.overlay.outbox or core.walks.adopt or core.cuts.outbox or core.knocker.knocks
        if wished or dialer.dials or dialer.deadline <= now:
            self._links(now)

    def _withheld(self, now: float) -> None:
        """Part from neighbours that announce what they do not send, and find out at once who else is like them: somebody
        may have surrounded us."""
        core = self._core
        withholding = core.broadcast.withholding.copy()
        core.broadcast.withholding.clear()
        if core.overlay.mode is Mode.FULL:
            return
        for peer in withholding:
            core.part(peer, "withholding", now)
        ask = encode_haves(core.broadcast.haves(now), ASK)
        for peer in core.links:
            core.send(peer, ask)

    # ---------------------------------------------------------------------------------------------------- probing

    def _probes(self, said: probes.Fact, now: float) -> None:
        core = self._core
        if isinstance(said, probes.ProbeDue):
            link = core.links.get(said.peer)
            if link is not None:
                core.send_probe(codec.PING, said.sequence, link)
        elif isinstance(said, probes.FrameDue):
            if said.peer in core.links:
                core.send(said.peer, said.frame, reliable=False)
        elif isinstance(said, probes.LinkImpaired):
            if not core.full:
                core.broadcast.branch_impaired(said.peer, core.detector.is_impaired)
        elif isinstance(said, probes.LinkSilent):
            core.census.link_silent(said.peer, now)
        elif isinstance(said, probes.LinkHeard):
            core.census.link_heard(said.peer)
        elif isinstance(said, probes.Deaf):
            self._stand_aside(now)
        elif said.peer in core.links:
            core.part(said.peer, "impaired", now)
            core.dialer.drop(said.peer)
            if core.full:
                core.dialer.want(said.peer, now + core.config.dial_backoff_min_s)

    # ----------------------------------------------------------------------------------------------------- people

    def _people(self, fact: census.Fact, now: float) -> None:
        core = self._core
        match fact:
            case census.Spread(news, via, urgent):  # the most frequent come first
                core.exchange.spread(news, via, now, core.broadcast.eager, urgent=urgent)
            case census.Updated():
                pass  # whoever needs the record reads it
            case census.Tell(peer, news):
                core.tell(peer, news)
            case census.TellAll(news, urgent):
                core.tell_all(news, now, urgent=urgent)
            case census.Joined(record, via, previous):
                core.announce(record, via)
                core.events.append(PeerDiscovered(record))
                self._keep_seat(record.peer, previous, record, now)
                core.cuts.back(record.peer, now)
                core.resize(now)
                core.want_member(record, now)
            case census.Restarted(record, via, previous):
                core.announce(record, via)
                core.events += (PeerLeft(record.peer, "superseded"), PeerDiscovered(record))
                self._keep_seat(record.peer, previous, record, now)
                if via != record.peer:  # the link that we have was its old life's
                    core.hang_up(record.peer, "superseded", now)
                core.want_member(record, now)
            case census.Gone(peer, reason):
                self._gone(peer, reason, now)
            case census.Forgotten(peer):
                core.broadcast.streams.forget(peer)
            case census.Suspected(peer):
                core.events.append(events.PeerSuspected(peer))
                core.cuts.lost(peer, now)
            case census.Resumed(peer):
                core.events.append(events.PeerResumed(peer))
                core.cuts.back(peer, now)
            case census.OwnSeatKnown(seat):
                core.seats.held_before(seat)
            case census.CalledGone(epoch):
                if not core.doubts(now):
                    core.census.revive(epoch, now)
            case census.Superseded():
                self._stop("superseded")

    def _gone(self, peer: PeerId, reason: events.LeaveReason, now: float) -> None:
        core = self._core
        core.events.append(PeerLeft(peer, reason))
        core.dialer.drop(peer)
        core.kept_seats.pop(peer, None)
        core.hang_up(peer, reason, now)
        core.detector.link_down(peer)
        if reason == "timeout":
            core.cuts.lost(peer, now)
            core.knocker.arm(now)
        else:
            core.cuts.forget(peer)
        core.resize(now)

    def _keep_seat(self, peer: PeerId, previous: Record | None, record: Record, now: float) -> None:
        """Who restarts keeps its seat for a while, until its new life claims it."""
        core = self._core
        if previous is not None and previous.seat is not None and record.seat is None and core.seats.enabled:
            core.kept_seats[peer] = (previous.seat, now + core.config.seat_hold_s)
            core.seated_until = now

    def _stand_aside(self, now: float) -> None:
        """We are deaf: for the others we are a member that never answers and never goes, to us everybody seems to come and
        go. So we say goodbye, part from everybody and come back after a rest that doubles each time."""
        core = self._core
        if core.aside or not core.links:
            return
        core.back_at = now + core.rest_s
        core.rest_s = min(_REST_MAX_S, 2 * core.rest_s)
        core.census.depart(now)
        core.tell_all(core.census.own, now)
        known = [core.membership.record(peer) for peer in core.links if core.membership.is_alive(peer)]
        core.contacts = [record for record in known if record is not None]
        for peer in list(core.links):
            core.hang_up(peer, "deaf", now)
        for peer in list(core.membership.alive):
            core.census.forget(peer, "timeout", now)
        core.detector.hearings.clear()
        core.doubt = Doubt()
        core.dialer = Dialer(core.config, core.rng)
        self._boxes = self._outboxes()

    def come_back(self, now: float) -> None:
        """The rest is over: like a newcomer that knows its old neighbours."""
        core = self._core
        core.back_at = math.inf
        core.cuts, core.knocker = Cuts(core.config), Knocker(core.config, core.rng)
        self._boxes = self._outboxes()
        core.introduced = False
        core.census.arrive(now)
        contacts, core.contacts = core.contacts, []
        for record in contacts:
            core.census.learn(record, now, None)

    def _stop(self, reason: events.EvictionReason) -> None:
        core = self._core
        core.events.append(Evicted(reason))
        core.outputs += [CloseLink(peer, reason) for peer in core.links]
        core.links.clear()
        core.running = False

    # ------------------------------------------------------------------------------------------------------ seats

    def _seats(self, now: float) -> None:
        core = self._core
        if not core.seats.outbox:
            return
        facts, core.seats.outbox = core.seats.outbox, []
        state = core.census.state
        for fact in facts:
            if isinstance(fact, seating.Seating):
                core.events.append(events.SeatsChanged(fact.seats, fact.own))
            elif isinstance(fact, seating.SeatLost):
                core.events.append(Evicted("capacity"))
            elif isinstance(fact, seating.ClaimDue):
                state = attrs.evolve(state, seat=fact.seat, ballot=state.ballot if fact.seat is not None else ())
            else:
                state = attrs.evolve(state, ballot=fact.ballot)
        if state is not core.census.state:
            core.census.reissue(now, state)

    # ------------------------------------------------------------------------------------------------------ frames

    def _frames(self, now: float) -> None:
        """Move finished frames and messages out."""
        core = self._core
        exchange, broadcast, router, walks = core.exchange, core.broadcast, core.router, core.walks
        if exchange.sync.partners:
            known = broadcast.haves(now)
            partners = exchange.take_partners()
            if known:  # who has none is asked by those who have
                exchange.sync.differed()
                for peer in partners:
                    core.send(peer, encode_haves(known, ASK))
        for machine in (exchange, broadcast, router, walks):
            if machine.outbox:
                for frame in machine.outbox:
                    if frame.peer in core.links:
                        core.emit(frame)
                machine.outbox.clear()
        if broadcast.streams.delivered:
            for origin, payload, sequence, sent_at in broadcast.streams.delivered:
                core.stats.broadcasts_delivered += 1
                core.events.append(events.BroadcastReceived(origin, payload, sequence, now - sent_at))
            broadcast.streams.delivered.clear()
        if router.arrived:
            core.events += [events.SignalReceived(*arrived) for arrived in router.arrived]
            router.arrived.clear()

    # ------------------------------------------------------------------------------------------------------- links

    def _links(self, now: float) -> None:
        core = self._core
        if core.walks.adopt:
            adopted = core.walks.adopt.copy()
            core.walks.adopt.clear()
            for data in adopted:
                peer = record_untrusted(data).peer
                if core.membership.is_alive(peer) and len(core.links) < core.overlay.target + 2:
                    core.dialer.want(peer, now)
        if core.overlay.outbox:
            wishes = core.overlay.outbox.copy()
            core.overlay.outbox.clear()
            for wish in wishes:
                if isinstance(wish, Part):
                    core.part(wish.peer, wish.reason, now)
                else:
                    core.dialer.want(wish.peer, now)
        if core.knocker.knocks:
            for peer in core.knocker.knocks:
                core.stats.knocks += 1
                core.dialer.want(peer, now)
            core.knocker.knocks.clear()
        if core.cuts.outbox:
            self._cuts(now)
        if core.dialer.deadline <= now:
            core.dialer.handle_timeout(now)
        if core.dialer.dials:
            for peer in core.dialer.dials:
                record = core.record_to_dial(peer)
                if record is not None:
                    core.outputs.append(Dial(peer, record))
            core.dialer.dials.clear()

    def _cuts(self, now: float) -> None:
        core = self._core
        for fact in core.cuts.outbox:
            if isinstance(fact, CutSeen):
                core.events.append(events.PartitionSuspected(fact.lost, fact.remaining, fact.majority))
            elif isinstance(fact, CutMended):
                core.events.append(events.PartitionHealed(fact.returned, fact.missing))
                if core.overlay.mode is not Mode.FULL:
                    for peer in core.knocker.cross_links(list(fact.returned), len(core.membership)):
                        if core.membership.is_alive(peer) and peer not in core.links:
                            self._crossing[peer] = None
                            core.dialer.want(peer, now)
        core.cuts.outbox.clear()

    def link_opened(self, peer: PeerId, now: float) -> None:
        """A link that crosses a healed cut is kept. Who had lost all links asks former neighbours why."""
        core = self._core
        if len(core.links) == 1:
            core.ask_former(now)
        if peer in self._crossing:
            del self._crossing[peer]
            core.overlay.keep(peer, now + _KEEP_CROSS_LINK_S)
