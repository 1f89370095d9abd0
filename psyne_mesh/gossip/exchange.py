"""How records and accusations travel: told, spread along the tree, piggybacked on probes, or compared and filled in.

Parent of `Rumours` and `Sync`; reads the view (`Membership`), never changes it.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, TypeAlias

from psyne_mesh.errors import ProtocolError
from psyne_mesh.frozen import Frozen
from psyne_mesh.gossip import codec, effects, sync
from psyne_mesh.gossip.codec import NO_HASH, Reader, item, varint
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.costs import LINE
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.events import SendFrame
from psyne_mesh.gossip.membership import Member, Membership, Status
from psyne_mesh.gossip.neighbours import Neighbour, Neighbours
from psyne_mesh.gossip.policy import FULL
from psyne_mesh.gossip.proofs import Proof
from psyne_mesh.gossip.records import Accusation, Record
from psyne_mesh.gossip.rumours import Rumours
from psyne_mesh.gossip.sync import Sync
from psyne_mesh.gossip.view_hash import BUCKETS
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable

News: TypeAlias = Record | Accusation | Proof

WALL_BYTES = 5  # the time of day in a HELLO, Unix seconds
FRAME_BYTES = 16_384  # what one of our frames holds at most, if its items can be spread over several
_HELLO = struct.Struct(">BQ")  # flags, instance of the room; then the time of day and the summary
_HELLO_WALL = 2 + _HELLO.size
_HELLO_SUMMARY = _HELLO_WALL + WALL_BYTES
HELLO_BYTES = _HELLO_SUMMARY + sync.SUMMARY_BYTES
ALL_BUCKETS = (1 << BUCKETS) - 1
_GONE_MAX = 64  # members lost to silence that a newcomer hears of: it may knock, and their seats wait for them
_GONE_S = 600.0  # no longer ago than that
_ALARM_SPARES = 2  # lazy links that an accusation takes beside the tree: a random graph of two draws each is one piece
_ANSWER_SPARES = 1  # and its refutation, which is twice as long, beside so many
_NEWS_MAX = 1024  # waiting for one flush; more go out at once

# Flags of a HELLO.
OUTBOUND = 1  # the sender dialled
ISOLATED = 2  # the sender has no other link
UNSUMMARISED = 4  # the sender knows a part of the room only: the hashes mean nothing
NEWCOMER = 8  # the sender has met nobody yet: it wants to hear of those who are gone, too
LARGE = 16  # the sender takes the room for one in which nobody is linked to all


_ITEMS = {Record: codec.ITEM_RECORD, Accusation: codec.ITEM_ACCUSATION, Proof: codec.ITEM_PROOF}


class Hello(Frozen):
    flags: int
    instance: int  # of the room, as the sender knows it; its record may not say so yet
    wall_s: int  # the sender's time of day, Unix seconds
    mask: int  # buckets in which the sender's view differs from ours
    items: list[tuple[int, bytes]]


class Exchange:
    """How to drive it:

    1. `link_up`, `link_down` follow the links of `neighbours`.
    2. `spread` sends news, `flush` at `flush_at`; `rumours.take(room)` fills a probe; `send_summary` begins a comparison.
    3. `hello_received`, `digest_received`, `delta_received` return the items that the parent must weigh.
    4. `sync` has a timer of its own.
    """

    def __init__(
        self, config: GossipConfig, rng: random.Random, membership: Membership, neighbours: Neighbours, out: Effects
    ) -> None:
        self._config = config
        self._membership = membership
        self._rng = rng
        self._neighbours = neighbours
        self.rumours = Rumours()
        self.sync = Sync(config, rng, neighbours.links, out)
        self.effects = out
        self.policy = FULL  # set by the parent
        self._alarms: list[tuple[bytes, PeerId | None]] = []
        self._answers: list[tuple[bytes, PeerId | None]] = []
        self._news: list[tuple[bytes, PeerId | None]] = []
        self.flush_at = math.inf

    @property
    def flush_at(self) -> float:
        return self.effects.timers[effects.FLUSH]

    @flush_at.setter
    def flush_at(self, flush_at: float) -> None:
        self.effects.timers[effects.FLUSH] = flush_at

    @property
    def view_hash(self) -> bytes:
        """What probes say of our view; zeros for no claim."""
        if not self.policy.knows_all:
            return NO_HASH
        view = self._membership.hash
        return view.whole if view.changed else view.value  # of every probe it is asked

    # ------------------------------------------------------------------------------------------------------ links

    def link_up(self, peer: PeerId, own: Record, now: float, flags: int, instance: int, wall_s: int) -> None:
        self.sync.link_up(now)
        if not self.policy.knows_all:
            flags |= UNSUMMARISED
        hashes = sync.summary(self._membership.buckets)[2:]
        head = codec.head(codec.HELLO) + _HELLO.pack(flags, instance) + wall_s.to_bytes(WALL_BYTES, "big")
        self._send(peer, head + hashes + encoded(own))

    # ------------------------------------------------------------------------------------------------------- news

    def spread(
        self, news: News, via: PeerId | None, now: float, eager: Collection[PeerId], *, urgent: bool = False
    ) -> None:
        """Pass on what was new to us. `urgent`: it refutes an accusation."""
        data = encoded(news)
        if self.policy.by_tree:
            # An accusation takes more than the tree: its subject may have been the branch that would have carried it. So
            # does the answer, or it would come too late to some.
            alarm = isinstance(news, Accusation)
            waiting = self._alarms if alarm else self._answers if urgent else self._news
            waiting.append((data, via))
            if len(waiting) >= _NEWS_MAX:
                self.flush(eager)
            self.flush_at = min(self.flush_at, now + self._config.ihave_delay_s)
        elif via != _author(news):
            # What its author brought itself, everybody got from the author.
            times = self._config.rumour_factor * max(1, len(self._membership)).bit_length()
            self.rumours.add(_key(news), data, times)

    def flush(self, eager: Collection[PeerId]) -> None:
        self.flush_at = math.inf
        news, self._news = self._news, []
        self._scatter(codec.RUMOURS, news, eager)
        alarms, self._alarms = self._alarms, []
        if alarms:
            self._scatter(codec.TOLD, alarms, self._alarmed(eager, _ALARM_SPARES))
        answers, self._answers = self._answers, []
        if answers:
            self._scatter(codec.TOLD, answers, self._alarmed(eager, _ANSWER_SPARES))

    def _alarmed(self, eager: Collection[PeerId], count: int) -> list[PeerId]:
        """Who is told at once: the tree, and `count` links beside it. Dead links count for nothing."""
        good = [neighbour.peer for neighbour in self._neighbours.good]
        spares = [peer for peer in good if peer not in eager]
        told = [peer for peer in good if peer in eager]
        return told + self._rng.sample(spares, min(len(spares), count))

    def _scatter(self, kind: int, news: list[tuple[bytes, PeerId | None]], peers: Iterable[PeerId]) -> None:
        """Send each item to all `peers` but the one that brought it."""
        if not news:
            return
        sources = {via for _, via in news}
        shared = codec.pack_items(codec.head(kind), (data for data, _ in news), FRAME_BYTES)
        for peer in peers:
            frames = shared
            if peer in sources:
                frames = codec.pack_items(codec.head(kind), (data for data, via in news if via != peer), FRAME_BYTES)
            for frame in frames:
                self._send(peer, frame)

    # ----------------------------------------------------------------------------------------------------- frames

    def hello_received(self, frame: bytes, *, newcomer: bool) -> Hello:
        """`newcomer`: we have met nobody before."""
        if len(frame) < HELLO_BYTES:
            raise ProtocolError("hello too short")
        flags, instance = _HELLO.unpack_from(frame, 2)
        wall_s = int.from_bytes(frame[_HELLO_WALL:_HELLO_SUMMARY], "big")
        mask = 0
        if self.policy.knows_all and not flags & UNSUMMARISED:
            mask = (
                ALL_BUCKETS
                if newcomer or flags & NEWCOMER
                else sync.differing_untrusted(frame, _HELLO_SUMMARY, self._membership.buckets)
            )
        return Hello(flags, instance, wall_s, mask, codec.items_untrusted(frame, HELLO_BYTES))

    def send_summary(self, peer: PeerId) -> None:
        """A neighbour to compare views with now."""
        if self.policy.knows_all:
            self._send(peer, sync.summary(self._membership.buckets))

    def ask(self, peer: PeerId, subject: PeerId) -> None:
        """What that neighbour knows of one member: a DELTA answers."""
        for frame in sync.delta([subject], [], FRAME_BYTES):
            self._send(peer, frame)

    def summary_received(self, neighbour: Neighbour, frame: bytes, now: float) -> None:
        if self.policy.knows_all:
            mask = sync.differing_untrusted(frame, 2, self._membership.buckets)
            if mask:
                self.sync.differed()
                self.send_digest(neighbour, mask, now)

    def send_digest(self, neighbour: Neighbour, mask: int, now: float) -> None:
        """For a neighbour that asked, by a summary or a hello."""
        if self.sync.may_send_digest(neighbour, now):
            lines = [(m.record.peer, *_version(m)) for m in self._membership.entries(mask)]
            self._answer(neighbour, [sync.digest(mask, lines)], len(lines), now)

    def digest_received(self, neighbour: Neighbour, frame: bytes, now: float) -> tuple[list[Member], bool]:
        """Answer with what the neighbour lacks and ask for what we lack. Returns members that are alive for the
        neighbour and down for us: it should hear our accusation; and whether we lacked nothing, so that no delta comes."""
        mask, entries = sync.digest_untrusted(frame)
        if not self.policy.knows_all:
            return [], False
        self.sync.differed()
        found = sync.compare(entries, self)
        listed = {entry.peer for entry in entries}
        view = self._membership
        unlisted = [m for m in view.entries(mask) if m.record.peer not in listed]
        lacking = [m.record for m in unlisted if m.status is Status.ALIVE and m.record.peer != neighbour.peer]
        newer = [self._record(p) for p in found.ours_newer + found.two_faced]
        gone = [m for m in unlisted if m.status is Status.DOWN]
        items = [encoded(record) for record in lacking + newer] + _gone_items(gone, now)
        wanted = found.theirs_newer + found.they_call_down
        replies = sync.delta(wanted, items, FRAME_BYTES) or [sync.nothing()]  # who has just come waits for our view
        self._answer(neighbour, replies, len(items) + len(entries), now)
        return [member for p in found.we_call_down if (member := view.get(p)) is not None], not wanted

    def delta_received(
        self, neighbour: Neighbour, frame: bytes, now: float
    ) -> tuple[list[tuple[int, bytes]], list[Member]]:
        """(items, members down for us that the neighbour asked for). Records that it asked for are sent."""
        wants, offset = sync.delta_untrusted(frame)
        known = [member for p in wants if (member := self._membership.get(p)) is not None]
        records = [m.record for m in known if m.status is not Status.DOWN]
        own = self._membership.own
        if own is not None and own.peer in wants:
            records.append(own)
        down = [m for m in known if m.status is Status.DOWN]
        replies = sync.delta([], [*map(encoded, records), *_gone_items(down, now)], FRAME_BYTES)
        self._answer(neighbour, replies, len(wants), now)
        return codec.items_untrusted(frame, offset), down

    def version(self, peer: PeerId) -> tuple[int, int, int, bytes] | None:
        """(epoch, incarnation, digest status, hash) of what members told us of `peer`."""
        own = self._membership.own
        if own is not None and peer == own.peer:
            return own.epoch, own.incarnation, sync.ENTRY_ALIVE, own.version_hash
        member = self._membership.get(peer)
        return (
            None if member is None or member.hint else _version(member)
        )  # a hint is confirmed by who brings the record

    # ---------------------------------------------------------------------------------------------------- helpers

    def _record(self, peer: PeerId) -> Record:
        own = self._membership.own
        record = own if own is not None and own.peer == peer else self._membership.record(peer)
        assert record is not None  # `compare` found a version of it
        return record

    def _answer(self, neighbour: Neighbour, frames: list[bytes], lines: int, now: float) -> None:
        """Who asked pays: `lines` looked at, and all bytes. Without means it gets nothing, and may ask again."""
        neighbour.cost.add(LINE * lines)
        if neighbour.cost.may_answer(sum(map(len, frames)), now):
            for frame in frames:
                self._send(neighbour.peer, frame)

    def _send(self, peer: PeerId, frame: bytes) -> None:
        self.effects.frames.append(SendFrame(peer, frame, True))


def told(news: News) -> bytes:
    """The frame that brings one piece of news directly."""
    return codec.head(codec.TOLD) + encoded(news)


def encoded(news: News) -> bytes:
    """The item that carries a record, an accusation or a proof."""
    return item(_ITEMS[type(news)], news.encoded)


def _gone_items(members: Iterable[Member], now: float) -> list[bytes]:
    """For a newcomer: who was lost to silence, and how many seconds ago."""
    fresh = [m for m in members if not m.closed and now - m.since < _GONE_S]
    return [item(codec.ITEM_GONE, varint(int(now - m.since)) + m.record.encoded) for m in fresh[-_GONE_MAX:]]


def gone_untrusted(data: bytes) -> tuple[int, bytes]:
    """(seconds, record)."""
    reader = Reader(data, 0)
    return min(reader.varint_untrusted(), 86_400), reader.rest()


def _key(news: News) -> tuple[int, str, str]:
    if isinstance(news, Accusation):
        return codec.ITEM_ACCUSATION, news.subject, news.accuser
    return _ITEMS[type(news)], news.peer, ""


def _author(news: News) -> PeerId | None:
    if isinstance(news, Record):
        return news.peer
    return news.accuser if isinstance(news, Accusation) else None


def _version(member: Member) -> tuple[int, int, int, bytes]:
    record = member.record
    return record.epoch, record.incarnation, int(member.status), record.version_hash
