"""What rooms tell: `from psyne_mesh.events import PeerLeft`. The classes and their docs are in `psyne_mesh.room.events`."""

from psyne_mesh.game.commitments import MovesRevealed, Rolled, RoundFailed
from psyne_mesh.room.events import (
    Equivocated,
    Evicted,
    HostChanged,
    MessageRefused,
    MessagesLost,
    MessagesUndelivered,
    NotSigned,
    PartitionHealed,
    PartitionSuspected,
    PeerAway,
    PeerBack,
    PeerChanged,
    PeerConnected,
    PeerDiscovered,
    PeerLeft,
    PeerResumed,
    PeerSuspected,
    PeerUnreachable,
    RoomEvent,
    RuleBroken,
    ServerRefused,
    SharedAppeared,
    SharedGone,
    SharedRefused,
    SignalingDown,
    SignalingUp,
    StateChanged,
    TamperingDetected,
    TimerFired,
    TwoFaced,
    VoteCast,
)

__all__ = [
    "Equivocated", "Evicted", "HostChanged", "MessageRefused", "MessagesLost", "MessagesUndelivered", "MovesRevealed",
    "NotSigned", "PartitionHealed", "PartitionSuspected", "PeerAway", "PeerBack", "PeerChanged", "PeerConnected",
    "PeerDiscovered", "PeerLeft", "PeerResumed", "PeerSuspected", "PeerUnreachable", "Rolled", "RoomEvent",
    "RoundFailed", "RuleBroken", "ServerRefused", "SharedAppeared", "SharedGone", "SharedRefused", "SignalingDown",
    "SignalingUp", "StateChanged", "TamperingDetected", "TimerFired", "TwoFaced", "VoteCast",
]  # fmt: skip
