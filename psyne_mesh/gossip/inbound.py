"""Frames that came over links: read, checked, and handed to the machine that they are for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip import codec
from psyne_mesh.gossip.codec import NO_HASH, PROBE
from psyne_mesh.gossip.core import Core
from psyne_mesh.gossip.costs import COSTS, LINE, SIZES, VERIFY
from psyne_mesh.gossip.exchange import ISOLATED, LARGE, NEWCOMER, UNSUMMARISED, gone_untrusted
from psyne_mesh.gossip.neighbours import Neighbour
from psyne_mesh.gossip.proofs import proof_untrusted
from psyne_mesh.gossip.records import Record, accusation_untrusted, record_untrusted, verify_record_untrusted
from psyne_mesh.gossip.routing import encode_relay, relay_untrusted, signal_untrusted
from psyne_mesh.gossip.walks import Line, join_untrusted, shuffle_untrusted
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import Verdict

Handler: TypeAlias = Callable[[Neighbour, bytes, float], None]

_RELAYED = (codec.TOLD, codec.GOSSIP)  # signed through and through: who carries them does not matter
_FAULTS_MAX = 20  # broken frames of one link, then it is closed


class Inbound:
    """`handle(source, frame, now)` raises `ProtocolError` for what is dropped."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._heard = core.detector.heard  # of each frame: looked up once
        self.verified = 0  # signatures of broadcasts, of those who tend the tree, and of what is carried to us alone
        self._handlers: dict[int, Handler] = {
            codec.PING: self._on_ping,
            codec.ACK: self._on_ack,
            codec.PING_REQ: self._on_ping_req,
            codec.INDIRECT: self._on_indirect,
            codec.HELLO: self._on_hello,
            codec.RUMOURS: self._on_rumours,
            codec.SUMMARY: self._on_summary,
            codec.DIGEST: self._on_digest,
            codec.DELTA: self._on_delta,
            codec.TOLD: self._on_rumours,
            codec.GOSSIP: self._on_gossip,
            codec.IHAVE: self._on_ihave,
            codec.GRAFT: self._on_graft,
            codec.PRUNE: self._on_prune,
            codec.HAVES: self._on_haves,
            codec.KEEP: self._on_keep,
            codec.SIGNAL: self._on_signal,
            codec.RELAY: self._on_relay,
            codec.FORWARD_JOIN: self._on_forward_join,
            codec.SHUFFLE: self._on_shuffle,
            codec.SHUFFLE_REPLY: self._on_shuffle_reply,
            codec.DISCONNECT: self._on_disconnect,
        }
        # What is looked up for each frame, at once: handler, largest size, and the two parts of the cost.
        self._by_head = {
            codec.head(kind): (handler, SIZES[kind], *COSTS[kind]) for kind, handler in self._handlers.items()
        }

    def handle(self, source: Neighbour, frame: bytes, now: float) -> None:
        known, size = self._by_head.get(frame[:2]), len(frame)
        if known is None or size > known[1]:
            raise ProtocolError(f"unknown frame type {codec.frame_type_untrusted(frame)}")
        handler, _, base, per_byte = known
        cost = source.cost
        cost.n_bytes += size
        cost.items += 1
        cost.units += base + per_byte * size
        if cost.units >= cost.limit and not self._affords(source, now):
            return
        self._heard(source, now)
        handler(source, frame, now)

    def _affords(self, source: Neighbour, now: float) -> bool:
        """Whether this neighbour's frame is read. Who is over its budget for long is parted from."""
        verdict = source.cost.settle(now)
        if verdict is Verdict.OK:
            return True
        core = self._core
        core.stats.frames_over_budget += 1
        if verdict is Verdict.PART:
            core.shun(source.peer, now)
            core.part(source.peer, "flooding", now)
        return False

    def fault(self, source: Neighbour, now: float) -> None:
        """A frame of this link was broken. Too many, and we part: bugs and attackers look alike."""
        source.faults += 1
        source.cost.add(VERIFY)
        if source.faults >= _FAULTS_MAX:
            self._core.part(source.peer, "misbehaving", now)

    # ---------------------------------------------------------------------------------------------------- probes

    def _on_ping(self, source: Neighbour, frame: bytes, now: float) -> None:
        _, _, sequence, view_hash, srtt, degree, _, _, _, _, _, sent, got = codec.probe_untrusted(frame)
        core = self._core
        core.detector.ping_received(source, now, srtt / 10_000)
        source.loss.probe_received(sent, got, now)
        self._probe_seen(source, frame, view_hash, degree, now)
        core.send_probe(codec.ACK, sequence, source)

    def _on_ack(self, source: Neighbour, frame: bytes, now: float) -> None:
        _, _, sequence, view_hash, _, degree, x, y, z, height, error, sent, got = codec.probe_untrusted(frame)
        core = self._core
        rtt = core.detector.ack_received(source, sequence, now)
        if rtt is not None:
            core.coordinate.update((x, y, z, height, error), rtt)
            source.tree.srtt = source.probe.srtt
        source.loss.probe_received(sent, got, now)
        self._probe_seen(source, frame, view_hash, degree, now)

    def _probe_seen(self, source: Neighbour, frame: bytes, view_hash: bytes, degree: int, now: float) -> None:
        core = self._core
        source.degree = degree & codec.LINKS_MASK
        if source.large is not (degree >= codec.LARGE_ROOM):
            core.size_told(source, degree >= codec.LARGE_ROOM)
            core.resize(now)
        ours = core.exchange.view_hash
        if view_hash != NO_HASH and ours is not NO_HASH:
            core.exchange.sync.hash_seen(source, view_hash, ours, core.membership.changed_at, now)
        if len(frame) > PROBE.size:
            self._take(codec.items_untrusted(frame, PROBE.size), source, now)

    def _on_ping_req(self, source: Neighbour, frame: bytes, now: float) -> None:
        sequence, target, _ = codec.indirect_untrusted(frame)
        self._core.detector.ping_req_received(source.peer, sequence, target, now)

    def _on_indirect(self, source: Neighbour, frame: bytes, now: float) -> None:
        sequence, target, alive = codec.indirect_untrusted(frame)
        if alive and self._core.vouching.answered(sequence, target):
            self._core.membership.vouched(target, source.peer, now)
            self._core.resize(now)
            if target not in self._core.links:
                self._core.census.link_heard(target)  # whoever calls it silent: a neighbour hears it
        self._core.detector.indirect_received(source.peer, target, alive, now)

    # ---------------------------------------------------------------------------------------------------- records

    def _on_hello(self, source: Neighbour, frame: bytes, now: float) -> None:
        core, peer = self._core, source.peer
        newcomer = not core.introduced
        hello = core.exchange.hello_received(frame, newcomer=newcomer)
        core.size_told(source, bool(hello.flags & LARGE))
        introduced = newcomer and (not hello.flags & NEWCOMER or peer < core.own)
        if introduced and core.fresh.meet(hello.wall_s, now):  # what day it is, if nobody else told us
            core.census.reissue(now)
        self._take(hello.items, source, now, welcome=True)
        core.census.introduced(hello.instance, peer, now)
        core.membership.met(peer, now)
        core.introduced = True
        if peer in core.kept_seats:  # a server told us first of its new life: it may not know which seat it had before
            core.tell(peer, core.kept_seats[peer][0])
        if hello.mask and core.own < peer:
            core.exchange.send_digest(source, hello.mask, now)
        elif not hello.mask:
            core.seats.synced(now)
        if newcomer and hello.flags & UNSUMMARISED:
            core.tree_keeper.met_lobby(now)
        isolated = bool(hello.flags & ISOLATED)
        if not (isolated or source.lonely):
            core.broadcast.link_spare(peer)
        if isolated and not core.policy.knows_all:
            record = core.membership.record(peer)
            if record is not None:
                core.walks.newcomer(record, list(core.links))
        if peer in core.links and not core.overlay.admits(source, now, isolated=isolated):
            core.part(peer, "full", now)

    def _on_rumours(self, source: Neighbour, frame: bytes, now: float) -> None:
        self._take(codec.items_untrusted(frame, 2), source, now)

    def _on_summary(self, source: Neighbour, frame: bytes, now: float) -> None:
        self._core.exchange.summary_received(source, frame, now)

    def _on_digest(self, source: Neighbour, frame: bytes, now: float) -> None:
        core = self._core
        down, is_whole = core.exchange.digest_received(source, frame, now)
        for member in down:
            core.census.tell_down(source.peer, member)
        if is_whole:  # what the neighbour knows we know: there is nothing that it could still tell
            core.seats.synced(now)

    def _on_delta(self, source: Neighbour, frame: bytes, now: float) -> None:
        core = self._core
        items, down = core.exchange.delta_received(source, frame, now)
        core.stats.syncs += 1
        self._take(items, source, now)
        for member in down:
            core.census.tell_down(source.peer, member)
        core.seats.synced(now)

    def _take(self, items: list[tuple[int, bytes]], source: Neighbour, now: float, *, welcome: bool = False) -> None:
        """Learn records and accusations; one bad item does not spoil the rest, but who brings many is parted from: nobody
        passes on what it has not verified. `welcome`: a lobby, which learns few
        records, learns these."""
        core, via = self._core, source.peer
        verified = core.census.verified
        for kind, data in items:
            if core.census.verified - verified >= codec.ITEMS_MAX:  # proofs have two signatures each
                core.stats.items_refused += 1
                continue
            try:
                if kind == codec.ITEM_RECORD:
                    self.learn(record_untrusted(data), now, via, welcome=welcome)
                elif kind == codec.ITEM_ACCUSATION:
                    accusation = accusation_untrusted(data)
                    contested = core.detector.accused(accusation.subject, now)
                    linked = accusation.subject in core.links
                    core.census.hear(accusation, now, via, contested=contested, linked=linked)
                elif kind == codec.ITEM_GONE and core.policy.knows_all:
                    seconds, encoded = gone_untrusted(data)
                    core.census.learn_gone(record_untrusted(encoded), seconds, now, via)
                elif kind == codec.ITEM_PROOF:
                    core.census.convict(proof_untrusted(data), now)
            except ProtocolError:
                core.stats.items_refused += 1
                self.fault(source, now)
        self._charge(source, verified, len(items))

    def _charge(self, source: Neighbour, verified: int, lines: int) -> None:
        """`verified`: signatures that had been checked before."""
        source.cost.add(LINE * lines + VERIFY * (self._core.census.verified - verified))

    def learn(self, record: Record, now: float, via: PeerId | None, *, welcome: bool, age: float = 0.0) -> None:
        core = self._core
        if via is None and not core.shows_hint(record.peer, now):
            return
        if via is None and not core.fresh.is_timely(record.at, now):
            self.knock(record, now)  # a server's list may be old, and its members still be there
            return
        if not core.policy.knows_all and core.membership.get(record.peer) is None:
            if not (welcome or record.peer in core.links):
                return
            if record.peer not in core.links and core.overlay.shuns(record.peer, record.epoch, now):
                return
            stale = core.make_room()
            if stale is not None:
                core.census.forget(stale, "capacity", now)
        core.census.learn(record, now, via, age)
        if via is None and record.peer not in core.links and record.peer != core.own:
            core.hint(record, now)

    def knock(self, record: Record, now: float) -> None:
        """Dial it before it is believed. It shows nobody here until it answers."""
        core = self._core
        if record.peer == core.own or record.peer in core.links:
            return
        try:
            verify_record_untrusted(record, core.room, core.verify)
        except ProtocolError:
            core.stats.items_refused += 1
            return
        core.hint(record, now)
        core.dialer.want(record.peer, now)

    # -------------------------------------------------------------------------------------------------- broadcasts

    def _on_gossip(self, source: Neighbour, frame: bytes, now: float) -> None:
        core = self._core
        head, message = wire.gossip_untrusted(frame, core.config.broadcast_max_bytes)
        if message.origin == core.own or not core.broadcast.wants(message):
            core.broadcast.duplicate_received(source, message, head.flags, now)
            return
        if core.census.is_shut_out(message.origin, now) or core.membership.is_past(message.origin, message.epoch):
            return
        timely = source.peer == message.origin or core.fresh.is_timely(message.at, now)
        if not (timely and core.census.honours(message.instance, message.origin, now)):
            return
        if source.peer != message.origin:  # over its own link it is proved already
            source.cost.add(VERIFY)
            self.verified += 1
            wire.verify_message_untrusted(message, core.room, core.verify)
        core.broadcast.gossip_received(source, message, head, now, flat=core.policy.links_all)

    def _on_ihave(self, source: Neighbour, frame: bytes, now: float) -> None:
        self._core.broadcast.ihave_received(source, wire.ihave_untrusted(frame), now)

    def _on_graft(self, source: Neighbour, frame: bytes, now: float) -> None:
        flags, ids = wire.graft_untrusted(frame)
        self._core.broadcast.graft_received(source, ids, flags, now)

    def _on_prune(self, source: Neighbour, frame: bytes, now: float) -> None:
        self._core.broadcast.prune_received(source.peer)

    def _on_keep(self, source: Neighbour, frame: bytes, now: float) -> None:
        hops, sign = wire.keep_untrusted(frame)
        core = self._core
        if not core.broadcast.signs.wants(sign, now):
            core.broadcast.keep_repeated(source, sign, now)
            return
        if not (core.fresh.is_timely(sign.at, now) and core.census.honours(sign.instance, sign.origin, now)):
            return
        source.cost.add(VERIFY)
        self.verified += 1
        wire.verify_keep_untrusted(sign, core.room, core.verify)
        core.broadcast.keep_received(source, sign, hops, now)

    def _on_haves(self, source: Neighbour, frame: bytes, now: float) -> None:
        core = self._core
        flags, entries = wire.haves_untrusted(frame)
        core.broadcast.haves_received(source, entries, now)
        if flags & wire.ASK:
            core.broadcast.answer_haves(source, entries, now)

    # ------------------------------------------------------------------------------------------- signals and relays

    def _on_signal(self, source: Neighbour, frame: bytes, now: float) -> None:
        core = self._core
        signal = signal_untrusted(frame, core.config.signal_max_bytes, core.config.signal_ttl)
        member = core.membership.get(signal.to)
        self.verified += signal.to == core.own  # by the shell, which opens it
        core.router.received(source, signal, member.via if member is not None else None, list(core.links), now)

    def _on_relay(self, source: Neighbour, frame: bytes, now: float) -> None:
        core = self._core
        to, inner = relay_untrusted(frame)
        kind = codec.frame_type_untrusted(inner)
        if kind not in _RELAYED or len(inner) > SIZES[kind]:
            raise ProtocolError("this frame type, or so much of it, is not relayed")
        if to == core.own:
            self._handlers[kind](source, inner, now)
        elif to in core.links and source.peer != to:
            core.stats.relayed += 1
            core.send(to, encode_relay(to, inner))

    # ----------------------------------------------------------------------------------------------------- overlay

    def _on_forward_join(self, source: Neighbour, frame: bytes, now: float) -> None:
        core = self._core
        ttl, data = join_untrusted(frame)
        record = record_untrusted(data)
        if record.peer == core.own or record.peer in core.links:
            return
        if core.walks.join_received(source.peer, ttl, data, record.peer, list(core.links)):
            verified = core.census.verified
            self.learn(record, now, source.peer, welcome=True)
            self._charge(source, verified, 1)

    def _on_shuffle(self, source: Neighbour, frame: bytes, now: float) -> None:
        core = self._core
        number, ttl, lines = shuffle_untrusted(frame)
        sample = core.membership.random_alive(core.rng, len(lines))
        known = [line for peer in sample if (line := core.line_of(peer, now)) is not None]
        if not source.cost.may_answer(2 * len(frame), now):  # it is passed on, or answered with as many records
            return
        self._learn_lines(
            core.walks.shuffle_received(source.peer, number, ttl, lines, known, list(core.links)), source, now
        )

    def _on_shuffle_reply(self, source: Neighbour, frame: bytes, now: float) -> None:
        number, _, lines = shuffle_untrusted(frame)
        self._learn_lines(self._core.walks.reply_received(number, lines, list(self._core.links)), source, now)

    def _learn_lines(self, lines: list[Line], source: Neighbour, now: float) -> None:
        verified = self._core.census.verified
        for line in lines:
            try:
                record = record_untrusted(line.record)
                if line.age < self._core.membership.lifetime_s(record):
                    self.learn(record, now, source.peer, welcome=True, age=line.age)
            except ProtocolError:
                self._core.stats.items_refused += 1
        self._charge(source, verified, len(lines))

    def _on_disconnect(self, source: Neighbour, frame: bytes, now: float) -> None:
        """It lives and has no use for this link. It closes it; what comes next from it is no sign of leaving."""
        core, peer = self._core, source.peer
        items = codec.items_untrusted(frame, 2)
        core.overlay.parted(peer, now)
        core.link_closed(peer, now)
        self._take(items, source, now, welcome=True)
        core.want_later(peer, now)
