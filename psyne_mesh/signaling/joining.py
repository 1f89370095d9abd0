"""What a player asks of signaling: to enter a room, and which rooms there are. Frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from psyne_mesh.signaling.events import SkillRange, room_key

CreatePolicy = Literal["or", "only", "never"]


@attrs.frozen
class JoinRequest:
    """One wish to enter a room, from the user's call to the registry of the server. `name`, `app_id` and `region` together
    are the room.

    create: "or" makes the room if needed, "only" refuses one that exists, "never" one that does not.
    max_players, skill_range, metadata: the creator's to set; a later joiner's `skill_range` must only overlap the room's.
    Whole numbers in `metadata` lie within 2**53 - 1 of zero.
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

    @property
    def key(self) -> str:
        return room_key(self.name, app_id=self.app_id, region=self.region)


@attrs.frozen(kw_only=True)
class RoomQuery:
    """Which rooms to list. None stands for any; `only_open` leaves out full ones."""

    app_id: str | None = ""
    region: str | None = None
    skill_range: SkillRange | None = None
    only_open: bool = False
    limit: int = 100
