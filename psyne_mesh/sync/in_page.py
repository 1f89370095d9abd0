"""`psyne_mesh.sync` for Python in a page (Pyodide): the member is the page's own, in TypeScript, and `poll()` drains its queue.

No thread and no Trio: the page must put the member where Python finds it, `globalThis.psyneMesh`, and the loop of the game
gives the page its turn, `await asyncio.sleep(0)` once a frame.

    async with sync.join_game_room("arena", max_players=8) as net:
        while running:
            for event in net.poll(): ...
            await asyncio.sleep(0)

What the member of a page has not, this has not: a host, the room's clock, replicated state, requests, files, rollback.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

from psyne_mesh import errors
from psyne_mesh.errors import ClosedError, ConnectFailed, InvalidConfig, PeerGone, ProtocolError, WouldBlock
from psyne_mesh.game.replicas import Appeared as _Appeared
from psyne_mesh.game.replicas import Replicas, Vanished
from psyne_mesh.game.schema import Shared
from psyne_mesh.game.shared import SharedObjects
from psyne_mesh.identity import PeerId
from psyne_mesh.room import events as room_events
from psyne_mesh.room.codec import Payload, codec_for
from psyne_mesh.room.delivery import RELIABLE_ORDERED, DeliveryMode
from psyne_mesh.room.events import RoomEvent
from psyne_mesh.room.messages import Message

S = TypeVar("S", bound=Shared)
_SHARED = "psyne.shared"  # as `room/sharing.py` has it
_REFUSED_TOLD_MAX = 1024
_HAS_NOT = "the member of a page has no {}; play that part of the game on a desktop, or without it"
_NO_MEMBER = (
    "there is no member in this page: load it before Python, as in "
    "`import * as psyneMesh from '/app/psyne-mesh.js'; globalThis.psyneMesh = psyneMesh`"
)


class Peer:
    """Another player: what the member says of it, at this moment."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs
        self.id = PeerId(str(theirs.id))

    def __getattr__(self, name: str) -> Any:
        if name in ("name", "region", "connected", "relayed", "suspected"):
            return getattr(self._theirs, name)
        if name in ("seat", "away"):
            return _none(getattr(self._theirs, name))
        raise AttributeError(_HAS_NOT.format(f"peer.{name}"))

    @property
    def rtt_ms(self) -> float | None:
        rtt_ms = _none(self._theirs.rttMs)
        return None if rtt_ms is None else float(rtt_ms)

    @property
    def waiting_bytes(self) -> int:
        return int(self._theirs.waitingBytes)

    @property
    def path(self) -> str | None:
        """Such as "host", as the browser says."""
        path = _none(self._theirs.path)
        return None if path is None else str(path.kind)

    @property
    def metadata(self) -> Mapping[str, str]:
        return dict(_plain(self._theirs.metadata))

    @property
    def stats(self) -> None:
        """The browser keeps SCTP's counters to itself."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peer) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Peer {self.name!r} {self.id.short}>"


class Player:
    """Ourselves, as the owner of what we share."""

    def __init__(self, theirs: Any) -> None:
        self.id, self.name = PeerId(str(theirs.id)), str(theirs.name)


class Channel:
    """As `psyne_mesh.sync.Channel`; encoded here, and carried by the member as bytes."""

    def __init__(
        self, room: Room, name: str, kinds: tuple[type[Message], ...], mode: DeliveryMode, theirs: Any
    ) -> None:
        self.name, self.mode = name, mode
        self._room, self._theirs, self._codec = room, theirs, codec_for(kinds)
        self._inbox: deque[tuple[Peer, Any]] = deque()
        self._callback: Callable[[Peer, Any], object] | None = None
        self._refused: set[PeerId] = set()

    def send(self, message: Any, to: Any = None) -> None:
        """`UnserialisableMessage`, `PeerGone` for one who is not here, `ClosedError`."""
        self._room.check_open()
        self.send_payload(self._codec.encode(message), to)

    send_nowait = send

    def send_payload(self, payload: Payload, to: Any) -> None:
        whole = _to_page(payload)
        if to is None:
            _told(self._theirs.send, whole)
            return
        for each in [to] if isinstance(to, Peer | str) else to:
            peer = str(each.id if isinstance(each, Peer) else each)
            if PeerId(peer) not in self._room.peers:
                raise PeerGone(f"{peer[:8]} is not in the room")
            _told(self._theirs.send, whole, peer)

    def on_message(self, callback: Callable[[Peer, Any], Any]) -> Callable[[Peer, Any], Any]:
        self._callback = callback
        return callback

    def drain(self) -> None:
        """Called by `poll()`: what has come, decoded; of what is no message of this channel the room tells once."""
        for sender, payload in _rows(self._theirs.poll()):
            peer = self._room.peer(sender)
            try:
                self._inbox.append((peer, self._codec.decode_untrusted(payload)))
            except ProtocolError as error:
                if peer.id not in self._refused and len(self._refused) < _REFUSED_TOLD_MAX:
                    self._refused.add(peer.id)
                    self._room.tell(room_events.MessageRefused(peer, self.name, str(error)))

    def call(self) -> None:
        while self._callback is not None and self._inbox:
            self._callback(*self._inbox.popleft())

    def receive_nowait(self) -> tuple[Peer, Any]:
        if self._callback is not None:
            raise InvalidConfig(f"channel {self.name!r}: its messages go to its callback")
        if not self._inbox:
            self._room.check_open()
            raise WouldBlock(f"channel {self.name!r}: nothing has come")
        return self._inbox.popleft()

    def __iter__(self) -> Iterator[tuple[Peer, Any]]:
        """What has come by the last `poll()`; ends when there is no more."""
        while self._inbox:
            yield self.receive_nowait()


class Room:
    """Made by `join_game_room`: the part of `psyne_mesh.sync.Room` that a page's member has.

    1. `poll()` once a frame: what has happened; handlers and callbacks are called in it, and what is shared goes out.
    2. `channel`, `share`, `all` as on a desktop.
    """

    host = None
    is_host = False

    def __init__(self, theirs: Any, now: Callable[[], float] = time.monotonic) -> None:
        """theirs: the room of the member in TypeScript."""
        self._theirs, self._now = theirs, now
        self.me = PeerId(str(theirs.me))
        self.player = Player(theirs.player)
        self._peers: dict[PeerId, Peer] = {}
        self._events: deque[RoomEvent] = deque()
        self._channels: dict[str, Channel] = {}
        self._handlers: list[tuple[type[Any], Callable[[Any], object]]] = []
        self._replicas = Replicas()
        self._shared = SharedObjects(random.SystemRandom())
        self._traffic: Any = None

    def __getattr__(self, name: str) -> Any:
        if name in ("name", "code", "region"):
            return str(getattr(self._theirs, name))
        raise AttributeError(_HAS_NOT.format(f"room.{name}"))

    @property
    def max_players(self) -> int:
        return int(self._theirs.maxPlayers)

    @property
    def peers(self) -> Mapping[PeerId, Peer]:
        """The other players, as of the last `poll()`."""
        return MappingProxyType(self._peers)

    @property
    def connected(self) -> list[Peer]:
        return [peer for peer in self._peers.values() if peer.connected]

    @property
    def seats(self) -> tuple[PeerId | None, ...]:
        return tuple(None if _none(seat) is None else PeerId(str(seat)) for seat in _plain(self._theirs.seats))

    def channel(
        self, name: str, /, *kinds: type[Message], mode: DeliveryMode | str | None = None, inbox_max: int | None = None
    ) -> Channel:
        """As on a desktop, where `priority` may be given as well."""
        if (known := self._channels.get(name)) is not None:
            return known
        wanted = RELIABLE_ORDERED if mode is None else DeliveryMode.parse(mode)
        options: dict[str, Any] = {"mode": wanted.name}
        if inbox_max is not None:
            options["inboxMax"] = inbox_max
        channel = self._channels[name] = Channel(
            self, name, kinds, wanted, self._theirs.channel(name, _to_page(options))
        )
        return channel

    def on(self, kind: type[Any], handler: Callable[[Any], object] | None = None) -> Any:
        """`net.on(PeerLeft, handler)`, or above a function: called inside `poll()`."""
        if handler is None:
            return lambda function: self.on(kind, function)
        self._handlers.append((kind, handler))
        return handler

    def poll(self) -> list[RoomEvent]:
        """What has happened since the last time; `ClosedError` once the room is over and all was told."""
        for told in _rows(self._theirs.poll()):
            if (event := self._event(told)) is not None:
                self._events.append(event)
        self._exchange_shared()
        for channel in self._channels.values():
            channel.drain()
        events, self._events = list(self._events), deque()
        if not events:
            self.check_open()
        for event in events:
            for kind, handler in list(self._handlers):
                if isinstance(event, kind):
                    handler(event)
        for channel in self._channels.values():
            channel.call()
        return events

    @contextmanager
    def pause(self, reason: str = "paused") -> Iterator[None]:
        self._theirs.pause(reason)
        try:
            yield
        finally:
            if not self._theirs.closed:
                self._theirs.pause(None)

    def leave(self) -> Any:
        """Say goodbye. What it returns may be awaited, until the others have heard of it."""
        return self._theirs.leave()

    def check_open(self) -> None:
        if self._theirs.closed:
            raise ClosedError(f"room {self.name!r} has ended")

    # ------------------------------------------------------------------------------------------------- shared objects

    def share(self, shared: S) -> S:
        self._begin_sharing()
        self._shared.add(*self._replicas.share(shared, self.player))
        return shared

    def unshare(self, shared: Shared) -> None:
        self._shared.remove(self._replicas.unshare(shared))

    def all(self, kind: type[S]) -> Iterable[S]:
        self._begin_sharing()
        self._replicas.know(kind)
        return self._replicas.all(kind)

    def _begin_sharing(self) -> None:
        if self._traffic is None:
            self._traffic = self._theirs.channel(_SHARED, _to_page({"mode": "unreliable"}))
            for peer in self._peers:
                self._shared.peer_joined(peer, self._now())

    def _exchange_shared(self) -> None:
        if self._traffic is None:
            return
        now = self._now()
        for sender, payload in _rows(self._traffic.poll()):
            try:
                self._shared.receive(PeerId(str(sender.id)), payload if isinstance(payload, bytes) else b"", now)
            except ProtocolError:
                continue
        for number, fields in self._replicas.changes():
            self._shared.update(number, fields, now)
        self._shared.handle_timeout(now)
        for event in self._shared.take_events():
            self._replicas.apply(event, self._peers.get(event.owner))
            if event.owner not in self._peers:
                self._replicas.forget(event.owner)
        self._replicas.sample(now)
        for news in self._replicas.take_events():
            self._events.append(_told_of_shared(news))
        for peer, message in self._shared.datagrams_to_send(now):
            with suppress(PeerGone, ClosedError):  # it counts as lost, and is sent again as it is then
                _told(self._traffic.send, _to_page(message), str(peer))

    # -------------------------------------------------------------------------------------------------------- helpers

    def peer(self, theirs: Any) -> Any:
        """A `Peer` of this file: events are declared with the desktop's."""
        found = self._peers.get(PeerId(str(theirs.id)))
        return Peer(theirs) if found is None else found

    def tell(self, event: RoomEvent) -> None:
        self._events.append(event)

    def _event(self, told: Any) -> Any:
        """As the desktop has it; None for what only a page tells."""
        kind = str(told.type)
        if kind == "peerDiscovered":
            peer: Any = Peer(told.peer)
            self._peers[peer.id] = peer
            if self._traffic is not None:
                self._shared.peer_joined(peer.id, self._now())
            return room_events.PeerDiscovered(peer)
        if kind == "peerLeft":
            peer = self.peer(told.peer)
            self._peers.pop(peer.id, None)
            self._shared.peer_left(peer.id)
            return room_events.PeerLeft(peer, str(told.reason))
        make = _EVENTS.get(kind)
        return None if make is None else make(self, told)


