"""The one door of the gossip layer: a `Node` is one player in one room, pure, driven from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs

from psyne_mesh.errors import InvalidConfig, MessageTooLarge, ProtocolError
from psyne_mesh.gossip import codec, effects
from psyne_mesh.gossip.broadcast_wire import FLAT, Head, encode_gossip, sign_keep, sign_message
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.core import Core
from psyne_mesh.gossip.costs import VERIFY
from psyne_mesh.gossip.events import CloseLink, Event, LeaveReason, Output
from psyne_mesh.gossip.freshness import UNTOLD, Calendar
from psyne_mesh.gossip.healing import is_lookout
from psyne_mesh.gossip.inbound import Inbound
from psyne_mesh.gossip.neighbours import Neighbour
from psyne_mesh.gossip.outcome import Outcome
from psyne_mesh.gossip.records import (
    ALIVE,
    LEAVE_REASONS,
    LEAVING,
    OwnState,
    Record,
    RoomKey,
    Signer,
    Verify,
    record_untrusted,
)
from psyne_mesh.gossip.tree_keeper import Duty
from psyne_mesh.gossip.views import LinkView, Stats, Topology
from psyne_mesh.gossip.vouching import VOUCHED_S
from psyne_mesh.gossip.walks import Line
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random

_NEVER = math.inf
# Our place on the latency map is told anew once it is off by so much. At 20 ms one of twelve members of a settled room did
# so within 40 s, and everybody heard of it; at 30 ms one of two hundred, and neighbours are as near.
_MOVED_S = 0.03
_STALL_S = 1.0  # standing still for less loses nothing: a socket's buffer holds what comes, and nobody misses us yet
_DIAL_MAX_S = 20.0  # a dial takes no longer: who has come or come back since it began is not judged by it
_PLACE_GAP_S = 30.0  # and at most so often
# Moments that the nodes of a process have in common. To wake costs more than a probe; of the 2 s in which a crash is found, a
# sixteenth.
ROUND_S = 0.125
_KNOCKS_MAX = (
    4  # of the lost whom one answer of signaling names, so many are dialled: one link finds all that are beyond a cut
)


class Node:
    """Membership, failure detection and broadcast of one room. How to drive it:

    1. `start(now)`, then `learn(records, now)` with what signaling, a ticket or a LAN knows of the room.
    2. Obey `take_outputs()`: `SendFrame` over the peer's link, `Dial`, `CloseLink`. Report `link_up`, `link_down`,
       `dial_failed`. A link whose handshake proved the peer's key is one link, whoever dialled; a new link to the same
       peer replaces the old: call `link_up` again and no `link_down` for the replaced one.
    3. `receive(peer, frame, now)` for each frame of a link, from either channel.
    4. Call `handle_timeout(now)` when `next_timeout()` is reached; ask it again after every call.
    5. After every call drain `take_outputs()`, then `take_events()`.
    6. `leave(now)`, drain, flush the links, close them.

    `now` is seconds on any steady clock. No input method raises for what came from outside: bad frames are dropped and
    counted in `stats`. All randomness comes from `rng`: the same inputs give the same outputs.

    `epoch` must grow with every process start of the same key (unix milliseconds, or the stored one plus 1). `calendar` says
    what day it is at `now`, when the node is made: what others signed counts for ten minutes.
    """

    def __init__(
        self,
        config: GossipConfig,
        identity: Signer,
        room: bytes | RoomKey,
        *,
        rng: random.Random,
        verify: Verify,
        epoch: int = 1,
        name: str = "",
        metadata: bytes = b"",
        wants_seat: bool = True,
        calendar: Calendar = UNTOLD,
        now: float = 0.0,
    ) -> None:
        state = OwnState(epoch=epoch, joined_at=epoch, lifetime=config.record_lifetime_s, name=name, metadata=metadata)
        self._core = Core(
            config, identity, RoomKey.of(room), rng, verify, state, wants_seat=wants_seat, calendar=calendar, now=now
        )
        self._inbound = Inbound(self._core)
        self._outcome = Outcome(self._core)
        self._timers = self._timer_table()
        self._started = False
        self._placed_at = -math.inf
        self.peer_id = identity.peer_id

    # ----------------------------------------------------------------------------------------------------- inputs

    def start(self, now: float) -> None:
        """Begin. A node is started once."""
        if self._started:
            raise InvalidConfig("a node is started once")
        self._started = self._core.running = True
        self._core.census.start(now)
        self._core.seats.start(now)
        self._outcome.settle(now)

    def learn(self, records: Iterable[bytes | Record], now: float) -> None:
        """Records of members, as signaling or a ticket has them: they are verified, and those that are new are dialled. A
        member that we lost in this stay of it is dialled as well, and not believed: a server names those beyond a cut while
        the cut lasts."""
        core = self._core
        if not core.running or core.aside:
            return
        lost: list[Record] = []
        for given in records:
            try:
                record = given if isinstance(given, Record) else record_untrusted(given)
                if record.state == ALIVE and core.membership.was_lost(record):
                    lost.append(record)
                else:
                    self._inbound.learn(record, now, None, welcome=True)
            except ProtocolError:
                core.stats.items_refused += 1
        for record in core.rng.sample(lost, min(_KNOCKS_MAX, len(lost))):
            self._inbound.knock(record, now)
        self._outcome.settle(now)

    def link_up(self, peer: PeerId, now: float, rtt: float | None = None) -> None:
        """A link to `peer` works, dialled by either side. `rtt` in seconds if the handshake measured it."""
        core = self._core
        if not core.running or peer == self.peer_id:
            return
        if core.aside:
            core.outputs.append(CloseLink(peer, "refused"))
            return
        shunned = core.shunned.get(peer, -math.inf) > now
        if (
            core.census.is_shut_out(peer, now)
            or shunned
            or (len(core.links) >= 2 * core.config.links_max and peer not in core.links)
        ):
            core.dialer.linked(peer)
            core.refuse(peer)
            core.outputs.append(CloseLink(peer, "refused"))
            return
        core.link_opened(peer, now, rtt)
        self._outcome.link_opened(peer, now)
        self._outcome.settle(now)

    def link_down(self, peer: PeerId, reason: str, now: float) -> None:
        """The link to `peer` is gone, whyever: that says nothing of the room, as several may share a link, and whoever leaves
        says so in its record. So far it is silence. `reason` is for logs."""
        core = self._core
        if peer not in core.links:
            return
        lost = core.membership.is_alive(peer)
        core.link_closed(peer, now, lost=lost)
        if lost and core.policy.links_all:
            core.dialer.want(peer, now)
        self._outcome.settle(now)

    def dial_failed(self, peer: PeerId, cause: str, now: float) -> None:
        """The `Dial` to `peer` came to nothing. `cause` is for logs."""
        core = self._core
        core.dialer.failed(peer, now)
        if not (core.policy.links_all and (core.membership.is_alive(peer) or peer in core.hints)):
            core.dialer.drop(peer)
            core.overlay.parted(peer, now)
            member = core.membership.get(peer)
            if not core.policy.knows_all and member is not None and now - member.since > _DIAL_MAX_S:
                core.overlay.unreachable(peer, member.record.epoch, now)
                core.census.forget(peer, "capacity", now)
        self._outcome.settle(now)

    def receive(self, peer: PeerId, frame: bytes, now: float) -> None:
        """One frame that came over the link of `peer`, by either channel."""
        core = self._core
        core.stats.frames_in += 1
        if not core.running:
            return
        neighbour = core.links.get(peer) or self._stranger(peer, frame, now)
        if neighbour is None:
            core.stats.frames_dropped += 1
            return
        try:
            self._inbound.handle(neighbour, frame, now)
        except ProtocolError:
            core.stats.frames_dropped += 1
            self._inbound.fault(neighbour, now)
        self._outcome.settle(now)

    def _stranger(self, peer: PeerId, frame: bytes, now: float) -> Neighbour | None:
        """A peer may use a link that we share for another room before our shell knew that it is in this one, too."""
        if len(frame) > 1 and frame[1] == codec.HELLO:
            self.link_up(peer, now)
        return self._core.links.get(peer)

    def broadcast(self, payload: bytes, now: float) -> int:
        """Send `payload` to every member, in order. Returns its sequence number, counted from 1."""
        core = self._core
        if len(payload) > core.config.broadcast_max_bytes:
            raise MessageTooLarge(len(payload), core.config.broadcast_max_bytes)
        sequence, floor = core.broadcast.next_sequence(now)
        if core.running:
            epoch, fresh = core.census.own.joined_at, core.fresh
            message = sign_message(
                core.room, core.identity, epoch, sequence, floor, payload, fresh.instance, fresh.seconds(now)
            )
            core.stats.broadcasts_sent += 1
            core.broadcast.publish(message, now, flat=core.policy.links_all)
            if core.policy.links_all:
                core.send_to_unlinked(encode_gossip(Head(0, FLAT), message.body))
            self._outcome.settle(now)
        return sequence

    def send_signal(self, to: PeerId, blob: bytes, now: float) -> None:
        """Carry an opaque, signed blob to `to` over the mesh; it may be lost, so the caller repeats what matters."""
        core = self._core
        if len(blob) > core.config.signal_max_bytes:
            raise MessageTooLarge(len(blob), core.config.signal_max_bytes)
        member = core.membership.get(to)
        core.router.send(to, blob, member.via if member is not None else None, list(core.links), now)
        self._outcome.settle(now)

    def leave(self, now: float, reason: LeaveReason = "left") -> None:
        """Say goodbye to everybody. The node is deaf afterwards; drain its outputs once more."""
        core = self._core
        if not core.running:
            return
        code = next((i for i, known in enumerate(LEAVE_REASONS) if known == reason), 0)
        core.census.reissue(now, attrs.evolve(core.census.state, state=LEAVING, reason=code, seat=None, ballot=()))
        self._outcome.settle(now)
        core.running = False
        core.neighbours.clear()

    def update(self, now: float, *, name: str | None = None, metadata: bytes | None = None) -> None:
        """Change what our record says, and tell everybody."""
        core = self._core
        state = core.census.state
        name = state.name if name is None else name
        metadata = state.metadata if metadata is None else metadata
        if core.running:
            core.census.reissue(now, attrs.evolve(state, name=name, metadata=metadata))
            self._outcome.settle(now)

    def expel(self, peer: PeerId, now: float) -> None:
        """Shut `peer` out here, for good: its link is closed and its records are refused."""
        self._core.census.expel(peer, now)
        self._core.hang_up(peer, "kicked", now)
        self._outcome.settle(now)

    def note_loop_lag(self, seconds: float, now: float) -> None:
        """The event loop was late by so much: silence in that time is our own fault."""
        self._core.detector.note_loop_lag(seconds, now)
        self._core.census.suspicions.note_loop_lag(seconds)
        if seconds >= _STALL_S:
            self._core.membership.stood_still(seconds)
            self._core.stood_still(now)
            self._outcome.settle(now)

    def note_alive(self, peer: PeerId, now: float) -> None:
        """A heartbeat of `peer`, whose event loop stands still: it answers no probe, and is not gone. `peer` has a link."""
        self._core.detector.note_alive(peer, now)
        self._outcome.settle(now)

    def note_rtt(self, peer: PeerId, rtt: float, now: float) -> None:
        """A round trip in seconds that the shell measured, for instance by SCTP."""
        self._core.detector.note_rtt(peer, rtt)

    @property
    def work(self) -> float:
        """Units that signatures have cost so far: what is dear among all that a frame may cause (`costs`)."""
        return VERIFY * (self._core.census.verified + self._inbound.verified)

    def is_lookout(self) -> bool:
        """Whether it is our task to register with signaling again now and then, and to `learn` whom it lists: so a
        component that a cut took away is found."""
        core = self._core
        return core.running and is_lookout(core.room.raw, self.peer_id, core.membership.alive)

    # -------------------------------------------------------------------------------------------- time and outputs

    def next_timeout(self) -> float | None:
        """When `handle_timeout` is due, or None."""
        core = self._core
        if not core.running:
            return None
        timers = core.effects.timers
        deadline = min(timers) if timers[effects.COMEBACK] == _NEVER else timers[effects.COMEBACK]
        return None if deadline == _NEVER else deadline

    def next_round(self) -> float | None:
        """The same for whoever shares its wake-ups with others: while all links answer, probes wait for the next moment that
        all nodes of a process have in common. A crash is found that much later at most, twice."""
        due = self.next_timeout()
        timers = self._core.effects.timers
        if due is None or due != timers[effects.PROBES] or not self._core.detector.is_calm:
            return due
        others = min(timers[effects.PROBES + 1 :])
        return min(math.ceil(due / ROUND_S) * ROUND_S, others)

    def handle_timeout(self, now: float) -> None:
        core = self._core
        if not core.running:
            return
        timers = core.effects.timers
        if timers[effects.COMEBACK] != _NEVER:
            if now < timers[effects.COMEBACK]:
                return
            self._outcome.come_back(now)
        for timer, act in self._timers:
            if now >= timers[timer]:
                act(now)
        self._outcome.settle(now)

    def _timer_table(self) -> tuple[tuple[int, Callable[[float], None]], ...]:
        """What each timer is for, in the order in which those due at the same time are served."""
        core = self._core
        return (
            (effects.PROBES, core.detector.handle_timeout),
            (effects.SUSPICIONS, core.census.suspicions.handle_timeout),
            (effects.RENEWAL, core.census.reissue),
            (effects.FLUSH, self._flush),
            (effects.SYNC, self._compare_views),
            (effects.DOUBT, core.settle_doubt),
            (effects.OVERLAY, self._tend_links),
            (effects.SHUFFLE, self._shuffle),
            (effects.TREE_KEEPER, self._keep_tree),
            (effects.BROADCAST, core.broadcast.handle_timeout),
            (effects.LOSING, self._gather_cuts),
            (effects.RETURNING, self._gather_cuts),
            (effects.KNOCKS, self._knock_on_doors),
            (effects.VOUCHES, self._vouch),
            (effects.ORPHANS, self._look_after),
            (effects.SEATING, core.seat_everybody),
            (effects.SEATS, core.seats.handle_timeout),
        )

    def _flush(self, now: float) -> None:
        self._core.exchange.flush(self._core.broadcast.eager)

    def _tend_links(self, now: float) -> None:
        core = self._core
        core.overlay.look()
        core.overlay.handle_timeout(now, core.candidates(), core.how_far, len(core.dialer.wanted))

    def _vouch(self, now: float) -> None:
        """In a full mesh whoever has no link needs a voucher; in a larger room, whom only a server told of."""
        core = self._core
        helpers = [neighbour.peer for neighbour in core.neighbours.good]  # without one nobody can be judged
        needed = core.backers if core.needs_backers else 0
        apart: list[tuple[float, bool, PeerId]] = []
        for peer in core.membership.alive if core.policy.links_all and helpers else core.membership.hints:
            member = core.membership.get(peer)
            if peer not in core.links and member is not None:
                apart.append(
                    (member.vouched_at, core.membership.n_vouchers(peer, now - VOUCHED_S, core.links) >= needed, peer)
                )
        core.vouching.beat(now, apart, helpers)
        core.want_missing(now)

    def _look_after(self, now: float) -> None:
        core = self._core
        core.orphans.handle_timeout(now, core.membership.alive, core.links)

    def _gather_cuts(self, now: float) -> None:
        core = self._core
        core.cuts.handle_timeout(now, core.membership.alive, suspecting=core.census.suspicions.deadline < _NEVER)

    def _knock_on_doors(self, now: float) -> None:
        core = self._core
        down = [member.record.peer for member in core.membership.down()]
        core.knocker.handle_timeout(now, down, len(core.membership))

    def _compare_views(self, now: float) -> None:
        core = self._core
        core.exchange.sync.handle_timeout(now)
        core.census.expire(now, core.links)
        wire, told = core.coordinate.wire, core.census.state.coordinates
        moved = told is None or max(abs(a - b) for a, b in zip(wire[:4], told[:4], strict=True)) > _MOVED_S * 10_000
        if (
            not core.policy.links_all
            and moved
            and core.coordinate.error < 0.5
            and now - self._placed_at >= _PLACE_GAP_S
        ):
            self._placed_at = now
            core.census.reissue(now, attrs.evolve(core.census.state, coordinates=wire))

    def _keep_tree(self, now: float) -> None:
        core = self._core
        alive = core.membership.alive
        for duty in core.tree_keeper.beat(now, alive, linked=core.introduced and bool(core.links)):
            if duty is Duty.SIGN:
                number = core.broadcast.signs.next_number(self.peer_id, core.census.own.joined_at)
                fresh = core.fresh
                core.broadcast.keep(
                    sign_keep(core.room, core.identity, number, fresh.instance, fresh.seconds(now)), now
                )
            elif duty is Duty.IN_TOUCH:
                core.overlay.in_touch()
            else:
                core.overlay.cut_off(now, alive)

    def _shuffle(self, now: float) -> None:
        core = self._core
        links = list(core.links)
        near = [line for peer in links if (line := core.line_of(peer, now)) is not None]
        sample = core.membership.random_alive(core.rng, 8)
        known = [line for p in sample if p not in core.links and (line := core.line_of(p, now)) is not None]
        core.walks.begin_shuffle(now, Line(core.census.own.encoded, 0), near, known, links)

    def take_outputs(self) -> list[Output]:
        """The orders since the last call, in order."""
        taken, self._core.outputs = self._core.outputs, []
        return taken

    def take_events(self) -> list[Event]:
        """The facts since the last call, in order."""
        out = self._core.effects
        taken, out.events = out.events, []
        return taken

    # ------------------------------------------------------------------------------------------------------- views

    @property
    def members(self) -> tuple[PeerId, ...]:
        """Everybody in the room as we see it, ourselves included, sorted. Suspected members are members."""
        return tuple(sorted([*self._core.membership.alive, self.peer_id])) if self._core.running else ()

    @property
    def links_all(self) -> bool:
        """Everybody wants a link to everybody: we do, and no neighbour has said that it takes the room for a large one."""
        core = self._core
        return core.policy.links_all and not any(neighbour.large for neighbour in core.links.values())

    @property
    def n_members(self) -> int:
        """How many these are, for who asks at every message."""
        return len(self._core.membership.alive) + 1 if self._core.running else 0

    @property
    def has_links(self) -> bool:
        """Whether there is anybody in `topology().links`."""
        return bool(self._core.links)

    @property
    def own_record(self) -> Record:
        """Our newest record: what signaling should show to newcomers."""
        return self._core.census.own

    @property
    def seats(self) -> tuple[PeerId | None, ...]:
        """Who holds which seat; the index is the seat number. Empty in a room without seats."""
        return self._core.seats.seats

    def hinted(self, peer: PeerId) -> Record | None:
        """The record of somebody whom a server or a ticket tells us to dial, and who is no member as far as we know."""
        known = self._core.hints.get(peer)
        return None if known is None or self._core.membership.is_alive(peer) else known[0]

    def record(self, peer: PeerId) -> Record | None:
        """The newest record of a member or of ourselves; None for anybody else, those who left included."""
        if peer == self.peer_id:
            return self.own_record
        return self._core.membership.record(peer) if self._core.membership.is_alive(peer) else None

    @property
    def knows_all(self) -> bool:
        """Whether who has no record here is no member; in a lobby everybody follows a few only."""
        return self._core.policy.knows_all

    def is_suspected(self, peer: PeerId) -> bool:
        return self._core.census.suspicions.is_suspected(peer)

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        core = self._core
        tree, router = core.broadcast.stats, core.router
        return attrs.evolve(
            core.stats,
            records_refused=core.census.records_refused,
            accusations_refused=core.census.accusations_refused,
            suspicions_raised=core.detector.suspicions_raised,
            verdicts=core.census.verdicts,
            refutations=core.census.refutations,
            broadcast_duplicates=tree.duplicates,
            broadcasts_skipped=core.broadcast.streams.skipped,
            broadcasts_refused=core.broadcast.streams.refused,
            broadcasts_repaired=tree.repaired,
            repairs_refused=tree.repairs_refused,
            grafts=tree.grafts,
            prunes=tree.prunes,
            signals_passed_on=router.passed_on,
            signals_dropped=router.dropped,
        )

    def rtt(self, peer: PeerId) -> float | None:
        """Seconds, smoothed, over our own link; None without one, or before it was measured."""
        neighbour = self._core.links.get(peer)
        return None if neighbour is None else neighbour.probe.srtt or None

    def topology(self, now: float) -> Topology:
        core = self._core
        links = tuple(
            LinkView(
                peer,
                neighbour.probe.srtt or None,
                core.policy.links_all or peer in core.broadcast.eager,
                neighbour.place.outbound,
                neighbour.probe.impaired,
            )
            for peer, neighbour in core.links.items()
        )
        return Topology(
            own=self.peer_id,
            mode=core.overlay.mode.value,
            links=links,
            passive=tuple(peer for peer in core.membership.alive if peer not in core.links),
            members=len(core.membership) + 1,
            suspected=tuple(core.census.suspicions.suspected),
            local_health=core.detector.local_health,
            coordinates=(core.coordinate.x, core.coordinate.y, core.coordinate.z, core.coordinate.height),
        )
