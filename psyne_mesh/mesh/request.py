"""What a player brings when it enters a room."""

from __future__ import annotations

import attrs

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.signaling.joining import JoinRequest


@attrs.frozen
class RoomEntry:
    """`request` is what signaling is asked, `player_name` and `profile` are what the others are told."""

    request: JoinRequest
    player_name: str
    profile: Profile
    gossip: GossipConfig
