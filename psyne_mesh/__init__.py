"""Multiplayer rooms for Python games, peer to peer over WebRTC data channels, with no game server.

async with join_game_room("fps-lobby", max_players=16, region="us-west", skill_range=(1200, 1400)) as room:
    positions = room.channel("position", PlayerPosition, mode="unreliable")
    async for sender, position in positions: ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psyne_mesh import events, sync
    from psyne_mesh.config import DataChannelConfig, StunServer, TurnServer, WebRTCConfig
    from psyne_mesh.errors import (
        AppVersionMismatch,
        ClosedError,
        ConnectFailed,
        EventBacklog,
        FingerprintMismatch,
        InvalidConfig,
        InvalidUri,
        InviteExpired,
        LocalError,
        ManifestRefused,
        MessageTooLarge,
        NotHost,
        NotInvited,
        OutsideTrio,
        PeerGone,
        ProtocolError,
        PsyneMeshError,
        RemoteError,
        RequestRefused,
        RoomError,
        RoomExists,
        RoomFull,
        RoomGone,
        RoomMismatch,
        RoomNotFound,
        SignalingError,
        SignalingLost,
        SignalingUnreachable,
        SnapshotDisputed,
        TamperedSignaling,
        UnknownCode,
        UnserialisableMessage,
        VersionMismatch,
        WouldBlock,
        WrongPassword,
    )
    from psyne_mesh.game.schema import Shared, quantised, smooth
    from psyne_mesh.gossip.config import GossipConfig
    from psyne_mesh.identity import Identity, PeerId
    from psyne_mesh.mesh.membership import SendOutcome
    from psyne_mesh.room.channel import Channel, ChannelStats, SendReport
    from psyne_mesh.room.delivery import DeliveryMode
    from psyne_mesh.room.direct import PeerChannel, create_channel, create_gaming_channel
    from psyne_mesh.room.listing import RoomChange, RoomList
    from psyne_mesh.room.mesh import Mesh, create_room, join_game_room, join_room, list_rooms, open_mesh, quick_match
    from psyne_mesh.room.messages import Action, CombatAction, Finite, FloatVector, Message, PlayerPosition
    from psyne_mesh.room.options import Party
    from psyne_mesh.room.peer import Peer
    from psyne_mesh.room.room import Room
    from psyne_mesh.room.topology import RoomTopology, TopologyLink
    from psyne_mesh.signaling.events import RoomInfo
    from psyne_mesh.signaling.memory import MemorySignaling
    from psyne_mesh.signaling.server import SignalingServer, open_server
    from psyne_mesh.signaling.transport import SignalingTransport
    from psyne_mesh.uri import GameUri, PeerUri, RoomUri, parse_uri

__version__ = "0.1.0"

__all__ = [
    "Action", "AppVersionMismatch", "Channel", "ChannelStats", "ClosedError", "CombatAction", "ConnectFailed",
    "DataChannelConfig", "DeliveryMode", "EventBacklog", "FingerprintMismatch", "Finite", "FloatVector", "GameUri",
    "GossipConfig", "Identity", "InvalidConfig", "InvalidUri", "InviteExpired", "LocalError", "ManifestRefused",
    "MemorySignaling", "Mesh", "Message", "MessageTooLarge", "NotHost", "NotInvited", "OutsideTrio", "Party", "Peer",
    "PeerChannel", "PeerGone", "PeerId", "PeerUri", "PlayerPosition", "ProtocolError", "PsyneMeshError", "RemoteError",
    "RequestRefused", "Room", "RoomChange", "RoomError", "RoomExists", "RoomFull", "RoomGone", "RoomInfo", "RoomList",
    "RoomMismatch", "RoomNotFound", "RoomTopology", "RoomUri", "SendOutcome", "SendReport", "Shared", "SignalingError",
    "SignalingLost", "SignalingServer", "SignalingTransport", "SignalingUnreachable", "SnapshotDisputed", "StunServer",
    "TamperedSignaling", "TopologyLink", "TurnServer", "UnknownCode", "UnserialisableMessage", "VersionMismatch",
    "WebRTCConfig", "WouldBlock", "WrongPassword", "create_channel", "create_gaming_channel", "create_room", "events",
    "join_game_room", "join_room", "list_rooms", "open_mesh", "open_server", "parse_uri", "quantised", "quick_match", "smooth",
    "sync",
]  # fmt: skip

# Where each name lives. A module is imported with the first name of it that is used (PEP 562): who plays never loads the
# signaling server, and who only asks for the version loads nothing.
_HOMES = {
    "config": "DataChannelConfig StunServer TurnServer WebRTCConfig",
    "errors": (
        "AppVersionMismatch InviteExpired ManifestRefused NotInvited RoomGone UnknownCode WrongPassword "
        "ClosedError ConnectFailed EventBacklog FingerprintMismatch InvalidConfig InvalidUri LocalError "
        "MessageTooLarge NotHost OutsideTrio PeerGone ProtocolError PsyneMeshError RemoteError RequestRefused RoomError "
        "RoomExists RoomFull RoomMismatch RoomNotFound SignalingError SignalingLost SignalingUnreachable SnapshotDisputed "
        "TamperedSignaling UnserialisableMessage VersionMismatch WouldBlock"
    ),
    "game.schema": "Shared quantised smooth",
    "gossip.config": "GossipConfig",
    "identity": "Identity PeerId",
    "mesh.membership": "SendOutcome",
    "room.channel": "Channel ChannelStats SendReport",
    "room.delivery": "DeliveryMode",
    "room.direct": "PeerChannel create_channel create_gaming_channel",
    "room.listing": "RoomChange RoomList",
    "room.mesh": "Mesh create_room join_game_room join_room list_rooms open_mesh quick_match",
    "room.messages": "Action CombatAction Finite FloatVector Message PlayerPosition",
    "room.options": "Party",
    "room.peer": "Peer",
    "room.room": "Room",
    "room.topology": "RoomTopology TopologyLink",
    "signaling.events": "RoomInfo",
    "signaling.memory": "MemorySignaling",
    "signaling.server": "SignalingServer open_server",
    "signaling.transport": "SignalingTransport",
    "uri": "GameUri PeerUri RoomUri parse_uri",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
_MODULES = {"events": "events", "sync": "sync"}


def __getattr__(name: str) -> Any:
    value: Any
    if name in _HOME_OF:
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{_MODULES[name]}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
