"""Where players of one room find each other, and through which their first offers travel.

    open_server, SignalingServer   the server: one port for WebSockets, /healthz, /stats and /rooms
    client.connect_signaling       a connection to it that comes back by itself
    MemorySignaling                the same inside one process, with hooks to break it
    SignalingTransport             what the mesh needs; bring your own
    envelope                       sealed offers, answers and candidates: none of the above has to be trusted
    events, messages, registry     what happened; the words on the wire; who is in which room

Names are looked up when they are first used, so that the pure parts also run where there are no sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyne_mesh.lazy import exports

if TYPE_CHECKING:
    from psyne_mesh.signaling.backplane import Backplane, BackplaneLink, MemoryBackplane
    from psyne_mesh.signaling.churn import ChurnLimits
    from psyne_mesh.signaling.doors import DoorLimits
    from psyne_mesh.signaling.events import Joined, PeerInfo, RoomInfo, RoomListing, SignalingEvent
    from psyne_mesh.signaling.joining import JoinRequest, RoomQuery, SeekRequest
    from psyne_mesh.signaling.limits import ServerConfig
    from psyne_mesh.signaling.manifest import Manifest
    from psyne_mesh.signaling.memory import MemorySignaling, MemorySignalingClient
    from psyne_mesh.signaling.redis_backplane import RedisBackplane
    from psyne_mesh.signaling.registry import RegistryLimits
    from psyne_mesh.signaling.server import SignalingServer, open_server
    from psyne_mesh.signaling.server_stats import ServerStats
    from psyne_mesh.signaling.transport import SignalingTransport

__all__ = [
    "Backplane", "BackplaneLink", "ChurnLimits", "DoorLimits", "JoinRequest", "Joined", "Manifest", "MemoryBackplane",
    "MemorySignaling", "MemorySignalingClient", "PeerInfo", "RedisBackplane", "RegistryLimits", "RoomInfo",
    "RoomListing", "RoomQuery", "SeekRequest", "ServerConfig", "ServerStats", "SignalingEvent", "SignalingServer",
    "SignalingTransport", "open_server",
]  # fmt: skip

__getattr__, __dir__ = exports(
    __name__,
    {
        "signaling.backplane": "Backplane BackplaneLink MemoryBackplane",
        "signaling.churn": "ChurnLimits",
        "signaling.doors": "DoorLimits",
        "signaling.events": "Joined PeerInfo RoomInfo RoomListing SignalingEvent",
        "signaling.joining": "JoinRequest RoomQuery SeekRequest",
        "signaling.limits": "ServerConfig",
        "signaling.manifest": "Manifest",
        "signaling.memory": "MemorySignaling MemorySignalingClient",
        "signaling.redis_backplane": "RedisBackplane",
        "signaling.registry": "RegistryLimits",
        "signaling.server": "SignalingServer open_server",
        "signaling.server_stats": "ServerStats",
        "signaling.transport": "SignalingTransport",
    },
)
