"""A room that is only watched, for programs with a loop of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from psyne_mesh.errors import ClosedError, EventBacklog, OnlyWatching
from psyne_mesh.game.schema import Shared
from psyne_mesh.identity import PeerId
from psyne_mesh.room import watched as trio_watched
from psyne_mesh.room.channel import To
from psyne_mesh.room.delivery import DeliveryMode
from psyne_mesh.room.events import RoomEvent
from psyne_mesh.room.hub import BACKLOG_MAX
from psyne_mesh.room.messages import Message
from psyne_mesh.room.watched import ONLY_WATCHING, WatchedPlayer
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.sync.channel import Channel
from psyne_mesh.sync.handover import Outbox
from psyne_mesh.sync.listening import Listening
from psyne_mesh.sync.thread import NetworkThread

S = TypeVar("S", bound=Shared)
M = TypeVar("M")

LEAVE_TIMEOUT_S = 5.0


class WatchedChannel(Channel[M]):
    """What players say to everybody on a channel, up to a second later."""

    def send(self, message: M, to: To = None) -> NoReturn:
        """Raises `OnlyWatching`."""
        raise OnlyWatching(ONLY_WATCHING)

    def send_nowait(self, message: M, to: To = None) -> NoReturn:
        """Raises `OnlyWatching`."""
        raise OnlyWatching(ONLY_WATCHING)


class WatchedRoom(Listening):
    """Made by `sync.join_game_room(..., spectate=True)`. Call `poll()` once a frame; `channel`, `all`, `peers`, `state`
    and `host` as in a `Room`, and nothing can be said."""

    def __init__(self, thread: NetworkThread[Any], room: trio_watched.WatchedRoom) -> None:
        super().__init__()
        self._thread = thread
        self._room = room
        self._outbox = Outbox(thread)
        self._events: deque[RoomEvent] = deque()
        self._channels: dict[str, WatchedChannel[Any]] = {}
        self._called: list[Channel[Any]] = []
        self._failed: Exception | None = None
        self._ended = False
        thread.call(lambda: thread.spawn(self._follow))

    @property
    def name(self) -> str:
        return self._room.name

    @property
    def code(self) -> str:
        return self._room.code

    @property
    def info(self) -> RoomInfo:
        return self._room.info

    @property
    def me(self) -> PeerId:
        return self._room.me

    @property
    def peers(self) -> Mapping[PeerId, WatchedPlayer]:
        """The players, by id, as they are now."""
        return MappingProxyType(dict(self._room.peers))

    @property
    def state(self) -> Mapping[str, Any]:
        """The room's, which its host writes."""
        return self._room.state

    @property
    def host(self) -> WatchedPlayer | None:
        """As most players say."""
        return self._room.host

    @property
    def spectators(self) -> int:
        """How many watch, we too."""
        return self._thread.call(lambda: self._room.spectators)

    def channel(
        self, name: str, /, *kinds: type[Message], mode: DeliveryMode | str | None = None, inbox_max: int | None = None
    ) -> WatchedChannel[Any]:
        """What players say on the channel of that name; arguments as under Trio."""

        def made() -> WatchedChannel[Any]:
            inner = self._room.channel(name, *kinds, mode=mode, inbox_max=inbox_max)
            if (known := self._channels.get(name)) is None:
                known = self._channels[name] = WatchedChannel(inner, self._outbox, self._called)
                known.attach(self._events.append)
            return known

        return self._thread.call(made)

    def all(self, kind: type[S]) -> list[S]:
        """All objects of that class that players share, as they are to be seen now."""
        return self._thread.call(lambda: list(self._room.all(kind)))

    def poll(self) -> list[RoomEvent]:
        """What has happened since the last time, in order; never waits. Handlers are called here."""
        events: list[RoomEvent] = []
        while self._events:
            events.append(self._events.popleft())
            self._note(events[-1])
        if not events and not self._replays and not self._undone:
            self._raise_if_ended()
        for due in (self._replays, self._undone):
            while due:
                handler, event = due.popleft()
                handler(event)
        for channel in self._called:
            channel.call()
        return events

    def leave(self) -> None:
        """Nobody in the room notices. Then calls raise `ClosedError`."""
        self._thread.call_async(self._room.leave, timeout=LEAVE_TIMEOUT_S)

    # --------------------------------------------------------------------------------------------------------- helpers

    def _note(self, event: RoomEvent) -> None:
        self._facts.note(event)
        self._undone.extend([(handler, event) for kind, handler in self._handlers if isinstance(event, kind)])
        for reference in list(self._feeds):
            feed = reference()
            if feed is None:
                self._feeds.remove(reference)
            else:
                feed.put(event)

    async def _follow(self) -> None:
        try:
            async for event in self._room.events():
                if len(self._events) >= BACKLOG_MAX:
                    raise EventBacklog(f"poll() is {BACKLOG_MAX} events behind")
                self._events.append(event)
        except EventBacklog as error:
            self._failed = error
        self._ended = True

    def _raise_if_ended(self) -> None:
        if self._ended or not self._thread.is_running:
            raise self._failed or self._thread.ended or ClosedError(f"room {self.name!r} was left")
