"""How a game hears what happens in a room: an iterator of events, or a function for each kind of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.room import events as room_events
from psyne_mesh.room.callbacks import NO_CALLBACK, checked_callback
from psyne_mesh.room.hub import Callback, EventHub, EventIterator
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import Peer, Player

# What a callback must take, so that type checkers see a wrong one, too; what it returns is looked at under Trio only.
C = TypeVar("C", bound=Callable[..., Any])
OfPeer = TypeVar("OfPeer", bound=Callable[[Peer], object])
OfPeerAndReason = TypeVar("OfPeerAndReason", bound=Callable[[Peer, str], object])
OfState = TypeVar("OfState", bound=Callable[[Peer | Player | None, str, Any], object])
OfVote = TypeVar("OfVote", bound=Callable[[room_events.VoteCast], object])
OfMessage = TypeVar("OfMessage", bound=Callable[[Message], object])
OfPartition = TypeVar("OfPartition", bound=Callable[[room_events.PartitionSuspected], object])
OfHeal = TypeVar("OfHeal", bound=Callable[[room_events.PartitionHealed], object])


@uninterrupted
class Handlers:
    """A part of both doors' `Room`: a function for each kind of event."""

    _DOOR: ClassVar[str]  # what docs call a room of this door
    _TAKES_ASYNC: ClassVar[bool]

    def _subscribe(self, kind: type[Any], callback: Callback) -> None:
        raise NotImplementedError

    def on(self, kind: type[Any], callback: Callable[[Any], object]) -> None:
        """Call `callback(event)` for every event of that type, first for those that restate the present. Plain functions, and
        under Trio async ones.

        An error in a callback ends the room's block with that error, as in any Trio nursery; under `psyne_mesh.sync` it leaves
        `poll()`. `ClosedError` once the room was left: the callback would never be called.
        """
        if not isinstance(kind, type):
            raise InvalidConfig(f"on({kind!r}, ...): must be an event class, such as PeerLeft")
        self._whole("on", kind, callback)

    def on_peer_discovered(self, callback: OfPeer = NO_CALLBACK) -> OfPeer:
        """`@room.on_peer_discovered`: `callback(peer)` for every player, those already there included."""
        return self._on_peer("on_peer_discovered", room_events.PeerDiscovered, callback)

    def on_peer_connected(self, callback: OfPeer = NO_CALLBACK) -> OfPeer:
        """`callback(peer)` once channels to the player are open."""
        return self._on_peer("on_peer_connected", room_events.PeerConnected, callback)

    def on_peer_suspected(self, callback: OfPeer = NO_CALLBACK) -> OfPeer:
        """`callback(peer)` when a player has fallen silent."""
        return self._on_peer("on_peer_suspected", room_events.PeerSuspected, callback)

    def on_peer_resumed(self, callback: OfPeer = NO_CALLBACK) -> OfPeer:
        """`callback(peer)` when a silent player is heard again."""
        return self._on_peer("on_peer_resumed", room_events.PeerResumed, callback)

    def on_peer_away(self, callback: OfPeerAndReason = NO_CALLBACK) -> OfPeerAndReason:
        """`callback(peer, reason)` when a player is here and not at play; see `PeerAway`."""
        self._checked("on_peer_away", callback, "peer", "reason")
        self._subscribe(room_events.PeerAway, lambda event: callback(event.peer, event.reason))
        return callback

    def on_peer_back(self, callback: OfPeer = NO_CALLBACK) -> OfPeer:
        """`callback(peer)` when a player that was away is at play again."""
        return self._on_peer("on_peer_back", room_events.PeerBack, callback)

    def on_peer_changed(self, callback: OfPeer = NO_CALLBACK) -> OfPeer:
        """`callback(peer)` when a player has another name or other metadata."""
        return self._on_peer("on_peer_changed", room_events.PeerChanged, callback)

    def on_state_changed(self, callback: OfState = NO_CALLBACK) -> OfState:
        """`callback(owner, key, value)` when a player's state or the room's (owner None) changes; first for what it is now."""
        self._checked("on_state_changed", callback, "owner", "key", "value")
        self._subscribe(room_events.StateChanged, lambda event: callback(event.owner, event.key, event.value))
        return callback

    def on_vote(self, callback: OfVote = NO_CALLBACK) -> OfVote:
        """`callback(event)` with a `VoteCast` for each vote to bar a player."""
        return self._whole("on_vote", room_events.VoteCast, callback)

    def on_timer(self, callback: OfMessage = NO_CALLBACK) -> OfMessage:
        """`callback(message)` when a timer of the room was due (`room.after`)."""
        self._checked("on_timer", callback, "message")
        self._subscribe(room_events.TimerFired, lambda event: callback(event.message))
        return callback

    def on_peer_left(self, callback: OfPeerAndReason = NO_CALLBACK) -> OfPeerAndReason:
        """`callback(peer, reason)`, exactly once for each stay; see `PeerLeft` for the reasons."""
        self._checked("on_peer_left", callback, "peer", "reason")
        self._subscribe(room_events.PeerLeft, lambda event: callback(event.peer, event.reason))
        return callback

    def on_partition(self, callback: OfPartition = NO_CALLBACK) -> OfPartition:
        """`callback(event)` with a `PartitionSuspected` when several players fell silent together: three or more, or as
        many as `GossipConfig.partition_min_lost` says, and two at least. Fewer are only `PeerSuspected`, then `PeerLeft`."""
        return self._whole("on_partition", room_events.PartitionSuspected, callback)

    def on_heal(self, callback: OfHeal = NO_CALLBACK) -> OfHeal:
        """`callback(event)` with a `PartitionHealed` when players that a partition had taken are back. Nothing heals that
        was too small for `on_partition`."""
        return self._whole("on_heal", room_events.PartitionHealed, callback)

    def _on_peer(self, name: str, kind: type[Any], callback: OfPeer) -> OfPeer:
        self._checked(name, callback, "peer")
        self._subscribe(kind, lambda event: callback(event.peer))
        return callback

    def _whole(self, name: str, kind: type[Any], callback: C) -> C:
        self._checked(name, callback, "event")
        self._subscribe(kind, callback)
        return callback

    def _checked(self, name: str, callback: Callable[..., object], *arguments: str) -> None:
        checked_callback(f"{self._DOOR}.{name}", callback, *arguments, is_async=self._TAKES_ASYNC)


@uninterrupted
class Listening(Handlers):
    """A part of `Room`."""

    _DOOR = "room"
    _TAKES_ASYNC = True
    _hub: EventHub

    def _joined(self) -> Any:
        raise NotImplementedError

    def events(self) -> EventIterator:
        """All events from now on, after those that restate the present; ends when the room is left."""
        return self._hub.events()

    def _subscribe(self, kind: type[Any], callback: Callback) -> None:
        self._joined()
        self._hub.subscribe(kind, callback)
