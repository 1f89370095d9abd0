"""What you need to test a game on a bad network: see `README.md` here and `docs/testing.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyne_mesh.lazy import exports

if TYPE_CHECKING:
    from psyne_mesh.testing.determinism import OutOfSync, SyncReport, SyncWarning, sync_test
    from psyne_mesh.testing.network import NatKind, Quality, VirtualHost, VirtualNetwork
    from psyne_mesh.testing.randomness import seeded_randomness
    from psyne_mesh.testing.scheduling import seeded_scheduling
    from psyne_mesh.testing.world import World, open_network, open_world

__all__ = [
    "NatKind", "OutOfSync", "Quality", "SyncReport", "SyncWarning", "VirtualHost", "VirtualNetwork", "World",
    "open_network", "open_world", "seeded_randomness", "seeded_scheduling", "sync_test",
]  # fmt: skip

__getattr__, __dir__ = exports(
    __name__,
    {
        "testing.determinism": "OutOfSync SyncReport SyncWarning sync_test",
        "testing.network": "NatKind Quality VirtualHost VirtualNetwork",
        "testing.randomness": "seeded_randomness",
        "testing.scheduling": "seeded_scheduling",
        "testing.world": "World open_network open_world",
    },
)
