"""Which rooms exist and who is in them. Pure: the server and the in-memory hub drive the same class."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice

import attrs
import msgspec

from psyne_mesh.errors import (
    AppVersionMismatch,
    RoomError,
    RoomExists,
    RoomFull,
    RoomMismatch,
    RoomNotFound,
    SignalingError,
)
from psyne_mesh.identity import PeerId
from psyne_mesh.names import normal
from psyne_mesh.signaling.events import Joined, PeerInfo, RoomInfo, RoomListing, lobby_of, room_key
from psyne_mesh.signaling.joining import JoinRequest, RoomQuery
from psyne_mesh.signaling.locks import check_door_untrusted
from psyne_mesh.signaling.manifest import Manifest, check_untrusted
from psyne_mesh.signaling.matching import overlap, reaches, skill_gap

PAIR_PREFIX = "pair:"  # of the names of rooms for two players who named each other


@attrs.frozen(kw_only=True)
class RegistryLimits:
    """What strangers may make a registry hold. At a limit of rooms the oldest empty one of those who reached it gives
    way, else the request is refused; nobody present is ever evicted."""

    rooms_max: int = 10_000  # 10,000 rooms of 16 with records of 500 bytes: about 150 MB
    rooms_per_peer_max: int = 16  # that one player is in
    rooms_created_per_peer_max: int = 32  # that one player has made and that still are: twice as many, for those left
    rooms_created_per_address_max: int = 500  # 5 % of all
    players_per_room_max: int = 10_000
    told_max: int = (
        256  # members of one room whom an arrival or departure concerns; in larger rooms gossip tells the rest
    )
    listed_max: int = 100
    empty_ttl_s: float = 60.0  # a room outlives its last player so that a restart finds its settings
    seat_hold_s: float = 10.0  # a guess: several reconnect attempts fit in


@attrs.frozen
class Arrival:
    """The outcome of a join. Tell `notify` about `member`; nobody when it is empty (alone, or a refreshed record)."""

    joined: Joined
    member: PeerInfo
    notify: tuple[PeerId, ...]
    rejoined: bool


@attrs.frozen
class Departure:
    """A member is gone. Tell `notify`. `record` is what it left to be told to them, or nothing."""

    room: str
    peer_id: PeerId
    reason: str
    notify: tuple[PeerId, ...]
    record: str = ""


@attrs.frozen
class RegistryStats:
    rooms: int
    members: int
    rooms_created: int
    rooms_expired: int
    joins: int
    joins_refused: int
    leaves: int


class RoomRegistry:
    """Rooms keyed by (app_id, region, name, instance), and their members.

    1. `join(peer, request, now)`: the answer and whom to tell, or a `RoomError`, or `SignalingError` (a limit); a refused
       join changes nothing. `place(peers, request, now)` before it, for who asks for any instance of a lobby that fits: it
       chooses or makes one, and holds their seats in it.
    2. `leave(peer, room_key, now)` when it says goodbye, `depart(peer, reason, now)` when its connection ends or is
       superseded: whom to tell. A member who did not say goodbye keeps a claim on its seat for `seat_hold_s`: it is in
       no list any more, but nobody else can take the seat.
       In a room of more than `told_max` a sample of the members is listed and told.
    3. `expire(now)` now and then, at the latest at `next_timeout()`: forgets claims and rooms that stayed empty.
    """

    def __init__(
        self, limits: RegistryLimits | None = None, wall_ms: Callable[[float], int] = lambda now: int(now * 1000)
    ) -> None:
        """wall_ms: Unix milliseconds at a `now`, for invitations, which end."""
        self._limits = limits or RegistryLimits()
        self._wall_ms = wall_ms
        self._lobbies: dict[str, dict[str, None]] = {}  # of each its instances, the oldest first
        self._by_code: dict[str, str] = {}
        self._rooms: dict[str, _Room] = {}
        self._rooms_of: dict[PeerId, dict[str, None]] = {}  # dict as an ordered set: departures in order of joining
        self._created_by: dict[str, dict[str, None]] = {}  # peer ids and addresses -> rooms that are, the oldest first
        self._empty: dict[str, None] = {}  # rooms without members, the one that is so longest first
        self._created = self._expired = self._joins = self._refused = self._leaves = 0

    def join(
        self,
        peer: PeerId,
        request: JoinRequest,
        now: float,
        *,
        address: str = "",
        told_max: float = math.inf,
        listed_max: float = math.inf,
    ) -> Arrival:
        """address: whose share of rooms a new one is taken from; "": nobody's. told_max, listed_max: of members, where
        fewer than usual shall be."""
        try:
            room, created = self._admit(peer, request, now, address)
        except (RoomError, SignalingError):
            self._refused += 1
            raise
        if created:
            self._add(room)
        created = created or room.is_unused
        self._joins += 1
        present = room.members.get(peer)
        rejoined = room.held.pop(peer, None) is not None
        if present is None:
            member = PeerInfo(peer, request.record, room.arrivals)
            room.arrivals += 1
        else:
            member = msgspec.structs.replace(present, record=request.record)
        room.members[peer] = member
        room.empty_since = None
        self._empty.pop(room.key, None)
        self._rooms_of.setdefault(peer, {})[room.key] = None
        others = [m for m in room.members.values() if m.peer_id != peer]
        listed = _sample(others, int(min(listed_max, self._limits.told_max)))
        told = _sample(others, int(min(told_max, self._limits.told_max))) if present is None else ()
        joined = Joined(room.info(), listed, created, member.index)
        return Arrival(joined, member, tuple(m.peer_id for m in told), rejoined)

    def place(
        self,
        peers: Sequence[PeerId],
        request: JoinRequest,
        now: float,
        *,
        address: str = "",
        fresh: bool = False,
        avoid: Collection[str] = (),
        rtt_ms: Mapping[str, float] | None = None,
    ) -> RoomInfo:
        """The instance of the lobby that fits all of `peers` best, with seats held for them for `seat_hold_s`; where there is
        none, or with `fresh`, a new one as `request` says, of the first of them. Errors as for `join`: why the nearest does
        not fit, where `request.create` is "never"."""
        instances = [self._rooms[key] for key in self._lobbies.get(lobby_of(request.key), ())]
        for room in instances:
            room.release_seats(now)
        best = None if fresh else self._best(peers, request, instances, avoid, rtt_ms or {})
        room = best or self._new_instance(peers[0], request, now, address)
        self.hold(room.key, peers, now)
        return room.info()

    def hold(self, key: str, peers: Sequence[PeerId], now: float) -> None:
        """A seat for each, if they enter within `seat_hold_s`; whether there are so many is the caller's to know."""
        room = self._rooms[key]
        for peer in peers:
            if peer not in room.members:
                room.held[peer] = now + self._limits.seat_hold_s

    def with_free_seat(self, key: str, now: float) -> RoomInfo | None:
        """The room, if it is there and somebody still fits in."""
        room = self._rooms.get(key)
        if room is None:
            return None
        room.release_seats(now)
        return room.info() if room.fullness(1) is None else None

    def _best(
        self, peers: Sequence[PeerId], request: JoinRequest, instances: Sequence[_Room], avoid: Collection[str],
        rtt_ms: Mapping[str, float],
    ) -> _Room | None:  # fmt: skip
        """Where we are or were a moment ago; else our own region first, then the nearest; then the fullest, the nearest in
        skill, the oldest."""
        wanted = [room for room in instances if room.key not in avoid]
        for room in wanted:
            if all(peer in room.members or peer in room.held for peer in peers):
                return room
        fitting = [room for room in wanted if room.objection(request, len(peers), rtt_ms) is None]
        if fitting:
            return min(
                fitting,
                key=lambda room: (
                    0.0 if room.region == request.region else rtt_ms.get(room.region, math.inf),
                    -room.taken(), skill_gap(room.skill_range, request.skill_range),
                ),
            )  # fmt: skip
        if request.create == "never":
            objections = [room.objection(request, len(peers), rtt_ms) for room in wanted if room.members]
            objections.append(RoomNotFound(f"there is no room {request.name!r} in region {request.region!r}"))
            raise min(filter(None, objections), key=lambda error: isinstance(error, RoomNotFound))
        return None

    def _new_instance(self, peer: PeerId, request: JoinRequest, now: float, address: str) -> _Room:
        """The first one has the lobby's plain name: so players find each other after a server has lost everything."""
        if len(self._rooms_of.get(peer, ())) >= self._limits.rooms_per_peer_max:
            raise SignalingError(f"one player may be in {self._limits.rooms_per_peer_max} rooms at a time")
        first = self._rooms.get(request.key)
        is_free = first is None or not (first.members or first.held)
        if not is_free or request.manifest.policy != "open" or not request.manifest.visible:
            if not request.manifest.code:
                raise RoomFull(
                    f"room {request.name!r} is taken, and who makes another names its code: create_room does"
                )
            request, first = attrs.evolve(request, instance=request.manifest.code), None
        creators = (peer, address) if address else (peer,)
        room = self._fresh(request.key, first, request, creators, now)
        self._add(room)
        room.empty_since = now
        self._empty[room.key] = None
        return room

    def _add(self, room: _Room) -> None:
        self._forget(room.key)
        self._rooms[room.key] = room
        self._lobbies.setdefault(lobby_of(room.key), {})[room.key] = None
        if room.manifest.code:
            self._by_code[room.manifest.code] = room.key
        for creator in room.creators:
            self._created_by.setdefault(creator, {})[room.key] = None
        self._created += 1

    def leave(
        self,
        peer: PeerId,
        room_key: str,
        now: float,
        *,
        reason: str = "left",
        record: str = "",
        told_max: float = math.inf,
    ) -> Departure | None:
        """None if the peer was not in the room. `told_max` as for `join`."""
        room = self._rooms.get(room_key)
        if room is None or peer not in room.members:
            return None
        del room.members[peer]
        mine = self._rooms_of[peer]
        del mine[room_key]
        if not mine:
            del self._rooms_of[peer]
        self._leaves += 1
        if reason != "left":
            room.held[peer] = now + self._limits.seat_hold_s  # at most max_players: only members come in here
        if not room.members:
            room.empty_since = now
            self._empty[room_key] = None
        told = _sample(list(room.members.values()), int(min(told_max, self._limits.told_max)))
        return Departure(room_key, peer, reason, tuple(member.peer_id for member in told), record)

    def depart(self, peer: PeerId, reason: str, now: float, *, told_max: float = math.inf) -> list[Departure]:
        """Out of every room, for example because the connection broke."""
        departures = [
            self.leave(peer, key, now, reason=reason, told_max=told_max) for key in tuple(self._rooms_of.get(peer, ()))
        ]
        return [departure for departure in departures if departure is not None]

    def is_member(self, peer: PeerId, room_key: str) -> bool:
        room = self._rooms.get(room_key)
        return room is not None and peer in room.members

    def rooms_of(self, peer: PeerId) -> tuple[str, ...]:
        return tuple(self._rooms_of.get(peer, ()))

    def list_rooms(self, query: RoomQuery | None = None) -> RoomListing:
        """Rooms with somebody in them, oldest first; not those of pairs, where no third finds a place. `app_id=None` means
        every application (the server's own page), as does no query."""
        query = query or RoomQuery(app_id=None)
        limit = min(query.limit, self._limits.listed_max)
        rooms: Iterable[_Room] = self._rooms.values()
        if query.code is not None:
            key = self._by_code.get(query.code)
            rooms = [] if key is None else [self._rooms[key]]
        elif query.name is not None and query.app_id is not None:
            lobby = lobby_of(room_key(query.name, app_id=query.app_id))
            rooms = [self._rooms[key] for key in self._lobbies.get(lobby, ())]
        matching = (room.info() for room in rooms if _matches(room, query))
        found = tuple(islice(matching, limit + 1))
        return RoomListing(found[:limit], truncated=len(found) > limit)

    def next_timeout(self) -> float | None:
        """When `expire` has something to do at the earliest."""
        due = [
            room.empty_since + self._limits.empty_ttl_s for room in self._rooms.values() if room.empty_since is not None
        ]
        due += [until for room in self._rooms.values() for until in room.held.values()]
        return min(due, default=None)

    def expire(self, now: float) -> None:
        for room in tuple(self._rooms.values()):
            room.release_seats(now)
            if room.empty_since is not None and now - room.empty_since >= self._limits.empty_ttl_s:
                self._forget(room.key)
                self._expired += 1

    @property
    def stats(self) -> RegistryStats:
        members = sum(len(room.members) for room in self._rooms.values())
        return RegistryStats(
            len(self._rooms), members, self._created, self._expired, self._joins, self._refused, self._leaves
        )

    def _admit(self, peer: PeerId, request: JoinRequest, now: float, address: str) -> tuple[_Room, bool]:
        key = request.key
        room = self._rooms.get(key)
        if room is not None and room.members.get(peer) is None:
            room.release_seats(now)
        if room is not None and peer in room.members:
            return room, False
        if len(self._rooms_of.get(peer, ())) >= self._limits.rooms_per_peer_max:
            raise SignalingError(f"one player may be in {self._limits.rooms_per_peer_max} rooms at a time")
        if room is None or self._gives_way(room, request):
            self._check_door(request.manifest, peer, request, now)
            return self._fresh(key, room, request, (peer, address) if address else (peer,), now), True
        if request.create == "only":
            raise RoomExists(f"room {request.name!r} exists already")
        if peer not in room.held:
            objection = room.objection_to(request) or room.fullness(1)
            if objection is not None:
                raise objection
        self._check_door(room.manifest, peer, request, now)
        return room, False

    def _check_door(self, manifest: Manifest, peer: PeerId, request: JoinRequest, now: float) -> None:
        check_door_untrusted(manifest, peer, request.door, self._wall_ms(now))

    @staticmethod
    def _gives_way(room: _Room, request: JoinRequest) -> bool:
        """A room without players and claims keeps its settings for whoever can use them, and hinders nobody else."""
        if room.members or room.held or request.create == "never":
            return False
        return request.create == "only" or not overlap(room.skill_range, request.skill_range)

    def _fresh(
        self, key: str, empty: _Room | None, request: JoinRequest, creators: tuple[str, ...], now: float
    ) -> _Room:
        if request.create == "never":
            raise RoomNotFound(f"there is no room {request.name!r} in region {request.region!r}")
        check_untrusted(request)
        code = request.manifest.code
        if code and self._by_code.get(code, key) != key:
            raise SignalingError("another room has this code; take another")
        limits = self._limits
        shares = (
            ("you have", limits.rooms_created_per_peer_max),
            ("your address has", limits.rooms_created_per_address_max),
        )
        for creator, (who, limit) in zip(creators, shares, strict=False):
            if len(self._created_by.get(creator, ())) >= limit and not self._clear(self._created_by[creator], now):
                raise SignalingError(f"{who} made the {limit} rooms that this server allows, and all are in use")
        if empty is None and len(self._rooms) >= limits.rooms_max and not self._clear(self._empty, now):
            raise SignalingError(f"this server holds no more than {limits.rooms_max} rooms")
        return _Room(key, request, min(request.max_players, limits.players_per_room_max), creators)

    def _clear(self, rooms: Iterable[str], now: float) -> bool:
        """Forget the oldest of `rooms` that is empty and to which nobody has a claim. A walk of `_empty` is short: claims
        lapse within `seat_hold_s`."""
        for key in rooms:
            room = self._rooms[key]
            room.release_seats(now)
            if not room.members and not room.held:
                self._forget(key)
                self._expired += 1
                return True
        return False

    def _forget(self, key: str) -> None:
        room = self._rooms.pop(key, None)
        if room is None:
            return
        self._empty.pop(key, None)
        if self._by_code.get(room.manifest.code) == key:
            del self._by_code[room.manifest.code]
        lobby = lobby_of(key)
        del self._lobbies[lobby][key]
        if not self._lobbies[lobby]:
            del self._lobbies[lobby]
        for creator in room.creators:
            mine = self._created_by[creator]
            del mine[key]
            if not mine:
                del self._created_by[creator]


