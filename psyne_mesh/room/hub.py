"""Many subscribers to one stream of room events; late ones are first told what already holds."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import trio

from psyne_mesh.errors import EventBacklog
from psyne_mesh.room.events import RoomEvent

# A subscriber that lags so far is stuck: a room of 16 makes a handful of events a minute.
BACKLOG_MAX = 10_000

Callback = Callable[[Any], Awaitable[None] | None]


class EventHub:
    """How to use: 1. `publish(event)` from anywhere in the room; 2. one task runs `run()`, which calls the callbacks;
    3. `subscribe` and `events` may come at any time: they begin with `replay()`, the events that restate the present.

    A callback that raises ends `run()` with that error: nothing is swallowed.
    """

    def __init__(self, replay: Callable[[], list[RoomEvent]]) -> None:
        self._replay = replay
        self._callbacks: list[tuple[type[Any], Callback]] = []
        self._iterators: list[trio.MemorySendChannel[RoomEvent]] = []
        # Unbounded as a channel, bounded by publish(): a publisher inside a packet handler must not raise.
        self._due: tuple[
            trio.MemorySendChannel[tuple[Callback, RoomEvent]], trio.MemoryReceiveChannel[tuple[Callback, RoomEvent]]
        ] = trio.open_memory_channel(math.inf)
        self._overrun = False
        self._closed = False

    def publish(self, event: RoomEvent) -> None:
        for kind, callback in self._callbacks:
            if isinstance(event, kind):
                self._schedule(callback, event)
        for iterator in list(self._iterators):
            try:
                iterator.send_nowait(event)
            except trio.WouldBlock:
                self._iterators.remove(iterator)
                iterator.close()

    def subscribe(self, kind: type[Any], callback: Callback) -> None:
        self._callbacks.append((kind, callback))
        for event in self._replay():
            if isinstance(event, kind):
                self._schedule(callback, event)

    async def events(self) -> AsyncIterator[RoomEvent]:
        send, receive = trio.open_memory_channel[RoomEvent](BACKLOG_MAX)
        for event in self._replay():
            send.send_nowait(event)
        self._iterators.append(send)
        try:
            async for event in receive:
                yield event
            if send not in self._iterators and not self._closed:
                raise EventBacklog(f"this event iterator fell {BACKLOG_MAX} events behind")
        finally:
            if send in self._iterators:
                self._iterators.remove(send)
            send.close()
            receive.close()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            async for callback, event in self._due[1]:
                if self._overrun:
                    raise EventBacklog(f"the event callbacks of this room are {BACKLOG_MAX} events behind")
                result = callback(event)
                if inspect.isawaitable(result):
                    nursery.start_soon(_finish, result)

    def close(self) -> None:
        """No more events: iterators end and `run()` returns after what is due."""
        self._closed = True
        self._due[0].close()
        for iterator in self._iterators:
            iterator.close()

    def _schedule(self, callback: Callback, event: RoomEvent) -> None:
        if self._closed:
            return
        if self._due[0].statistics().current_buffer_used >= BACKLOG_MAX:
            self._overrun = True
            return
        self._due[0].send_nowait((callback, event))


async def _finish(awaitable: Awaitable[None]) -> None:
    await awaitable
