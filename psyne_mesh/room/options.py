"""What can be said about a room and about the mesh under it: one list each, which both front doors take."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TypedDict, cast

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.identity import Identity
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.request import RoomEntry
from psyne_mesh.names import is_plain
from psyne_mesh.signaling.joining import CreatePolicy, JoinRequest
from psyne_mesh.webrtc.ice import SocketFactory

SkillRange = tuple[float, float]


class RoomOptions(TypedDict, total=False):
    """Of one room and of ourselves in it.

    max_players: the size of the room, 2 to 1024, 16 if nothing is said; its creator's value holds.
    region, app_id: only players of the same meet.
    skill_range: (low, high); the creator's range is the room's, and later players' ranges must overlap it.
    create: None joins or creates; True insists on a new room, False on one that exists.
    player_name: what others see; the peer id's beginning without one.
    metadata: up to about 400 bytes of text about the player; room_metadata: about the room, its creator's holds.
    """

    max_players: int
    region: str | None
    skill_range: SkillRange | None
    app_id: str
    create: bool | None
    player_name: str | None
    metadata: Mapping[str, str] | None
    room_metadata: Mapping[str, str] | None
    gossip: GossipConfig | None


class MeshOptions(TypedDict, total=False):
    """Of the mesh under the rooms: see `open_mesh`."""

    identity: Identity | None
    config: WebRTCConfig | None
    rng: random.Random | None
    sockets: SocketFactory | None
    wall_ms: Callable[[], int] | None


class JoinOptions(RoomOptions, MeshOptions, total=False):
    """Of a room that brings its own mesh."""


def entry_of(
    name: str,
    default_name: str | None = None,
    *,
    max_players: int = 16,
    region: str | None = None,
    skill_range: SkillRange | None = None,
    app_id: str = "",
    create: bool | None = None,
    player_name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    room_metadata: Mapping[str, str] | None = None,
    gossip: GossipConfig | None = None,
) -> RoomEntry:
    """Of `RoomOptions`, with their defaults. What is wrong raises `InvalidConfig`, before anything is opened."""
    if not isinstance(name, str) or not 1 <= len(name) <= 128 or not is_plain(name):
        raise InvalidConfig("a room name is 1 to 128 characters, without controls and marks that turn text round")
    for label, text in (("region", region or ""), ("app_id", app_id)):
        if not isinstance(text, str) or len(text) > 64 or "/" in text or not is_plain(text):
            raise InvalidConfig(
                f"{label} is at most 64 characters, without slashes, controls and marks that turn text round"
            )
    if not isinstance(max_players, int) or not 2 <= max_players <= 1024:
        raise InvalidConfig(f"max_players = {max_players!r}: must lie in [2, 1024]")
    if skill_range is not None and not _is_band(skill_range):
        raise InvalidConfig(f"skill_range = {skill_range!r}: must be (low, high)")
    if room_metadata is not None and not isinstance(room_metadata, Mapping):
        raise InvalidConfig(f"room_metadata = {room_metadata!r}: must be a mapping of names to values")
    if gossip is not None and not isinstance(gossip, GossipConfig):
        raise InvalidConfig(f"gossip = {gossip!r}: must be a GossipConfig")
    shown = player_name or default_name or ""
    if not isinstance(shown, str) or not is_plain(shown):
        raise InvalidConfig(f"player_name = {shown!r}: must be text without controls and marks that turn it round")
    policy: CreatePolicy = "or" if create is None else "only" if create else "never"
    request = JoinRequest(
        name, app_id=app_id, region=region or "", max_players=max_players, skill_range=skill_range, create=policy,
        metadata=dict(room_metadata or {}),
    )  # fmt: skip
    profile = Profile.make(region, skill_range, metadata)
    return RoomEntry(request, shown, profile, gossip or GossipConfig(max_players=max_players))


def split(options: JoinOptions) -> tuple[RoomOptions, MeshOptions]:
    """A name that is no option goes to the room, whose `entry_of` refuses it."""
    mesh = {name: value for name, value in options.items() if name in MeshOptions.__annotations__}
    room = {name: value for name, value in options.items() if name not in mesh}
    return cast(RoomOptions, room), cast(MeshOptions, mesh)


def _is_band(value: object) -> bool:
    match value:
        case (int() | float() as low, int() | float() as high):
            return low <= high
    return False
