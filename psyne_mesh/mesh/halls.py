"""Rooms that stand in for the signaling server while it is away: the pure halls, each over the gossip of its room."""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from psyne_mesh.errors import SignalingLost
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.limits import forget_oldest
from psyne_mesh.mesh.membership import Membership
from psyne_mesh.mesh.records import record_of
from psyne_mesh.mesh.sealed import HALL_WORD
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.convert import peer_info
from psyne_mesh.signaling.events import PeerJoined, PeerLeft
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.requests import message_of

if TYPE_CHECKING:
    from psyne_mesh.signaling.hall import Hall
    from psyne_mesh.signaling.hall_asking import Outcome

# How long after the server was lost our rooms are told in the hall, and how often while it is away: what a crash of who
# places costs. A guess; 100 members with a room each are five words a second to that one.
REGISTER_AFTER_S = 1.0, 3.0
REGISTER_S = 15.0, 25.0
MET_MAX = 256  # members of our rooms to whom a hall is the way, for now


@uninterrupted
class Halls:
    """1. `run()` in one task. 2. `on_word(...)` for what members of a room say, `met(...)` for whom it brought an envelope,
    `forget(room)` when it was left; `lost()` and `restored()` when the server is. 3. `ask(...)` and `say(...)` questions,
    `carry(...)` envelopes that find no other way. `on_news` hears what is told unasked, `on_carried` of envelopes;
    `entered` are our rooms, and how they are told to others.
    """

    def __init__(
        self, me: PeerId, rooms: Mapping[str, Membership], rng: random.Random, wall_ms: Callable[[], int]
    ) -> None:
        self.on_news: Callable[[PeerJoined | PeerLeft], None] = lambda news: None
        self.on_carried: Callable[[str, PeerId, str, str], None] = lambda room, origin, record, envelope: None
        self.entered: dict[str, JoinRequest] = {}
        self._me = me
        self._rooms = rooms
        self._rng = rng
        self._wall_ms = wall_ms
        self._halls: dict[str, Hall] = {}
        self._waiting: dict[int, Waiting] = {}
        self._met: OrderedDict[tuple[str, PeerId], None] = OrderedDict()
        self._register_at = math.inf
        self._timer = trio.CancelScope()

    async def run(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._due()) as self._timer:
                await trio.sleep_forever()
            now = trio.current_time()
            if now >= self._register_at:
                self._register_at = now + self._rng.uniform(*REGISTER_S)
                self._register()
            for room, hall in list(self._halls.items()):
                hall.set_members(_by_seat(self._rooms[room]), now)
                if (due := hall.next_timeout()) is not None and due <= now:
                    hall.handle_timeout(now)
                self._pump(room, hall)

    def forget(self, room: str) -> None:
        """It was left."""
        if self._halls.pop(room, None) is not None:
            for waiting in self._waiting.values():
                if waiting.room == room:
                    waiting.give(SignalingLost("the room by which the others were asked was left"), None)

    def on_word(self, room: str, origin: PeerId, word: bytes) -> None:
        """`ProtocolError` for what is none."""
        hall, now = self._hall_of(room), trio.current_time()
        hall.set_members(_by_seat(self._rooms[room]), now)
        hall.receive(origin, word, now)
        self._pump(room, hall)

    def met(self, room: str, peer: PeerId) -> None:
        """A member of our room spoke to us over a hall, so that is the way to it."""
        self._met[room, peer] = None
        forget_oldest(self._met, MET_MAX)

    def lost(self) -> None:
        self._register_at = trio.current_time() + self._rng.uniform(*REGISTER_AFTER_S)
        self._rearm()

    def restored(self) -> None:
        self._register_at = math.inf

    def carry(self, room: str, peer: PeerId, envelope: str) -> bool:
        """False: there is a better way, or none."""
        membership = self._rooms[room]
        if membership.has_links and (room, peer) not in self._met:
            return False
        halls = [key for key, hall in self._rooms.items() if key != room and hall.has_links and hall.knows(peer)]
        if not halls:
            return False
        key = max(halls, key=lambda key: self._rooms[key].node.n_members)
        hall = self._hall_of(key)
        hall.carry(peer, room, record_of(membership.node), envelope)
        self._pump(key, hall)
        return True

    async def ask(
        self, app_id: str | None, make: Callable[[int], messages.Message], lobby: str = ""
    ) -> tuple[Outcome, Waiting]:
        """lobby: of a seek, which is withdrawn when nobody waits for it any more."""
        if (key := self.hall_for(app_id)) is None:
            raise SignalingLost("the signaling server is away, and so are the others")
        hall, now = self._hall_of(key), trio.current_time()
        hall.set_members(_by_seat(self._rooms[key]), now)
        number = hall.ask(make, now)
        waiting = self._waiting[number] = Waiting(key, hall)
        self._pump(key, hall)
        try:
            await waiting.done.wait()
        except trio.Cancelled:
            if key in self._rooms:
                hall.withdraw(number, lobby, trio.current_time())
                self._pump(key, hall)
            raise
        finally:
            self._waiting.pop(number, None)
        assert waiting.outcome is not None
        return waiting.outcome, waiting

    def say(self, app_id: str, make: Callable[[int], messages.Message], besides: str = "") -> None:
        """Nobody waits for the answer."""
        if (key := self.hall_for(app_id, besides)) is not None:
            hall, now = self._hall_of(key), trio.current_time()
            hall.set_members(_by_seat(self._rooms[key]), now)
            hall.ask(make, now)
            self._pump(key, hall)

    # ------------------------------------------------------------------------------------------------------- helpers

    def _register(self) -> None:
        for room, request in self.entered.items():
            if (membership := self._rooms.get(room)) is not None:
                mine = attrs.evolve(request, record=record_of(membership.node))
                self.say(request.app_id, lambda ref, mine=mine: message_of(mine, ref), besides=room)  # type: ignore[misc]

    def hall_for(self, app_id: str | None, besides: str = "") -> str | None:
        """Of our rooms of that application the largest that has others in it."""
        halls = [
            room for room, membership in self._rooms.items()
            if membership.has_links and room != besides and app_id in (None, membership.info.app_id)
        ]  # fmt: skip
        return min(halls, key=lambda room: (-self._rooms[room].node.n_members, room), default=None)

    def _hall_of(self, room: str) -> Hall:
        if (hall := self._halls.get(room)) is None:
            from psyne_mesh.signaling.hall import Hall  # with what a server is made of; few games ever need it

            hall = self._halls[room] = Hall(self._me, self._wall_ms, lambda: self._rng.getrandbits(53))
        return hall

    def _pump(self, room: str, hall: Hall) -> None:
        membership = self._rooms[room]
        for peer, word in hall.take_outputs():
            if len(word) < membership.signal_max:
                membership.send_signal(peer, HALL_WORD + word)
        for answered in hall.take_answers():
            if (waiting := self._waiting.get(answered.number)) is not None:
                waiting.give(answered.outcome, answered.placer)
        for news in hall.take_news():
            match news:
                case messages.MemberJoined(room=key, peer=member, rejoined=rejoined):
                    self.on_news(PeerJoined(key, peer_info(member), rejoined))
                case messages.MemberLeft(room=key, peer_id=gone, reason=reason, record=record):
                    self.on_news(PeerLeft(key, PeerId(gone), reason, record))
        for origin, carried in hall.take_carried():
            self.on_carried(carried.room, origin, carried.record, carried.envelope)
        self._rearm()

    def _due(self) -> float:
        due = [at for hall in self._halls.values() if (at := hall.next_timeout()) is not None]
        return min(self._register_at, *due) if due else self._register_at

    def _rearm(self) -> None:
        self._timer.deadline = self._due()


class Waiting:
    """A question of ours in that hall. `placer` answered it."""

    def __init__(self, room: str, hall: Hall) -> None:
        self.room = room
        self.hall = hall
        self.done = trio.Event()
        self.outcome: Outcome | None = None
        self.placer: PeerId | None = None

    def give(self, outcome: Outcome, placer: PeerId | None) -> None:
        self.outcome, self.placer = outcome, placer
        self.done.set()


def _by_seat(membership: Membership) -> Sequence[PeerId]:
    """Who is in the room, as we see it; who has no seat yet comes last."""
    members = dict.fromkeys(membership.node.members)
    seated = [peer for peer in membership.node.seats if peer in members]
    return [*filter(None, dict.fromkeys([*seated, *members]))]
