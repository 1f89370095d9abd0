"""Plumtree (SRDS'07): payloads along a tree of eager links, announcements along the lazy ones, repair by graft.

Messages are named (origin, epoch, sequence), never by their content: a game sends the same bytes again and again.
In a full mesh the origin sends to everybody itself (`flat`), and nobody forwards.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import attrs

from psyne_mesh.gossip import codec, effects
from psyne_mesh.gossip.broadcast_wire import (
    BESIDE,
    FLAT,
    IDS_MAX,
    KEEP_EPOCH,
    REPAIR,
    Have,
    Head,
    Id,
    Keep,
    Message,
    encode_gossip,
    encode_graft,
    encode_haves,
    encode_ihave,
    encode_keep,
    message_line,
)
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import Effects, Withholding
from psyne_mesh.gossip.events import SendFrame
from psyne_mesh.gossip.missing import Missing, Promise
from psyne_mesh.gossip.neighbours import PROVEN, Neighbour
from psyne_mesh.gossip.streams import Stream, Streams
from psyne_mesh.gossip.tree_keeper import Signs
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MISSING_MAX = 4096  # ids that we wait for, all told; more announcements are ignored (the summary repairs later)
_MISSING_FROM_MAX = 1024  # and of one advertiser, so that one liar cannot fill the table
_ADVERTISERS_MAX = 8  # remembered for one id; more change nothing
_ORIGINS = 8  # newest messages looked at
# The paper's threshold is 3 hops for one sender, 7 for many, for no tree is short for all. Who has been the only one for
# some time may have the tree as it likes: 1,000 members, 30 ms of jitter: 5.7 hops instead of 7.7, p99 0.37 s instead of 0.41.
_MANY_SOURCES_S, _MANY_SOURCES, _MANY_SOURCES_HOPS = 1.0, 3, 4
_ONE_SOURCE_S, _ONE_SOURCE_HOPS = 10.0, 1
# The keeper's sign came over an eager link so long after a lazy one had announced it: then the lazy link is the better
# branch. A shared tree has one source that may shape it: what is short for one of many sources is long for the next. A few
# milliseconds are jitter; and while somebody broadcasts, each change of the tree costs copies.
_SHORTCUT_S, _SHORTCUT_BUSY_S = 0.01, 0.04
_BUSY_S = 10.0
_BROKEN_MAX = 4  # promises in a row, then the link is given up: it withholds, or is of no use
_PROMISE_S = 2.0  # what was announced and asked for should be here by then, or in four round trips
_PROMISES_MAX = 4096  # more are not watched, and what comes of them is never history
_SLOWEST_S = 1.0  # a message may be so long under way: one that was sent shortly before our first link is no history
_HAVES_UNITS, _TURN_UNITS = 200.0, 0.2  # of a look at all streams of the last while, and at each message kept of them
_REPAIR_MAX = 256  # messages of one stream asked for after one HAVES; the oldest first
# A neighbour gets the bytes of so many caches at once, and as many again while a message is kept: who lacked all that there is
# asks for one. Asking is cheap: 20 bytes bring 16 KiB.
_REPAIR_CACHES = 2
# Two messages in flight can each find the same cycle, and prune it at two places: then the tree falls apart. So while
# several speak, of all their messages about one in this time shapes the tree, drawn by its name, the same for everybody.
# 48 members, ten messages a second from all of them: p99 0.46 -> 0.20 s, copies 1.2 -> 1.35; with half the time 0.22 s, 1.25.
_SHAPING_S = 2.0
# The other messages take so many links beside the tree, too: all ways of a tree lead through its root, and that is far.
# 1,000 members, two messages a second from all of them: p99 0.37 -> 0.32 s.
_BESIDE = 2
# Further a message does not go. The longest ways measured have some 20; who floods a room with more made-up authors than
# anybody can remember would else see its messages go round for good.
_HOPS_MAX = 64
_IHAVE_BATCH = 64  # announcements that are sent at once, without waiting for the delay


@attrs.define
class BroadcastStats:
    duplicates: int = 0
    grafts: int = 0
    prunes: int = 0
    repaired: int = 0
    repairs_refused: int = 0  # ids that were asked for once more in one frame, or beyond the budget


class Broadcast:
    """How to drive it:

    1. `link_up`, `link_down` follow `links`; `branch_impaired` says that nothing comes through one.
    2. `next_sequence(now)`, then `publish(message, now)` for our own; `wants(...)`, then `gossip_received` for a
       verified message of a neighbour.
    3. `ihave_received`, `graft_received`, `prune_received`, `haves_received` for the other frames.
    4. `handle_timeout(now)` at `deadline`. It wishes: `Withholding`.
    """

    def __init__(
        self, config: GossipConfig, links: dict[PeerId, Neighbour], standing: Callable[[PeerId], int], out: Effects
    ) -> None:
        self._config = config
        self.links = links
        self.streams = Streams(config, standing, out)
        self.stats = BroadcastStats()
        self.effects = out
        self.deadline = math.inf
        # Each link is in one of them: in the tree, or beside it.
        self.eager: dict[PeerId, Neighbour] = {}
        self.lazy: dict[PeerId, Neighbour] = {}
        self._cache: dict[Id, tuple[Message, int, float]] = {}  # message, hops, when it was sent
        self._cache_bytes = 0
        self._missing: dict[Id, Missing] = {}
        self._timers: list[tuple[float, Id]] = []
        self._announce: list[tuple[bytes, tuple[PeerId, ...]]] = []  # and who needs it no more
        self._announce_at = math.inf
        self._published_at = -math.inf
        self._linked_at: float | None = None  # our first link ever: what was sent before is history to us
        self._promises: dict[tuple[PeerId, Id], Promise] = {}  # what we asked a neighbour for
        self.signs = Signs()  # of the tree keepers
        self._origins: deque[tuple[PeerId, float]] = deque(
            maxlen=_ORIGINS
        )  # of the newest messages, and when they came
        self._sequence = 0
        self._sent_at: deque[float] = deque()

    @property
    def deadline(self) -> float:
        return self.effects.timers[effects.BROADCAST]

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self.effects.timers[effects.BROADCAST] = deadline

    # ----------------------------------------------------------------------------------------------------- links

    def link_up(self, neighbour: Neighbour, now: float) -> None:
        """A new neighbour is eager, as in the paper: it may know nothing yet. If neither of us needs the other for that,
        `link_spare` follows."""
        if self._linked_at is None:
            self._linked_at = now
        self.lazy.pop(neighbour.peer, None)
        self.eager[neighbour.peer] = neighbour

    def link_spare(self, peer: PeerId) -> None:
        """Both ends have other links: this one would only close a cycle in the tree."""
        if len(self.eager) > 1:
            self._make_lazy(peer)

    def link_down(self, peer: PeerId) -> None:
        self.eager.pop(peer, None)
        self.lazy.pop(peer, None)

    def branch_impaired(self, peer: PeerId) -> None:
        """Frames on this link do not come through now. If it was our last good branch of the tree, the nearest lazy link
        joins the tree at once: the alarms that say why are on their way, and a graft would come a second after them."""
        if peer not in self.eager or not all(other.probe.impaired for other in self.eager.values()):
            return
        good = [other for other in self.lazy.values() if not other.probe.impaired]
        if 2 * len(good) >= len(self.eager) + len(self.lazy):  # else it is most likely our own fault
            self._take_in(min(good, key=lambda other: other.tree.srtt or math.inf).peer)

    # -------------------------------------------------------------------------------------------------- messages

    def next_sequence(self, now: float) -> tuple[int, int]:
        """(sequence, floor) of our next message."""
        sent = self._sent_at
        while sent and (now - sent[0] > self._config.cache_s or len(sent) >= _REPAIR_MAX):
            sent.popleft()
        self._sequence += 1
        floor = self._sequence - len(sent)
        sent.append(now)
        return self._sequence, floor

    def publish(self, message: Message, now: float, *, flat: bool) -> list[PeerId]:
        """Send our own message. Returns whom it went to."""
        self._remember(message, 0, now, now)
        self._origins.append((message.origin, now))
        stream = self.streams.position(message.origin, message.epoch, message.sequence)
        if stream is not None:
            stream.expected, stream.active_at = message.sequence + 1, now
        alone = self._sources(_ONE_SOURCE_S, now) == 1
        beside = [] if flat or self._shapes(message, now) else self._beside(message)
        flags = FLAT if flat else BESIDE if beside else 0
        targets = self._forward(message, 0, (), now, now, flags=flags, beside=beside)
        if alone and now - self._published_at >= self._config.ihave_delay_s:
            self._flush_announcements()  # neighbours see at once that their way to us is too long
        self._published_at = now
        return targets

    def _beside(self, message: Message) -> list[PeerId]:
        """Lazy links that our message takes, others each time."""
        lazy = list(self.lazy)
        return [lazy[(_BESIDE * message.sequence + number) % len(lazy)] for number in range(min(_BESIDE, len(lazy)))]

    def _shapes(self, message: Message, now: float) -> bool:
        """Whether links may join and leave the tree because of this message."""
        if self._sources(_ONE_SOURCE_S, now) <= 1:
            return True
        lot = ((int(message.origin[-4:], 16) + message.sequence * 0x9E37) & 0xFFFF) / 0x10000
        return lot * len(self._origins) * _SHAPING_S < now - self._origins[0][1]

    def _sources(self, seconds: float, now: float) -> int:
        """How many have broadcast within the last `seconds`, among the newest messages."""
        return len({origin for origin, at in self._origins if now - at < seconds})

    def wants(self, message: Message) -> bool:
        return self._is_new((message.origin, message.epoch, message.sequence))

    def _is_new(self, identity: Id) -> bool:
        """What is in the cache came already, even if its stream has been forgotten since."""
        return self.streams.is_new(*identity) and identity not in self._cache

    def gossip_received(self, neighbour: Neighbour, message: Message, head: Head, now: float, *, flat: bool) -> None:
        """A message that we want, its signature checked. `flat`: we are a full mesh ourselves."""
        peer = neighbour.peer
        identity = (message.origin, message.epoch, message.sequence)
        sent_at = now - head.age_s
        # How old a message is, its neighbours say, unsigned: what is pushed or was announced is new, whatever they say. Only
        # what we asked for to close a gap can be from before our time.
        promise = self._promises.pop((peer, identity), None) if head.flags & REPAIR else None
        asked = promise is not None and not promise.fresh
        history = asked and (self._linked_at is None or sent_at < self._linked_at - _SLOWEST_S)
        newcomer = history or self._linked_at is None or now - self._linked_at < self._config.cache_s
        stream = self.streams.accept(message, now, sent_at, silently=history, newcomer=newcomer)
        if stream is None:
            return
        waited = self._drop_missing(identity) if self._missing else None
        self._remember(message, head.hops, sent_at, now)
        self._origins.append((message.origin, now))
        _prove(neighbour, head.flags)
        if head.flags & REPAIR:
            self.stats.repaired += 1
        elif head.flags & BESIDE and not head.hops:
            pass  # our link to the origin lies beside the tree, and stays there
        elif peer in self.lazy and now - neighbour.tree.pruned_at >= self._config.prune_interval_s:
            self._make_eager(peer)  # but what was under way when we pruned the link says nothing
        if stream.pending:
            self._ask_for_gap(neighbour, message.origin, stream, now)
        if (flat and head.flags & (FLAT | REPAIR)) or head.hops >= _HOPS_MAX:
            return
        having = (peer, message.origin, *waited.hops) if waited is not None else (peer, message.origin)
        self._forward(message, head.hops + 1, having, sent_at, now, flags=head.flags & BESIDE)
        if waited is not None and not head.flags & (REPAIR | BESIDE) and self._shapes(message, now):
            self._optimise(neighbour, head.hops, waited, now)

    def duplicate_received(self, neighbour: Neighbour, message: Message, flags: int, now: float) -> None:
        """A message that we had: this link closes a cycle, so it becomes lazy on both sides."""
        self.stats.duplicates += 1
        if flags & REPAIR:
            self._promises.pop((neighbour.peer, (message.origin, message.epoch, message.sequence)), None)
            _prove(neighbour, flags)
        if not flags & (REPAIR | FLAT | BESIDE) and self._shapes(message, now):
            self.prune(neighbour, now)

    def prune(self, neighbour: Neighbour, now: float) -> None:
        peer = neighbour.peer
        if peer in self.lazy or (peer in self.eager and len(self.eager) > 1):
            if now - neighbour.tree.pruned_at < self._config.prune_interval_s:
                return  # a star of duplicates must not make links flap (libp2p/specs#215)
            neighbour.tree.pruned_at = now
            self._make_lazy(peer)
            self.stats.prunes += 1
            self._send(peer, codec.head(codec.PRUNE))

    def prune_received(self, peer: PeerId) -> None:
        if peer in self.eager:
            self._make_lazy(peer)

    def keep(self, sign: Keep, now: float) -> None:
        """Send an empty message of our own down the tree: it shapes and mends the tree while nobody broadcasts."""
        self._keep(sign, 0, (), now)

    def keep_received(self, neighbour: Neighbour, sign: Keep, hops: int, now: float) -> None:
        """A sign that we want, its signature checked."""
        peer = neighbour.peer
        waited = self._drop_missing((sign.origin, KEEP_EPOCH, sign.number))
        self._make_eager(peer)
        self._keep(sign, hops + 1, (peer,) if waited is None else (peer, *waited.hops), now)
        if waited is not None:
            self._shorten(neighbour, next(iter(waited.hops)), now - waited.since, now)

    def keep_repeated(self, neighbour: Neighbour, sign: Keep, now: float) -> None:
        """A sign that we do not want. One that we had says that this link closes a cycle."""
        if sign.number <= self.signs.number(sign.origin) and neighbour.peer in self.eager:
            self.prune(neighbour, now)

    def _keep(self, sign: Keep, hops: int, having: tuple[PeerId, ...], now: float) -> None:
        self.signs.take(sign, now)
        frame = encode_keep(hops, sign.body)
        for peer in self.eager:
            if peer not in having:
                self._send(peer, frame)
        self._announce_later(message_line((sign.origin, KEEP_EPOCH, sign.number), hops), having, now)
        self._flush_announcements()  # when they come tells which link would have been the shorter way

    def ihave_received(self, neighbour: Neighbour, ids: list[tuple[Id, int]], now: float) -> None:
        for identity, hops in ids:
            origin, epoch, sequence = identity
            if sequence > self.signs.number(origin) if epoch == KEEP_EPOCH else self._is_new(identity):
                self._miss(identity, neighbour, hops, now, fresh=True)

    def graft_received(self, neighbour: Neighbour, ids: list[Id], flags: int, now: float) -> None:
        """Send what is asked for; unless it is a mere repair, the link joins the tree."""
        peer = neighbour.peer
        if not flags & REPAIR:
            self._make_eager(peer)
        asked = dict.fromkeys(ids)
        self.stats.repairs_refused += len(ids) - len(asked)
        seconds_per_byte = self._config.cache_s / (_REPAIR_CACHES * self._config.cache_bytes)
        until = max(now, neighbour.tree.repaid_at)
        for identity in asked:
            cached = self._cache.get(identity)
            sign = self.signs.newest(identity[0])
            if identity[1] == KEEP_EPOCH and sign is not None:
                frame = encode_keep(0, sign.body)
            elif cached is not None:
                message, hops, sent_at = cached
                frame = encode_gossip(Head(hops + 1, REPAIR, now - sent_at), message.body)
            else:
                continue
            if until - now >= self._config.cache_s:
                self.stats.repairs_refused += 1
                continue
            until += len(frame) * seconds_per_byte
            self._send(peer, frame)
        neighbour.tree.repaid_at = until

    def haves(self, now: float) -> list[Have]:
        """What streams of the last while we have, and how far: for a new neighbour, and with each summary."""
        entries = []
        for origin, stream in self.streams.recent(now - self._config.cache_s):
            high = stream.expected - 1
            low = high
            while (origin, stream.epoch, low) in self._cache and high - low < _REPAIR_MAX:
                low -= 1
            entries.append(Have(origin, stream.epoch, high, low + 1, now - stream.active_at))
        return entries

    def answer_haves(self, neighbour: Neighbour, theirs: list[Have], now: float) -> None:
        """A neighbour asked what it lacks, and pays for the answer and for looking."""
        known = {(have.origin, have.epoch): have.high for have in theirs}
        ours = self.haves(now)
        neighbour.cost.add(_HAVES_UNITS + _TURN_UNITS * sum(have.high - have.low for have in ours))
        ahead = [have for have in ours if have.high > known.get((have.origin, have.epoch), 0)]
        frame = encode_haves(ahead, 0)
        if ahead and neighbour.cost.may_answer(len(frame), now):
            self._send(neighbour.peer, frame)

    def haves_received(self, neighbour: Neighbour, entries: list[Have], now: float) -> None:
        """Nothing here is signed, so it only makes us ask; and not for what was sent before our time. Bound: as many turns as
        one advertiser may have us wait for, and one for each entry."""
        turns = _MISSING_FROM_MAX
        for have in entries:
            if self._linked_at is None or now - have.age_s < self._linked_at:
                continue
            for sequence in range(have.low, have.high + 1)[-_REPAIR_MAX:]:
                if not turns:
                    return
                turns -= 1
                identity = have.origin, have.epoch, sequence
                if self._is_new(identity) and not self._miss(identity, neighbour, 0, now):
                    return

    # ---------------------------------------------------------------------------------------------------- timers

    def handle_timeout(self, now: float) -> None:
        if now >= self._announce_at:
            self._flush_announcements()
        grafts: dict[PeerId, list[Id]] = {}
        while self._timers and self._timers[0][0] <= now:
            deadline, identity = heappop(self._timers)
            missing = self._missing.get(identity)
            if missing is not None and missing.deadline == deadline:
                self._graft(identity, missing, grafts, now)
        for peer, ids in grafts.items():
            self.stats.grafts += 1
            self._make_eager(peer)
            for start in range(0, len(ids), IDS_MAX):
                self._send(peer, encode_graft(ids[start : start + IDS_MAX], 0))
        self._judge_promises(now)
        self.streams.handle_timeout(now)
        self._trim(now)
        self._rearm()

    def _graft(self, identity: Id, missing: Missing, grafts: dict[PeerId, list[Id]], now: float) -> None:
        while missing.advertisers:
            peer = self._first_to_ask(missing)
            missing.advertisers.remove(peer)
            neighbour = self.links.get(peer)
            if neighbour is not None:
                grafts.setdefault(peer, []).append(identity)
                if len(self._promises) < _PROMISES_MAX:
                    patience = max(_PROMISE_S, 4 * neighbour.tree.srtt)
                    self._promises.setdefault((peer, identity), Promise(now + patience, missing.fresh))
                missing.deadline = now + self._graft_timeout(neighbour)
                heappush(self._timers, (missing.deadline, identity))
                return
        self._drop_missing(identity)  # nobody is left to ask: an id that nobody sends must not stay

    def _first_to_ask(self, missing: Missing) -> PeerId:
        """Who says that it has the message, before who may have it; who kept its word, before a stranger, and who broke it
        last of all. Of those alike, who told us first."""
        links, guesses = self.links, missing.guesses

        def order(peer: PeerId) -> tuple[bool, bool, int]:
            neighbour = links.get(peer)
            count = 0 if neighbour is None else neighbour.tree.broken
            return count > 0, peer in guesses, count

        return min(missing.advertisers, key=order)

    def _graft_timeout(self, neighbour: Neighbour) -> float:
        config = self._config
        return min(config.graft_timeout_max_s, max(config.graft_timeout_min_s, 3 * neighbour.tree.srtt))

    def _judge_promises(self, now: float) -> None:
        """The oldest first; one whose deadline is far holds up those behind it, which does no harm."""
        withholding: list[PeerId] = []
        while self._promises:
            promised, promise = next(iter(self._promises.items()))
            if promise.until > now:
                break
            del self._promises[promised]
            neighbour = self.links.get(promised[0])
            if neighbour is not None:
                neighbour.tree.broken = max(0, neighbour.tree.broken) + 1
                if neighbour.tree.broken == _BROKEN_MAX:
                    withholding.append(neighbour.peer)
        if withholding:
            self.effects.wishes.append(Withholding(tuple(withholding)))

    # --------------------------------------------------------------------------------------------------- helpers

    def _forward(
        self, message: Message, hops: int, having: tuple[PeerId, ...], sent_at: float, now: float, *, flags: int,
        beside: Sequence[PeerId] = (),
    ) -> list[PeerId]:  # fmt: skip
        """`having`: neighbours that sent or announced it, and the origin. Without them a graft that came too early brings
        no copy back, and the link that proved shorter stays in the tree. `beside`: who gets it though its link is lazy."""
        frame = encode_gossip(Head(hops, flags, now - sent_at), message.body)
        reliable = self._config.broadcast_reliable or len(frame) > codec.UNRELIABLE_FRAME_MAX
        if flags & FLAT:
            targets = [*self.eager, *self.lazy]
        else:
            targets = [*(peer for peer in self.eager if peer not in having), *beside]
            line = message_line((message.origin, message.epoch, message.sequence), hops)
            self._announce_later(line, (*having, *beside), now)
        for peer in targets:
            self.effects.frames.append(SendFrame(peer, frame, reliable))
        return targets

    def _announce_later(self, line: bytes, having: tuple[PeerId, ...], now: float) -> None:
        if not self.lazy:
            return
        self._announce.append((line, having))
        if len(self._announce) >= _IHAVE_BATCH:
            self._flush_announcements()
        elif self._announce_at == math.inf:
            self._announce_at = now + self._config.ihave_delay_s
            self.deadline = min(self.deadline, self._announce_at)

    def _flush_announcements(self) -> None:
        for peer in self.lazy:
            ids = [line for line, having in self._announce if peer not in having]
            if ids:
                self._send(peer, encode_ihave(ids))
        self._announce.clear()
        self._announce_at = math.inf

    def _miss(
        self, identity: Id, neighbour: Neighbour, hops: int, now: float, *, fresh: bool = False, guess: bool = False
    ) -> bool:
        """False: we wait for too much already, all told or because of this neighbour."""
        missing = self._missing.get(identity)
        if missing is None:
            if len(self._missing) >= _MISSING_MAX or neighbour.tree.awaited >= _MISSING_FROM_MAX:
                return False
            missing = self._missing[identity] = Missing(now, now + self._graft_timeout(neighbour))
            neighbour.tree.awaited += 1
            heappush(self._timers, (missing.deadline, identity))
            self.deadline = min(self.deadline, missing.deadline)
        peer = neighbour.peer
        missing.fresh |= fresh
        if not guess:
            missing.guesses.pop(peer, None)
        if peer not in missing.hops and len(missing.hops) < _ADVERTISERS_MAX:
            missing.advertisers.append(peer)
            missing.hops[peer] = hops
            if guess:
                missing.guesses[peer] = None
        return True

    def _drop_missing(self, identity: Id) -> Missing | None:
        missing = self._missing.pop(identity, None)
        if missing is not None:
            first = self.links.get(next(iter(missing.hops)))
            if first is not None:
                first.tree.awaited = max(0, first.tree.awaited - 1)  # 0: this was announced over an earlier link
        return missing

    def _ask_for_gap(self, neighbour: Neighbour, origin: PeerId, stream: Stream, now: float) -> None:
        """Who has a message has most likely those before it: ask it, unless they come by themselves."""
        for sequence in range(stream.expected, stream.high)[:_REPAIR_MAX]:
            if sequence not in stream.pending:
                self._miss((origin, stream.epoch, sequence), neighbour, 0, now, guess=True)

    def _optimise(self, neighbour: Neighbour, hops: int, waited: Missing, now: float) -> None:
        """Plumtree section 3.8: a lazy link that would have been much shorter takes the place of the eager one."""
        best = min(waited.hops, key=lambda p: waited.hops[p])
        threshold = self._config.optimisation_threshold
        if self._sources(_MANY_SOURCES_S, now) >= _MANY_SOURCES:
            threshold += _MANY_SOURCES_HOPS
        elif self._sources(_ONE_SOURCE_S, now) == 1:
            threshold = min(threshold, _ONE_SOURCE_HOPS)
        if waited.hops[best] + threshold < hops and self._take_in(best):
            self.prune(neighbour, now)

    def _shorten(self, neighbour: Neighbour, better: PeerId, gain_s: float, now: float) -> None:
        """The keeper's sign came so much later from `neighbour` than `better` had announced it."""
        if self._origins and now - self._origins[-1][1] < _BUSY_S:
            if gain_s > _SHORTCUT_BUSY_S and self._take_in(better):
                self.prune(neighbour, now)
        elif gain_s > _SHORTCUT_S:
            # The next sign comes twice then, and the link of the later one is pruned: at no moment is a branch missing.
            self._take_in(better)

    def _take_in(self, peer: PeerId) -> bool:
        """A lazy link joins the tree. False: it was in it."""
        if peer not in self.lazy:
            return False
        self._make_eager(peer)
        self._send(peer, encode_graft([], 0))
        return True

    def _make_eager(self, peer: PeerId) -> None:
        neighbour = self.lazy.pop(peer, None)
        if neighbour is not None:
            self.eager[peer] = neighbour

    def _make_lazy(self, peer: PeerId) -> None:
        neighbour = self.eager.pop(peer, None)
        if neighbour is not None:
            self.lazy[peer] = neighbour

    def _remember(self, message: Message, hops: int, sent_at: float, now: float) -> None:
        self._cache[message.origin, message.epoch, message.sequence] = (message, hops, sent_at)
        self._cache_bytes += len(message.body)
        self._trim(now)

    def _trim(self, now: float) -> None:
        """Oldest first, by age and by bytes: what is gone from every cache can be repaired no more."""
        cache, oldest = self._cache, now - self._config.cache_s
        while cache:
            identity = next(iter(cache))
            message, _, sent_at = cache[identity]
            if sent_at > oldest and self._cache_bytes <= self._config.cache_bytes:
                break
            del cache[identity]
            self._cache_bytes -= len(message.body)

    def _rearm(self) -> None:
        self.deadline = min(
            self._announce_at,
            self.streams.deadline,
            self._timers[0][0] if self._timers else math.inf,
            next(iter(self._promises.values())).until if self._promises else math.inf,
        )

    def _send(self, peer: PeerId, frame: bytes) -> None:
        self.effects.frames.append(SendFrame(peer, frame, True))


def _prove(neighbour: Neighbour, flags: int) -> None:
    """It passes on what it has. What is pushed makes no broken promise good."""
    if flags & REPAIR or not neighbour.tree.broken:
        neighbour.tree.broken = PROVEN
