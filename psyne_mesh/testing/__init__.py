"""What you need to test a game on a bad network: see `README.md` here and `docs/testing.md`."""

from psyne_mesh.testing.determinism import OutOfSync, SyncReport, SyncWarning, sync_test
from psyne_mesh.testing.network import NatKind, Quality, VirtualHost, VirtualNetwork
from psyne_mesh.testing.randomness import seeded_randomness
from psyne_mesh.testing.scheduling import seeded_scheduling
from psyne_mesh.testing.world import World, open_network, open_world

__all__ = [
    "NatKind", "OutOfSync", "Quality", "SyncReport", "SyncWarning", "VirtualHost", "VirtualNetwork", "World",
    "open_network", "open_world",
    "seeded_randomness", "seeded_scheduling", "sync_test",
]  # fmt: skip
