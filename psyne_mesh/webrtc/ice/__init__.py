"""ICE over one UDP port for all peers: aioice for control, our own sockets for data."""

from __future__ import annotations

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
)
from psyne_mesh.webrtc.ice.gateway import IceGateway, SocketFactory, open_gateway
from psyne_mesh.webrtc.ice.port import UdpPort
from psyne_mesh.webrtc.ice.transport import IceTransport
from psyne_mesh.webrtc.ice.udp import DatagramSocket, UdpSocket, open_udp_socket

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
    "SocketFactory",
    "UdpPort",
    "UdpSocket",
    "open_gateway",
    "open_udp_socket",
]
