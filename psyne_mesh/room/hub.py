"""Many subscribers to one stream of room events; late ones are first told what already holds."""

from __future__ import annotations

import inspect
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from psyne_mesh.errors import EventBacklog
from psyne_mesh.interrupts import interruptible, uninterrupted
from psyne_mesh.room.events import RoomEvent

# A subscriber that lags so far is stuck: a room of 16 makes a handful of events a minute.
BACKLOG_MAX = 10_000

Callback = Callable[[Any], object]


@attrs.define(eq=False)
class _Subscription:
    kind: type[Any]
    callback: Callback
    behind: int = 0  # events due; each subscriber has a backlog of its own, however many others there are


@uninterrupted
class EventHub:
    """How to use: 1. `publish(event)` from anywhere in the room; 2. one task runs `run()`, which calls the callbacks;
    3. `subscribe` and `events` may come at any time: they begin with `replay()`, the events that restate the present.

    A callback that raises ends `run()` with that error: nothing is swallowed.
    """

    def __init__(self, replay: Callable[[], list[RoomEvent]]) -> None:
        self._replay = replay
        self._subscriptions: list[_Subscription] = []
        self._iterators: list[weakref.ref[EventIterator]] = []  # weak: a loop left by `break` is simply forgotten
        self._due: deque[tuple[_Subscription, RoomEvent]] = deque()
        self._something = trio.lowlevel.ParkingLot()
        self._overrun = False
        self._closed = False
        self._error: BaseException | None = None

    def publish(self, event: RoomEvent) -> None:
        if self._closed:
            return  # the room has ended, and what its readers still have to read ends with it
        for subscription in self._subscriptions:
            self._schedule(subscription, event)
        for reference in list(self._iterators):
            iterator = reference()
            if iterator is None or not iterator.put(event):
                self._iterators.remove(reference)

    def subscribe(self, kind: type[Any], callback: Callback) -> None:
        subscription = _Subscription(kind, callback)
        self._subscriptions.append(subscription)
        for event in self._replay():
            self._schedule(subscription, event)

    def events(self) -> EventIterator:
        iterator = EventIterator(self._replay())
        if self._closed:
            iterator.end()
        else:
            self._iterators.append(weakref.ref(iterator))
        return iterator

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while self._due or self._error or not self._closed:
                if self._error is not None:
                    raise self._error
                if self._overrun:
                    raise EventBacklog(f"an event callback of this room is {BACKLOG_MAX} events behind")
                if not self._due:
                    await self._something.park()
                    continue
                subscription, event = self._due.popleft()
                subscription.behind -= 1
                result = interruptible(subscription.callback, event)
                if inspect.isawaitable(result):
                    nursery.start_soon(_finish, result)

    def fail(self, error: BaseException) -> None:
        """A callback of the user raised where it could not be let out: `run()` raises it. The first one counts."""
        self._error = self._error or error
        self._something.unpark_all()

    def close(self) -> None:
        """No more events: iterators end, and `run()` returns after what is due."""
        self._closed = True
        self._something.unpark_all()
        for reference in self._iterators:
            if (iterator := reference()) is not None:
                iterator.end()

    def _schedule(self, subscription: _Subscription, event: RoomEvent) -> None:
        if not isinstance(event, subscription.kind):
            return
        # A publisher stands inside a packet handler and must not raise: the overrun is raised where the callbacks run.
        if subscription.behind >= BACKLOG_MAX:
            self._overrun = True
        elif not self._closed:
            subscription.behind += 1
            self._due.append((subscription, event))
        self._something.unpark()


@uninterrupted
class EventIterator:
    """`async for event in room.events()`. Ends when the room is left; cancelling a wait loses nothing.

    Raises `EventBacklog` when its reader fell thousands of events behind.
    """

    def __init__(self, events: list[RoomEvent]) -> None:
        self._events = deque(events)
        self._waiting = trio.lowlevel.ParkingLot()
        self._ended = False
        self._overrun = False

    def __aiter__(self) -> EventIterator:
        return self

    async def __anext__(self) -> RoomEvent:
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._overrun:
                raise EventBacklog(f"this event iterator fell {BACKLOG_MAX} events behind")
            if self._ended:
                raise StopAsyncIteration
            await self._waiting.park()
        return self._events.popleft()

    def put(self, event: RoomEvent) -> bool:
        """Called by the hub; False when there is no room, and then it ends."""
        if len(self._events) >= BACKLOG_MAX:
            self._overrun = True
            return False
        self._events.append(event)
        self._waiting.unpark()
        return True

    def end(self) -> None:
        self._ended = True
        self._waiting.unpark_all()


async def _finish(awaitable: Awaitable[None]) -> None:
    await awaitable
