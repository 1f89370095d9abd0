"""The floor: bare UDP sockets on Trio behind the same commands, without encryption, order or acknowledgements."""

from __future__ import annotations

import platform
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from benchmarks.stacks.trio_peer import BenchChannel, TrioPeer

DRAIN_MAX = 64
BUFFER_BYTES = 4 * 2**20


class UdpChannel:
    """Datagrams between two sockets. One wake of the receiver drains up to 64 of them."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._socket = trio.socket.from_stdlib_socket(raw)
        self._drained: deque[bytes] = deque()

    async def send(self, data: bytes) -> None:
        await self._socket.send(data)

    def send_nowait(self, data: bytes) -> None:
        self._raw.send(data)

    async def receive(self) -> bytes:
        if not self._drained:
            self._drained.append(await self._socket.recv(65_536))
            for _ in range(DRAIN_MAX):
                try:
                    self._drained.append(self._raw.recv(65_536))
                except BlockingIOError:
                    break
        return self._drained.popleft()

    def __aiter__(self) -> UdpChannel:
        return self

    async def __anext__(self) -> bytes:
        return await self.receive()


class Connecting:
    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw

    async def offer(self) -> str:
        return str(self._raw.getsockname()[1])

    async def answer(self, offer: str) -> str:
        self._raw.connect(("127.0.0.1", int(offer)))
        return str(self._raw.getsockname()[1])

    async def finish(self, answer: str | None) -> BenchChannel:
        if answer is not None:
            self._raw.connect(("127.0.0.1", int(answer)))
        return UdpChannel(self._raw)


class Udp(TrioPeer):
    def versions(self) -> dict[str, str]:
        return {"trio": trio.__version__, "python": platform.python_version()}

    @asynccontextmanager
    async def connecting(
        self, *, offerer: bool, player: str, reliable: bool, settings: dict[str, Any]
    ) -> AsyncIterator[Connecting]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
            raw.bind(("127.0.0.1", 0))
            raw.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                raw.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
            yield Connecting(raw)


if __name__ == "__main__":
    trio.run(Udp().main)
