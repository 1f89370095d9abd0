"""ICE over one UDP port for all peers: aioice for control, our own sockets for data.

What stands on aioice is looked up when it is first used: with it comes asyncio, a twentieth of all our imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyne_mesh.lazy import exports
from psyne_mesh.webrtc.ice.events import (
    Disconnected,
    Failed,
    GatheringComplete,
    IceEvent,
    IceParameters,
    IceStats,
    LocalCandidate,
    PairStats,
    Path,
    PathSelected,
    PeerStandsStill,
)
from psyne_mesh.webrtc.ice.port import UdpPort
from psyne_mesh.webrtc.ice.udp import DatagramSocket, SocketFactory, UdpSocket, open_udp_socket

if TYPE_CHECKING:
    from psyne_mesh.webrtc.ice.gateway import IceGateway, open_gateway
    from psyne_mesh.webrtc.ice.transport import IceTransport

__all__ = [
    "DatagramSocket",
    "Disconnected",
    "Failed",
    "GatheringComplete",
    "IceEvent",
    "IceGateway",
    "IceParameters",
    "IceStats",
    "IceTransport",
    "LocalCandidate",
    "PairStats",
    "Path",
    "PathSelected",
    "PeerStandsStill",
    "SocketFactory",
    "UdpPort",
    "UdpSocket",
    "open_gateway",
    "open_udp_socket",
]

__getattr__, __dir__ = exports(
    __name__, {"webrtc.ice.gateway": "IceGateway open_gateway", "webrtc.ice.transport": "IceTransport"}
)
