"""Who is in the room, who is gone, and how news reach everybody: pure, without sockets, clocks or dice of its own."""

from __future__ import annotations

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.node import Node
from psyne_mesh.gossip.records import Record, RoomKey, Signer, Verifier, Verify
from psyne_mesh.gossip.views import LinkView, Stats, Topology

__all__ = ["GossipConfig", "LinkView", "Node", "Record", "RoomKey", "Signer", "Stats", "Topology", "Verifier", "Verify"]
