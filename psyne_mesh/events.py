"""What rooms tell: `from psyne_mesh.events import PeerLeft`. The classes and their docs are in `psyne_mesh.room.events`."""

from psyne_mesh.room.events import (
    Evicted,
    HostChanged,
    MessageRefused,
    PartitionHealed,
    PartitionSuspected,
    PeerAway,
    PeerBack,
    PeerConnected,
    PeerDiscovered,
    PeerLeft,
    PeerResumed,
    PeerSuspected,
    PeerUnreachable,
    RoomEvent,
    ServerRefused,
    SharedAppeared,
    SharedGone,
    SharedRefused,
    SignalingDown,
    SignalingUp,
    TamperingDetected,
)

__all__ = [
    "Evicted", "HostChanged", "MessageRefused", "PartitionHealed", "PartitionSuspected", "PeerAway", "PeerBack",
    "PeerConnected", "PeerDiscovered", "PeerLeft",
    "PeerResumed", "PeerSuspected", "PeerUnreachable", "RoomEvent", "ServerRefused", "SharedAppeared", "SharedGone",
    "SharedRefused", "SignalingDown", "SignalingUp", "TamperingDetected",
]  # fmt: skip