class _Room:
    __slots__ = (
        "app_id",
        "arrivals",
        "creators",
        "empty_since",
        "held",
        "instance",
        "key",
        "manifest",
        "max_players",
        "members",
        "metadata",
        "name",
        "region",
        "skill_range",
    )

    def __init__(self, key: str, request: JoinRequest, max_players: int, creators: tuple[str, ...]) -> None:
        self.key = key
        self.creators = creators
        self.name = request.name
        self.app_id = request.app_id
        self.region = request.region
        self.max_players = max_players
        self.skill_range = request.skill_range
        self.metadata = dict(request.metadata)
        self.instance = request.instance
        self.manifest = request.manifest
        self.members: dict[PeerId, PeerInfo] = {}
        self.held: dict[PeerId, float] = {}  # claims on a seat and when they lapse
        self.arrivals = 0
        self.empty_since: float | None = None

    def taken(self) -> int:
        return len(self.members) + len(self.held)

    @property
    def is_unused(self) -> bool:
        """Nobody has entered yet."""
        return self.arrivals == 0

    def objection(self, request: JoinRequest, seats: int, rtt_ms: Mapping[str, float]) -> RoomError | None:
        """Why it is not for who asks for any instance of its lobby."""
        if self.manifest.policy != "open" or not self.manifest.visible:
            return RoomNotFound(f"there is no open room {self.name!r}")
        if not reaches(self.region, request.region, rtt_ms, 0.0):
            return RoomNotFound(f"there is no room {self.name!r} in region {request.region!r}")
        return self.objection_to(request) or self.fullness(seats)

    def objection_to(self, request: JoinRequest) -> RoomError | None:
        ours, theirs = request.manifest.app_version, self.manifest.app_version
        if ours != theirs:
            return AppVersionMismatch(
                f"room {self.name!r} plays version {theirs!r} of the game, you have {ours!r}", ours, theirs
            )
        if not overlap(self.skill_range, request.skill_range):
            return RoomMismatch(
                f"room {self.name!r} is for skill {self.skill_range}, you asked {request.skill_range}; "
                "create_room makes one for yours"
            )
        return None

    def fullness(self, seats: int) -> RoomFull | None:
        if self.taken() + seats <= self.max_players:
            return None
        return RoomFull(
            f"room {self.name!r} has its {self.max_players} players; join_game_room finds another instance, create_room "
            "makes one"
        )

    def release_seats(self, now: float) -> None:
        for peer in [peer for peer, until in self.held.items() if until <= now]:
            del self.held[peer]

    def info(self) -> RoomInfo:
        players = len(self.members)
        return RoomInfo(
            self.key,
            self.name,
            self.app_id,
            self.region,
            players,
            self.max_players,
            self.skill_range,
            "active" if players >= 2 else "waiting",
            self.metadata,
            self.instance,
            self.manifest,
        )


def _matches(room: _Room, query: RoomQuery) -> bool:
    return (
        bool(room.members)
        and not room.name.startswith(PAIR_PREFIX)
        and (query.app_id is None or room.app_id == query.app_id)
        and (query.region is None or room.region == query.region)
        and overlap(room.skill_range, query.skill_range)
        and (query.name is None or normal(room.name) == normal(query.name))
        and (room.manifest.visible or query.code is not None)
        and not (query.only_open and room.taken() >= room.max_players)
    )


def _sample(members: list[PeerInfo], size: int) -> tuple[PeerInfo, ...]:
    """At most `size` members, oldest first: the newest half as they are, for they still look for links, and of the
    others some at even distances."""
    if len(members) <= size:
        return tuple(members)
    newest = size // 2
    older, some = members[: len(members) - newest], size - newest
    return tuple(older[place * len(older) // some] for place in range(some)) + tuple(members[len(members) - newest :])
