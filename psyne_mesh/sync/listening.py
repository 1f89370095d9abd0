"""How a game's loop hears what happens in a room: handlers that `poll()` calls, and feeds of events."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.room import events as room_events
from psyne_mesh.room.callbacks import NO_CALLBACK, checked_callback
from psyne_mesh.room.events import RoomEvent
from psyne_mesh.room.hub import BACKLOG_MAX
from psyne_mesh.sync.facts import Facts

C = TypeVar("C", bound=Callable[..., Any])

Handler = Callable[[Any], object]


class Listening:
    """A part of `Room`."""

    def __init__(self) -> None:
        self._facts = Facts()
        self._handlers: list[tuple[type[Any], Handler]] = []
        self._replays: deque[tuple[Handler, RoomEvent]] = deque()
        self._undone: deque[tuple[Handler, RoomEvent]] = deque()
        self._feeds: list[weakref.ref[EventFeed]] = []

    def _raise_if_ended(self) -> None:
        raise NotImplementedError

    def events(self) -> EventFeed:
        """All events that `poll()` takes in from now on, after those that restate the present: `for event in feed` gives
        what has come, and does not wait. For parts of a program that do not see what `poll()` returns."""
        feed = EventFeed(self._facts.present())
        self._feeds.append(weakref.ref(feed))
        return feed

    def on(self, kind: type[Any], callback: Handler) -> None:
        """Call `callback(event)` for every event of that type, inside `poll()`; first for those that restate the present."""
        if not isinstance(kind, type):
            raise InvalidConfig(f"on({kind!r}, ...): must be an event class, such as PeerLeft")
        self._subscribe(kind, checked_callback("net.on", callback, "event", is_async=False))

    def on_peer_discovered(self, callback: C = NO_CALLBACK) -> C:
        """`@net.on_peer_discovered`: `callback(peer)` for every player, those already there included."""
        return self._on_peer("on_peer_discovered", room_events.PeerDiscovered, callback)

    def on_peer_connected(self, callback: C = NO_CALLBACK) -> C:
        """`callback(peer)` once channels to the player are open."""
        return self._on_peer("on_peer_connected", room_events.PeerConnected, callback)

    def on_peer_suspected(self, callback: C = NO_CALLBACK) -> C:
        """`callback(peer)` when a player has fallen silent."""
        return self._on_peer("on_peer_suspected", room_events.PeerSuspected, callback)

    def on_peer_resumed(self, callback: C = NO_CALLBACK) -> C:
        """`callback(peer)` when a silent player is heard again."""
        return self._on_peer("on_peer_resumed", room_events.PeerResumed, callback)

    def on_peer_away(self, callback: C = NO_CALLBACK) -> C:
        """`callback(peer, reason)` when a player is here and not at play; see `PeerAway`."""
        checked_callback("net.on_peer_away", callback, "peer", "reason", is_async=False)
        self._subscribe(room_events.PeerAway, lambda event: callback(event.peer, event.reason))
        return callback

    def on_peer_back(self, callback: C = NO_CALLBACK) -> C:
        """`callback(peer)` when a player that was away is at play again."""
        return self._on_peer("on_peer_back", room_events.PeerBack, callback)

    def on_peer_changed(self, callback: C = NO_CALLBACK) -> C:
        """`callback(peer)` when a player has another name or other metadata."""
        return self._on_peer("on_peer_changed", room_events.PeerChanged, callback)

    def on_state_changed(self, callback: C = NO_CALLBACK) -> C:
        """`callback(owner, key, value)` when a player's state or the room's (owner None) changes; first for what it is now."""
        checked_callback("net.on_state_changed", callback, "owner", "key", "value", is_async=False)
        self._subscribe(room_events.StateChanged, lambda event: callback(event.owner, event.key, event.value))
        return callback

    def on_vote(self, callback: C = NO_CALLBACK) -> C:
        """`callback(event)` with a `VoteCast` for each vote to bar a player."""
        self._subscribe(room_events.VoteCast, checked_callback("net.on_vote", callback, "event", is_async=False))
        return callback

    def on_timer(self, callback: C = NO_CALLBACK) -> C:
        """`callback(message)` when a timer of the room was due (`net.after`)."""
        checked_callback("net.on_timer", callback, "message", is_async=False)
        self._subscribe(room_events.TimerFired, lambda event: callback(event.message))
        return callback

    def on_peer_left(self, callback: C = NO_CALLBACK) -> C:
        """`callback(peer, reason)`, exactly once for each stay; see `PeerLeft` for the reasons."""
        checked_callback("net.on_peer_left", callback, "peer", "reason", is_async=False)
        self._subscribe(room_events.PeerLeft, lambda event: callback(event.peer, event.reason))
        return callback

    def on_partition(self, callback: C = NO_CALLBACK) -> C:
        """`callback(event)` with a `PartitionSuspected` when several players fell silent together."""
        self._subscribe(
            room_events.PartitionSuspected, checked_callback("net.on_partition", callback, "event", is_async=False)
        )
        return callback

    def on_heal(self, callback: C = NO_CALLBACK) -> C:
        """`callback(event)` with a `PartitionHealed` when players that a partition had taken are back."""
        self._subscribe(room_events.PartitionHealed, checked_callback("net.on_heal", callback, "event", is_async=False))
        return callback

    def _on_peer(self, name: str, kind: type[Any], callback: C) -> C:
        checked_callback(f"net.{name}", callback, "peer", is_async=False)
        self._subscribe(kind, lambda event: callback(event.peer))
        return callback

    def _subscribe(self, kind: type[Any], handler: Handler) -> None:
        self._raise_if_ended()
        self._handlers.append((kind, handler))
        self._replays.extend([(handler, event) for event in self._facts.present() if isinstance(event, kind)])


class EventFeed:
    """`for event in feed`: what has come since the last time; ends when there is no more, and does not wait. A feed that
    is not read keeps the newest 10,000."""

    def __init__(self, events: list[RoomEvent]) -> None:
        self._events = deque(events, maxlen=BACKLOG_MAX)

    def put(self, event: RoomEvent) -> None:
        self._events.append(event)

    def __iter__(self) -> Iterator[RoomEvent]:
        return self

    def __next__(self) -> RoomEvent:
        if not self._events:
            raise StopIteration
        return self._events.popleft()
