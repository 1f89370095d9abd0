"""What a signaling server does with what clients say: rooms and relaying, without a socket. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from psyne_mesh.errors import NotInvited, RoomError, SignalingError, WrongPassword
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.churn import Churn, ChurnLimits, Weight
from psyne_mesh.signaling.convert import joined_message, list_message, member_of, room_of
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.guesses import Guesses
from psyne_mesh.signaling.placing import Placing
from psyne_mesh.signaling.registry import Departure, RegistryLimits, RegistryStats, RoomRegistry
from psyne_mesh.signaling.requests import query_of, request_of, seek_of

# What a message costs its sender, in tokens: a list walks over all rooms, a join tells a whole room.
_COSTS: dict[type[messages.Message], int] = {messages.ListRooms: 20, messages.Join: 5, messages.Seek: 10}

# For who goes on guessing at a door: its connection is not read for five seconds, so 500 of them together cost 1 % of a core.
_GUESS_COST = 1_000


@attrs.frozen
class Delivery:
    """Send `message` to each of `peers` who is still connected, and charge `cost` to them, in tokens."""

    peers: tuple[PeerId, ...]
    message: messages.Message
    cost: int = 0


class Switchboard:
    """1. `receive(peer, message, now)` for each message of a client that has proved to be `peer`.
    2. `depart(peer, reason, now)` when its connection ended or was superseded.
    3. `take_outputs()` after each of them: deliveries in order.
    4. `expire(now)` every few seconds, and `handle_timeout(now)` at `next_timeout()`: who waits for others may have a place.
    """

    def __init__(
        self, limits: RegistryLimits, churn: ChurnLimits | None = None,
        wall_ms: Callable[[float], int] = lambda now: int(now * 1000),
    ) -> None:  # fmt: skip
        self._registry = RoomRegistry(limits, wall_ms)
        self._placing = Placing(self._registry)
        self._guesses = Guesses()
        self._churn = Churn(churn or ChurnLimits())
        self._addresses: dict[PeerId, str] = {}  # of members of rooms
        self._outputs: list[Delivery] = []
        self.relayed = 0
        self.not_relayed = 0

    @property
    def registry(self) -> RoomRegistry:
        """To look at: lists for the HTTP pages."""
        return self._registry

    @property
    def stats(self) -> RegistryStats:
        return self._registry.stats

    @staticmethod
    def cost(message: messages.Message) -> int:
        return _COSTS.get(type(message), 1)

    def arrive(self, peer: PeerId, now: float) -> None:
        """There is nobody else to tell, in a cluster of one."""

    def receive(self, peer: PeerId, message: messages.ClientMessage, now: float, address: str = "") -> None:
        match message:
            case messages.Signal():
                self._relay(peer, message)
            case messages.Join():
                self._join(peer, message, now, address)
            case messages.Seek():
                self._addresses.setdefault(peer, address)
                self._placing.seek(peer, message.ref, seek_of(message), now, address)
                self._tell_places(now)
            case messages.Withdraw(seek_ref=ref):
                self._placing.withdraw(peer, ref)
                self._forget_if_roomless(peer)
            case messages.Leave(ref=ref, room=room, record=record):
                departure = self._registry.leave(peer, room, now, record=record, told_max=self._told_max(peer, now))
                self._say(messages.LeftRoom(ref=ref, room=room), peer)
                self._tell(departure, now)
                self._forget_if_roomless(peer)
            case messages.ListRooms():
                self._say(list_message(self._registry.list_rooms(query_of(message)), message.ref), peer)
            case messages.Ping(ref=ref):
                self._say(messages.Pong(ref=ref), peer)
            case messages.Hello(ref=ref):
                self._say(messages.Error(code="bad_message", message="you have said hello already", ref=ref), peer)

    def depart(self, peer: PeerId, reason: str, now: float) -> None:
        for departure in self._registry.depart(peer, reason, now, told_max=self._told_max(peer, now)):
            self._tell(departure, now)
        self._placing.depart(peer)
        self._forget_if_roomless(peer)

    def is_concerned_with(self, peer: PeerId) -> bool:
        """It is in a room, or waits for one."""
        return bool(self._registry.rooms_of(peer)) or self._placing.is_waiting(peer)

    def next_timeout(self) -> float | None:
        return self._placing.next_timeout()

    def handle_timeout(self, now: float) -> None:
        self._placing.handle_timeout(now)
        self._tell_places(now)

    def expire(self, now: float) -> None:
        self._registry.expire(now)

    def take_outputs(self) -> list[Delivery]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def _tell_places(self, now: float) -> None:
        for place in self._placing.take_places():
            if isinstance(place.outcome, RoomInfo):
                self._say(messages.Placed(ref=place.ref, info=room_of(place.outcome)), place.peer)
            else:
                self._say(messages.refusal_of(place.outcome, place.ref), place.peer)
            self._forget_if_roomless(place.peer)

    def _join(self, peer: PeerId, message: messages.Join, now: float, address: str) -> None:
        weight = self._churn.weigh(peer, address, now)
        cost = 0
        try:
            if weight is Weight.REFUSED:
                wait_s = math.ceil(self._churn.wait_s(peer, now))
                raise SignalingError(f"you enter and leave too often; come back in {wait_s} s")
            if message.door and (wait_s := math.ceil(self._guesses.wait_s(peer, now))) > 0:
                cost = _GUESS_COST
                raise SignalingError(f"too many wrong passwords or invitations; come back in {wait_s} s")
            arrival = self._registry.join(
                peer,
                request_of(message),
                now,
                address=address,
                told_max=weight.told_max,
                listed_max=weight.listed_max,
            )
        except (RoomError, SignalingError) as error:
            if isinstance(error, WrongPassword | NotInvited):
                self._guesses.note(peer, now)
            self._say(messages.refusal_of(error, message.ref), peer, cost=cost)
            return
        self._addresses[peer] = address
        self._churn.charge(peer, address, len(arrival.notify) + len(arrival.joined.peers), now)
        self._say(joined_message(arrival.joined, message.ref), peer)
        news = messages.MemberJoined(
            room=arrival.joined.room, peer=member_of(arrival.member), rejoined=arrival.rejoined
        )
        self._say(news, *arrival.notify)

    def _told_max(self, peer: PeerId, now: float) -> float:
        return self._churn.weigh(peer, self._addresses.get(peer, ""), now).told_max

    def _forget_if_roomless(self, peer: PeerId) -> None:
        if not self.is_concerned_with(peer):
            self._addresses.pop(peer, None)

    def _relay(self, sender: PeerId, signal: messages.Signal) -> None:
        """Only between members of one room: nobody can be reached by strangers who merely know the id."""
        to = PeerId(signal.to)
        if self._registry.is_member(sender, signal.room) and self._registry.is_member(to, signal.room):
            self.relayed += 1
            self._say(messages.SignalFrom(sender=sender, room=signal.room, envelope=signal.envelope), to)
        else:
            self.not_relayed += 1
            text = f"{to.short} and you are not both in this room"
            self._say(messages.Error(code="peer_gone", message=text, room=signal.room, peer_id=to), sender)

    def _tell(self, departure: Departure | None, now: float) -> None:
        if departure is not None:
            told = len(departure.notify)
            self._churn.charge(departure.peer_id, self._addresses.get(departure.peer_id, ""), told, now)
            news = messages.MemberLeft(
                room=departure.room, peer_id=departure.peer_id, reason=departure.reason, record=departure.record
            )
            self._say(news, *departure.notify)

    def _say(self, message: messages.Message, *peers: PeerId, cost: int = 0) -> None:
        if peers:
            self._outputs.append(Delivery(peers, message, cost))
