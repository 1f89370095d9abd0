"""Rooms and what they give back: `from psyne_mesh.room import Party, SendReport`. What games write daily is in `psyne_mesh`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyne_mesh.lazy import exports

if TYPE_CHECKING:
    from psyne_mesh.game.commitments import Round
    from psyne_mesh.mesh.membership import SendOutcome
    from psyne_mesh.room.channel import ChannelStats, SendReport
    from psyne_mesh.room.delivery import DeliveryMode
    from psyne_mesh.room.direct import PeerChannel
    from psyne_mesh.room.files import ArrivingFile, Files, ReceivedFile
    from psyne_mesh.room.hub import EventIterator
    from psyne_mesh.room.latency import LatencyReport
    from psyne_mesh.room.listing import RoomChange, RoomList
    from psyne_mesh.room.mesh import Mesh
    from psyne_mesh.room.messages import Action, Finite, FloatVector, Int64
    from psyne_mesh.room.options import Party
    from psyne_mesh.room.peer import Me, Player
    from psyne_mesh.room.playing import Play
    from psyne_mesh.room.snapshots import Snapshot
    from psyne_mesh.room.state_views import WrittenState
    from psyne_mesh.room.topology import RoomTopology, TopologyLink
    from psyne_mesh.room.watched import WatchedChannel, WatchedPlayer, WatchedRoom

__all__ = [
    "Action", "ArrivingFile", "ChannelStats", "DeliveryMode", "EventIterator", "Files", "Finite", "FloatVector",
    "Int64", "LatencyReport", "Me", "Mesh", "Party", "PeerChannel", "Play", "Player", "ReceivedFile", "RoomChange", "RoomList",
    "RoomTopology", "Round", "SendOutcome", "SendReport", "Snapshot", "TopologyLink", "WatchedChannel", "WatchedPlayer",
    "WatchedRoom", "WrittenState",
]  # fmt: skip

__getattr__, __dir__ = exports(
    __name__,
    {
        "game.commitments": "Round",
        "mesh.membership": "SendOutcome",
        "room.channel": "ChannelStats SendReport",
        "room.delivery": "DeliveryMode",
        "room.direct": "PeerChannel",
        "room.files": "ArrivingFile Files ReceivedFile",
        "room.hub": "EventIterator",
        "room.latency": "LatencyReport",
        "room.listing": "RoomChange RoomList",
        "room.mesh": "Mesh",
        "room.messages": "Action Finite FloatVector Int64",
        "room.options": "Party",
        "room.peer": "Me Player",
        "room.playing": "Play",
        "room.snapshots": "Snapshot",
        "room.state_views": "WrittenState",
        "room.topology": "RoomTopology TopologyLink",
        "room.watched": "WatchedChannel WatchedPlayer WatchedRoom",
    },
)
