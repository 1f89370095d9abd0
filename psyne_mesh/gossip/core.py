"""Everything that one node holds, and the few acts that several of its handlers need: links, sending, seats.

`Node` is the door, `inbound` weighs frames, `outcome` carries out what the machines decided; all three work on this.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from psyne_mesh.gossip import codec, effects
from psyne_mesh.gossip.broadcast import Broadcast
from psyne_mesh.gossip.broadcast_wire import encode_haves
from psyne_mesh.gossip.census import Census
from psyne_mesh.gossip.codec import LARGE_ROOM, LINKS_MASK, PROBE
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.coordinates import Coordinate, distance
from psyne_mesh.gossip.costs import ASKED_PROBE
from psyne_mesh.gossip.detector import Detector
from psyne_mesh.gossip.dialer import Dialer
from psyne_mesh.gossip.doubt import Doubt
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.events import CloseLink, Output, SendFrame
from psyne_mesh.gossip.exchange import ISOLATED, LARGE, NEWCOMER, OUTBOUND, Exchange, News, encoded, told
from psyne_mesh.gossip.freshness import Calendar, Freshness
from psyne_mesh.gossip.healing import Cuts, Knocker
from psyne_mesh.gossip.membership import Membership
from psyne_mesh.gossip.neighbours import Neighbour, Neighbours
from psyne_mesh.gossip.orphans import Orphans
from psyne_mesh.gossip.overlay import Overlay
from psyne_mesh.gossip.policy import FULL, POLICIES
from psyne_mesh.gossip.proofs import Proof
from psyne_mesh.gossip.records import Accusation, OwnState, Record, RoomKey, Signer, Verify
from psyne_mesh.gossip.routing import Router, encode_relay
from psyne_mesh.gossip.seats import Claim, Seats
from psyne_mesh.gossip.tree_keeper import TreeKeeper
from psyne_mesh.gossip.views import Stats
from psyne_mesh.gossip.vouching import VOUCHED_S, Vouching
from psyne_mesh.gossip.walks import Line, Walks
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import forget_oldest

if TYPE_CHECKING:
    import random

_SHUN_S, _SHUNNED_MAX = 60.0, 256  # so long, and so many: the oldest is forgotten
_OPINIONS = 2  # neighbours asked before a verdict on the word of others
# A large room looks at all claims at most once in so long for each member: 0.25 s with 256. Each look costs that many claims.
_SEATING_S = 0.001
_CONTEST_S = 0.5  # a seat that several claim is looked at again after that
_CARRIED_MAX = 16  # members of a full mesh without a link that neighbours are asked to carry one frame to
_ALTERNATIVES = 8  # records that a refused newcomer gets along
_SPARE_DIALS = 2  # over `full_mesh_max`: with one link more than that we know that the room is large
_HINTS_MAX = 64  # the oldest is forgotten; signaling tells of so many
_HINT_S = 60.0  # a server does not show us somebody again and again whom nobody reaches
_RETRY_PARTED_S = 60.0  # a member that parted from us in a small room is dialled again after that


class Core:
    def __init__(
        self,
        config: GossipConfig,
        identity: Signer,
        room: RoomKey,
        rng: random.Random,
        verify: Verify,
        state: OwnState,
        *,
        wants_seat: bool,
        calendar: Calendar,
        now: float,
    ) -> None:
        own = identity.peer_id
        self.config = config
        self.identity = identity
        self.room = room
        self.rng = rng
        self.verify = verify
        self.own = own
        self.policy = FULL
        self.running = False
        self.introduced = False  # a neighbour has told us its view
        self.stats = Stats()
        self.outputs: list[Output] = []
        out = self.effects = Effects()
        self.neighbours = Neighbours()
        self.links = self.neighbours.links
        self._sizes = [0, 0]  # how many neighbours call the room small, and how many large
        self.fresh = Freshness(calendar, now)
        self.census = Census(config, identity, room, rng, verify, state, self.fresh, out, now)
        self.membership: Membership = self.census.membership
        self.detector = Detector(config, rng, self.neighbours, out)
        self.exchange = Exchange(config, rng, self.membership, self.neighbours, out)
        self.dialer = Dialer(config, rng, out)
        self.overlay = Overlay(config, own, rng, self.links, out)
        self.walks = Walks(config, rng, out)
        self.broadcast = Broadcast(config, self.links, self.membership.standing, out)
        self.tree_keeper = TreeKeeper(room.raw, own, rng, self.broadcast.signs, out)
        self.vouching = Vouching(rng, out)
        self.orphans = Orphans(room.raw, own, out)
        self.router = Router(config, own, rng, out)
        self.cuts = Cuts(config, out)
        self.knocker = Knocker(config, rng, out)
        self.coordinate = Coordinate(rng)
        self.seats = Seats(config, room.raw, own, rng, out, wanted=wants_seat)
        self.kept_seats: dict[
            PeerId, tuple[Record, float]
        ] = {}  # of members that restarted: their earlier record, until
        self._seat_changes = -1  # that the seating has seen
        self._seated_at = -math.inf
        self.rest_s = config.deaf_rest_s
        self.doubt = Doubt(out)
        self.shunned: OrderedDict[PeerId, float] = OrderedDict()  # flooders, and until when
        self.contacts: list[Record] = []  # whom to dial then
        self.hints: dict[PeerId, tuple[Record, float]] = {}  # whom to dial, and until when we hear of it only once

    @property
    def aside(self) -> bool:
        """We have left for a while, because we hear hardly anything (see `hearing`)."""
        return self.effects.timers[effects.COMEBACK] < math.inf

    # --------------------------------------------------------------------------------------------------- sending

    def send(self, peer: PeerId, frame: bytes, *, reliable: bool = True) -> None:
        self.emit(SendFrame(peer, frame, reliable))

    def emit(self, output: SendFrame) -> None:
        self.stats.frames_out += 1
        self.stats.bytes_out += len(output.frame)
        self.outputs.append(output)

    def send_probe(self, kind: int, sequence: int, neighbour: Neighbour) -> None:
        """A ping or ack, with whatever news still fit in."""
        if kind == codec.PING:
            neighbour.cost.asked(ASKED_PROBE)
        loss = neighbour.loss
        loss.sent = (loss.sent + 1) & 0xFFFF
        frame = PROBE.pack(
            codec.VERSION,
            kind,
            sequence,
            self.exchange.view_hash,
            neighbour.probe.srtt_wire,
            min(LINKS_MASK, len(self.links)) | (0 if self.policy.links_all else LARGE_ROOM),
            *self.coordinate.wire,
            loss.sent,
            loss.got,
        )
        if self.exchange.rumours.queue:
            frame += self.exchange.rumours.take(codec.UNRELIABLE_FRAME_MAX - PROBE.size)
        self.emit(SendFrame(neighbour.peer, frame, False))

    def send_anyhow(self, peer: PeerId, frame: bytes) -> None:
        """Over the link, or through two neighbours where there is no working one."""
        if self.carries(peer):
            self.send(peer, frame)
            return
        helpers = [neighbour.peer for neighbour in self.neighbours.good if neighbour.peer != peer]
        relayed = encode_relay(peer, frame)
        for helper in self.rng.sample(helpers, min(2, len(helpers))):
            self.send(helper, relayed)

    def carries(self, peer: PeerId) -> bool:
        """Whether there is a link to `peer` on which frames come through."""
        neighbour = self.links.get(peer)
        return neighbour is not None and not neighbour.probe.impaired

    def send_to_unlinked(self, frame: bytes) -> None:
        """To members of a full mesh whom we have no working link to."""
        count = 0
        for peer in self.membership.alive:
            if count < _CARRIED_MAX and not self.carries(peer):
                self.send_anyhow(peer, frame)
                count += 1

    def tell(self, peer: PeerId, news: News) -> None:
        if peer in self.links:
            self.send(peer, told(news))

    def tell_all(self, news: News, now: float, *, urgent: bool = False) -> None:
        """News of our own: directly to everybody in a small room, down the tree in a larger one. A proof takes all links, as
        nobody compares those later."""
        goodbye = isinstance(news, Record) and news.state != 0
        if self.policy.by_tree and self.policy.knows_all and not (goodbye or isinstance(news, Proof)):
            self.exchange.spread(news, None, now, self.broadcast.eager, urgent=urgent)
            if isinstance(news, Accusation):
                self.tell(news.subject, news)  # it may want to refute
            return
        frame = told(news)
        for peer in self.links:
            self.send(peer, frame)
        if self.policy.links_all:
            self.send_to_unlinked(frame)

    # ---------------------------------------------------------------------------------------------------- doubt

    def doubts(self, now: float) -> bool:
        """Our life is called over. True while former neighbours are asked whether we are deaf."""
        if not self.doubt.is_open:
            self.ask_former(now)
        self.doubt.called_gone = self.doubt.is_open
        return self.doubt.is_open

    def ask_former(self, now: float) -> None:
        """Who had lost most links asks former neighbours why (see `hearing`)."""
        if self.policy.links_all:
            return
        hearings = [neighbour.loss for neighbour in self.links.values()]
        # A link that fell silent is as good as lost: its other end may have given it up already.
        silent = [peer for peer, other in self.links.items() if other.loss.is_known and other.probe.impaired]
        former = self.neighbours.hearings.former(now) + silent
        for peer in self.doubt.begin(self.census.own.epoch, former, hearings, now):
            self.dialer.want(peer, now)

    def record_to_dial(self, peer: PeerId) -> Record | None:
        """Whom to expect at the other end of a dial."""
        record = self.membership.record(peer)
        return self.hints[peer][0] if record is None and peer in self.hints else record

    def is_asked(self, peer: PeerId) -> bool:
        """Whether this former neighbour shall tell whether we are deaf."""
        return self.doubt.is_open and peer in self.doubt.asked

    def settle_doubt(self, now: float) -> None:
        """We are not deaf, or nobody can tell: who called us gone is answered now."""
        hearings = {peer: neighbour.loss for peer, neighbour in self.links.items()}
        if self.doubt.is_over(hearings, self.detector.seems_deaf, now) and self.doubt.called_gone:
            self.census.revive(self.doubt.begun_for, now)

    # ---------------------------------------------------------------------------------------------------- links

    def stood_still(self, now: float) -> None:
        """Our process did: what we say of peers whose links went down meanwhile is taken back."""
        self.detector.stood_still(now)
        suspicions = self.census.suspicions
        for peer in suspicions.suspected:
            if peer not in self.neighbours.watched:
                suspicions.retract(peer, self.own)

    def link_opened(self, peer: PeerId, now: float, rtt: float | None) -> None:
        outbound = peer in self.dialer.in_flight
        flags = (OUTBOUND if outbound else 0) | (ISOLATED if self.overlay.isolated else 0)
        flags |= (0 if self.introduced else NEWCOMER) | (0 if self.policy.links_all else LARGE)
        self.dialer.linked(peer)
        self.hints.pop(peer, None)
        if (replaced := self.links.get(peer)) is not None:
            self.size_told(replaced, None)
        neighbour = self.neighbours.open(peer, now, outbound=outbound)
        neighbour.lonely = bool(flags & ISOLATED)
        self.detector.link_up(neighbour, now, rtt, at_once=self.is_asked(peer))
        self.overlay.link_up(neighbour, now)
        self.orphans.linked(peer)
        self.census.link_heard(peer)  # its handshake is a sign of life: whatever case was open is closed
        haves = self.broadcast.haves(now)
        fresh = self.fresh
        self.exchange.link_up(peer, self.census.own, now, flags, fresh.instance, fresh.seconds(now))
        for proof in self.census.proofs(now):
            self.send(peer, told(proof))
        if haves:
            self.effects.frames.append(SendFrame(peer, encode_haves(haves, 0), True))
        self.broadcast.link_up(neighbour, now)
        member = self.membership.get(peer)
        if member is not None:
            self.census.tell_down(peer, member)
        self.membership.met(peer, now)
        if self.seats.enabled:
            self.effects.timers[effects.SEATING] = now  # its claim counts from now on
        self.resize(now)

    def link_closed(self, peer: PeerId, now: float, *, lost: bool = False) -> None:
        """Forget the neighbour. `lost`: its link broke without a word, and helpers are asked for it from now on."""
        neighbour = self.neighbours.lose(peer) if lost else self.neighbours.close(peer)
        if neighbour is None:
            return
        self.size_told(neighbour, None)
        self.membership.met(peer, now)
        if self.policy.links_all:
            self.vouching.arm(now)
        self.census.link_closed(peer, now)
        self.overlay.link_down(now)
        self.exchange.sync.link_down()
        self.broadcast.link_down(peer)
        if lost:
            self.detector.link_lost(neighbour, now)

    def hang_up(self, peer: PeerId, reason: str, now: float) -> None:
        """Close a link to somebody who is gone."""
        if peer in self.links:
            self.link_closed(peer, now)
            self.outputs.append(CloseLink(peer, reason))

    def shun(self, peer: PeerId, now: float) -> None:
        """It cost us too much: no link with it for a while."""
        self.shunned.pop(peer, None)
        self.shunned[peer] = now + _SHUN_S
        forget_oldest(self.shunned, _SHUNNED_MAX)

    def part(self, peer: PeerId, reason: str, now: float) -> None:
        """Close a link to somebody who is alive: it is told, and given others to turn to."""
        if peer in self.links:
            self.refuse(peer)
            self.overlay.parted(peer, now)
            self.hang_up(peer, reason, now)
            self.want_later(peer, now)

    def refuse(self, peer: PeerId) -> None:
        """Say that the link will be closed, and name others."""
        members = [self.membership.get(p) for p in self.membership.random_alive(self.rng, _ALTERNATIVES)]
        records = [member.record for member in members if member is not None and not member.hint]
        items = b"".join(encoded(record) for record in records if record.peer != peer)
        self.send(peer, codec.head(codec.DISCONNECT) + items)

    def announce(self, record: Record, via: PeerId | None) -> None:
        """A newcomer introduced itself to us: in a small room everybody hears of it at once."""
        if self.policy.links_all and via == record.peer:
            frame = told(record)
            for peer in self.links:
                if peer != via:
                    self.send(peer, frame)

    def want_later(self, peer: PeerId, now: float) -> None:
        if self.policy.links_all and self.membership.is_alive(peer):
            self.dialer.want(peer, now + _RETRY_PARTED_S)

    def want_member(self, record: Record, now: float) -> None:
        """In a full mesh everybody is dialled; the elder of two waits for the newcomer's dial."""
        if self.policy.links_all and record.peer not in self.links and self._may_want_more:
            own = self.census.own
            newer = (own.joined_at, own.peer) > (record.joined_at, record.peer)
            self.dialer.want(record.peer, now if newer else now + self.config.dial_patience_s)

    @property
    def _may_want_more(self) -> bool:
        """More members than a full mesh holds are not all dialled: a few links tell whether they exist."""
        return len(self.dialer.wanted) + len(self.links) < self.config.full_mesh_max + _SPARE_DIALS

    def want_missing(self, now: float) -> None:
        """In a full mesh: some of those whom we are not linked to, and do not try to reach."""
        if self.policy.links_all and len(self.membership) > len(self.links) + len(self.dialer.wanted):
            for peer in self.membership.alive:
                record = self.membership.record(peer)
                if record is not None and peer not in self.links and self._may_want_more:
                    self.want_member(record, now)

    def shows_hint(self, peer: PeerId, now: float) -> bool:
        """Whether a server's word of that peer is news. Not if it said so of late, and nobody was there."""
        known = self.hints.get(peer)
        return known is None or now >= known[1] or self.membership.is_alive(peer)

    def hint(self, record: Record, now: float) -> None:
        """Somebody to dial, as a server or a ticket says."""
        known = self.hints.pop(record.peer, None)
        until = known[1] if known is not None and now < known[1] else now + _HINT_S
        if len(self.hints) >= _HINTS_MAX:
            del self.hints[next(iter(self.hints))]
        self.hints[record.peer] = record, until

    def size_told(self, neighbour: Neighbour, large: bool | None) -> None:
        """What a neighbour takes the room for; None: it is one no more."""
        if neighbour.large is not None:
            self._sizes[neighbour.large] -= 1
        neighbour.large = large
        if large is not None:
            self._sizes[large] += 1

    @property
    def backers(self) -> int:
        """So many neighbours must stand for a member without a link, before it makes the room larger: more than a third."""
        return max(2, 1 + len(self.links) // 3)

    @property
    def needs_backers(self) -> bool:
        """Whether the size of the room hangs on members without a link: only there more than one voucher is asked for."""
        return self.policy.links_all and len(self.membership) >= self.config.full_mesh_max > len(self.links)

    def resize(self, now: float) -> None:
        """The number of members or links changed: maybe the mode does, too."""
        small, large = self._sizes
        links = standing = len(self.links)
        if self.needs_backers:
            standing += self.membership.backed(now - VOUCHED_S, self.links, self.backers)
        members = len(self.membership) + 1
        if not self.overlay.resize(members, now, links=links, standing=standing, small=small, large=large):
            return
        policy = self.policy = self.exchange.policy = POLICIES[self.overlay.mode]
        self.detector.follow(policy)
        self.census.follow(policy, now)
        self.walks.follow(policy, now)
        self.tree_keeper.follow(policy, now)
        if policy.links_all:
            self.membership.renew_vouchers(now)
            self.vouching.arm(now)
            for peer in self.membership.alive:
                record = self.membership.record(peer)
                if record is not None:
                    self.want_member(record, now)
        else:
            for peer in self.dialer.wanted:
                if peer not in self.dialer.in_flight:
                    self.dialer.drop(peer)

    def make_room(self) -> PeerId | None:
        """Whom a lobby's full table can forget for a new record: anybody at random whom we have no link to."""
        alive = self.membership.alive
        if self.policy.knows_all or len(alive) < self.config.full_knowledge_max:
            return None
        for _ in range(8):
            peer = self.rng.choice(alive)
            if peer not in self.links:
                return peer
        return None

    def how_far(self, peer: PeerId) -> float:
        """Foretold round trip in seconds."""
        if not self.config.latency_aware:
            return math.inf
        record = self.membership.record(peer)
        if record is None or record.coordinates is None:
            return math.inf
        return distance(self.coordinate.wire, record.coordinates)

    def candidates(self) -> list[PeerId]:
        """Members worth a dial: while many links are silent, nobody whom anybody calls silent."""
        alive = self.membership.alive
        suspected = set(self.census.suspicions.suspected) if self.overlay.hollow else set()
        return [peer for peer in alive if peer not in suspected] if suspected else alive

    def second_opinion(self, subject: PeerId) -> None:
        """Ask two neighbours what they know of a member whom others call silent, for a refutation may have missed us; and
        all whether they reach it: who had lost it beyond a cut says so first, and its own answer comes later."""
        good = [neighbour.peer for neighbour in self.neighbours.good if neighbour.peer != subject]
        self.vouching.ask(subject, good, len(good))
        for peer in self.rng.sample(good, min(_OPINIONS, len(good))):
            self.exchange.ask(peer, subject)

    def line_of(self, peer: PeerId, now: float) -> Line | None:
        """A member for a shuffle; those we are linked to are fresh. Whom only a server told of is not passed on."""
        member = self.membership.get(peer)
        if member is None or member.hint:
            return None
        return Line(member.record.encoded, 0 if peer in self.links else max(0, int(now - member.seen_at)))

    # ---------------------------------------------------------------------------------------------------- seats

    def seat_everybody(self, now: float) -> None:
        """Compute the seating again if the view changed, or a held seat's time is over."""
        view, timers = self.membership, self.effects.timers
        if not self.seats.enabled or (view.seat_changes == self._seat_changes and now < timers[effects.SEATING]):
            return
        due = self._seated_at + len(view) * _SEATING_S if self.policy.by_tree else now
        if now < due:
            timers[effects.SEATING] = due if timers[effects.SEATING] <= now else min(timers[effects.SEATING], due)
            return
        self._seat_changes, self._seated_at, timers[effects.SEATING] = view.seat_changes, now, math.inf
        own = self.census.own
        claims = [] if own.seat is None else [Claim(own.peer, own.seat, ballot=own.ballot)]
        for peer in view.alive:
            member = view.get(peer)
            assert member is not None  # the living are in the table
            record = member.record
            if record.seat is not None:
                proven = member.met or not (self.policy.links_all or member.hint)
                claims.append(Claim(peer, record.seat, proven, record.ballot))
            elif peer in self.kept_seats:
                earlier, until = self.kept_seats[peer]
                assert earlier.seat is not None  # or it would not be there
                self._hold(claims, peer, earlier.seat, until, now, proven=member.met)
        for member in view.down():
            if member.record.seat is not None:
                until = member.since + self.config.seat_hold_s
                self._hold(claims, member.record.peer, member.record.seat, until, now, proven=member.met)
        self.seats.view(claims, now)
        if self.seats.contested:  # who is senior changes with time
            timers[effects.SEATING] = min(timers[effects.SEATING], now + _CONTEST_S)

    def _hold(self, claims: list[Claim], peer: PeerId, seat: int, until: float, now: float, *, proven: bool) -> None:
        if now < until:
            claims.append(Claim(peer, seat, proven))
            timers = self.effects.timers
            timers[effects.SEATING] = min(timers[effects.SEATING], until)
