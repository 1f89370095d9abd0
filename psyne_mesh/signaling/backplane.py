"""The wire between the signaling servers of one cluster: to one server, or to all. Delivery is not promised.

What a server sends arrives at another in the order of sending, or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import trio

from psyne_mesh.errors import SignalingError

_QUEUE_MAX = 10_000  # payloads waiting for one server of a memory backplane; more are lost, as on a real wire


class BackplaneDown(SignalingError):
    """The payload was not sent. Try again later."""


class BackplaneLink(Protocol):
    """One server's end."""

    async def publish(self, to: str | None, payload: bytes) -> None:
        """To the server `to`, or to all (which may include the sender). Raises `BackplaneDown`."""
        ...

    async def receive(self) -> bytes: ...


class Backplane(Protocol):
    def attach(self, me: str) -> AbstractAsyncContextManager[BackplaneLink]:
        """The end for the server called `me`. Raises `BackplaneDown` when there is nothing to attach to."""
        ...


class MemoryBackplane:
    """Servers of one process. `cut(server)` and `heal(server)` are for tests."""

    def __init__(self) -> None:
        self._queues: dict[str, trio.MemorySendChannel[bytes]] = {}
        self._cut: dict[str, None] = {}

    @asynccontextmanager
    async def attach(self, me: str) -> AsyncIterator[BackplaneLink]:
        send, receive = trio.open_memory_channel[bytes](_QUEUE_MAX)
        self._queues[me] = send
        try:
            yield _MemoryLink(self, me, receive)
        finally:
            del self._queues[me]
            send.close()
            receive.close()

    def cut(self, server: str) -> None:
        """Nothing from it or to it arrives any more."""
        self._cut[server] = None

    def heal(self, server: str) -> None:
        self._cut.pop(server, None)

    def _carry(self, sender: str, to: str | None, payload: bytes) -> None:
        if sender in self._cut:
            return
        for server, queue in self._queues.items():
            if server not in self._cut and to in (None, server):
                try:
                    queue.send_nowait(payload)
                except trio.WouldBlock:
                    continue


class _MemoryLink:
    def __init__(self, backplane: MemoryBackplane, me: str, inbox: trio.MemoryReceiveChannel[bytes]) -> None:
        self._backplane = backplane
        self._me = me
        self._inbox = inbox

    async def publish(self, to: str | None, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._backplane._carry(self._me, to, payload)

    async def receive(self) -> bytes:
        return await self._inbox.receive()
