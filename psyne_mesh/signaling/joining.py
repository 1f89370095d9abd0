"""What a player asks of signaling: to enter a room, and which rooms there are. Frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from psyne_mesh.signaling.events import SkillRange, room_key
from psyne_mesh.signaling.manifest import Manifest

CreatePolicy = Literal["or", "only", "never"]


@attrs.frozen
class JoinRequest:
    """One wish to enter a room, from the user's call to the registry of the server. `name`, `app_id`, `region` and
    `instance` together are the room.

    create: "or" makes the room if needed, "only" refuses one that exists, "never" one that does not.
    max_players, skill_range, metadata: the creator's to set; a later joiner's `skill_range` must only overlap the room's.
    Whole numbers in `metadata` lie within 2**53 - 1 of zero.
    instance: which of the rooms of that name: "" the first, else its code. manifest: what the room is if we make it.
    door: our proof that we may enter a locked room.
    record: our membership record, up to 2,800 characters of base64 or other printable ASCII without quote and backslash.
    """

    name: str
    app_id: str = attrs.field(default="", kw_only=True)
    region: str = attrs.field(default="", kw_only=True)
    max_players: int = attrs.field(default=16, kw_only=True)
    skill_range: SkillRange | None = attrs.field(default=None, kw_only=True)
    create: CreatePolicy = attrs.field(default="or", kw_only=True)
    record: str = attrs.field(default="", kw_only=True)
    metadata: Mapping[str, object] = attrs.field(factory=dict, kw_only=True)
    instance: str = attrs.field(default="", kw_only=True)
    manifest: Manifest = attrs.field(default=Manifest(), kw_only=True)
    door: str = attrs.field(default="", kw_only=True, repr=False)

    @property
    def key(self) -> str:
        return room_key(self.name, app_id=self.app_id, region=self.region, instance=self.instance)


@attrs.frozen(kw_only=True)
class SeekRequest:
    """A wish to be placed in some instance of the lobby `join.name`, in a new one if none fits and `join.create` allows it.

    players: wait until so many are there for a fresh room of that size; 0: do not wait.
    party, party_size: enter with those who name the same party, once so many of it are there.
    avoid: keys of rooms that we were in a moment ago, in vain. rtt_ms: our measured round trips to regions.
    """

    join: JoinRequest
    players: int = 0
    party: str = ""
    party_size: int = 1
    avoid: tuple[str, ...] = ()
    rtt_ms: Mapping[str, float] = attrs.Factory(dict)

    @property
    def waits(self) -> bool:
        return self.players > 0 or self.party_size > 1


@attrs.frozen(kw_only=True)
class RoomQuery:
    """Which rooms to list. None stands for any; `only_open` leaves out full ones, `code` shows one room, hidden or not."""

    app_id: str | None = ""
    name: str | None = None
    code: str | None = None
    region: str | None = None
    skill_range: SkillRange | None = None
    only_open: bool = False
    limit: int = 100
