"""The real signaling server and the real client, over streams of the virtual network instead of TCP."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack

import trio

from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.server import SignalingServer
from psyne_mesh.testing.network import VirtualHost

NAME = "hub"
URL = f"ws://{NAME}"
# What TCP keeps under way in one direction before a sender waits; the systems' own figures are of this order.
WINDOW_BYTES = 65_536


class VirtualServer:
    """1. Its task is in `run()`. 2. `dial(host)` is what a client on that host does instead of TCP.

    kill, revive: the process dies without a goodbye, and begins anew with no rooms. stats: of the one that runs.
    """

    def __init__(self, wall_ms: Callable[[], int], config: ServerConfig | None = None) -> None:
        self._config = config or ServerConfig(public_names=frozenset({NAME}))
        self._wall_ms = wall_ms
        self._life = trio.CancelScope()
        self._revived = trio.Event()
        self._server: SignalingServer | None = None
        self._guests: trio.Nursery | None = None

    @property
    def server(self) -> SignalingServer | None:
        """The one that runs, for its `stats`; None while it is dead."""
        return self._server

    def kill(self) -> None:
        self._server = None
        self._revived = trio.Event()
        self._life.cancel()

    def revive(self) -> None:
        self._revived.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._revived.set()
        while True:
            await self._revived.wait()
            with trio.CancelScope() as self._life:
                async with trio.open_nursery() as self._guests:
                    self._server = SignalingServer(self._config)
                    self._server.wall_ms = self._wall_ms
                    self._guests.start_soon(self._server.tend)
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    await trio.sleep_forever()

    async def dial(self, host: VirtualHost) -> trio.abc.Stream:
        """As TCP does: it waits for ever while nothing passes; `ConnectionRefusedError` when the process is dead."""
        connection = _Connection(host)
        while not host.reaches_signaling:
            await connection.changed()
        await trio.sleep(2 * host.signaling_latency_s)
        if self._server is None or self._guests is None:
            connection.close()
            raise ConnectionRefusedError(f"nobody listens at {NAME}")
        self._guests.start_soon(self._server.handle, connection.ends[1])
        return connection.ends[0]


class _Connection:
    """Two streams, and the way between them: in order, nothing lost; while the host does not reach the server both wait."""

    def __init__(self, host: VirtualHost) -> None:
        self.host = host
        self.ways = (_Way(self), _Way(self))
        self.ends = (VirtualStream(self, 0), VirtualStream(self, 1))
        self._waiting = trio.lowlevel.ParkingLot()
        self._watching = ExitStack()
        self._watching.enter_context(host.watched(self.wake))

    def wake(self) -> None:
        """Something came, went, or may pass now."""
        self._waiting.unpark_all()

    async def changed(self, until: float = math.inf) -> None:
        with trio.move_on_at(until):
            await self._waiting.park()

    def close(self) -> None:
        self._watching.close()


class _Way:
    def __init__(self, connection: _Connection) -> None:
        self.connection = connection
        self.is_ended = False  # nothing more is put in
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._last_due = -math.inf

    @property
    def is_full(self) -> bool:
        return sum(len(data) for _, data in self._under_way) >= WINDOW_BYTES

    def put(self, data: bytes) -> None:
        due = trio.current_time() + self.connection.host.signaling_latency_s
        self._last_due = max(self._last_due, due)  # in order, also when the latency falls
        self._under_way.append((self._last_due, data))
        self.connection.wake()

    def end(self) -> None:
        if not self.is_ended:
            self.is_ended = True
            self.put(b"")

    def take(self, bytes_max: int) -> bytes | None:
        """What has arrived, b"" at the end, None before."""
        if not self._under_way or not self.connection.host.reaches_signaling or self.due > trio.current_time():
            return None
        due, data = self._under_way[0]
        if len(data) > bytes_max:
            self._under_way[0] = (due, data[bytes_max:])
        elif data:
            self._under_way.popleft()
        self.connection.wake()
        return data[:bytes_max]

    @property
    def due(self) -> float:
        return self._under_way[0][0] if self._under_way and self.connection.host.reaches_signaling else math.inf


class VirtualStream(trio.abc.Stream):
    """One end of a connection."""

    def __init__(self, connection: _Connection, side: int) -> None:
        self._connection = connection
        self._side = side
        self._is_closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        way = self._connection.ways[1 - self._side]
        while not self._is_closed:
            if (data := way.take(max_bytes or WINDOW_BYTES)) is not None:
                return data
            await self._connection.changed(way.due)
        raise trio.ClosedResourceError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        way = self._connection.ways[self._side]
        while way.is_full and not self._is_closed:
            await self._connection.changed()
        if self._is_closed:
            raise trio.ClosedResourceError
        if self._connection.ends[1 - self._side]._is_closed:
            raise trio.BrokenResourceError("the other side has closed")
        if data:
            way.put(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        while self._connection.ways[self._side].is_full and not self._is_closed:
            await self._connection.changed()

    async def aclose(self) -> None:
        self._is_closed = True
        self._connection.ways[self._side].end()
        if self._connection.ends[1 - self._side]._is_closed:
            self._connection.close()
        await trio.lowlevel.checkpoint()
