"""The replicated maps of a room: the pure core on a reliable channel of its own."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from psyne_mesh.errors import ClosedError, MessageTooLarge, NotHost, PeerGone, ProtocolError
from psyne_mesh.game import state_wire
from psyne_mesh.game.bans import BARRED
from psyne_mesh.game.state import Changed, States, whole_of
from psyne_mesh.game.state_wire import Part, StateWord
from psyne_mesh.game.timers import PAYLOAD_BYTES_MAX, TIMER, Timers, timer_value
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.room.events import MessageRefused, RoomEvent, StateChanged, TimerFired
from psyne_mesh.room.hosting import Hosting
from psyne_mesh.room.peer import Peer, Player
from psyne_mesh.room.plain import decode_plain_untrusted
from psyne_mesh.room.state_views import OneKind, SeenState
from psyne_mesh.room.tagged import decode_tagged_untrusted
from psyne_mesh.room.timekeeper import Timekeeper

if TYPE_CHECKING:
    from psyne_mesh.room.room import Room

CHANNEL = "psyne.state"
STATE = "="
LOOK_S = 0.05
"""A timer is due, and we are not the host just now, or the room's clock is not set: so often we look again."""


@uninterrupted
class StateTraffic:
    """1. `admitted(stay)` once; the room's task is in `run()`. 2. `peer_joined(peer)`, `peer_left(peer)` and
    `host_changed(term, host)` as they happen. 3. `write(key, raw)` and `write_room(key, raw)`; `state_of(peer)` and `hosted`
    are what is known. 4. `after(delay_s, payload)` sets a timer.
    """

    def __init__(
        self, room: Room, hosting: Hosting, timekeeper: Timekeeper, publish: Callable[[RoomEvent], None],
        check_open: Callable[[], object], rng: random.Random,
    ) -> None:  # fmt: skip
        self._room = room
        self._check_open = check_open
        self._hosting = hosting
        self._timekeeper = timekeeper
        self._publish = publish
        self._rng = rng
        self._core: States | None = None
        self._timers = Timers()
        self._wake = trio.Event()
        self._channel: Any = None
        self.refused = 0
        self.on_barred: Callable[[Changed], None] = lambda event: None  # set by the room
        self.hosted = OneKind(STATE, lambda: {} if self._core is None else self._core.hosted)

    def admitted(self, stay: int) -> None:
        self._core = States(self._room.me, stay, self._hosting.accepts)

    # ------------------------------------------------------------------------------------------------ what the room says

    def peer_joined(self, peer: PeerId) -> None:
        if self._core is not None:
            self._core.peer_joined(peer, trio.current_time())
            self._wake.set()

    def peer_left(self, peer: PeerId) -> None:
        if self._core is not None:
            self._core.peer_left(peer)

    def host_changed(self, term: int, host: PeerId | None) -> None:
        if self._core is not None:
            self._core.host_changed(term, host, trio.current_time())
            self._wake.set()

    def for_spectators(self) -> list[bytes]:
        """The maps that we write, whole."""
        return [] if self._core is None else [state_wire.encode(part) for part in whole_of(self._core)]

    def tell_now(self) -> None:
        """What was written goes out at once: we are about to leave."""
        if self._core is not None and self._channel is not None:
            self._core.tell_now(trio.current_time())
            self._flush()

    # ------------------------------------------------------------------------------------------------ what the game says

    def state_of(self, peer: PeerId) -> SeenState:
        return SeenState(lambda: {} if self._core is None else self._core.of(peer))

    def own(self) -> Mapping[str, bytes]:
        return {} if self._core is None else self._core.own.values

    def write(self, key: str, raw: bytes | None) -> None:
        self._check_open()
        self._open().write(key, raw, trio.current_time())
        self._flush()
        self._wake.set()

    def write_state(self, key: str, raw: bytes | None) -> None:
        """In the room's map; `NotHost` unless we are the host."""
        self.write_room(STATE + key, raw)

    def write_room(self, key: str, raw: bytes | None) -> None:
        self._check_open()
        core = self._open()
        if not self._hosting.is_host():
            host = self._room.host
            who = "there is no host now; wait for HostChanged" if host is None else f"the host is {host.name!r}"
            raise NotHost(f"only the host writes what is the room's, and {who}")
        core.write_room(key, raw, self._hosting.term, trio.current_time())
        self._flush()
        self._wake.set()

    def holds(self, key: str) -> bool:
        """Whether the room's map has it."""
        return key in self._open().hosted

    def after(self, delay_s: float, payload: bytes) -> str:
        """The name of the timer. `NotHost` unless we are the host."""
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise MessageTooLarge(len(payload), PAYLOAD_BYTES_MAX)
        name = f"{self._rng.getrandbits(64):016x}"
        room_now = self._room_now()
        due = delay_s if room_now is None else room_now + delay_s
        self.write_room(TIMER + name, timer_value(due, payload, is_relative=room_now is None))
        return name

    def cancel_timer(self, name: str) -> None:
        if self._timers.is_waiting(TIMER + name):
            self.write_room(TIMER + name, None)

    # -------------------------------------------------------------------------------------------------------------- the task

    async def run(self) -> None:
        try:
            self._channel = self._room.channel(CHANNEL, mode="reliable")
        except ClosedError:
            return  # the room ended before its task began
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            while True:
                self._wake = trio.Event()
                now = trio.current_time()
                core = self._open()
                if core.next_timeout() <= now:
                    core.handle_timeout(now)
                try:
                    look_at = self._serve_timers(now)
                except ClosedError:
                    return  # the room has ended, and its task is about to
                self._flush()
                with trio.move_on_at(min(core.next_timeout(), look_at)):
                    await self._wake.wait()

    async def _read(self) -> None:
        async for sender, data in self._channel:
            try:
                word = state_wire.decode_untrusted(data)
                check_values_untrusted(word)
                self._open().receive(sender.id, word, trio.current_time())
            except ProtocolError:
                self.refused += 1
                continue
            self._flush()
            self._wake.set()

    def _room_now(self) -> float | None:
        self._timekeeper.start()
        return self._timekeeper.time() if self._timekeeper.is_set else None

    def _serve_timers(self, now: float) -> float:
        """Fire those that are due, if we are the host; returns when to look again."""
        if self._timers.left_s(None, now) == self._timers.left_s(math.inf, now) == math.inf:
            return math.inf  # there are none: no clock is needed
        room_now = self._room_now()
        if self._hosting.is_host():
            dated = [] if room_now is None else self._timers.dated(room_now, now)
            for key, value in dated + self._timers.due(room_now, now):
                self.write_room(key, value)
        left_s = self._timers.left_s(room_now, now)
        return now + (max(left_s, LOOK_S) if left_s < math.inf else LOOK_S)

    def _flush(self) -> None:
        core = self._open()
        if self._channel is None:
            return  # it goes out once the room's task has begun
        for target, word in core.take_outputs():
            with suppress(PeerGone, ClosedError, MessageTooLarge):  # who misses it asks
                self._channel.send_nowait(state_wire.encode(word), to=target)
        for event in core.take_events():
            self._tell(event)

    def _tell(self, event: Changed) -> None:
        value = event.value
        if event.owner is not None:
            owner = self._room.player if event.owner == self._room.me else self._room.peers.get(event.owner)
            if owner is not None:
                self._publish(StateChanged(owner, event.key, None if value is None else decode_plain_untrusted(value)))
        elif event.key[0] == STATE:
            self._publish(StateChanged(None, event.key[1:], None if value is None else decode_plain_untrusted(value)))
        elif event.key[0] == BARRED:
            self.on_barred(event)
        elif event.key[0] == TIMER:
            self._tell_timer(self._timers.changed(event.key, value, trio.current_time(), is_first=event.is_first))

    def _tell_timer(self, payload: bytes | None) -> None:
        if payload is None:
            return
        try:
            self._publish(TimerFired(decode_tagged_untrusted(payload)))
        except ProtocolError as error:
            host = self._room.host
            if host is not None and host != self._room.player:
                self._publish(MessageRefused(host, CHANNEL, str(error)))  # type: ignore[arg-type]

    def present(self) -> list[RoomEvent]:
        """What holds, for who begins to listen."""
        if self._core is None:
            return []
        owners: list[Player | Peer] = [self._room.player, *self._room.peers.values()]
        told: list[RoomEvent] = [
            StateChanged(owner, key, decode_plain_untrusted(value))
            for owner in owners
            for key, value in self._core.of(owner.id).items()
        ]
        return told + [StateChanged(None, key, decode_plain_untrusted(value)) for key, value in self.hosted().items()]

    def _open(self) -> States:
        assert self._core is not None
        return self._core


def check_values_untrusted(word: StateWord) -> None:
    if isinstance(word, Part):
        for key, value in word.entries:
            if value is not None and not (word.owner == b"" and key[0] in (TIMER, BARRED)):
                decode_plain_untrusted(value)
