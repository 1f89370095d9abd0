"""The bounded queue of events between a signaling connection and the mesh that drains it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from psyne_mesh.errors import ClosedError
from psyne_mesh.signaling.events import SignalingEvent


class Inbox:
    """1. `put(event)`, never waiting. False: it was full, and everything in it was thrown away (policy: a reader that
    far behind must not work through stale news; the owner says `Lost`, reconnects, and `Restored` brings full lists).
    2. `await get()`.
    3. `end()`: readers get what is in it, then `ClosedError`. `close()`: they get `ClosedError` at once.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._send, self._receive = trio.open_memory_channel[SignalingEvent](limit)
        self._has_ended = False
        self.is_closed = False

    def put(self, event: SignalingEvent) -> bool:
        if self.is_closed or self._has_ended:
            return True
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            while self._receive.statistics().current_buffer_used:
                self._receive.receive_nowait()
            return False
        return True

    async def get(self) -> SignalingEvent:
        try:
            return await self._receive.receive()
        except (trio.ClosedResourceError, trio.EndOfChannel):
            raise ClosedError("this signaling client has ended") from None

    def end(self) -> None:
        self._has_ended = True
        self._send.close()

    def close(self) -> None:
        self.is_closed = True
        self._send.close()
        self._receive.close()


class EventIterator(AsyncIterator[SignalingEvent]):
    """`async for` over an inbox; it ends when the inbox is closed."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def __anext__(self) -> SignalingEvent:
        try:
            return await self._inbox.get()
        except ClosedError:
            raise StopAsyncIteration from None
