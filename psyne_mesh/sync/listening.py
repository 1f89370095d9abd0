"""How a game's loop hears what happens in a room: handlers that `poll()` calls, and feeds of events."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from psyne_mesh.room.events import RoomEvent
from psyne_mesh.room.hub import BACKLOG_MAX
from psyne_mesh.room.listening import Handlers
from psyne_mesh.sync.facts import Facts

Handler = Callable[[Any], object]


class Listening(Handlers):
    """A part of `Room`."""

    _DOOR = "net"
    _TAKES_ASYNC = False

    def __init__(self) -> None:
        self._facts = Facts()
        self._handlers: list[tuple[type[Any], Handler]] = []
        self._replays: deque[tuple[Handler, RoomEvent]] = deque()
        self._undone: deque[tuple[Handler, RoomEvent]] = deque()
        self._feeds: list[weakref.ref[EventFeed]] = []

    def _raise_if_ended(self) -> None:
        raise NotImplementedError

    def events(self) -> EventFeed:
        """All events that `poll()` takes in from now on, after those that restate the present: `for event in feed` gives
        what has come, and does not wait. For parts of a program that do not see what `poll()` returns."""
        feed = EventFeed(self._facts.present())
        self._feeds.append(weakref.ref(feed))
        return feed

    def _subscribe(self, kind: type[Any], callback: Handler) -> None:
        self._raise_if_ended()
        self._handlers.append((kind, callback))
        self._replays.extend([(callback, event) for event in self._facts.present() if isinstance(event, kind)])


class EventFeed:
    """`for event in feed`: what has come since the last time; ends when there is no more, and does not wait. A feed that
    is not read keeps the newest 10,000."""

    def __init__(self, events: list[RoomEvent]) -> None:
        self._events = deque(events, maxlen=BACKLOG_MAX)

    def put(self, event: RoomEvent) -> None:
        self._events.append(event)

    def __iter__(self) -> Iterator[RoomEvent]:
        return self

    def __next__(self) -> RoomEvent:
        if not self._events:
            raise StopIteration
        return self._events.popleft()
