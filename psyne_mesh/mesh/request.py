"""What a player brings when it enters a room, and which room it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import attrs

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.locks import Invite


@attrs.frozen
class Exactly:
    """The room of that name and no other instance of it."""


@attrs.frozen(kw_only=True)
class Anywhere:
    """The best instance of the lobby, or a new one. The fields are those of `SeekRequest`."""

    players: int = 0
    party: str = ""
    party_size: int = 1
    rtt_ms: Mapping[str, float] = attrs.Factory(dict)
    avoid: tuple[str, ...] = ()


@attrs.frozen
class Anew:
    """A room of our own. `password`, and whether only whom we invite may come."""

    password: str | None = attrs.field(default=None, repr=False)
    invited_only: bool = False


@attrs.frozen
class ByCode:
    """The room that has the code."""

    code: str
    password: str | None = attrs.field(default=None, repr=False)


Which: TypeAlias = Exactly | Anywhere | Anew | ByCode | Invite


@attrs.frozen
class RoomEntry:
    """`request` is what signaling is asked, `player_name` and `profile` are what the others are told; `secret` is that of a
    locked room, which its members prove to each other to know."""

    request: JoinRequest
    player_name: str
    profile: Profile
    gossip: GossipConfig
    which: Which = Exactly()
    secret: bytes = attrs.field(default=b"", repr=False)
