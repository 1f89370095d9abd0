"""What type checkers must see in a game: each line is wrong, and mypy complains of an ignore that ignores nothing.

Nothing here runs: `python3 run.py check` reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyne_mesh import Peer, Room, sync

if TYPE_CHECKING:

    def takes_nothing() -> None: ...
    def takes_a_peer(peer: Peer) -> None: ...
    def takes_a_number(peer: int) -> None: ...
    def takes_a_reason(peer: Peer, reason: str) -> None: ...
    async def waits(peer: Peer) -> None: ...

    def right(room: Room, net: sync.Room) -> None:
        for here in (room, net):
            here.on_peer_discovered(takes_a_peer)
            here.on_peer_left(takes_a_reason)
        room.on_peer_connected(waits)

    def wrong(room: Room, net: sync.Room) -> None:
        room.on_peer_discovered(takes_nothing)  # type: ignore[type-var]
        net.on_peer_discovered(takes_a_number)  # type: ignore[type-var]
        room.on_peer_left(takes_a_peer)  # type: ignore[type-var]
        net.on_peer_left(takes_a_peer)  # type: ignore[type-var]
        room.on_peer_away(takes_a_peer)  # type: ignore[type-var]
        room.on_state_changed(takes_a_reason)  # type: ignore[type-var]
        room.on_timer(takes_a_peer)  # type: ignore[type-var]
        room.on_vote(takes_a_peer)  # type: ignore[type-var]
        net.on_partition(takes_a_reason)  # type: ignore[type-var]
        net.on_heal(takes_nothing)  # type: ignore[type-var]
