"""Several signaling servers as one: each room is kept by one of them, and the others pass on. Pure.

Which one follows from the room's key and from who is alive (rendezvous hashing), so nobody has to be asked. When that
changes, the players of a room that moved are sent away; their clients come back at once and enter it where it is now.
Their links to each other do not notice.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque

import attrs
import msgspec

from psyne_mesh.errors import ProtocolError, VersionMismatch
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import forget_oldest
from psyne_mesh.signaling import cluster_messages as c
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.convert import room_of
from psyne_mesh.signaling.events import RoomListing, lobby_of
from psyne_mesh.signaling.requests import query_of, request_of
from psyne_mesh.signaling.switchboard import Delivery, Switchboard

HEARTBEAT_S = 1.0
SILENCE_S = 3.5  # three heartbeats lost in a row, and a little
_STOPPED_MAX = 100  # servers that said goodbye, whose late words are not heard; names are never used twice
_HEARTBEATS_MAX = 60  # whose clocks are compared: a minute; a clock that was stopped is read anew after it
_DOUBTED_HEARTBEATS = 5  # the same after a silence: long enough for news of before that is still on the way
_CLOCKS_MAX = 1_000  # servers whose clocks are known; of more than a cluster has the one silent longest is forgotten
_GATHER_S = 1.0  # how long a room list waits for the other servers
_GATHERS_MAX = 1_000  # lists under way; one more is answered with our own rooms only
_JOINS_MAX = 64  # unanswered joins of one client, as many as ours asks at once; of more the oldest is not watched over


@attrs.frozen
class Dismissal:
    """Send this client away. `superseded`: it is elsewhere already; else it may come back at once."""

    peer: PeerId
    superseded: bool


class ClusterSwitchboard:
    """A `Switchboard` that shares its rooms with other servers.

    1. `start(now)` once; then `tick(now)` every `HEARTBEAT_S`. `stop()` at the end.
    2. `arrive(peer, now)`, `receive(peer, message, now)`, `depart(peer, reason, now)` for our own clients.
    3. `receive_wire(payload, now)` for each payload of the backplane.
    4. After each of them `take_outputs()` (for our own clients), `take_wire()` (server id, or None for all, and payload)
       and `take_dismissals()`.

    A server that is cut off from the others goes on alone with the rooms of its own clients, until it hears them again.
    """

    def __init__(self, me: str, switchboard: Switchboard) -> None:
        self.me = me
        self._switchboard = switchboard
        self._heard: dict[str, float] = {}  # the other servers and when we last heard of them
        self._stopped: OrderedDict[str, None] = OrderedDict()  # who said goodbye, oldest first
        self._clocks = _Clocks()
        self._seated: dict[PeerId, float] = {}  # our clients, and since when
        self._homes: dict[PeerId, _Home] = {}  # of the members of rooms that we keep
        self._kept_by: dict[PeerId, dict[str, str]] = {}  # our clients: the rooms they are in, and who keeps each
        self._joining: dict[
            PeerId, OrderedDict[int, tuple[str, str]]
        ] = {}  # their joins under way, by ref: room and keeper
        self._gathers: dict[int, _Gather] = {}
        self._next_question = 0
        self._outputs: list[Delivery] = []
        self._wire: list[tuple[str | None, bytes]] = []
        self._dismissals: list[Dismissal] = []
        self._numbers: OrderedDict[str | None, int] = (
            OrderedDict()
        )  # of the last message to each server, and to all (None)
        # Of each server: to us (False) and to all (True)
        self._heard_numbers: OrderedDict[tuple[str, bool], int] = OrderedDict()
        self._known_since: OrderedDict[str, float] = OrderedDict()
        # Servers that we hear and that do not hear us; who was found so last is last
        self._deaf: OrderedDict[str, None] = OrderedDict()
        self.garbage = 0
        self.lost = 0  # messages of other servers that did not arrive here

    @property
    def servers(self) -> list[str]:
        """Who is alive, as far as we know, with ourselves."""
        return sorted([self.me, *self._heard])

    def keeper_of(self, room: str) -> str:
        """Rendezvous hashing: when a server comes or goes, only the rooms it keeps move. All instances of a lobby are kept by
        one, so that one decides who gets which seat."""
        lobby = lobby_of(room)
        return max(self.servers, key=lambda server: hashlib.sha256(f"{server}\0{lobby}".encode()).digest())

    def start(self, now: float) -> None:
        self._say(None, c.Alive(sender=self.me, is_new=True, clock_s=now))

    def stop(self) -> None:
        self._say(None, c.Stopping(sender=self.me))

    def tick(self, now: float) -> None:
        self._say(None, self._alive(now))
        silent = [server for server, heard_at in self._heard.items() if now - heard_at > SILENCE_S]
        for server in silent:
            self._lose_server(server, now)
        for question, gather in list(self._gathers.items()):
            if now >= gather.deadline:
                self._finish_gather(question)

    def arrive(self, peer: PeerId, now: float) -> None:
        self._kept_by[peer] = {}
        self._seated[peer] = now
        self._say(None, c.Arrived(sender=self.me, peer=str(peer), seated_s=now))

    def receive(self, peer: PeerId, message: m.ClientMessage, now: float, address: str = "") -> None:
        match message:
            case m.ListRooms():
                self._gather(peer, message, now)
            case m.Join():
                self._pass_on(peer, request_of(message).key, message, now, address)
            case m.Seek():
                self._pass_on(peer, request_of(message.join).key, message, now, address)
            case m.Withdraw(seek_ref=ref, lobby=key):
                self._joining.get(peer, OrderedDict()).pop(ref, None)
                self._pass_on(peer, key, message, now, address)
            case m.Leave(room=key) | m.Signal(room=key):
                if isinstance(message, m.Leave):
                    self._give_up_joins(peer, key)
                self._pass_on(peer, key, message, now, address)
            case _:  # it does not touch rooms, and says nothing about where this player lives
                self._switchboard.receive(peer, message, now)
                self._outputs += self._switchboard.take_outputs()

    def depart(self, peer: PeerId, reason: str, now: float) -> None:
        """Everybody is told: a join of this client may still be on its way to somebody."""
        self._kept_by.pop(peer, None)
        self._joining.pop(peer, None)
        self._seated.pop(peer, None)
        self._depart_home(self.me, peer, reason, now)
        self._say(None, c.Departed(sender=self.me, peer=str(peer), reason=reason))

    def receive_wire(self, payload: bytes, now: float) -> None:
        try:
            for message in c.decode_untrusted(payload):
                if message.sender != self.me:
                    self._receive_cluster(message, now)
        except (ProtocolError, VersionMismatch):
            self.garbage += 1

    def take_outputs(self) -> list[Delivery]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_wire(self) -> list[tuple[str | None, bytes]]:
        wire, self._wire = self._wire, []
        return wire

    def take_dismissals(self) -> list[Dismissal]:
        dismissals, self._dismissals = self._dismissals, []
        return dismissals

    # ------------------------------------------------------------------------------------------ between the servers

    def _receive_cluster(self, message: c.AnyClusterMessage, now: float) -> None:
        sender = message.sender
        if sender in self._stopped:
            return
        if isinstance(message, c.Stopping):
            self._stopped[sender] = None
            forget_oldest(self._stopped, _STOPPED_MAX)
            self._lose_server(sender, now)
            return
        self._count_lost(message)
        if self._is_deaf(message, now):
            return
        is_new = sender not in self._heard
        self._heard[sender] = now
        if is_new:
            self._send_movers_away()
        match message:
            case c.Alive(is_new=is_new, clock_s=clock_s):
                if clock_s is not None:
                    self._clocks.hear(sender, clock_s, now)
                if is_new:
                    self._say(sender, self._alive(now))
            case c.Arrived():
                self._arrived_elsewhere(message)
            case c.Departed(peer=peer, reason=reason):
                self._depart_home(sender, PeerId(peer), reason, now)
            case c.Forward(peer=peer, frame=frame, seated_s=seated_s, address=address):
                home = _Home(sender, self._clocks.here(sender, seated_s))
                self._handle(home, PeerId(peer), m.decode_client_untrusted(frame), now, address)
            case c.Deliver(peers=peers, frame=frame, cost=cost):
                local = tuple(PeerId(peer) for peer in peers)
                self._deliver_here(sender, Delivery(local, m.decode_server_untrusted(frame), cost))
            case c.AskRooms(question=question, wanted=wanted):
                listing = self._list(wanted)
                rooms = [room_of(info) for info in listing.rooms]
                answer = c.HaveRooms(sender=self.me, question=question, rooms=rooms, truncated=listing.truncated)
                self._say(sender, answer)
            case c.HaveRooms():
                self._gathered(message)

    def _alive(self, now: float) -> c.Alive:
        return c.Alive(sender=self.me, clock_s=now, hears=[*self._heard, *self._deaf])

    def _is_deaf(self, message: c.AnyClusterMessage, now: float) -> bool:
        """A server that does not hear us keeps no room for us, and our clients must not wait for it: for both of us the
        other is gone. Each needs a while to be heard at first."""
        sender = message.sender
        since = self._known_since.setdefault(sender, now)
        if isinstance(message, c.Alive) and message.hears is not None:
            if message.is_new:
                self._known_since[sender] = since = now
            if self.me in message.hears:
                self._deaf.pop(sender, None)
            elif now - since > SILENCE_S and sender not in self._deaf:
                self._deaf[sender] = None
                forget_oldest(self._deaf, _STOPPED_MAX)
                self._lose_server(sender, now)
        forget_oldest(self._known_since, _CLOCKS_MAX)
        return sender in self._deaf

    def _count_lost(self, message: c.AnyClusterMessage) -> None:
        if message.number is None:
            return
        key = (message.sender, message.to_all)
        last = self._heard_numbers.pop(key, message.number - 1)
        self.lost += max(0, message.number - last - 1)
        self._heard_numbers[key] = max(message.number, last)
        forget_oldest(self._heard_numbers, 2 * _CLOCKS_MAX)

    def _arrived_elsewhere(self, arrived: c.Arrived) -> None:
        """The newest connection wins, and not the latest news: a backplane may have held it back."""
        peer = PeerId(arrived.peer)
        ours_s = self._seated.get(peer)
        if ours_s is None:
            return
        theirs_s = self._clocks.here(arrived.sender, arrived.seated_s)
        if theirs_s is None or theirs_s >= ours_s:
            self._dismissals.append(Dismissal(peer, superseded=True))
        elif not arrived.is_answer:
            self._say(arrived.sender, c.Arrived(sender=self.me, peer=arrived.peer, seated_s=ours_s, is_answer=True))

    def _lose_server(self, server: str, now: float) -> None:
        if self._heard.pop(server, None) is None:
            return
        self._clocks.doubt(server)
        self._known_since.pop(server, None)  # when it is heard again it is as new as we are to it
        for peer in [peer for peer, home in self._homes.items() if home.server == server]:
            self._depart_home(server, peer, "lost", now)
        for question in [question for question, gather in self._gathers.items() if server in gather.waiting_for]:
            self._gathers[question].waiting_for.discard(server)
            self._finish_if_complete(question)
        self._send_movers_away()

    def _send_movers_away(self) -> None:
        """Who waits for the answer of a former keeper, too: it may never come, or from a room where nobody else is."""
        for peer, rooms in self._kept_by.items():
            kept = [*rooms.items(), *self._joining.get(peer, {}).values()]
            if any(self.keeper_of(room) != keeper for room, keeper in kept):
                self._dismissals.append(Dismissal(peer, superseded=False))

    # ------------------------------------------------------------------------------------------------------- rooms

    def _pass_on(self, peer: PeerId, room: str, message: m.ClientMessage, now: float, address: str) -> None:
        keeper = self.keeper_of(room)
        seated_s = self._seated.get(peer)
        if keeper == self.me:
            self._handle(_Home(self.me, seated_s), peer, message, now, address)
        else:
            if isinstance(message, m.Join | m.Seek):
                self._watch_join(peer, message.ref, room, keeper)
            frame = m.encode(message)
            self._say(
                keeper, c.Forward(sender=self.me, peer=str(peer), frame=frame, seated_s=seated_s, address=address[:64])
            )

    def _watch_join(self, peer: PeerId, ref: int, room: str, keeper: str) -> None:
        joining = self._joining.setdefault(peer, OrderedDict())
        joining[ref] = (room, keeper)
        forget_oldest(joining, _JOINS_MAX)

    def _give_up_joins(self, peer: PeerId, room: str) -> None:
        joining = self._joining.get(peer, OrderedDict())
        for ref in [ref for ref, (joined, _) in joining.items() if joined == room]:
            del joining[ref]

    def _handle(self, home: _Home, peer: PeerId, message: m.ClientMessage, now: float, address: str) -> None:
        """About a room that we keep. A member who speaks from a new home has left the old one; what comes from an old one
        was held back on the way, and is not heard."""
        known = self._homes.get(peer)
        if known is not None and known.server != home.server:
            if known.is_newer_than(home):
                return
            self._depart_home(known.server, peer, "superseded", now)
        self._homes[peer] = home
        self._switchboard.receive(peer, message, now, address)
        self._distribute()
        self._forget_if_roomless(peer)

    def next_timeout(self) -> float | None:
        return self._switchboard.next_timeout()

    def handle_timeout(self, now: float) -> None:
        """Of who waits for a place in a lobby that we keep."""
        self._switchboard.handle_timeout(now)
        self._distribute()

    def _depart_home(self, home: str, peer: PeerId, reason: str, now: float) -> None:
        known = self._homes.get(peer)
        if known is not None and known.server == home:  # else it has a new home already, and this is late
            self._switchboard.depart(peer, reason, now)
            self._distribute()
            self._forget_if_roomless(peer)

    def _forget_if_roomless(self, peer: PeerId) -> None:
        if not self._switchboard.is_concerned_with(peer):
            self._homes.pop(peer, None)

    def _distribute(self) -> None:
        for delivery in self._switchboard.take_outputs():
            by_home: dict[str, list[PeerId]] = {}
            for peer in delivery.peers:
                known = self._homes.get(peer)
                by_home.setdefault(self.me if known is None else known.server, []).append(peer)
            for home, peers in by_home.items():
                if home == self.me:
                    self._deliver_here(self.me, attrs.evolve(delivery, peers=tuple(peers)))
                else:
                    names, frame = [str(peer) for peer in peers], m.encode(delivery.message)
                    self._say(home, c.Deliver(sender=self.me, peers=names, frame=frame, cost=delivery.cost))

    def _deliver_here(self, keeper: str, delivery: Delivery) -> None:
        peer = delivery.peers[0]
        rooms = self._kept_by.get(peer, {})  # a client that is gone gets an empty one, to be thrown away
        match delivery.message:
            case m.JoinedRoom(ref=ref, info=info):
                rooms[info.room] = keeper
                self._joining.get(peer, OrderedDict()).pop(ref, None)
                if keeper != self.keeper_of(info.room):
                    self._dismissals.append(Dismissal(peer, superseded=False))
            case m.Placed(ref=ref) | m.Error(ref=int() as ref):
                self._joining.get(peer, OrderedDict()).pop(ref, None)
            case m.LeftRoom(room=room):
                rooms.pop(room, None)
        self._outputs.append(delivery)

    # ------------------------------------------------------------------------------------------------------- lists

    def _list(self, wanted: m.ListRooms) -> RoomListing:
        return self._switchboard.registry.list_rooms(query_of(wanted))

    def _gather(self, peer: PeerId, wanted: m.ListRooms, now: float) -> None:
        ours = self._list(wanted)
        others = set(self._heard) if len(self._gathers) < _GATHERS_MAX else set()
        gather = _Gather(peer, wanted, others, now + _GATHER_S, [room_of(info) for info in ours.rooms], ours.truncated)
        self._next_question += 1
        self._gathers[self._next_question] = gather
        if others:
            self._say(None, c.AskRooms(sender=self.me, question=self._next_question, wanted=wanted))
        self._finish_if_complete(self._next_question)

    def _gathered(self, answer: c.HaveRooms) -> None:
        gather = self._gathers.get(answer.question)
        if gather is not None and answer.sender in gather.waiting_for:
            gather.waiting_for.discard(answer.sender)
            gather.rooms += answer.rooms
            gather.truncated = gather.truncated or answer.truncated
            self._finish_if_complete(answer.question)

    def _finish_if_complete(self, question: int) -> None:
        if not self._gathers[question].waiting_for:
            self._finish_gather(question)

    def _finish_gather(self, question: int) -> None:
        gather = self._gathers.pop(question)
        limit = gather.wanted.limit
        truncated = gather.truncated or len(gather.rooms) > limit
        answer = m.RoomList(ref=gather.wanted.ref, rooms=gather.rooms[:limit], truncated=truncated)
        self._outputs.append(Delivery((gather.peer,), answer))

    def _say(self, server: str | None, message: c.ClusterMessage) -> None:
        number = self._numbers.pop(server, 0) + 1
        self._numbers[server] = number
        forget_oldest(self._numbers, _CLOCKS_MAX)
        self._wire.append((server, c.encode(msgspec.structs.replace(message, number=number, to_all=server is None))))


@attrs.frozen
class _Home:
    """The server that a member is connected to, and since when, on our clock; None: there is no telling."""

    server: str
    since_s: float | None

    def is_newer_than(self, other: _Home) -> bool:
        return self.since_s is not None and other.since_s is not None and self.since_s > other.since_s


class _Clocks:
    """When something happened elsewhere, on our own clock. Each heartbeat tells its sender's; the fastest of the last
    minute tells best, and what is in doubt counts as later than it was.

    1. `hear(server, theirs_s, now)` for each heartbeat. 2. `here(server, theirs_s)`; None: there is no telling.
    """

    def __init__(self) -> None:
        # Our clock minus theirs and the way here; who spoke last is last
        self._behind: OrderedDict[str, deque[float]] = OrderedDict()

    def hear(self, server: str, theirs_s: float, now: float) -> None:
        behind = self._behind.pop(server, None)
        self._behind[server] = deque(maxlen=_HEARTBEATS_MAX) if behind is None else behind
        self._behind[server].append(now - theirs_s)
        forget_oldest(self._behind, _CLOCKS_MAX)

    def doubt(self, server: str) -> None:
        """It was silent: perhaps its machine slept, and its clock with it. What we knew counts for a few heartbeats only."""
        if behind := self._behind.get(server):
            self._behind[server] = deque([min(behind)], maxlen=_DOUBTED_HEARTBEATS)

    def here(self, server: str, theirs_s: float | None) -> float | None:
        behind = self._behind.get(server)
        return None if theirs_s is None or behind is None else theirs_s + min(behind)


@attrs.define
class _Gather:
    """A room list that waits for the other servers."""

    peer: PeerId
    wanted: m.ListRooms
    waiting_for: set[str]
    deadline: float
    rooms: list[m.Room]
    truncated: bool
