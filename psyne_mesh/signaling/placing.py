"""Who seeks a room and where it gets a place: at once, or in a group of those who wait. Pure; it drives the registry."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import attrs

from psyne_mesh.errors import RoomError, SignalingError
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import forget_oldest
from psyne_mesh.signaling.events import RoomInfo, lobby_of
from psyne_mesh.signaling.joining import SeekRequest
from psyne_mesh.signaling.matching import Seeker, best_groups, complete_parties, overlap, reaches, region_of, widened
from psyne_mesh.signaling.registry import RoomRegistry

LOOK_S = 0.25  # between two looks at who waits...
LOOK_S_PER_WAITING = 1e-4  # ...and so much more for each: what looks cost stays below a tenth of a core
WAITING_MAX = 10_000  # as many as a server has clients; one more is refused
WAITING_PER_PEER_MAX = 4  # lobbies in which one player waits at once
REFILL_S = 30.0  # so long a new room of a quick match takes others in place of who did not come


@attrs.frozen
class Place:
    """The answer to the `seek` of `peer` with that `ref`: a room in which a seat is held, or why there is none."""

    peer: PeerId
    ref: int
    outcome: RoomInfo | RoomError | SignalingError


class Placing:
    """1. `seek(peer, ref, request, now)`; 2. `withdraw(peer, ref)` when nobody waits any more, `depart(peer)` when it is
    gone; 3. `handle_timeout(now)` at `next_timeout()`; 4. `take_places()` after 1 and 3.
    """

    def __init__(self, registry: RoomRegistry) -> None:
        self._registry = registry
        self._pools: dict[_Pool, dict[PeerId, _Waiting]] = {}
        self._waits: dict[PeerId, dict[int, _Pool]] = {}
        self._total = 0
        self._young: OrderedDict[str, tuple[_Pool, float]] = (
            OrderedDict()
        )  # rooms of quick matches, and until when they are refilled
        self._places: list[Place] = []
        self._look_at: float | None = None

    def seek(self, peer: PeerId, ref: int, request: SeekRequest, now: float, address: str = "") -> None:
        waiting = _Waiting(peer, ref, request, now, address)
        if not request.waits:
            self._place((waiting,), now)
            return
        self.withdraw(peer, ref)
        self.withdraw(peer, self._ref_in(waiting.pool, peer))  # who asks anew does not wait twice
        if self._total >= WAITING_MAX or len(self._waits.get(peer, ())) >= WAITING_PER_PEER_MAX:
            self._places.append(Place(peer, ref, SignalingError("too many wait for a match already; try again")))
            return
        self._pools.setdefault(waiting.pool, {})[peer] = waiting
        self._waits.setdefault(peer, {})[ref] = waiting.pool
        self._total += 1
        if self._look_at is None:
            self._look_at = now + LOOK_S

    def is_waiting(self, peer: PeerId) -> bool:
        return peer in self._waits

    def withdraw(self, peer: PeerId, ref: int | None) -> None:
        """It does not wait. Nothing happens where it has a place already: the seat is held for a while."""
        if ref is not None and ref in self._waits.get(peer, ()):
            self._forget(peer, ref)

    def depart(self, peer: PeerId) -> None:
        for ref in list(self._waits.get(peer, ())):
            self._forget(peer, ref)

    def next_timeout(self) -> float | None:
        return self._look_at

    def handle_timeout(self, now: float) -> None:
        if self._look_at is None or now < self._look_at:
            return
        for key in [key for key, (_, until) in self._young.items() if until <= now]:
            del self._young[key]
        for key, (pool, _) in list(self._young.items()):
            if pool in self._pools:
                self._refill(key, pool, now)
        for pool, waiting in list(self._pools.items()):
            if len(waiting) >= max(2, pool.players):
                self._match(pool, now)
        self._look_at = now + LOOK_S + LOOK_S_PER_WAITING * self._total if self._pools else None

    def take_places(self) -> list[Place]:
        places, self._places = self._places, []
        return places

    # ------------------------------------------------------------------------------------------------------- helpers

    def _refill(self, key: str, pool: _Pool, now: float) -> None:
        """Somebody of a group did not come: who waits longest and fits takes the seat."""
        for waiting in list(self._pools[pool].values()):
            info = self._registry.with_free_seat(key, now)
            if info is None:
                return
            if waiting.may_refill(info, now):
                self._forget(waiting.peer, waiting.ref)
                self._registry.hold(key, (waiting.peer,), now)
                self._places.append(Place(waiting.peer, waiting.ref, info))
                if pool not in self._pools:
                    return

    def _match(self, pool: _Pool, now: float) -> None:
        waiting = dict(self._pools[pool])
        seekers = [entry.seeker for entry in waiting.values()]
        for group in best_groups(seekers, pool.players, now) if pool.players else complete_parties(seekers):
            region = region_of(group)
            members = [waiting[seeker.peer] for seeker in group]
            for member in members:
                self._forget(member.peer, member.ref)
            # Who is at home there signs the room.
            self._place(sorted(members, key=lambda member: member.request.join.region != region), now)

    def _place(self, members: Sequence[_Waiting], now: float) -> None:
        first = members[0]
        info: RoomInfo | RoomError | SignalingError
        try:
            info = self._registry.place(
                [member.peer for member in members], first.request.join, now, address=first.address,
                fresh=first.request.players > 0, avoid=first.request.avoid, rtt_ms=first.request.rtt_ms,
            )  # fmt: skip
            if first.request.players:
                self._young[info.room] = first.pool, now + REFILL_S
                forget_oldest(self._young, WAITING_MAX)
        except (RoomError, SignalingError) as error:
            info = error
        self._places += [Place(member.peer, member.ref, info) for member in members]

    def _ref_in(self, pool: _Pool, peer: PeerId) -> int | None:
        waiting = self._pools.get(pool, {}).get(peer)
        return None if waiting is None else waiting.ref

    def _forget(self, peer: PeerId, ref: int) -> None:
        pool = self._waits[peer].pop(ref)
        if not self._waits[peer]:
            del self._waits[peer]
        del self._pools[pool][peer]
        if not self._pools[pool]:
            del self._pools[pool]
        self._total -= 1


@attrs.frozen
class _Pool:
    """Who can play together at all. players: 0 for parties that go into any room."""

    lobby: str
    app_version: str
    players: int


@attrs.frozen
class _Waiting:
    peer: PeerId
    ref: int
    request: SeekRequest
    since: float
    address: str

    @property
    def pool(self) -> _Pool:
        join = self.request.join
        return _Pool(lobby_of(join.key), join.manifest.app_version, self.request.players)

    @property
    def seeker(self) -> Seeker:
        join = self.request.join
        return Seeker(
            peer=self.peer, since=self.since, skill_range=join.skill_range, region=join.region,
            rtt_ms=self.request.rtt_ms, party=self.request.party, party_size=self.request.party_size,
        )  # fmt: skip

    def may_refill(self, info: RoomInfo, now: float) -> bool:
        """A party does not come alone, and nobody goes back to where it came from."""
        join, waited_s = self.request.join, now - self.since
        return (
            self.request.party_size == 1
            and info.room not in self.request.avoid
            and overlap(widened(join.skill_range, waited_s), info.skill_range)
            and reaches(info.region, join.region, self.request.rtt_ms, waited_s)
        )
