"""The mesh of a room, as one player sees it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from psyne_mesh.frozen import Frozen
from psyne_mesh.identity import PeerId
from psyne_mesh.webrtc.ice import Path

MeshMode: TypeAlias = Literal["full", "partial"]


class TopologyLink(Frozen):
    """One of our own links. `rtt_ms` is None before it was measured, `path` while the link is being made."""

    peer: PeerId
    rtt_ms: float | None
    path: Path | None


class RoomTopology(Frozen):
    """`mode`: "full" (a link to everybody) or "partial" (to some, the rest through them).

    The mode goes by the number of members known, whether or not there is a link. nodes: all members known, ourselves first.
    links: our own.
    """

    me: PeerId
    mode: MeshMode
    nodes: tuple[PeerId, ...]
    links: tuple[TopologyLink, ...]
