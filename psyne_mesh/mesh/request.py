"""What a player asks of signaling."""

from __future__ import annotations

import attrs

from psyne_mesh.signaling.transport import CreatePolicy


@attrs.frozen(kw_only=True)
class RoomRequest:
    """`name`, `app_id` and `region` together are the room."""

    name: str
    app_id: str = ""
    region: str = ""
    max_players: int = 16
    skill_range: tuple[float, float] | None = None
    create: CreatePolicy = "or"
    metadata: dict[str, object] = attrs.Factory(dict)
