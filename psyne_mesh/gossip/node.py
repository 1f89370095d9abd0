"""The one door of the gossip layer: a `Node` is one player in one room, pure, driven from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs

from psyne_mesh.errors import InvalidConfig, MessageTooLarge, ProtocolError
from psyne_mesh.gossip import broadcast as bcast
from psyne_mesh.gossip import codec, sync
from psyne_mesh.gossip.broadcast import BROADCAST_DOMAIN, Broadcast
from psyne_mesh.gossip.codec import PROBE, item
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.detector import Detector, FrameDue, Link, LinkBroken, LinkHeard, LinkSilent, ProbeDue
from psyne_mesh.gossip.dialer import Dialer
from psyne_mesh.gossip.events import (
    BroadcastReceived,
    CloseLink,
    Dial,
    Event,
    Evicted,
    LeaveReason,
    Output,
    PeerDiscovered,
    PeerLeft,
    PeerResumed,
    PeerSuspected,
    SendFrame,
    SignalReceived,
)
from psyne_mesh.gossip.membership import Change, Member, Membership, Status
from psyne_mesh.gossip.records import (
    ALIVE,
    DOWN,
    LEAVE_REASONS,
    LEAVING,
    SUSPECT,
    Accusation,
    OwnState,
    Record,
    RoomKey,
    Signer,
    Verify,
    accusation_untrusted,
    accuse,
    record_untrusted,
    verify_accusation_untrusted,
    verify_record_untrusted,
)
from psyne_mesh.gossip.rumours import Rumours
from psyne_mesh.gossip.suspicion import CaseClosed, CaseOpened, Suspicions, VerdictReached
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random

CLOSED_BY_PEER = ("closed by peer", "dtls close")  # reasons of `link_down` that mean: it went on purpose
_FRAME_BYTES = 16_384  # what one reliable frame of ours holds at most, if items can be spread over several
_JOINING_S = 10.0  # so long after `start` an older life of our own key makes us raise our epoch instead of giving way
_RENEWALS_MAX = 3  # and at most so often: two live processes with one key must not chase each other
_REFUTE_GAP_S = 0.2  # an accuser can make us sign and spread at most so often


@attrs.define
class Stats:
    """Counters since the start; read them, never write."""

    frames_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    frames_dropped: int = 0  # of unknown links, or broken
    records_refused: int = 0  # bad signature, other room, table full
    accusations_refused: int = 0  # above the highest signed incarnation, by strangers, or with a bad signature
    suspicions_raised: int = 0  # by our own detector
    verdicts: int = 0  # members that we took to be down
    refutations: int = 0  # accusations against ourselves that we answered
    broadcasts_sent: int = 0
    broadcasts_delivered: int = 0
    broadcast_duplicates: int = 0
    broadcasts_skipped: int = 0  # gaps that nobody could fill
    syncs: int = 0
    relayed: int = 0


@attrs.frozen
class LinkView:
    """One link, for people and pictures. `srtt` is in seconds, None while unknown."""

    peer: PeerId
    srtt: float | None
    eager: bool
    outbound: bool
    impaired: bool


@attrs.frozen
class Topology:
    """What this node sees of the mesh. `mode`: "full", "partial" or "lobby". `local_health`: 0 is good, 7 is deaf."""

    own: PeerId
    mode: str
    links: tuple[LinkView, ...]
    passive: tuple[PeerId, ...]
    members: int
    suspected: tuple[PeerId, ...]
    local_health: int
    coordinates: tuple[float, float, float, float] | None


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

    `epoch` must grow with every process start of the same key (unix milliseconds, or the stored one plus 1).
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
    ) -> None:
        self._config = config
        self._identity = identity
        self._room = RoomKey.of(room)
        self._rng = rng
        self._verify = verify
        self._state = OwnState(
            epoch=epoch, joined_at=epoch, lifetime=config.record_lifetime_s, name=name, metadata=metadata
        )
        self._wants_seat = wants_seat
        self.peer_id = identity.peer_id
        self.stats = Stats()
        self._membership = Membership(config.full_knowledge_max)
        self._detector = Detector(config, rng)
        self._suspicions = Suspicions(config)
        self._rumours = Rumours()
        self._sync = sync.Sync(config, rng)
        self._dialer = Dialer(config, rng)
        self._broadcast = Broadcast(config)
        self._sequence = 0
        self._links: dict[PeerId, Link] = {}
        self._expelled: dict[PeerId, None] = {}
        self._outputs: list[Output] = []
        self._events: list[Event] = []
        self._running = False
        self._started_at: float | None = None
        self._renewals = 0
        self._renew_at = math.inf
        self._refuted_at = -math.inf
        self._membership.set_own(self._state.sign(self._room, identity), -math.inf)
        self._handlers: dict[int, Callable[[Link, bytes, float], None]] = {
            codec.PING: self._on_ping,
            codec.ACK: self._on_ack,
            codec.PING_REQ: self._on_ping_req,
            codec.INDIRECT: self._on_indirect,
            codec.HELLO: self._on_hello,
            codec.RUMOURS: self._on_rumours,
            codec.SUMMARY: self._on_summary,
            codec.DIGEST: self._on_digest,
            codec.DELTA: self._on_delta,
            codec.GOSSIP: self._on_gossip,
            codec.SIGNAL: self._on_signal,
            codec.RELAY: self._on_relay,
        }

    # ----------------------------------------------------------------------------------------------------- inputs

    def start(self, now: float) -> None:
        """Begin. A node is started once."""
        if self._started_at is not None:
            raise InvalidConfig("a node is started once")
        self._running = True
        self._started_at = now
        self._sign_own(now)

    def learn(self, records: Iterable[bytes | Record], now: float) -> None:
        """Records of members, from wherever: they are verified, and those that are new are dialled."""
        if not self._running:
            return
        for given in records:
            self._guarded(lambda given=given: self._learn_record(self._read(given), now, None))  # type: ignore[misc]
        self._settle(now)

    def link_up(self, peer: PeerId, now: float, rtt: float | None = None) -> None:
        """A link to `peer` works, dialled by either side. `rtt` in seconds if the handshake measured it."""
        if not self._running or peer == self.peer_id:
            return
        if peer in self._expelled:
            self._outputs.append(CloseLink(peer, "expelled"))
            return
        outbound = peer in self._dialer.in_flight
        self._dialer.linked(peer)
        self._detector.link_up(peer, now, rtt)
        self._links[peer] = self._detector.links[peer]
        self._sync.link_up(peer, now)
        own = self._own()
        flags = bytes((1 if outbound else 0,))
        hello = codec.head(codec.HELLO) + flags + sync.summary(self._membership.buckets)[2:]
        self._send(peer, hello + item(codec.ITEM_RECORD, own.encoded), reliable=True)
        member = self._membership.get(peer)
        if member is not None and member.status is not Status.ALIVE:
            self._tell_down(peer, member)
        self._settle(now)

    def link_down(self, peer: PeerId, reason: str, now: float) -> None:
        """The link to `peer` is gone. A reason of `CLOSED_BY_PEER` means it left; any other is silence so far."""
        if self._links.pop(peer, None) is None:
            return
        self._sync.link_down(peer)
        if not self._membership.is_alive(peer):
            self._detector.link_down(peer)
        elif reason in CLOSED_BY_PEER:
            self._detector.link_down(peer)
            self._declare_down(peer, "left", now)
        else:
            self._detector.link_lost(peer, now)
            self._dialer.want(peer, now)
        self._settle(now)

    def dial_failed(self, peer: PeerId, cause: str, now: float) -> None:
        """The `Dial` to `peer` came to nothing. `cause` is for logs."""
        self._dialer.failed(peer, now)
        self._settle(now)

    def receive(self, peer: PeerId, frame: bytes, now: float) -> None:
        """One frame that came over the link of `peer`, by either channel."""
        link = self._links.get(peer)
        self.stats.frames_in += 1
        if link is None or not self._running:
            self.stats.frames_dropped += 1
            return
        try:
            kind = codec.frame_type_untrusted(frame)
            self._detector.heard(link, now)
            handler = self._handlers.get(kind)
            if handler is None:
                raise ProtocolError(f"unknown frame type {kind}")
            handler(link, frame, now)
        except ProtocolError:
            self.stats.frames_dropped += 1
        self._settle(now)

    def broadcast(self, payload: bytes, now: float) -> int:
        """Send `payload` to every member, in order. Returns its sequence number, counted from 1."""
        if len(payload) > self._config.broadcast_max_bytes:
            raise MessageTooLarge(len(payload), self._config.broadcast_max_bytes)
        self._sequence += 1
        signed = bcast.signed_part(self.peer_id, self._state.joined_at, self._sequence, payload)
        frame = bcast.gossip(0, signed + self._identity.sign(BROADCAST_DOMAIN, self._room.raw + signed))
        self.stats.broadcasts_sent += 1
        self._send_all(frame)
        return self._sequence

    def send_signal(self, to: PeerId, blob: bytes, now: float) -> None:
        """Carry an opaque, signed blob to `to` over the mesh; may be lost, so the caller repeats what matters."""
        if len(blob) > self._config.signal_max_bytes:
            raise MessageTooLarge(len(blob), self._config.signal_max_bytes)
        frame = codec.head(codec.SIGNAL) + codec.raw_of(self.peer_id) + blob
        self._send_anyhow(to, frame)

    def leave(self, now: float, reason: LeaveReason = "left") -> None:
        """Say goodbye to everybody. The node is deaf afterwards; drain its outputs once more."""
        if not self._running:
            return
        code = LEAVE_REASONS.index(reason) if reason in LEAVE_REASONS else 0
        self._state = attrs.evolve(
            self._state, incarnation=self._state.incarnation + 1, state=LEAVING, reason=code, seat=None
        )
        self._sign_own(now)
        self._send_all(self._rumour_frame(item(codec.ITEM_RECORD, self._own().encoded)))
        self._stop()

    def update(self, now: float, *, name: str | None = None, metadata: bytes | None = None) -> None:
        """Change what our record says, and tell everybody."""
        state = self._state
        self._state = attrs.evolve(
            state,
            name=state.name if name is None else name,
            metadata=state.metadata if metadata is None else metadata,
        )
        self._reissue(now)
        self._settle(now)

    def expel(self, peer: PeerId, now: float) -> None:
        """Shut `peer` out here, for good: its link is closed and its records are refused."""
        self._expelled[peer] = None
        if self._membership.is_alive(peer):
            self._drop_member(peer, "kicked", now)
        self._settle(now)

    def note_loop_lag(self, seconds: float, now: float) -> None:
        """The event loop was late by so much: silence in that time is our own fault."""
        self._detector.note_loop_lag(seconds, now)

    def note_rtt(self, peer: PeerId, rtt: float, now: float) -> None:
        """A round trip in seconds that the shell measured, for instance by SCTP."""
        self._detector.note_rtt(peer, rtt)

    def beacon(self, now: float) -> bytes | None:
        """What to post to signaling now, or None if that is not our task. Ask every `beacon_interval_s`."""
        return None

    def on_beacon(self, beacon: bytes, now: float) -> None:
        """A beacon that signaling holds for this room, by anybody."""

    # -------------------------------------------------------------------------------------------- time and outputs

    def next_timeout(self) -> float | None:
        """When `handle_timeout` is due, or None."""
        if not self._running:
            return None
        deadline = min(
            self._detector.deadline,
            self._suspicions.deadline,
            self._sync.deadline,
            self._dialer.deadline,
            self._broadcast.deadline,
            self._renew_at,
        )
        return None if deadline == math.inf else deadline

    def handle_timeout(self, now: float) -> None:
        if not self._running:
            return
        if now >= self._detector.deadline:
            self._detector.handle_timeout(now)
        if now >= self._suspicions.deadline:
            self._suspicions.handle_timeout(now)
        if now >= self._sync.deadline:
            self._sync.handle_timeout(now)
            for peer in self._membership.expired(now):
                self._declare_down(peer, "timeout", now)
        if now >= self._dialer.deadline:
            self._dialer.handle_timeout(now)
        if now >= self._broadcast.deadline:
            self._broadcast.handle_timeout(now)
        if now >= self._renew_at:
            self._reissue(now)
        self._settle(now)

    def take_outputs(self) -> list[Output]:
        """The orders since the last call, in order."""
        taken, self._outputs = self._outputs, []
        return taken

    def take_events(self) -> list[Event]:
        """The facts since the last call, in order."""
        taken, self._events = self._events, []
        return taken

    # ------------------------------------------------------------------------------------------------------- views

    @property
    def members(self) -> tuple[PeerId, ...]:
        """Everybody in the room as we see it, ourselves included, sorted. Suspected members are members."""
        if not self._running:
            return ()
        return tuple(sorted([*self._membership.alive, self.peer_id]))

    @property
    def own_record(self) -> Record:
        """Our newest record: what signaling should show to newcomers."""
        return self._own()

    def record(self, peer: PeerId) -> Record | None:
        """The newest record of a member or of ourselves; None for anybody else, those who left included."""
        if peer == self.peer_id:
            return self._own()
        return self._membership.record(peer) if self._membership.is_alive(peer) else None

    def is_suspected(self, peer: PeerId) -> bool:
        return self._suspicions.is_suspected(peer)

    def topology(self, now: float) -> Topology:
        links = tuple(
            LinkView(peer, link.srtt or None, True, False, self._detector.is_impaired(peer))
            for peer, link in self._links.items()
        )
        return Topology(
            own=self.peer_id,
            mode="full",
            links=links,
            passive=(),
            members=len(self._membership) + 1,
            suspected=tuple(self._suspicions.suspected),
            local_health=self._detector.local_health,
            coordinates=None,
        )

    # ------------------------------------------------------------------------------------------------------ probes

    def _on_ping(self, link: Link, frame: bytes, now: float) -> None:
        _, _, sequence, view_hash, srtt, *_ = codec.probe_untrusted(frame)
        self._detector.ping_received(link, now, srtt / 10_000)
        self._probe_seen(link, frame, view_hash, now)
        self._send(link.peer, self._probe_frame(codec.ACK, sequence, link), reliable=False)

    def _on_ack(self, link: Link, frame: bytes, now: float) -> None:
        _, _, sequence, view_hash, *_ = codec.probe_untrusted(frame)
        self._detector.ack_received(link, sequence, now)
        self._probe_seen(link, frame, view_hash, now)

    def _probe_seen(self, link: Link, frame: bytes, view_hash: int, now: float) -> None:
        membership = self._membership
        self._sync.hash_seen(
            link.peer, same=view_hash == membership.view_hash, settled=now - membership.changed_at > 0.5, now=now
        )
        if len(frame) > PROBE.size:
            self._take_items(codec.items_untrusted(frame, PROBE.size), link.peer, now)

    def _probe_frame(self, kind: int, sequence: int, link: Link) -> bytes:
        srtt = min(65_535, int(link.srtt * 10_000))
        head = PROBE.pack(codec.VERSION, kind, sequence, self._membership.view_hash, srtt, 0, 0, 0, 0, 0)
        return head + self._rumours.take(codec.UNRELIABLE_FRAME_MAX - PROBE.size) if self._rumours else head

    def _on_ping_req(self, link: Link, frame: bytes, now: float) -> None:
        sequence, target, _ = codec.indirect_untrusted(frame)
        self._detector.ping_req_received(link.peer, sequence, target, now)

    def _on_indirect(self, link: Link, frame: bytes, now: float) -> None:
        _, target, alive = codec.indirect_untrusted(frame)
        self._detector.indirect_received(target, alive, now)

    # ----------------------------------------------------------------------------------------------- records, sync

    def _on_hello(self, link: Link, frame: bytes, now: float) -> None:
        offset = 3 + 8 * sync.BUCKETS
        mask = sync.differing_untrusted(frame, 3, self._membership.buckets)
        self._take_items(codec.items_untrusted(frame, offset), link.peer, now)
        if mask and self.peer_id < link.peer:
            self._send_digest(link.peer, mask, now)

    def _on_rumours(self, link: Link, frame: bytes, now: float) -> None:
        self._take_items(codec.items_untrusted(frame, 2), link.peer, now)

    def _on_summary(self, link: Link, frame: bytes, now: float) -> None:
        mask = sync.differing_untrusted(frame, 2, self._membership.buckets)
        if mask:
            self._send_digest(link.peer, mask, now)

    def _send_digest(self, peer: PeerId, mask: int, now: float) -> None:
        if not self._sync.may_send_digest(peer, now):
            return
        lines = [(m.record.peer, *self._version_of(m)) for m in self._membership.entries(mask)]
        self._send(peer, sync.digest(mask, lines), reliable=True)

    def _on_digest(self, link: Link, frame: bytes, now: float) -> None:
        mask, entries = sync.digest_untrusted(frame)
        found = sync.compare(entries, self)
        listed = {entry.peer for entry in entries}
        missing = [m.record for m in self._membership.entries(mask) if m.status is Status.ALIVE]
        items = [item(codec.ITEM_RECORD, r.encoded) for r in missing if r.peer not in listed and r.peer != link.peer]
        for peer in found.ours_newer:
            record = self._own() if peer == self.peer_id else self._membership.record(peer)
            if record is not None:
                items.append(item(codec.ITEM_RECORD, record.encoded))
        for peer in found.we_call_down:
            member = self._membership.get(peer)
            if member is not None:
                items.append(item(codec.ITEM_ACCUSATION, self._accuse(member, DOWN).encoded))
        wants = found.theirs_newer + found.they_call_down
        for reply in sync.delta(wants, items, _FRAME_BYTES):
            self._send(link.peer, reply, reliable=True)

    def _on_delta(self, link: Link, frame: bytes, now: float) -> None:
        wants, offset = sync.delta_untrusted(frame)
        self.stats.syncs += 1
        self._take_items(codec.items_untrusted(frame, offset), link.peer, now)
        items = []
        for peer in wants:
            member = self._membership.get(peer)
            if peer == self.peer_id:
                items.append(item(codec.ITEM_RECORD, self._own().encoded))
            elif member is not None and member.status is Status.DOWN:
                items.append(item(codec.ITEM_ACCUSATION, self._accuse(member, DOWN).encoded))
            elif member is not None:
                items.append(item(codec.ITEM_RECORD, member.record.encoded))
        for reply in sync.delta([], items, _FRAME_BYTES):
            self._send(link.peer, reply, reliable=True)

    def version(self, peer: PeerId) -> tuple[int, int, int] | None:
        """(epoch, incarnation, digest status) of what we know of `peer`; None if it is unknown."""
        if peer == self.peer_id:
            return self._state.epoch, self._state.incarnation, sync.ENTRY_ALIVE
        member = self._membership.get(peer)
        return self._version_of(member) if member is not None else None

    @staticmethod
    def _version_of(member: Member) -> tuple[int, int, int]:
        return member.record.epoch, member.record.incarnation, int(member.status)

    def _take_items(self, items: list[tuple[int, bytes]], via: PeerId, now: float) -> None:
        for kind, data in items:
            if kind == codec.ITEM_RECORD:
                self._guarded(lambda data=data: self._learn_record(record_untrusted(data), now, via))  # type: ignore[misc]
            elif kind == codec.ITEM_ACCUSATION:
                self._guarded(lambda data=data: self._hear_accusation(accusation_untrusted(data), now, via))  # type: ignore[misc]

    def _guarded(self, act: Callable[[], None]) -> None:
        """One bad item does not spoil the frame it came in."""
        try:
            act()
        except ProtocolError:
            self.stats.records_refused += 1

    @staticmethod
    def _read(given: bytes | Record) -> Record:
        return given if isinstance(given, Record) else record_untrusted(given)

    def _learn_record(self, record: Record, now: float, via: PeerId | None) -> None:
        peer = record.peer
        if peer == self.peer_id:
            self._own_record_seen(record, now)
            return
        if peer in self._expelled:
            return
        change = self._membership.compare(record)
        if change is not Change.NOTED:
            self._answer_old_record(record, change, via)
            return
        verify_record_untrusted(record, self._room, self._verify)
        change = self._membership.apply(record, now, via)
        if change is Change.REFUSED:
            self.stats.records_refused += 1
            return
        self._suspicions.clear_older(peer, record.order[:2])
        if change is Change.JOINED:
            self._events.append(PeerDiscovered(record))
            self._member_joined(record, now)
        elif change is Change.RESTARTED:
            self._events += (PeerLeft(peer, "superseded"), PeerDiscovered(record))
            self._broadcast.forget(peer)
            if peer in self._links and via != peer:
                self._close(peer, "superseded", now)
            self._member_joined(record, now)
        elif change is Change.LEFT:
            self._member_gone(peer, record.leave_reason, now)  # type: ignore[arg-type]
        elif change is Change.NOTED:
            member = self._membership.get(peer)
            if member is not None and member.status is Status.DOWN and via is not None:
                self._tell_down(via, member)
            return
        self._spread(codec.ITEM_RECORD, (peer, ""), record.encoded, via)

    def _answer_old_record(self, record: Record, change: Change, via: PeerId | None) -> None:
        """Somebody believes a member alive that we know better (memberlist#345: tell them at once)."""
        member = self._membership.get(record.peer)
        if member is None or via is None or record.state != ALIVE:
            return
        if member.status is Status.DOWN:
            self._tell_down(via, member)
        elif change is Change.STALE and via == record.peer and member.status is Status.LEFT:
            self._send(via, self._rumour_frame(item(codec.ITEM_RECORD, member.record.encoded)), reliable=True)

    def _tell_down(self, to: PeerId, member: Member) -> None:
        if to in self._links:
            frame = self._rumour_frame(item(codec.ITEM_ACCUSATION, self._accuse(member, DOWN).encoded))
            self._send(to, frame, reliable=True)

    def _own_record_seen(self, record: Record, now: float) -> None:
        """Our own key: an older life of ours, a copy of our newest record, or a second process that uses our key."""
        own = self._own()
        if record.order <= own.order or record.encoded == own.encoded:
            return
        verify_record_untrusted(record, self._room, self._verify)
        joining = now - (self._started_at or 0.0) < _JOINING_S and self._renewals < _RENEWALS_MAX
        if record.epoch > own.epoch and not joining:
            self._events.append(Evicted("superseded"))
            self._stop()
            return
        self._renewals += 1
        self._state = attrs.evolve(self._state, epoch=record.epoch, incarnation=record.incarnation)
        if record.state != ALIVE or record.epoch > own.epoch:
            self._state = attrs.evolve(self._state, epoch=record.epoch + 1, incarnation=-1)
        self._reissue(now)

    # ------------------------------------------------------------------------------------------------- accusations

    def _accuse(self, member: Member, verdict: int) -> Accusation:
        record = member.record
        return accuse(self._room, self._identity, record.peer, record.epoch, record.incarnation, verdict)

    def _hear_accusation(self, accusation: Accusation, now: float, via: PeerId | None) -> None:
        subject = accusation.subject
        if accusation.accuser == self.peer_id:
            return
        if subject == self.peer_id:
            self._refute(accusation, now)
            return
        member = self._membership.get(subject)
        accuser = self._membership.get(accusation.accuser)
        if member is None or member.status is not Status.ALIVE:
            return
        version, ours = (accusation.epoch, accusation.incarnation), member.record.order[:2]
        if version < ours:
            if via is not None:  # already refuted: pass the refutation on
                self._send(via, self._rumour_frame(item(codec.ITEM_RECORD, member.record.encoded)), reliable=True)
            return
        if version > ours or accuser is None or accuser.status is not Status.ALIVE:
            self.stats.accusations_refused += 1  # memberlist#358: nobody but the subject raises an incarnation
            return
        verify_accusation_untrusted(accusation, self._room, accuser.record.public_key, self._verify)
        link = self._links.get(subject)
        contested = link is not None and not link.silent and now - link.heard_at < self._config.suspect_after_s / 2
        news = self._suspicions.accuse(
            subject,
            version,
            accusation.accuser,
            accusation.verdict,
            now,
            own=False,
            contested=contested,
            witnesses=len(self._membership) - 1,
        )
        if news:
            if link is not None:
                frame = self._rumour_frame(item(codec.ITEM_ACCUSATION, accusation.encoded))
                self._send(subject, frame, reliable=True)
            self._spread(codec.ITEM_ACCUSATION, (subject, accusation.accuser), accusation.encoded, via)

    def _refute(self, accusation: Accusation, now: float) -> None:
        """Only we can raise our numbers: incarnation against a suspicion, epoch against a verdict."""
        version, ours = (accusation.epoch, accusation.incarnation), (self._state.epoch, self._state.incarnation)
        accuser = self._membership.get(accusation.accuser)
        if version != ours or accuser is None or now - self._refuted_at < _REFUTE_GAP_S:
            return
        verify_accusation_untrusted(accusation, self._room, accuser.record.public_key, self._verify)
        self._refuted_at = now
        self.stats.refutations += 1
        if accusation.verdict == DOWN:
            self._state = attrs.evolve(self._state, epoch=self._state.epoch + 1, incarnation=-1)
        self._reissue(now)

    def _link_silent(self, peer: PeerId, now: float) -> None:
        member = self._membership.get(peer)
        if member is None or member.status is not Status.ALIVE:
            return
        self.stats.suspicions_raised += 1
        accusation = self._accuse(member, SUSPECT)
        self._send_all(self._rumour_frame(item(codec.ITEM_ACCUSATION, accusation.encoded)))
        self._suspicions.accuse(
            peer,
            member.record.order[:2],
            self.peer_id,
            SUSPECT,
            now,
            own=True,
            contested=False,
            witnesses=len(self._membership) - 1,
        )

    def _declare_down(self, peer: PeerId, reason: LeaveReason, now: float) -> None:
        member = self._membership.get(peer)
        if member is None or member.status is not Status.ALIVE:
            return
        self.stats.verdicts += 1
        self._membership.mark_down(peer, now)
        frame = self._rumour_frame(item(codec.ITEM_ACCUSATION, self._accuse(member, DOWN).encoded))
        self._member_gone(peer, reason, now)
        self._send_all(frame)

    # ----------------------------------------------------------------------------------------- broadcast, signals

    def _on_gossip(self, link: Link, frame: bytes, now: float) -> None:
        _, message = bcast.gossip_untrusted(frame, self._config.broadcast_max_bytes)
        member = self._membership.get(message.origin)
        if member is None or message.origin == self.peer_id or message.epoch != member.record.joined_at:
            return
        if not self._broadcast.is_new(message.origin, message.epoch, message.sequence):
            self.stats.broadcast_duplicates += 1
            return
        if link.peer != message.origin:
            signer = self._verify(
                member.record.public_key, BROADCAST_DOMAIN, self._room.raw + message.signed, message.signature
            )
            if signer != message.origin:
                raise ProtocolError("broadcast signed by another key")
        self._broadcast.accept(message, now)

    def _on_signal(self, link: Link, frame: bytes, now: float) -> None:
        reader = codec.Reader(frame)
        origin = reader.peer_untrusted()
        self._events.append(SignalReceived(origin, reader.rest()))

    def _on_relay(self, link: Link, frame: bytes, now: float) -> None:
        reader = codec.Reader(frame)
        to, inner = reader.peer_untrusted(), reader.rest()
        kind = codec.frame_type_untrusted(inner)
        if kind not in (codec.RUMOURS, codec.GOSSIP, codec.SIGNAL):
            raise ProtocolError("this frame type is not relayed")
        if to == self.peer_id:
            self._handlers[kind](link, inner, now)
        elif to in self._links:
            self.stats.relayed += 1
            self._send(to, frame, reliable=True)

    # ------------------------------------------------------------------------------------------------------ sending

    def _send(self, peer: PeerId, frame: bytes, *, reliable: bool) -> None:
        self.stats.frames_out += 1
        self.stats.bytes_out += len(frame)
        self._outputs.append(SendFrame(peer, frame, reliable))

    def _send_anyhow(self, peer: PeerId, frame: bytes) -> None:
        """Over the link, or through two neighbours if there is no working one."""
        if peer in self._links and not self._detector.is_impaired(peer):
            self._send(peer, frame, reliable=True)
            return
        helpers = [p for p in self._links if p != peer and not self._detector.is_impaired(p)]
        relayed = codec.head(codec.RELAY) + codec.raw_of(peer) + frame
        for helper in self._rng.sample(helpers, min(2, len(helpers))):
            self._send(helper, relayed, reliable=True)

    def _send_all(self, frame: bytes) -> None:
        for peer in [*self._links, *(p for p in self._membership.alive if p not in self._links)]:
            self._send_anyhow(peer, frame)

    @staticmethod
    def _rumour_frame(*items: bytes) -> bytes:
        return codec.head(codec.RUMOURS) + b"".join(items)

    def _spread(self, kind: int, key: tuple[str, str], data: bytes, via: PeerId | None) -> None:
        """Let an item ride on the next probes. What its author brought itself, everybody got from the author."""
        if via is None or via not in key:
            times = self._config.rumour_factor * max(1, len(self._membership)).bit_length()
            self._rumours.add((kind, *key), item(kind, data), times)

    # -------------------------------------------------------------------------------------------- members and links

    def _member_joined(self, record: Record, now: float) -> None:
        peer = record.peer
        if peer in self._links:
            return
        own = self._own()
        newer = (own.joined_at, own.peer) > (record.joined_at, peer)
        self._dialer.want(peer, now if newer else now + self._config.dial_patience_s)

    def _member_gone(self, peer: PeerId, reason: LeaveReason, now: float) -> None:
        self._events.append(PeerLeft(peer, reason))
        self._suspicions.drop(peer)
        self._dialer.drop(peer)
        self._broadcast.forget(peer)
        self._detector.link_down(peer)
        if peer in self._links:
            self._close(peer, reason, now)

    def _drop_member(self, peer: PeerId, reason: LeaveReason, now: float) -> None:
        self._membership.mark_down(peer, now)
        self._member_gone(peer, reason, now)

    def _close(self, peer: PeerId, reason: str, now: float) -> None:
        if self._links.pop(peer, None) is not None:
            self._detector.link_down(peer)
            self._sync.link_down(peer)
            self._outputs.append(CloseLink(peer, reason))

    # --------------------------------------------------------------------------------------------------- own record

    def _own(self) -> Record:
        own = self._membership.own
        assert own is not None  # signed in the constructor
        return own

    def _sign_own(self, now: float) -> None:
        self._membership.set_own(self._state.sign(self._room, self._identity), now)
        self._renew_at = now + self._config.record_lifetime_s * (0.35 + 0.15 * self._rng.random())

    def _reissue(self, now: float) -> None:
        """Sign a newer record of ourselves and tell everybody."""
        if self._running:
            self._state = attrs.evolve(self._state, incarnation=self._state.incarnation + 1)
            self._sign_own(now)
            self._send_all(self._rumour_frame(item(codec.ITEM_RECORD, self._own().encoded)))

    def _stop(self) -> None:
        self._running = False
        self._links.clear()

    # ------------------------------------------------------------------------------------------------------ draining

    def _settle(self, now: float) -> None:
        """Drain the machines until none has anything to say. Each pass moves facts from one to the others."""
        if not self._running:
            return
        detector, suspicions = self._detector, self._suspicions
        while detector.outbox or suspicions.outbox:
            drained, detector.outbox = detector.outbox, []
            for fact in drained:
                self._detector_said(fact, now)
            cases, suspicions.outbox = suspicions.outbox, []
            for case in cases:
                self._suspicions_said(case, now)
        if self._sync.partners:
            for peer in self._sync.partners:
                self._send(peer, sync.summary(self._membership.buckets), reliable=True)
            self._sync.partners.clear()
        if self._dialer.deadline <= now:
            self._dialer.handle_timeout(now)
        if self._dialer.dials:
            for peer in self._dialer.dials:
                record = self._membership.record(peer)
                if record is not None:
                    self._outputs.append(Dial(peer, record))
            self._dialer.dials.clear()
        if self._broadcast.delivered:
            for origin, payload, sequence in self._broadcast.delivered:
                self.stats.broadcasts_delivered += 1
                self._events.append(BroadcastReceived(origin, payload, sequence))
            self._broadcast.delivered.clear()

    def _detector_said(self, fact: ProbeDue | FrameDue | LinkSilent | LinkHeard | LinkBroken, now: float) -> None:
        if isinstance(fact, ProbeDue):
            link = self._links.get(fact.peer)
            if link is not None:
                self._send(fact.peer, self._probe_frame(codec.PING, fact.sequence, link), reliable=False)
        elif isinstance(fact, FrameDue):
            if fact.peer in self._links:
                self._send(fact.peer, fact.frame, reliable=False)
        elif isinstance(fact, LinkSilent):
            self._link_silent(fact.peer, now)
        elif isinstance(fact, LinkHeard):
            self._suspicions.clear(fact.peer)
        elif fact.peer in self._links:
            self._close(fact.peer, "impaired", now)
            self._dialer.want(fact.peer, now + self._config.dial_backoff_min_s)

    def _suspicions_said(self, case: CaseOpened | CaseClosed | VerdictReached, now: float) -> None:
        if isinstance(case, VerdictReached):
            member = self._membership.get(case.subject)
            if member is not None and member.record.order[:2] == (case.epoch, case.incarnation):
                self._declare_down(case.subject, "timeout", now)
        elif isinstance(case, CaseOpened):
            self._events.append(PeerSuspected(case.subject))
        elif self._membership.is_alive(case.subject):
            self._events.append(PeerResumed(case.subject))
