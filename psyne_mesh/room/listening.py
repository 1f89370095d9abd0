"""How a game hears what happens in a room: an iterator of events, or a function for each kind of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.room import events as room_events
from psyne_mesh.room.callbacks import NO_CALLBACK, checked_callback
from psyne_mesh.room.hub import Callback, EventHub, EventIterator

C = TypeVar("C", bound=Callable[..., Any])


@uninterrupted
class Listening:
    """A part of `Room`."""

    _hub: EventHub

    def _joined(self) -> Any:
        raise NotImplementedError

    def events(self) -> EventIterator:
        """All events from now on, after those that restate the present; ends when the room is left."""
        return self._hub.events()

    def on(self, kind: type[Any], callback: Callback) -> None:
        """Call `callback(event)` for every event of that type. Plain and async functions both work.

        An error in a callback ends the room's block with that error, as in any Trio nursery. `ClosedError` once the room was
        left: the callback would never be called.
        """
        if not isinstance(kind, type):
            raise InvalidConfig(f"on({kind!r}, ...): must be an event class, such as PeerLeft")
        self._subscribe(kind, checked_callback("room.on", callback, "event"))

    def on_peer_discovered(self, callback: C = NO_CALLBACK) -> C:
        """`@room.on_peer_discovered`: `callback(peer)` for every player, those already there included."""
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
        checked_callback("room.on_peer_away", callback, "peer", "reason")
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
        checked_callback("room.on_state_changed", callback, "owner", "key", "value")
        self._subscribe(room_events.StateChanged, lambda event: callback(event.owner, event.key, event.value))
        return callback

    def on_vote(self, callback: C = NO_CALLBACK) -> C:
        """`callback(event)` with a `VoteCast` for each vote to bar a player."""
        self._subscribe(room_events.VoteCast, checked_callback("room.on_vote", callback, "event"))
        return callback

    def on_timer(self, callback: C = NO_CALLBACK) -> C:
        """`callback(message)` when a timer of the room was due (`room.after`)."""
        checked_callback("room.on_timer", callback, "message")
        self._subscribe(room_events.TimerFired, lambda event: callback(event.message))
        return callback

    def on_peer_left(self, callback: C = NO_CALLBACK) -> C:
        """`callback(peer, reason)`, exactly once for each stay; see `PeerLeft` for the reasons."""
        checked_callback("room.on_peer_left", callback, "peer", "reason")
        self._subscribe(room_events.PeerLeft, lambda event: callback(event.peer, event.reason))
        return callback

    def on_partition(self, callback: C = NO_CALLBACK) -> C:
        """`callback(event)` with a `PartitionSuspected` when several players fell silent together: three or more, or as
        many as `GossipConfig.partition_min_lost` says, and two at least. Fewer are only `PeerSuspected`, then `PeerLeft`."""
        self._subscribe(room_events.PartitionSuspected, checked_callback("room.on_partition", callback, "event"))
        return callback

    def on_heal(self, callback: C = NO_CALLBACK) -> C:
        """`callback(event)` with a `PartitionHealed` when players that a partition had taken are back. Nothing heals that
        was too small for `on_partition`."""
        self._subscribe(room_events.PartitionHealed, checked_callback("room.on_heal", callback, "event"))
        return callback

    def _on_peer(self, name: str, kind: type[Any], callback: C) -> C:
        checked_callback(f"room.{name}", callback, "peer")
        self._subscribe(kind, lambda event: callback(event.peer))
        return callback

    def _subscribe(self, kind: type[Any], callback: Callback) -> None:
        self._joined()
        self._hub.subscribe(kind, callback)
