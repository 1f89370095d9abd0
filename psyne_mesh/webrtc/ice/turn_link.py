"""How we reach a TURN server: over the shared UDP port, or over a TCP or TLS stream of its own."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from psyne_mesh.errors import ProtocolError
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.port import Base

QUEUE_BYTES_MAX: Final = 256 * 1024  # waiting for a slow stream: 100 ms at 20 Mbit/s; the newest is dropped
RECEIVE_BYTES: Final = 64 * 1024

_LENGTH: Final = struct.Struct("!H")


class Link(Protocol):
    def send(self, datagrams: Sequence[bytes]) -> int:
        """Send what can be sent now; the number taken."""
        ...


class UdpLink:
    """The TURN server on the other side of one of our sockets; its answers come through the port."""

    __slots__ = ("_base", "_server")

    def __init__(self, base: Base, server: Address) -> None:
        self._base = base
        self._server = server

    def send(self, datagrams: Sequence[bytes]) -> int:
        return self._base.send_batch(datagrams, self._server)


@uninterrupted
class StreamLink:
    """A stream to a TURN server (RFC 8656 section 3.1, RFC 4571 is not used here).

    1. `run(received)` in a task; it returns when the stream has ended, on either side.
    2. `send` queues; a task of `run` writes.

    ended: why the stream has ended, in words; empty before.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._wake = trio.Event()
        self.dropped = 0
        self.ended = ""

    def send(self, datagrams: Sequence[bytes]) -> int:
        taken = 0
        for data in datagrams:
            if self._queued + len(data) > QUEUE_BYTES_MAX:
                self.dropped += 1
                continue
            # RFC 8656 section 12.5: over a stream, ChannelData is padded to four bytes.
            self._queue.append(data + bytes(-len(data) % 4))
            self._queued += len(data)
            taken += 1
        self._wake.set()
        return taken

    async def run(self, received: Callable[[list[bytes]], None]) -> None:
        """Carry both directions until the stream ends. What a server does raises nothing: a nursery would wrap it in a group,
        which nobody further up looks into."""
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._write)
            self.ended = await self._read(received)

    async def _read(self, received: Callable[[list[bytes]], None]) -> str:
        buffer = bytearray()
        while True:
            try:
                chunk = await self._stream.receive_some(RECEIVE_BYTES)
                buffer += chunk
                frames = split_frames_untrusted(buffer)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                return f"the connection broke: {error.__cause__ or error}"
            except ProtocolError as error:
                return str(error)
            if frames:
                received(frames)
            if not chunk:
                return "it closed the connection"

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._queue:
                data = b"".join(self._queue)
                self._queue.clear()
                self._queued = 0
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return  # the reader sees it too, and ends the link


def split_frames_untrusted(buffer: bytearray) -> list[bytes]:
    """Take the whole frames off the front of `buffer`: STUN messages and ChannelData, without its padding.

    Raises `ProtocolError` when the next frame is neither.
    """
    frames: list[bytes] = []
    at, size = 0, len(buffer)
    while size - at >= 4:
        first = buffer[at]
        length = _LENGTH.unpack_from(buffer, at + 2)[0]
        if 64 <= first <= 79:
            end, padded = at + 4 + length, at + 4 + length + (-length & 3)
        elif first <= 3:
            end = padded = at + 20 + length
        else:
            raise ProtocolError(f"neither STUN nor ChannelData on a TURN stream: 0x{first:02x}")
        if padded > size:
            break
        frames.append(bytes(buffer[at:end]))
        at = padded
    del buffer[:at]
    return frames
