"""Everything that one node holds, and the few acts that several of its handlers need: links, sending, seats.

`Node` is the door, `inbound` weighs frames, `outcome` carries out what the machines decided; all three work on this.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from psyne_mesh.gossip import codec, effects
from psyne_mesh.gossip.broadcast import Broadcast
from psyne_mesh.gossip.broadcast_wire import encode_haves
from psyne_mesh.gossip.census import Census
from psyne_mesh.gossip.codec import PROBE
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.coordinates import Coordinate, distance
from psyne_mesh.gossip.detector import Detector, Link
from psyne_mesh.gossip.dialer import Dialer
from psyne_mesh.gossip.doubt import Doubt
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.events import CloseLink, Output, SendFrame
from psyne_mesh.gossip.exchange import ISOLATED, NEWCOMER, OUTBOUND, Exchange, News, encoded, told
from psyne_mesh.gossip.healing import Cuts, Knocker
from psyne_mesh.gossip.membership import Membership
from psyne_mesh.gossip.overlay import Overlay
from psyne_mesh.gossip.policy import FULL, POLICIES
from psyne_mesh.gossip.records import Accusation, OwnState, Record, RoomKey, Signer, Verify
from psyne_mesh.gossip.routing import Router, encode_relay
from psyne_mesh.gossip.seats import Claim, Seats
from psyne_mesh.gossip.tree_keeper import TreeKeeper
from psyne_mesh.gossip.views import Stats
from psyne_mesh.gossip.walks import Line, Walks
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random

_ALTERNATIVES = 8  # records that a refused newcomer gets along
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
        self.links: dict[PeerId, Link] = {}
        self.census = Census(config, identity, room, rng, verify, state, out)
        self.detector = Detector(config, rng, out)
        self.exchange = Exchange(config, rng, self.census.membership, out)
        self.exchange.hears = lambda peer: not self.detector.is_impaired(peer)
        self.dialer = Dialer(config, rng, out)
        self.overlay = Overlay(config, own, rng, out)
        self.walks = Walks(config, rng, out)
        self.broadcast = Broadcast(config, out)
        self.broadcast.streams.standing = self._standing
        self.tree_keeper = TreeKeeper(room.raw, own, rng, self.broadcast.signs, out)
        self.router = Router(config, own, rng, out)
        self.cuts = Cuts(config, out)
        self.knocker = Knocker(config, rng, out)
        self.coordinate = Coordinate(rng)
        self.seats = Seats(config, room.raw, own, rng, out, wanted=wants_seat)
        self.kept_seats: dict[PeerId, tuple[int, float]] = {}  # of members that restarted: (seat, until)
        self.seated_view = 0
        self.rest_s = config.deaf_rest_s
        self.doubt = Doubt(out)
        self.contacts: list[Record] = []  # whom to dial then
        # By a beacon: somebody whom we lost, and dial before we believe that it is back.
        self.posted: Record | None = None

    @property
    def aside(self) -> bool:
        """We have left for a while, because we hear hardly anything (see `hearing`)."""
        return self.effects.timers[effects.COMEBACK] < math.inf

    @property
    def membership(self) -> Membership:
        return self.census.membership

    # --------------------------------------------------------------------------------------------------- sending

    def send(self, peer: PeerId, frame: bytes, *, reliable: bool = True) -> None:
        self.emit(SendFrame(peer, frame, reliable))

    def emit(self, output: SendFrame) -> None:
        self.stats.frames_out += 1
        self.stats.bytes_out += len(output.frame)
        self.outputs.append(output)

    def send_probe(self, kind: int, sequence: int, link: Link) -> None:
        """A ping or ack, with whatever news still fit in."""
        hearing = link.hearing
        hearing.sent = (hearing.sent + 1) & 0xFFFF
        frame = PROBE.pack(
            codec.VERSION,
            kind,
            sequence,
            self.exchange.view_hash,
            link.srtt_wire,
            min(255, len(self.links)),
            *self.coordinate.wire,
            hearing.sent,
            hearing.got,
        )
        if self.exchange.rumours.queue:
            frame += self.exchange.rumours.take(codec.UNRELIABLE_FRAME_MAX - PROBE.size)
        self.emit(SendFrame(link.peer, frame, False))

    def send_anyhow(self, peer: PeerId, frame: bytes) -> None:
        """Over the link, or through two neighbours where there is no working one."""
        if peer in self.links and not self.detector.is_impaired(peer):
            self.send(peer, frame)
            return
        helpers = [p for p in self.links if p != peer and not self.detector.is_impaired(p)]
        relayed = encode_relay(peer, frame)
        for helper in self.rng.sample(helpers, min(2, len(helpers))):
            self.send(helper, relayed)

    def send_to_unlinked(self, frame: bytes) -> None:
        """To members of a full mesh whom we have no working link to."""
        for peer in self.membership.alive:
            if peer not in self.links or self.detector.is_impaired(peer):
                self.send_anyhow(peer, frame)

    def tell(self, peer: PeerId, news: News) -> None:
        if peer in self.links:
            self.send(peer, told(news))

    def tell_all(self, news: News, now: float, *, urgent: bool = False) -> None:
        """News of our own: directly to everybody in a small room, down the tree in a larger one."""
        goodbye = isinstance(news, Record) and news.state != 0
        if self.policy.by_tree and self.policy.knows_all and not goodbye:
            self.exchange.spread(news, None, now, self.broadcast.eager, urgent=urgent)
            if isinstance(news, Accusation):
                self.tell(news.subject, news)  # it may want to refute
            return
        frame = told(news)
        for peer in self.links:
            self.send(peer, frame)
        if self.policy.links_all:
            self.send_to_unlinked(frame)

    def _standing(self, origin: PeerId) -> int:
        """Of an author of broadcasts: nobody invents members as cheaply as keys. In a lobby, and just after joining, honest
        ones are strangers, too."""
        if origin == self.own or self.membership.is_alive(origin):
            return 2
        return 0 if self.membership.get(origin) is None else 1

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
        hearings = [link.hearing for link in self.links.values()]
        for peer in self.doubt.begin(self.census.own.epoch, self.detector.hearings.former(now), hearings, now):
            self.dialer.want(peer, now)

    def record_to_dial(self, peer: PeerId) -> Record | None:
        """Whom to expect at the other end of a dial."""
        record, posted = self.membership.record(peer), self.posted
        return posted if record is None and posted is not None and posted.peer == peer else record

    def is_asked(self, peer: PeerId) -> bool:
        """Whether this former neighbour shall tell whether we are deaf."""
        return self.doubt.is_open and peer in self.doubt.asked

    def settle_doubt(self, now: float) -> None:
        """We are not deaf, or nobody can tell: who called us gone is answered now."""
        hearings = {peer: link.hearing for peer, link in self.links.items()}
        if self.doubt.is_over(hearings, self.detector.seems_deaf, now) and self.doubt.called_gone:
            self.census.revive(self.doubt.begun_for, now)

    # ---------------------------------------------------------------------------------------------------- links

    def stood_still(self, now: float) -> None:
        """Our process did: what we say of peers whose links went down meanwhile is taken back."""
        self.detector.stood_still(now)
        suspicions = self.census.suspicions
        for peer in suspicions.suspected:
            if peer not in self.detector.links:
                suspicions.retract(peer, self.own)

    def link_opened(self, peer: PeerId, now: float, rtt: float | None) -> None:
        outbound = peer in self.dialer.in_flight
        flags = (OUTBOUND if outbound else 0) | (ISOLATED if self.overlay.isolated else 0)
        flags |= 0 if self.introduced else NEWCOMER
        self.dialer.linked(peer)
        self.detector.link_up(peer, now, rtt, at_once=self.is_asked(peer))
        link = self.links[peer] = self.detector.links[peer]
        link.lonely = bool(flags & ISOLATED)
        self.overlay.link_up(peer, now, outbound=outbound)
        haves = self.broadcast.haves(now)
        self.exchange.link_up(peer, self.census.own, now, flags)
        if haves:
            self.effects.frames.append(SendFrame(peer, encode_haves(haves, 0), True))
        self.broadcast.link_up(peer, now)
        member = self.membership.get(peer)
        if member is not None:
            self.census.tell_down(peer, member)

    def link_closed(self, peer: PeerId, now: float) -> None:
        """Forget the link; the detector is told by the caller, because it may want to go on asking helpers."""
        self.links.pop(peer, None)
        self.census.link_closed(peer, now)
        self.overlay.link_down(peer, now)
        self.exchange.link_down(peer)
        self.broadcast.link_down(peer)
        self.router.link_down(peer)

    def hang_up(self, peer: PeerId, reason: str, now: float) -> None:
        """Close a link to somebody who is gone."""
        if peer in self.links:
            self.link_closed(peer, now)
            self.detector.link_down(peer)
            self.outputs.append(CloseLink(peer, reason))

    def part(self, peer: PeerId, reason: str, now: float) -> None:
        """Close a link to somebody who is alive: it is told, and given others to turn to."""
        if peer in self.links:
            self.refuse(peer)
            self.overlay.parted(peer, now)
            self.hang_up(peer, reason, now)
            self.want_later(peer, now)

    def refuse(self, peer: PeerId) -> None:
        """Say that the link will be closed, and name others."""
        records = [self.membership.record(p) for p in self.membership.random_alive(self.rng, _ALTERNATIVES)]
        items = b"".join(encoded(record) for record in records if record is not None and record.peer != peer)
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
        if self.policy.links_all and record.peer not in self.links:
            own = self.census.own
            newer = (own.joined_at, own.peer) > (record.joined_at, record.peer)
            self.dialer.want(record.peer, now if newer else now + self.config.dial_patience_s)

    def resize(self, now: float) -> None:
        """The number of members changed: maybe the mode does, too."""
        if not self.overlay.resize(len(self.membership) + 1, now):
            return
        policy = self.policy = self.exchange.policy = POLICIES[self.overlay.mode]
        self.detector.follow(policy)
        self.census.follow(policy, now)
        self.walks.follow(policy, now)
        self.tree_keeper.follow(policy, now)
        if policy.links_all:
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

    def line_of(self, peer: PeerId, now: float) -> Line | None:
        """A member for a shuffle; those we are linked to are fresh."""
        member = self.membership.get(peer)
        if member is None:
            return None
        return Line(member.record.encoded, 0 if peer in self.links else max(0, int(now - member.seen_at)))

    # ---------------------------------------------------------------------------------------------------- seats

    def seat_everybody(self, now: float) -> None:
        """Compute the seating again if the view changed, or a held seat's time is over."""
        view, timers = self.membership, self.effects.timers
        if not self.seats.enabled or (view.view_hash == self.seated_view and now < timers[effects.SEATING]):
            return
        self.seated_view, timers[effects.SEATING] = view.view_hash, math.inf
        own = self.census.own
        claims = [] if own.seat is None else [Claim(own.peer, own.seat)]
        ballots = [] if own.seat is None else [own.ballot]
        for peer in view.alive:
            record = view.record(peer)
            assert record is not None  # the living are in the table
            if record.seat is not None:
                claims.append(Claim(peer, record.seat))
                ballots.append(record.ballot)
            elif peer in self.kept_seats:
                self._hold(claims, peer, *self.kept_seats[peer], now)
        for member in view.down():
            if member.record.seat is not None:
                until = member.since + self.config.seat_hold_s
                self._hold(claims, member.record.peer, member.record.seat, until, now)
        self.seats.view(claims, ballots, now)

    def _hold(self, claims: list[Claim], peer: PeerId, seat: int, until: float, now: float) -> None:
        if now < until:
            claims.append(Claim(peer, seat))
            timers = self.effects.timers
            timers[effects.SEATING] = min(timers[effects.SEATING], until)
