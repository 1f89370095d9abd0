"""What holds in a room after the events that the game has taken: for handlers that come late."""

from __future__ import annotations

from psyne_mesh.room import events
from psyne_mesh.room.events import RoomEvent

_OF_A_PEER = (events.PeerDiscovered, events.PeerConnected, events.PeerSuspected, events.PeerAway)


class Facts:
    """1. `note(event)` for each event in order. 2. `present()`: the events that restate what holds."""

    def __init__(self) -> None:
        self._facts: dict[tuple[object, ...], RoomEvent] = {}

    def note(self, event: RoomEvent) -> None:
        match event:
            case events.PeerDiscovered() | events.PeerConnected() | events.PeerSuspected() | events.PeerAway():
                self._facts[type(event), event.peer.id] = event
            case events.PeerResumed(peer=peer):
                self._facts.pop((events.PeerSuspected, peer.id), None)
            case events.PeerBack(peer=peer):
                self._facts.pop((events.PeerAway, peer.id), None)
            case events.PeerLeft(peer=peer):
                for kind in _OF_A_PEER:
                    self._facts.pop((kind, peer.id), None)
                self._facts = {
                    name: fact for name, fact in self._facts.items() if name[:2] != (events.StateChanged, peer.id)
                }
            case events.StateChanged(owner=owner, key=key):
                name = events.StateChanged, None if owner is None else owner.id, key
                self._facts.pop(name, None)
                if event.value is not None:
                    self._facts[name] = event
            case events.ServerRefused(server=server):
                self._facts[events.ServerRefused, server] = event
            case events.SharedAppeared(shared=shared):
                self._facts[events.SharedAppeared, id(shared)] = event
            case events.SharedGone(shared=shared):
                self._facts.pop((events.SharedAppeared, id(shared)), None)
            case _:
                return

    def present(self) -> list[RoomEvent]:
        return [
            fact
            for fact in self._facts.values()
            if not (isinstance(fact, events.SharedAppeared) and fact.shared.is_mine)  # once another's, and the host's
        ]