def _told_of_shared(news: Any) -> RoomEvent:
    if isinstance(news, _Appeared):
        return room_events.SharedAppeared(news.shared)
    if isinstance(news, Vanished):
        return room_events.SharedGone(news.shared)
    return room_events.SharedRefused(news.player, news.kind, news.reason)


def _of_peer(event: type[Any]) -> Callable[[Room, Any], Any]:
    return lambda room, told: event(room.peer(told.peer))


_EVENTS: dict[str, Callable[[Room, Any], Any]] = {
    "peerConnected": _of_peer(room_events.PeerConnected),
    "peerSuspected": _of_peer(room_events.PeerSuspected),
    "peerResumed": _of_peer(room_events.PeerResumed),
    "peerChanged": _of_peer(room_events.PeerChanged),
    "peerBack": _of_peer(room_events.PeerBack),
    "peerAway": lambda room, told: room_events.PeerAway(room.peer(told.peer), str(told.reason)),
    "peerUnreachable": lambda room, told: room_events.PeerUnreachable(
        room.peer(told.peer),
        ConnectFailed("ice", str(told.error.message)),
    ),
    "evicted": lambda room, told: room_events.Evicted(str(told.reason)),
    "signalingDown": lambda room, told: room_events.SignalingDown(str(told.reason)),
    "signalingUp": lambda room, told: room_events.SignalingUp(),
    "twoFaced": lambda room, told: room_events.TwoFaced(PeerId(str(told.player))),
    "messageRefused": lambda room, told: room_events.MessageRefused(
        room.peer(told.peer),
        str(told.channel),
        str(told.reason),
    ),
    "messagesLost": lambda room, told: room_events.MessagesLost(
        room.peer(told.peer),
        _none(told.channel),
        int(told.count),
    ),
    "messagesUndelivered": lambda room, told: room_events.MessagesUndelivered(
        room.peer(told.peer),
        _none(told.channel),
        int(told.count),
    ),
}


