"""The connection of a virtual host to the signaling hub: what is broken on the host's network is broken for it, too."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import trio

from psyne_mesh.errors import (
    ClosedError,
    MessageTooLarge,
    PsyneMeshError,
    SignalingError,
    SignalingLost,
    SignalingUnreachable,
    WouldBlock,
)
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling.events import Joined, Lost, Restored, RoomInfo, RoomListing, SignalingEvent
from psyne_mesh.signaling.inbox import EventIterator, Inbox
from psyne_mesh.signaling.joining import JoinRequest, RoomQuery, SeekRequest
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.link import SignalingConfig
from psyne_mesh.signaling.memory import MemorySignaling, MemorySignalingClient
from psyne_mesh.signaling.messages import MAX_ENVELOPE_CHARS
from psyne_mesh.testing.network import VirtualHost

T = TypeVar("T")
# The patience of the real client and the real server.
CLIENT = SignalingConfig()
SILENCE_S = ServerConfig().keepalive_s * ServerConfig().silence_factor


@asynccontextmanager
async def connect_host(
    nursery: trio.Nursery, hub: MemorySignaling, host: VirtualHost, peer_id: PeerId
) -> AsyncIterator[HostSignaling]:
    """A connection for as long as the block. The hub hears of its end as the host's network lets it: after the latency, or
    by silence; until then a task in `nursery` holds it open. Raises `SignalingUnreachable` when the way stays shut.
    """
    wire = HostSignaling(hub, host, peer_id)
    with host.watched(wire.wake):
        with trio.move_on_after(CLIENT.connect_timeout_s):
            await wire.wait_open()
        if not host.reaches_signaling:
            raise SignalingUnreachable(f"host {host.name!r} does not reach the signaling hub")
    await nursery.start(wire.run)
    try:
        yield wire
    finally:
        wire.close()


class HostSignaling:
    """A `SignalingTransport` like the WebSocket client over TCP: in order, nothing lost, as late as the host's latency.

    While the host does not reach the hub, both directions wait. After `SILENCE_S`, or `doubt_s` after a doubt, the client
    counts the connection as lost, and after `SILENCE_S` the hub does; once the way is open the client connects anew.
    """

    def __init__(self, hub: MemorySignaling, host: VirtualHost, peer_id: PeerId) -> None:
        self.peer_id = peer_id
        self.is_connected = True  # the client's view; the hub's is `_client.is_connected`
        self._hub = hub
        self._host = host
        self._client: MemorySignalingClient
        self._nursery: trio.Nursery
        self._inbox = Inbox(math.inf)  # bounded by the queue in front of it, as the mesh drains it always
        self._up: deque[tuple[float, Callable[[], Awaitable[None]]]] = deque()
        self._down: deque[tuple[float, Callable[[], None]]] = deque()
        self._asking: set[_Answer] = set()
        self._rooms: set[str] = set()
        self._wake = trio.Event()
        self._shut_since: float | None = None if host.reaches_signaling else trio.current_time()
        self._doubted_at = math.inf
        self._back_at: float | None = None  # the client has given the connection up, and connects again then
        self._is_superseded = False
        self._is_closed = False
        self._is_over = False

    async def join(self, request: JoinRequest, *, goodbye: str = "") -> Joined:
        """See `SignalingTransport.join`."""
        try:
            joined = await self._ask(lambda: self._client.join(request))
        except (trio.Cancelled, SignalingError):  # the hub may have let us in
            if request.key not in self._rooms:
                self._send(partial(self._client.leave, request.key, record=goodbye))
            raise
        self._rooms.add(joined.room)
        return joined

    async def seek(self, request: SeekRequest) -> RoomInfo:
        """See `SignalingTransport.seek`."""
        answer, waiting = _Answer(), trio.CancelScope()

        async def wait() -> None:
            with waiting:
                await self._ask_hub(answer, partial(self._client.seek, request))

        async def arrive() -> None:
            self._nursery.start_soon(wait)  # it may take long, and others go on meanwhile

        try:
            place: RoomInfo = await self._answered(
                answer, arrive, math.inf if request.waits else CLIENT.request_timeout_s
            )
        finally:
            waiting.cancel()
        return place

    async def leave(self, room: str, *, record: str = "") -> None:
        """See `SignalingTransport.leave`. Nobody waits for the answer."""
        self._rooms.discard(room)
        self._send(partial(self._client.leave, room, record=record))
        await trio.lowlevel.checkpoint()

    async def list_rooms(self, query: RoomQuery | None = None) -> RoomListing:
        """See `SignalingTransport.list_rooms`."""
        return await self._ask(lambda: self._client.list_rooms(query))

    def send_signal(self, to: PeerId, room: str, envelope: str) -> None:
        """See `SignalingTransport.send_signal`."""
        self._check_connected()
        if len(envelope) > MAX_ENVELOPE_CHARS:
            raise MessageTooLarge(len(envelope), MAX_ENVELOPE_CHARS)
        if len(self._up) >= CLIENT.outbound_max:
            raise WouldBlock(f"{CLIENT.outbound_max} messages to the hub are waiting")

        async def arrive() -> None:
            if self._client.is_connected:  # else they were under way when the hub died
                self._client.send_signal(to, room, envelope)

        self._send(arrive)

    def set_record(self, room: str, record: str) -> None:
        """See `SignalingTransport.set_record`."""
        self._client.set_record(room, record)

    def doubt(self) -> None:
        """See `SignalingTransport.doubt`. Over an open way the answer would come at once."""
        if self._shut_since is not None:
            self._doubted_at = min(self._doubted_at, trio.current_time())
            self._wake.set()

    def time_ms(self) -> int | None:
        """See `SignalingTransport.time_ms`. What the hub said when we entered, and our monotonic clock since then."""
        return self._client.time_ms()

    @property
    def regions(self) -> Mapping[str, str]:
        return self._client.regions

    @property
    def signals_per_s(self) -> float:
        return self._client.signals_per_s

    async def next_event(self) -> SignalingEvent:
        return await self._inbox.get()

    @property
    def events(self) -> AsyncIterator[SignalingEvent]:
        return EventIterator(self._inbox)

    def close(self) -> None:
        """The goodbye is on its way; `run` ends when the hub has it, or has missed it for long enough."""
        self.is_connected = False
        self._is_closed = True
        self._inbox.close()
        self._send(self._goodbye)

    # ------------------------------------------------------------------------------------------------------ the way

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carries both directions until the hub has taken note of the end. Raises `SignalingError` when it is dead."""
        async with self._hub.connect(self.peer_id) as self._client:
            with self._host.watched(self.wake):
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._listen)
                    task_status.started()
                    while not self._is_over:
                        self._wake = trio.Event()
                        deadline = await self._advance()
                        if not self._is_over:
                            with trio.move_on_at(deadline):
                                await self._wake.wait()
                    nursery.cancel_scope.cancel()

    def wake(self) -> None:
        """The host's network may have changed."""
        if self._host.reaches_signaling:
            if self._shut_since is not None and self._back_at is not None:
                self._back_at = trio.current_time() + self._reconnecting_s
            self._shut_since, self._doubted_at = None, math.inf
        elif self._shut_since is None:
            self._shut_since = trio.current_time()
        self._wake.set()

    async def wait_open(self) -> None:
        while self._shut_since is not None:
            self._wake = trio.Event()
            await self._wake.wait()

    async def _advance(self) -> float:
        """Does what is due; when to look again."""
        while self._shut_since is None and self._up and self._up[0][0] <= trio.current_time():
            await self._up.popleft()[1]()
        now = trio.current_time()
        if self._shut_since is not None:
            return self._wait_shut(self._shut_since, now)
        while self._down and self._down[0][0] <= now:
            self._down.popleft()[1]()
        if self._back_at is not None and self._back_at <= now:
            self._connect_again()
        due = [queue[0][0] for queue in (self._up, self._down) if queue]
        return min([*due, math.inf if self._back_at is None else self._back_at])

    def _wait_shut(self, since: float, now: float) -> float:
        gives_up_at = min(since + SILENCE_S, self._doubted_at + CLIENT.doubt_s)
        if (self._back_at is None or self.is_connected) and gives_up_at <= now:
            self._give_up(f"the hub said nothing for {now - since:.1f} s")
        if since + SILENCE_S <= now:
            if self._client.is_connected:
                self._hub.disconnect(self.peer_id, "timeout")
            self._is_over = self._is_closed
            return math.inf
        return since + SILENCE_S if self._back_at is not None else gives_up_at

    def _give_up(self, why: str) -> None:
        self._lose(Lost(SignalingLost(why), retrying=True))
        self._down.clear()
        self._back_at = trio.current_time() + self._reconnecting_s

    def _lose(self, event: Lost) -> None:
        if self.is_connected:
            self._inbox.put(event)
        self.is_connected = False
        self._up.clear()
        for answer in self._asking:
            answer.lost(event.cause)

    def _connect_again(self) -> None:
        self._back_at = None
        if self._is_closed:
            self._is_over = True
        elif self._is_superseded:
            self._end(SignalingLost("the same identity connected anew"))
        elif self._hub.is_running:  # else its revival restores us
            if self._client.is_connected:  # the hub had not noticed
                self._hub.disconnect(self.peer_id, "superseded")
            self._hub.reconnect(self.peer_id)

    @property
    def _reconnecting_s(self) -> float:
        return CLIENT.backoff_first_s + 2 * self._host.signaling_latency_s

    # ------------------------------------------------------------------------------------------------- both directions

    def _send(self, arrive: Callable[[], Awaitable[None]]) -> None:
        self._up.append((self._due(self._up), arrive))
        self._wake.set()

    def _answer(self, arrive: Callable[[], None]) -> None:
        if len(self._down) >= CLIENT.inbox_max:  # as the real client does
            self._give_up(f"{CLIENT.inbox_max} events were waiting; the lists will come anew")
            return
        self._down.append((self._due(self._down), arrive))
        self._wake.set()

    def _due(self, queue: deque[tuple[float, T]]) -> float:
        """Nothing overtakes."""
        due = trio.current_time() + self._host.signaling_latency_s
        return max(due, queue[-1][0]) if queue else due

    async def _listen(self) -> None:
        async for event in self._client.events:
            if isinstance(event, Lost) and not event.retrying:
                self._is_superseded = True
            if isinstance(event, Restored) and self._shut_since is not None:
                self._hub.disconnect(self.peer_id, "timeout")  # it was revived, and we do not know it
                self._back_at = math.inf
            elif not (isinstance(event, Lost) and self._back_at is not None):
                self._answer(partial(self._deliver, event))

    def _deliver(self, event: SignalingEvent) -> None:
        if isinstance(event, Lost):
            if event.retrying:
                self._lose(event)
            else:
                self._end(event.cause)
            return
        if isinstance(event, Restored) and not self._is_closed:
            self.is_connected = True
        if self.is_connected:
            self._inbox.put(event)

    def _end(self, cause: SignalingError) -> None:
        self.is_connected = True  # a Lost that does not come back is told in any case
        self._lose(Lost(cause, retrying=False))
        self._inbox.end()
        self._is_over = True

    async def _goodbye(self) -> None:
        self._is_over = True

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        answer = _Answer()
        return await self._answered(answer, partial(self._ask_hub, answer, question), CLIENT.request_timeout_s)  # type: ignore[no-any-return]

    async def _ask_hub(self, answer: _Answer, question: Callable[[], Awaitable[Any]]) -> None:
        try:
            answer.value = await question()
        except PsyneMeshError as error:
            answer.error = error
        self._answer(answer.done.set)

    async def _answered(self, answer: _Answer, arrive: Callable[[], Awaitable[None]], patience_s: float) -> Any:
        self._check_connected()
        self._asking.add(answer)
        try:
            self._send(arrive)
            with trio.move_on_after(patience_s):
                await answer.done.wait()
        finally:
            self._asking.discard(answer)
        if answer.error is not None:
            raise answer.error
        if not answer.done.is_set():
            raise SignalingError(f"the hub gave no answer within {patience_s:g} s")
        return answer.value

    def _check_connected(self) -> None:
        if self._is_closed:
            raise ClosedError("this signaling client was closed")
        if not self.is_connected:
            raise SignalingLost("not connected to the hub")


class _Answer:
    """To a question under way."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.value: Any = None
        self.error: PsyneMeshError | None = None

    def lost(self, cause: PsyneMeshError) -> None:
        self.error = cause
        self.done.set()
