"""Signaling inside one process, over the same `RoomRegistry` as the server: for tests, simulations and split screen.

A test can stand in the middle of it: tamper with envelopes, drop or delay them, cut one client off, or kill the hub.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from psyne_mesh.errors import (
    ClosedError,
    MessageTooLarge,
    PeerGone,
    RoomError,
    SignalingError,
    SignalingLost,
    SignalingUnreachable,
)
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.signaling.events import (
    Joined,
    Lost,
    PeerJoined,
    PeerLeft,
    Restored,
    RoomInfo,
    RoomListing,
    SignalingEvent,
    SignalReceived,
    SignalRefused,
)
from psyne_mesh.signaling.inbox import EventIterator, Inbox
from psyne_mesh.signaling.joining import JoinRequest, RoomQuery, SeekRequest
from psyne_mesh.signaling.messages import MAX_ENVELOPE_CHARS
from psyne_mesh.signaling.placing import Place, Placing
from psyne_mesh.signaling.registry import Arrival, Departure, RegistryLimits, RoomRegistry
from psyne_mesh.signaling.requests import (
    check_record,
    checked_join,
    checked_list,
    checked_seek,
    query_of,
    request_into,
    seek_of,
)

Intercept = Callable[[PeerId, PeerId, str, str], "str | None"]
MAX_DELAYED = 10_000


@uninterrupted
class MemorySignaling:
    """A signaling hub in memory.

    1. `async with open_memory_signaling() as hub`.
    2. `async with hub.connect(peer_id) as client`, as often as there are players.

    For tests, all of them plain attributes and methods that act at once:
    - `hub.intercept = lambda sender, to, room, envelope: ...`: returns the envelope to pass on, another in its place,
      or None to drop it.
    - `hub.delay_s`: how long an envelope is under way.
    - `hub.regions = {"us-west": "stun.example"}`: STUN servers by which clients measure how far regions are.
    - `hub.wall_ms = lambda: ...`: the hub's clock, which its clients go by; None: they go by their own.
    - `hub.inject(sender, to, room, envelope)`: as if `sender` had sent it.
    - `hub.disconnect(peer_id)` / `hub.reconnect(peer_id)`: one client loses its connection and finds it again.
    - `hub.kill()` / `hub.revive()`: the server dies with all its rooms, and comes back empty; clients rejoin.
    """

    def __init__(self, nursery: trio.Nursery, limits: RegistryLimits | None = None) -> None:
        self.intercept: Intercept | None = None
        self.delay_s = 0.0
        self.wall_ms: Callable[[], int] | None = None
        self.regions: Mapping[str, str] = {}
        self.is_running = True
        self._nursery = nursery
        self._limits = limits
        self._start_registry()
        self._timer = trio.CancelScope()
        self._seeks: dict[tuple[PeerId, int], tuple[trio.Event, list[Place]]] = {}
        self._next_seek = 0
        self._clients: dict[PeerId, MemorySignalingClient] = {}
        self._delayed = 0

    @property
    def registry(self) -> RoomRegistry:
        return self._registry

    @asynccontextmanager
    async def connect(self, peer_id: PeerId) -> AsyncIterator[MemorySignalingClient]:
        """A client for as long as the block. The same id again supersedes the older client, as the server does."""
        if not self.is_running:
            raise SignalingUnreachable("the hub was killed")
        old = self._clients.get(peer_id)
        if old is not None:
            self._cut(old, "superseded", SignalingLost("the same identity connected anew"), retrying=False)
        client = MemorySignalingClient(self, peer_id)
        self._clients[peer_id] = client
        try:
            yield client
        finally:
            client.is_connected = False
            client._inbox.close()
            if self._clients.get(peer_id) is client:
                del self._clients[peer_id]
                self._tell_departures(self._registry.depart(peer_id, "left", trio.current_time()))

    def disconnect(self, peer_id: PeerId, reason: str = "lost") -> None:
        client = self._clients[peer_id]
        if client.is_connected:
            self._cut(client, reason, SignalingLost("the connection to the hub was cut"), retrying=True)

    def reconnect(self, peer_id: PeerId) -> None:
        client = self._clients[peer_id]
        if self.is_running and not client.is_connected:
            client._restore()

    def kill(self) -> None:
        self.is_running = False
        for peer_id in list(self._clients):
            self.disconnect(peer_id)
        self._start_registry()

    def revive(self) -> None:
        self.is_running = True
        for peer_id in list(self._clients):
            self.reconnect(peer_id)

    def inject(self, sender: PeerId, to: PeerId, room: str, envelope: str) -> None:
        target = self._clients.get(to)
        if target is not None and target.is_connected:
            target._inbox.put(SignalReceived(sender, room, envelope))

    def _cut(self, client: MemorySignalingClient, reason: str, cause: SignalingLost, *, retrying: bool) -> None:
        client.is_connected = False
        client._inbox.put(Lost(cause, retrying))
        self._end_seeks(client.peer_id)
        if not retrying:
            client._inbox.end()
        self._tell_departures(self._registry.depart(client.peer_id, reason, trio.current_time()))

    def _start_registry(self) -> None:
        self._registry = RoomRegistry(self._limits, self._now_ms)
        self._placing = Placing(self._registry)

    def _now_ms(self, now: float) -> int:
        return time.time_ns() // 1_000_000 if self.wall_ms is None else self.wall_ms()

    async def run(self) -> None:
        """Looks at who waits for others to play with, while somebody does."""
        while True:
            with trio.CancelScope() as self._timer:
                self._rearm()
                await trio.sleep_forever()
            self._placing.handle_timeout(trio.current_time())
            self._tell_places()

    def _rearm(self) -> None:
        due = self._placing.next_timeout()
        self._timer.deadline = math.inf if due is None else due

    def _tell_places(self) -> None:
        for place in self._placing.take_places():
            if (seek := self._seeks.get((place.peer, place.ref))) is not None:
                seek[1].append(place)
                seek[0].set()

    async def _seek(self, peer: PeerId, request: SeekRequest) -> RoomInfo:
        self._next_seek += 1
        key = peer, self._next_seek
        done, places = self._seeks[key] = trio.Event(), list[Place]()
        placing = self._placing
        try:
            placing.seek(*key, request, trio.current_time())
            self._tell_places()
            self._rearm()
            await done.wait()
        finally:
            del self._seeks[key]
            placing.withdraw(*key)
        if not places:
            raise SignalingLost("the connection to the hub was cut")
        if not isinstance(outcome := places[0].outcome, RoomInfo):
            raise outcome
        return outcome

    def _end_seeks(self, peer: PeerId) -> None:
        self._placing.depart(peer)
        for (seeker, _), (done, _) in self._seeks.items():
            if seeker == peer:
                done.set()

    def _join(self, peer: PeerId, request: JoinRequest) -> Joined:
        arrival = self._registry.join(peer, request, trio.current_time())
        self._tell_arrival(arrival)
        return arrival.joined

    def _tell_arrival(self, arrival: Arrival) -> None:
        event = PeerJoined(arrival.joined.room, arrival.member, arrival.rejoined)
        for peer in arrival.notify:
            self._clients[peer]._inbox.put(event)

    def _tell_departures(self, departures: list[Departure]) -> None:
        for departure in departures:
            event = PeerLeft(departure.room, departure.peer_id, departure.reason, departure.record)
            for peer in departure.notify:
                self._clients[peer]._inbox.put(event)

    def _relay(self, sender: PeerId, to: PeerId, room: str, envelope: str) -> None:
        if not (self._registry.is_member(sender, room) and self._registry.is_member(to, room)):
            error = PeerGone(f"{to.short} is not in room {room!r}")
            self._clients[sender]._inbox.put(SignalRefused(to, room, error))
            return
        passed = envelope if self.intercept is None else self.intercept(sender, to, room, envelope)
        if passed is None:
            return
        if self.delay_s <= 0:
            self.inject(sender, to, room, passed)
        elif self._delayed < MAX_DELAYED:  # beyond it new envelopes are dropped, as a network would
            self._delayed += 1
            self._nursery.start_soon(self._inject_later, sender, to, room, passed, self.delay_s)

    async def _inject_later(self, sender: PeerId, to: PeerId, room: str, envelope: str, delay_s: float) -> None:
        await trio.sleep(delay_s)
        self._delayed -= 1
        self.inject(sender, to, room, envelope)


@asynccontextmanager
@uninterrupted
async def open_memory_signaling(limits: RegistryLimits | None = None) -> AsyncIterator[MemorySignaling]:
    """A hub for as long as the block. Envelopes still under way at the end are dropped."""
    async with open_background_nursery() as nursery:
        hub = MemorySignaling(nursery, limits)
        nursery.start_soon(hub.run)
        yield hub


@uninterrupted
class MemorySignalingClient:
    """A `SignalingTransport` on a `MemorySignaling` hub."""

    def __init__(self, hub: MemorySignaling, peer_id: PeerId) -> None:
        self.peer_id = peer_id
        self.is_connected = True
        self._hub = hub
        self._inbox = Inbox(math.inf)  # tests and simulations: what they put in is theirs to drain
        self._rooms: dict[str, JoinRequest] = {}

    async def join(self, request: JoinRequest, *, goodbye: str = "") -> Joined:
        await trio.lowlevel.checkpoint()
        self._check_connected()
        request = checked_join(request)
        joined = self._hub._join(self.peer_id, request)
        self._rooms[joined.room] = request_into(joined.info, request)
        return joined

    async def seek(self, request: SeekRequest) -> RoomInfo:
        await trio.lowlevel.checkpoint()
        self._check_connected()
        return await self._hub._seek(self.peer_id, seek_of(checked_seek(request)))

    async def leave(self, room: str, *, record: str = "") -> None:
        await trio.lowlevel.checkpoint()
        self._rooms.pop(room, None)
        if self.is_connected:  # else another connection may speak for the peer by now
            departure = self._hub.registry.leave(self.peer_id, room, trio.current_time(), record=record)
            self._hub._tell_departures([departure] if departure else [])

    async def list_rooms(self, query: RoomQuery | None = None) -> RoomListing:
        await trio.lowlevel.checkpoint()
        self._check_connected()
        return self._hub.registry.list_rooms(query_of(checked_list(query or RoomQuery())))

    def send_signal(self, to: PeerId, room: str, envelope: str) -> None:
        self._check_connected()
        if len(envelope) > MAX_ENVELOPE_CHARS:
            raise MessageTooLarge(len(envelope), MAX_ENVELOPE_CHARS)
        self._hub._relay(self.peer_id, to, room, envelope)

    def set_record(self, room: str, record: str) -> None:
        check_record(record)
        if room in self._rooms:
            self._rooms[room] = attrs.evolve(self._rooms[room], record=record)

    def doubt(self) -> None:
        """See `SignalingTransport.doubt`. Memory is never silent."""

    def time_ms(self) -> int | None:
        return None if self._hub.wall_ms is None else self._hub.wall_ms()

    @property
    def regions(self) -> Mapping[str, str]:
        return self._hub.regions

    @property
    def signals_per_s(self) -> float:
        return math.inf

    async def next_event(self) -> SignalingEvent:
        return await self._inbox.get()

    @property
    def events(self) -> AsyncIterator[SignalingEvent]:
        return EventIterator(self._inbox)

    def _restore(self) -> None:
        self.is_connected = True
        rooms: list[Joined] = []
        refused: list[tuple[str, RoomError | SignalingError]] = []
        for key, request in list(self._rooms.items()):
            try:
                rooms.append(self._hub._join(self.peer_id, request))
            except (RoomError, SignalingError) as error:
                del self._rooms[key]
                refused.append((key, error))
        self._inbox.put(Restored(tuple(rooms), tuple(refused)))

    def _check_connected(self) -> None:
        if self._inbox.is_closed:
            raise ClosedError("this signaling client was closed")
        if not self.is_connected:
            raise SignalingLost("not connected to the hub")