# ------------------------------------------------------------------------------------------------------------ the way in

_OPTIONS = {
    "signaling": "signaling", "player_name": "playerName", "max_players": "maxPlayers", "region": "region",
    "skill_range": "skillRange", "app_id": "appId", "app_version": "appVersion", "metadata": "metadata",
    "room_metadata": "roomMetadata", "create": "create",
}  # fmt: skip


class Entrance:
    """`async with sync.join_game_room(...) as net`. Where the browser can wait inside of Python (JSPI), `with` does as well."""

    def __init__(self, function: str, name: str, options: Mapping[str, Any]) -> None:
        unknown = options.keys() - _OPTIONS.keys()
        if unknown:
            raise InvalidConfig(f"{function}({', '.join(sorted(unknown))}=...): a page's member does not know that")
        self._function, self._name = function, name
        self._options = {_OPTIONS[key]: value for key, value in options.items() if value is not None}
        self._room: Room | None = None

    async def __aenter__(self) -> Room:
        try:
            theirs = await getattr(_member(), self._function)(self._name, _to_page(self._options))
        except Exception as error:
            raise _as_ours(error) from error
        self._room = Room(theirs)
        return self._room

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._room is not None:
            await self._room.leave()

    def __enter__(self) -> Room:
        room: Room = _waited_for(self.__aenter__())
        return room

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _waited_for(self.__aexit__(kind, error, traceback))


