"""Players, servers and strangers that lie, to test a game against them. See `docs/testing.md`.

async with open_world(seed=1) as world:
    ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
    async with hostile.member(world, hostile.HavesFlood(rate_bps=1e6)):
        ...  # play: nobody may notice
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyne_mesh.lazy import exports

if TYPE_CHECKING:
    from psyne_mesh.testing.hostile.behaviours import (
        ALL,
        Accusations,
        BadSignatures,
        BulkForNobody,
        ChunkStorm,
        HavesFlood,
        HeavyMessages,
        MadeUpAuthors,
        MadeUpChannels,
        MadeUpMembers,
        ManyBroadcasts,
        Nonsense,
        OneAfterTheOther,
        Questions,
        Replays,
        TwoFaces,
        Withholding,
        Worst,
        every,
    )
    from psyne_mesh.testing.hostile.chunks import (
        STORMS,
    )
    from psyne_mesh.testing.hostile.frames import (
        WORST,
        Frames,
    )
    from psyne_mesh.testing.hostile.liar import (
        Behaviour,
        Liar,
        member,
    )
    from psyne_mesh.testing.hostile.outside import (
        SERVER_LIES,
        DroppedEnvelopes,
        LyingServer,
        MadeUpGoodbyes,
        MadeUpPlayers,
        ReplayedEnvelopes,
        ServerLie,
        Stranger,
        TamperedEnvelopes,
        server,
        stranger,
    )

__all__ = [
    "ALL", "SERVER_LIES", "STORMS", "WORST", "Accusations", "BadSignatures", "Behaviour", "BulkForNobody", "ChunkStorm",
    "DroppedEnvelopes", "Frames", "HavesFlood", "HeavyMessages", "Liar", "LyingServer", "MadeUpAuthors", "MadeUpChannels",
    "MadeUpGoodbyes", "MadeUpMembers", "MadeUpPlayers", "ManyBroadcasts", "Nonsense", "OneAfterTheOther", "Questions",
    "ReplayedEnvelopes", "Replays", "ServerLie", "Stranger", "TamperedEnvelopes", "TwoFaces", "Withholding", "Worst", "every",
    "member", "server", "stranger",
]  # fmt: skip

__getattr__, __dir__ = exports(
    __name__,
    {
        "testing.hostile.behaviours": (
            "ALL Accusations BadSignatures BulkForNobody ChunkStorm HavesFlood HeavyMessages "
            "MadeUpAuthors MadeUpChannels MadeUpMembers ManyBroadcasts Nonsense OneAfterTheOther "
            "Questions Replays TwoFaces Withholding Worst every"
        ),
        "testing.hostile.chunks": ("STORMS"),
        "testing.hostile.frames": ("WORST Frames"),
        "testing.hostile.liar": ("Behaviour Liar member"),
        "testing.hostile.outside": (
            "SERVER_LIES DroppedEnvelopes LyingServer MadeUpGoodbyes MadeUpPlayers "
            "ReplayedEnvelopes ServerLie Stranger TamperedEnvelopes server stranger"
        ),
    },
)
