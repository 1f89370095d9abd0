"""Several signaling servers as one: each room is kept by one of them, and the others pass on. Pure.

Which one follows from the room's key and from who is alive (rendezvous hashing), so nobody has to be asked. When that
changes, the players of a room that moved are sent away; their clients come back at once and enter it where it is now.
Their links to each other do not notice.
"""

from __future__ import annotations

import hashlib

import attrs

from psyne_mesh.errors import ProtocolError, VersionMismatch
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling import cluster_messages as c
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.convert import room_of
from psyne_mesh.signaling.events import RoomListing, room_key
from psyne_mesh.signaling.switchboard import Delivery, Switchboard

HEARTBEAT_S = 1.0
SILENCE_S = 3.5  # three heartbeats lost in a row, and a little
_GATHER_S = 1.0  # how long a room list waits for the other servers
_GATHERS_MAX = 1_000  # lists under way; one more is answered with our own rooms only


@attrs.frozen
class Dismissal:
    """Send this client away. `superseded`: it is elsewhere already; else it may come back at once."""

    peer: PeerId
    superseded: bool


class ClusterSwitchboard:
    """A `Switchboard` that shares its rooms with other servers.

    1. `start()` once; then `tick(now)` every `HEARTBEAT_S`. `stop()` at the end.
    2. `arrive(peer)`, `receive(peer, message, now)`, `depart(peer, reason, now)` for our own clients.
    3. `receive_wire(payload, now)` for each payload of the backplane.
    4. After each of them `take_outputs()` (for our own clients), `take_wire()` (server id, or None for all, and payload)
       and `take_dismissals()`.

    A server that is cut off from the others goes on alone with the rooms of its own clients, until it hears them again.
    """

    def __init__(self, me: str, switchboard: Switchboard) -> None:
        self.me = me
        self._switchboard = switchboard
        self._heard: dict[str, float] = {}  # the other servers and when we last heard of them
        self._homes: dict[PeerId, str] = {}  # members of rooms that we keep, and the server they are connected to
        self._kept_by: dict[PeerId, dict[str, str]] = {}  # our clients: the rooms they are in, and who keeps each
        self._gathers: dict[int, _Gather] = {}
        self._next_question = 0
        self._outputs: list[Delivery] = []
        self._wire: list[tuple[str | None, bytes]] = []
        self._dismissals: list[Dismissal] = []
        self.garbage = 0

    @property
    def servers(self) -> list[str]:
        """Who is alive, as far as we know, with ourselves."""
        return sorted([self.me, *self._heard])

    def keeper_of(self, room: str) -> str:
        """Rendezvous hashing: when a server comes or goes, only the rooms it keeps move."""
        return max(self.servers, key=lambda server: hashlib.sha256(f"{server}\0{room}".encode()).digest())

    def start(self) -> None:
        self._say(None, c.Alive(sender=self.me, is_new=True))

    def stop(self) -> None:
        self._say(None, c.Stopping(sender=self.me))

    def tick(self, now: float) -> None:
        self._say(None, c.Alive(sender=self.me))
        silent = [server for server, heard_at in self._heard.items() if now - heard_at > SILENCE_S]
        for server in silent:
            self._lose_server(server, now)
        for question, gather in list(self._gathers.items()):
            if now >= gather.deadline:
                self._finish_gather(question)

    def arrive(self, peer: PeerId) -> None:
        self._kept_by[peer] = {}
        self._say(None, c.Arrived(sender=self.me, peer=str(peer)))

    def receive(self, peer: PeerId, message: m.ClientMessage, now: float) -> None:
        match message:
            case m.ListRooms():
                self._gather(peer, message, now)
            case m.Join():
                key = room_key(message.room, app_id=message.app_id, region=message.region)
                self._pass_on(peer, key, message, now)
            case m.Leave(room=key) | m.Signal(room=key):
                self._pass_on(peer, key, message, now)
            case _:  # it does not touch rooms, and says nothing about where this player lives
                self._switchboard.receive(peer, message, now)
                self._outputs += self._switchboard.take_outputs()

    def depart(self, peer: PeerId, reason: str, now: float) -> None:
        """Everybody is told: a join of this client may still be on its way to somebody."""
        self._kept_by.pop(peer, None)
        self._depart_home(self.me, peer, reason, now)
        self._say(None, c.Departed(sender=self.me, peer=str(peer), reason=reason))

    def receive_wire(self, payload: bytes, now: float) -> None:
        try:
            message = c.decode_untrusted(payload)
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
        if isinstance(message, c.Stopping):
            self._lose_server(sender, now)
            return
        is_new = sender not in self._heard
        self._heard[sender] = now
        if is_new:
            self._send_movers_away()
        match message:
            case c.Alive(is_new=True):
                self._say(sender, c.Alive(sender=self.me))
            case c.Arrived(peer=peer):
                if peer in self._kept_by:
                    self._dismissals.append(Dismissal(PeerId(peer), superseded=True))
            case c.Departed(peer=peer, reason=reason):
                self._depart_home(sender, PeerId(peer), reason, now)
            case c.Forward(peer=peer, frame=frame):
                self._handle(sender, PeerId(peer), m.decode_client_untrusted(frame), now)
            case c.Deliver(peers=peers, frame=frame):
                local = tuple(PeerId(peer) for peer in peers)
                self._deliver_here(sender, Delivery(local, m.decode_server_untrusted(frame)))
            case c.AskRooms(question=question, wanted=wanted):
                listing = self._list(wanted)
                rooms = [room_of(info) for info in listing.rooms]
                answer = c.HaveRooms(sender=self.me, question=question, rooms=rooms, truncated=listing.truncated)
                self._say(sender, answer)
            case c.HaveRooms():
                self._gathered(message)

    def _lose_server(self, server: str, now: float) -> None:
        if self._heard.pop(server, None) is None:
            return
        for peer in [peer for peer, home in self._homes.items() if home == server]:
            self._depart_home(server, peer, "lost", now)
        for question in [question for question, gather in self._gathers.items() if server in gather.waiting_for]:
            self._gathers[question].waiting_for.discard(server)
            self._finish_if_complete(question)
        self._send_movers_away()

    def _send_movers_away(self) -> None:
        for peer, rooms in self._kept_by.items():
            if any(self.keeper_of(room) != keeper for room, keeper in rooms.items()):
                self._dismissals.append(Dismissal(peer, superseded=False))

    # ------------------------------------------------------------------------------------------------------- rooms

    def _pass_on(self, peer: PeerId, room: str, message: m.ClientMessage, now: float) -> None:
        keeper = self.keeper_of(room)
        if keeper == self.me:
            self._handle(self.me, peer, message, now)
        else:
            self._say(keeper, c.Forward(sender=self.me, peer=str(peer), frame=m.encode(message)))

    def _handle(self, home: str, peer: PeerId, message: m.ClientMessage, now: float) -> None:
        """About a room that we keep. A member who speaks from a new home has left the old one."""
        known = self._homes.get(peer)
        if known is not None and known != home:
            self._depart_home(known, peer, "superseded", now)
        self._homes[peer] = home
        self._switchboard.receive(peer, message, now)
        self._distribute()
        self._forget_if_roomless(peer)

    def _depart_home(self, home: str, peer: PeerId, reason: str, now: float) -> None:
        if self._homes.get(peer) == home:  # else it has a new home already, and this is late
            self._switchboard.depart(peer, reason, now)
            self._distribute()
            self._forget_if_roomless(peer)

    def _forget_if_roomless(self, peer: PeerId) -> None:
        if not self._switchboard.registry.rooms_of(peer):
            self._homes.pop(peer, None)

    def _distribute(self) -> None:
        for delivery in self._switchboard.take_outputs():
            by_home: dict[str, list[PeerId]] = {}
            for peer in delivery.peers:
                by_home.setdefault(self._homes.get(peer, self.me), []).append(peer)
            for home, peers in by_home.items():
                if home == self.me:
                    self._deliver_here(self.me, Delivery(tuple(peers), delivery.message))
                else:
                    names = [str(peer) for peer in peers]
                    self._say(home, c.Deliver(sender=self.me, peers=names, frame=m.encode(delivery.message)))

    def _deliver_here(self, keeper: str, delivery: Delivery) -> None:
        rooms = self._kept_by.get(delivery.peers[0], {})  # a client that is gone gets an empty one, to be thrown away
        match delivery.message:
            case m.JoinedRoom(info=info):
                rooms[info.room] = keeper
            case m.LeftRoom(room=room):
                rooms.pop(room, None)
        self._outputs.append(delivery)

    # ------------------------------------------------------------------------------------------------------- lists

    def _list(self, wanted: m.ListRooms) -> RoomListing:
        return self._switchboard.registry.list_rooms(
            app_id=wanted.app_id,
            region=wanted.region,
            skill_range=wanted.skill_range,
            only_open=wanted.only_open,
            limit=wanted.limit,
        )

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
        self._wire.append((server, c.encode(message)))


@attrs.define
class _Gather:
    """A room list that waits for the other servers."""

    peer: PeerId
    wanted: m.ListRooms
    waiting_for: set[str]
    deadline: float
    rooms: list[m.Room]
    truncated: bool
