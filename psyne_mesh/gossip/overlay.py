"""Which links to have: everybody in a small room, HyParView's active view (DSN'07) in a larger one.

Departures from the paper, because a link costs a WebRTC handshake and joins can be hostile: at least half of the active
view is dialled by ourselves (anchors, partly by min-hash as in Basalt) and no join displaces those; a full node refuses
with alternatives instead of evicting at random; vacancies are dialled several at once. Two links of each member are
drawn without regard to latency, and nearness never takes their place (X-BOT's unbiased neighbours): a room of two far
places that kept near links only would fall in two.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from psyne_mesh.gossip import effects
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import DialWanted, Effects, Part
from psyne_mesh.gossip.neighbours import SETTLING_S, Neighbour
from psyne_mesh.gossip.policy import Mode
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import forget_oldest

if TYPE_CHECKING:
    import random

_TICK_S = 1.0  # maintenance, jittered
_BACKOFF_S = 60.0  # who parted from whom does not come back so soon (GossipSub's prune backoff)
_UNREACHABLE_S = 900.0  # a lobby forgets whom it cannot reach, and is told of it again and again: longer than most cuts
_BACKOFFS_MAX = 1024  # the oldest is forgotten
_SLACK = 2  # links over the target that are not worth closing
_ROOM_FOR_JOINS = 4  # links over the target that are still accepted from others
# And so many more from newcomers who have nobody but us, when none of the others can be spared: with a dead signaling
# server a refusal would leave them outside for good. A room that has just outgrown its full mesh has more links than it wants,
# so up to twice that size all of `links_max` are theirs; in larger ones sybils would take them (`sybils-80`: 92 % delivered).
_ROOM_FOR_STRANDED = 4
_SMALL_ROOM = 2
_NEAR_GAIN = 0.6  # a near link is replaced by one that promises at most so much of its round trip
_IMPROVE_EVERY_MAX_S = 600.0
_UNBIASED = 2  # links drawn by lot that nearness may not replace: a random graph with two draws each is one piece
_DRAW_S = 30.0  # a dial by lot that came to nothing in that time is drawn anew
_STRAY_S, _STRAY_MAX_S = 10.0, 600.0  # who seems cut off dials some by lot, each time after twice as long
_STRAY_DIALS = 3  # so many: among four liars to one honest member every second try finds one, a single dial one of five
_VETERANS = 2  # the links that stand longest are not given up to newcomers: whoever floods us cannot be older

_Value = TypeVar("_Value")

Distance: TypeAlias = Callable[[PeerId], float]
"""Foretold round trip to a member in seconds; infinity if nothing is known."""


class Overlay:
    """How to drive it:

    1. `resize(members, now, links=..., standing=..., small=..., large=...)` whenever the number of members or links changes.
    2. `link_up`, `link_down`, `parted` follow `links`.
    3. `admits(neighbour, now, isolated=...)` when a neighbour introduced itself: False means send it on to others.
    4. `handle_timeout(now, alive, distance, pending)` at `deadline`. It wishes: `DialWanted`, `Part`.
    """

    def __init__(
        self, config: GossipConfig, own: PeerId, rng: random.Random, links: dict[PeerId, Neighbour], out: Effects
    ) -> None:
        self._config = config
        self._own = own
        self._rng = rng
        self.mode = Mode.FULL
        self.members = 1
        self.links = links
        self.effects = out
        self.deadline = math.inf
        self._backoff: OrderedDict[PeerId, float] = OrderedDict()
        self._unreachable: OrderedDict[PeerId, tuple[int, float]] = OrderedDict()  # (its epoch, until when)
        self._drawn: OrderedDict[PeerId, float] = OrderedDict()  # dialled by lot, and when
        self._stray_at = -math.inf
        self._stray_every_s = _STRAY_S
        self._honoured: OrderedDict[PeerId, float] = OrderedDict()
        self._improve_at = 0.0
        self._improve_every_s = config.shuffle_interval_s
        self._promise: tuple[PeerId, Neighbour] | None = None  # a near link that we dialled, and which one it must beat

    @property
    def deadline(self) -> float:
        return self.effects.timers[effects.OVERLAY]

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self.effects.timers[effects.OVERLAY] = deadline

    # ------------------------------------------------------------------------------------------------------- mode

    def resize(self, members: int, now: float, *, links: int, standing: int, small: int, large: int) -> bool:
        """Follow the size of the room, with hysteresis. True if the mode changed. Records alone make no room large, for they
        cost nothing: it is, if nearly as many as a full mesh holds are with us, and with those for whom a third of our
        neighbours stand (`standing`) more; or if more neighbours call it large than `small`. Who has no link believes what it
        is told, until somebody is there to ask."""
        self.members = members
        config, before = self._config, self.mode
        known = config.full_knowledge_max
        few = config.full_mesh_max - config.full_mesh_hysteresis
        if members <= few:
            self.mode = Mode.FULL
        elif self.mode is Mode.FULL:
            many = links >= few and standing >= config.full_mesh_max
            if members > config.full_mesh_max and (many or large > small or not links):
                self.mode = Mode.PARTIAL
        elif large < small and links < few:
            self.mode = Mode.FULL  # whoever made us believe in a large room was alone
        elif self.mode is Mode.PARTIAL and members > known:
            self.mode = Mode.LOBBY
        elif self.mode is Mode.LOBBY and members < known * 3 // 4:
            self.mode = Mode.PARTIAL
        if self.mode is not Mode.FULL and self.deadline == math.inf:
            self.deadline = now + _TICK_S * self._rng.random()
        return self.mode is not before

    @property
    def target(self) -> int:
        """How many links we want."""
        if self.mode is Mode.FULL:
            return self._config.full_mesh_max - 1
        return self._config.active_view or min(9, max(6, (self.members - 1).bit_length()))

    @property
    def anchors(self) -> int:
        """How many of them we want to have chosen ourselves (GossipSub's D_out, but half)."""
        return (self.target + 1) // 2

    @property
    def isolated(self) -> bool:
        return self._audible <= 1

    @property
    def _audible(self) -> int:
        return sum(neighbour.place.audible for neighbour in self.links.values())

    @property
    def hollow(self) -> bool:
        """Most of the links that we should have do not carry: many have died at once, or we are cut off. No verdict is
        waited for, others are dialled. A few silent links are left to the failure detector."""
        return 2 * self._audible < min(self.target, self.members - 1)

    @property
    def _room_for_stranded(self) -> int:
        if self.members <= _SMALL_ROOM * self._config.full_mesh_max:
            return self._config.links_max
        return min(self.target + _ROOM_FOR_JOINS + _ROOM_FOR_STRANDED, self._config.links_max)

    @property
    def _unbiased(self) -> int:
        return sum(neighbour.place.unbiased for neighbour in self.links.values())

    # ------------------------------------------------------------------------------------------------------ links

    def link_up(self, neighbour: Neighbour, now: float) -> None:
        place = neighbour.place
        if self._drawn.pop(neighbour.peer, None) is not None and place.outbound and not place.unbiased:
            self._make_unbiased(neighbour)
        if self.mode is not Mode.FULL:
            self.deadline = min(self.deadline, now + _TICK_S)

    def link_down(self, now: float) -> None:
        if self.mode is not Mode.FULL:
            self.deadline = min(self.deadline, now)  # a vacancy is filled at once

    def parted(self, peer: PeerId, now: float) -> None:
        """One side closed the link in good order: neither dials the other for a while."""
        while self._backoff and next(iter(self._backoff.values())) <= now:
            del self._backoff[next(iter(self._backoff))]
        self._remember(self._backoff, peer, now + _BACKOFF_S)
        self._drawn.pop(peer, None)

    def unreachable(self, peer: PeerId, epoch: int, now: float) -> None:
        """A lobby's member did not answer us: others may still tell us of this life of it, for as long as they live beyond
        a cut, so we stop listening."""
        self._remember(self._unreachable, peer, (epoch, now + _UNREACHABLE_S))

    def shuns(self, peer: PeerId, epoch: int, now: float) -> bool:
        """Whether what others tell of that life is not worth learning; who has few links is glad of anybody."""
        failed = self._unreachable.get(peer)
        if failed is None or len(self.links) < self.target // 2:
            return False
        return epoch <= failed[0] and now < failed[1]

    def keep(self, peer: PeerId, until: float) -> None:
        """A link with a purpose, such as crossing a healed cut: it is not closed before."""
        neighbour = self.links.get(peer)
        if neighbour is not None:
            neighbour.place.keep_until = max(neighbour.place.keep_until, until)

    def admits(self, neighbour: Neighbour, now: float, *, isolated: bool) -> bool:
        """Whether a link that is up may stay. An isolated newcomer takes the place of somebody who can spare us."""
        count = len(self.links)
        if self.mode is Mode.FULL:
            return count <= self._config.links_max
        if self.hollow and count <= self._config.links_max:
            count = self._audible  # the silent ones keep nobody out
        if neighbour.place.outbound or count <= min(self.target + _ROOM_FOR_JOINS, self._config.links_max):
            return True
        peer = neighbour.peer
        if isolated and now - self._honoured.get(peer, -math.inf) >= _BACKOFF_S:  # once a minute for each peer
            spare = self._spare_inbound(now, besides=peer)
            if spare is not None:
                self._part(spare, "full", now)
            elif count > self._room_for_stranded:
                return False
            self._remember(self._honoured, peer, now)
            return True
        return False

    # ----------------------------------------------------------------------------------------------------- upkeep

    def handle_timeout(self, now: float, alive: list[PeerId], distance: Distance, pending: int) -> None:
        """`alive`: the members known; `pending`: dials on their way."""
        if now < self.deadline:
            return
        if self.mode is Mode.FULL:
            self.deadline = math.inf
            return
        self.deadline = now + _TICK_S * (0.75 + 0.5 * self._rng.random())
        hollow = self.hollow
        counted = [n.place for n in self.links.values() if n.place.audible or not hollow]
        count, outbound = len(counted), sum(place.outbound for place in counted)
        before = len(self.effects.wishes)
        self._draw(now, alive)
        pending += len(self.effects.wishes) - before
        target = min(self.target, len(alive))
        wanted = max(target - count, min(self.anchors, len(alive) - count) - outbound)
        if count > self.target + _SLACK:
            self._shed(count, now, chosen=wanted <= 0)
        if wanted > 0:
            self._fill(2 * wanted - pending, now, alive, distance)  # twice: a part of the dials fail
        elif count <= self.target + _SLACK and now >= self._improve_at:
            self._judge_promise(now)
            self._improve_at = now + self._improve_every_s * (0.75 + 0.5 * self._rng.random())
            self._improve(now, alive, distance)

    def look(self) -> None:
        """What probes say of each link now: that counts until the next look."""
        for neighbour in self.links.values():
            place = neighbour.place
            place.degree, place.srtt = neighbour.degree, neighbour.probe.srtt
            place.audible = not neighbour.probe.impaired

    def _draw(self, now: float, alive: list[PeerId]) -> None:
        """Choose the unbiased links, by our own hash order of a sample. Whom we have dialled already counts as drawn, else
        a small room would draw from the far ones only; no more are dialled than are missing, else the fastest would win."""
        for peer, since in list(self._drawn.items()):
            if since + _DRAW_S <= now or peer in self.links:
                del self._drawn[peer]
        lacking = _UNBIASED - self._unbiased - len(self._drawn)
        if lacking <= 0:
            return
        sample = self._rng.sample(alive, min(len(alive), 8 + len(self.links)))
        for peer in sorted(sample, key=self._rank):
            neighbour = self.links.get(peer)
            if neighbour is not None and neighbour.place.outbound and not neighbour.place.unbiased:
                self._make_unbiased(neighbour)
            elif neighbour is None and peer not in self._drawn and self._backoff.get(peer, 0.0) <= now:
                self._drawn[peer] = now
                self.effects.wishes.append(DialWanted(peer))
            else:
                continue
            lacking -= 1
            if not lacking:
                return

    def _make_unbiased(self, neighbour: Neighbour) -> None:
        """No more are drawn than are missing, unless we seem cut off: then the eldest led nowhere, and gives way."""
        if self._unbiased >= _UNBIASED:
            next(n for n in self.links.values() if n.place.unbiased).place.unbiased = False
        neighbour.place.unbiased = True

    def cut_off(self, now: float, alive: list[PeerId]) -> None:
        """What the whole room should have got has not come for long: dial some by lot, who may be beyond the cut. Ever
        less often, because the keeper of the tree may be at fault."""
        if now < self._stray_at:
            return
        self._stray_at = now + self._stray_every_s
        self._stray_every_s = min(_STRAY_MAX_S, 2 * self._stray_every_s)
        strangers = [peer for peer in alive if peer not in self.links]
        for peer in self._rng.sample(strangers, min(_STRAY_DIALS, len(strangers))):
            self._remember(self._drawn, peer, now)
            self.effects.wishes.append(DialWanted(peer))

    def in_touch(self) -> None:
        """It has come."""
        self._stray_every_s = _STRAY_S

    def _fill(self, count: int, now: float, alive: list[PeerId], distance: Distance) -> None:
        if count <= 0:
            return
        pool = self._candidates(4 * count + 8, now, alive)
        chosen: list[PeerId] = []
        near = sorted(pool, key=distance)
        if near and distance(near[0]) < math.inf:
            chosen += near[: count // 2]
        others = [peer for peer in pool if peer not in chosen]
        self._rng.shuffle(others)
        for peer in (chosen + others)[:count]:
            self.effects.wishes.append(DialWanted(peer))

    def _improve(self, now: float, alive: list[PeerId], distance: Distance) -> None:
        """Exchange a far link of ours for a near one: dial now, close the far one when the near one kept its promise."""
        pool = self._candidates(16, now, alive)
        far = [n for n in self._free_to_go(now, keep=0) if n.place.srtt and n.place.outbound]
        if not pool or not far:
            return
        nearest = min(pool, key=distance)
        farthest = max(far, key=lambda n: n.place.srtt)
        if distance(nearest) < _NEAR_GAIN * farthest.place.srtt:
            self._promise = (nearest, farthest)
            self.effects.wishes.append(DialWanted(nearest))

    def _judge_promise(self, now: float) -> None:
        """Coordinates foretell with errors: where they deceive us, we try less and less often. A near link takes the place
        of any far one, however old: that is our choice, at our pace."""
        if self._promise is None:
            return
        peer, far = self._promise
        self._promise = None
        neighbour = self.links.get(peer)
        kept = neighbour is not None and 0.0 < neighbour.place.srtt < (1 + _NEAR_GAIN) / 2 * far.place.srtt
        stands = self.links.get(far.peer) is far
        if kept and stands and len(self.links) > self.target and self._can_go(far, now):
            self._part(far.peer, "surplus", now)
        longest = _IMPROVE_EVERY_MAX_S
        self._improve_every_s = self._config.shuffle_interval_s if kept else min(longest, 2 * self._improve_every_s)

    def _candidates(self, count: int, now: float, alive: list[PeerId]) -> list[PeerId]:
        """A random sample of members that are not linked and not in backoff: O(count), whatever the room's size."""
        sample = self._rng.sample(alive, min(len(alive), count + len(self.links)))
        free = [p for p in sample if p not in self.links and p not in self._drawn]
        rested = [p for p in free if self._backoff.get(p, 0.0) <= now]
        lonely = len(self.links) < self.target // 2
        return (rested or free if lonely else rested)[:count]

    def _shed(self, count: int, now: float, *, chosen: bool) -> None:
        """One link at a time. `chosen`: we have as many as we want that we dialled ourselves, and may give up one of them.

        Else, over what we take from others: who was let in beyond that, because it was stranded or the room was small, is
        sent on once it has others. Its own side never calls the link surplus, if it has few. It lacks an anchor then, and
        dials somebody else, as we would refuse it; the youngest goes, so that a flood displaces itself.
        """
        spare = self._surplus(now) if chosen else None
        if spare is not None:
            self._part(spare, "surplus", now)
        elif count > self.target + _ROOM_FOR_JOINS and (spare := self._spare_inbound(now)) is not None:
            self._part(spare, "full", now)

    def _surplus(self, now: float) -> PeerId | None:
        """The farthest link that both sides can spare. Only who dialled calls a link surplus: if the other side did,
        the dialler would lack an anchor and dial again, for ever."""
        outbound = sum(n.place.outbound for n in self.links.values())
        if outbound <= self.anchors:
            return None
        pressed = len(self.links) - outbound > self.target - self.anchors  # more than others' share of our links
        return _farthest(n for n in self._free_to_go(now, keep=_VETERANS if pressed else 0) if n.place.outbound)

    def _spare_inbound(self, now: float, besides: PeerId | None = None) -> PeerId | None:
        """Whose place an isolated newcomer gets: the youngest's, for who floods us with newcomers displaces its own. While
        others are too young to be judged it is nobody's: somebody older would give way to the flood."""
        inbound = [n for n in self.links.values() if not n.place.outbound and n.peer != besides]
        if any(now <= n.place.since + SETTLING_S for n in inbound):
            return None
        free = [n.peer for n in self._free_to_go(now, keep=_VETERANS) if not n.place.outbound and n.peer != besides]
        return free[-1] if free else None

    def _free_to_go(self, now: float, *, keep: int) -> list[Neighbour]:
        """Links that nobody needs, without the `keep` oldest. The table is in the order in which they came up."""
        return [n for n in islice(self.links.values(), keep, None) if self._can_go(n, now)]

    def _can_go(self, neighbour: Neighbour, now: float) -> bool:
        place = neighbour.place
        settled = now > place.keep_until and not place.unbiased
        return settled and place.degree > self.target  # else the other side needs it

    def _part(self, peer: PeerId, reason: str, now: float) -> None:
        self.parted(peer, now)
        self.effects.wishes.append(Part(peer, reason))

    def _rank(self, peer: PeerId) -> bytes:
        """Basalt's ranking: our own hash order of all peers, which nobody can foresee for many observers at once."""
        return blake2b(peer.encode(), key=self._own.encode(), digest_size=8).digest()

    @staticmethod
    def _remember(table: OrderedDict[PeerId, _Value], peer: PeerId, value: _Value) -> None:
        table.pop(peer, None)
        table[peer] = value
        forget_oldest(table, _BACKOFFS_MAX)


def _farthest(neighbours: Iterable[Neighbour]) -> PeerId | None:
    farthest = max(neighbours, key=lambda n: (n.place.srtt, n.peer), default=None)
    return None if farthest is None else farthest.peer