def join_game_room(name: str, **options: Any) -> Entrance:
    """As on a desktop, with `async with`. The page's own server is the signaling server unless `signaling` says otherwise."""
    return Entrance("joinGameRoom", name, options)


def join_room(code: str, **options: Any) -> Entrance:
    """The room with that code, `K7QM-3FHT`."""
    return Entrance("joinRoom", code, options)


def _member() -> Any:
    if sys.platform != "emscripten":
        raise InvalidConfig("psyne_mesh.sync.in_page is for Python in a page; here it is psyne_mesh.sync")
    page = import_module("js")
    member = getattr(page, "psyneMesh", None)
    if member is None:
        raise InvalidConfig(_NO_MEMBER)
    return member


def _waited_for(awaitable: Any) -> Any:
    ffi = import_module("pyodide.ffi")
    if not getattr(ffi, "can_run_sync", lambda: False)():
        awaitable.close()
        raise InvalidConfig(
            "this browser cannot wait inside of Python: write `async with sync.join_game_room(...) as net`"
        )
    return ffi.run_sync(awaitable)


# ---------------------------------------------------------------------------------------------- to the page and back


def _to_page(value: Any) -> Any:
    if sys.platform != "emscripten":
        return value
    return import_module("pyodide.ffi").to_js(value, dict_converter=import_module("js").Object.fromEntries)


def _told(call: Callable[..., Any], *arguments: Any) -> None:
    try:
        call(*arguments)
    except Exception as error:
        raise _as_ours(error) from error


def _as_ours(error: Exception) -> Exception:
    """The member's errors have the names of ours."""
    kind = getattr(errors, str(getattr(error, "name", "")), None)
    if not (isinstance(kind, type) and issubclass(kind, errors.PsyneMeshError)):
        return error
    words = str(getattr(error, "message", error))
    try:
        return kind(words)
    except TypeError:  # one that is made of more than words
        return errors.RemoteError(words) if issubclass(kind, errors.RemoteError) else errors.LocalError(words)


def _plain(value: Any) -> Any:
    return value.to_py() if hasattr(value, "to_py") else value


def _none(value: Any) -> Any:
    """`null` and `undefined` are values of their own in some versions of Pyodide."""
    return None if value is None or type(value).__name__ in ("JsNull", "JsUndefined") else value


def _rows(found: Any) -> Iterator[Any]:
    """What a queue of the member holds: events, or (sender, payload) with the payload as `bytes` or `str`."""
    for row in found:
        if not isinstance(row, tuple | list) and not hasattr(row, "length"):
            yield row
            continue
        sender, payload = row[0], row[1]
        if isinstance(payload, str | bytes):
            yield sender, payload
        else:
            data = payload.to_bytes() if hasattr(payload, "to_bytes") else bytes(payload.to_py())
            yield sender, data
