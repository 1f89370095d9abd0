"""Multiplayer rooms for Python games, peer to peer over WebRTC data channels, with no game server.

async with join_game_room("fps-lobby", max_players=16, region="us-west", skill_range=(1200, 1400)) as room:
    positions = room.channel("position", PlayerPosition, mode="unreliable")
    async for sender, position in positions: ...

Here is what games write daily. Errors, settings and what calls give back have homes of their own: docs/api.md lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyne_mesh.lazy import exports

if TYPE_CHECKING:
    from psyne_mesh import events, sync
    from psyne_mesh.config import StunServer, TurnServer, WebRTCConfig
    from psyne_mesh.errors import PsyneMeshError, RoomFull
    from psyne_mesh.game.schema import Shared, quantised, smooth
    from psyne_mesh.identity import Identity
    from psyne_mesh.room.channel import Channel
    from psyne_mesh.room.direct import create_channel, create_gaming_channel
    from psyne_mesh.room.mesh import create_room, join_game_room, join_room, list_rooms, open_mesh, quick_match
    from psyne_mesh.room.messages import CombatAction, Message, PlayerPosition
    from psyne_mesh.room.peer import Peer
    from psyne_mesh.room.room import Room

__version__ = "0.1.0"

__all__ = [
    "Channel", "CombatAction", "Identity", "Message", "Peer", "PlayerPosition", "PsyneMeshError", "Room", "RoomFull",
    "Shared", "StunServer", "TurnServer", "WebRTCConfig", "create_channel", "create_gaming_channel", "create_room",
    "events", "join_game_room", "join_room", "list_rooms", "open_mesh", "quantised", "quick_match", "smooth", "sync",
]  # fmt: skip

__getattr__, __dir__ = exports(
    __name__,
    {
        "config": "StunServer TurnServer WebRTCConfig",
        "errors": "PsyneMeshError RoomFull",
        "events": "",
        "game.schema": "Shared quantised smooth",
        "identity": "Identity",
        "room.channel": "Channel",
        "room.direct": "create_channel create_gaming_channel",
        "room.mesh": "create_room join_game_room join_room list_rooms open_mesh quick_match",
        "room.messages": "CombatAction Message PlayerPosition",
        "room.peer": "Peer",
        "room.room": "Room",
        "sync": "",
    },
)
