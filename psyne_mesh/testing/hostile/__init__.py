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
    from psyne_mesh.testing.hostile.on_sockets import (
        GUEST_LIES,
        ComingAndGoing,
        Eavesdropper,
        EmptyFrames,
        FalseHellos,
        GuestLie,
        Guests,
        IdleSockets,
        Impostor,
        ManyGuests,
        RoomHoarders,
        guests,
        impostor,
        turn_server,
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
    "ALL", "GUEST_LIES", "SERVER_LIES", "STORMS", "WORST", "Accusations", "BadSignatures", "Behaviour", "BulkForNobody",
    "ChunkStorm", "ComingAndGoing", "DroppedEnvelopes", "Eavesdropper", "EmptyFrames", "FalseHellos", "Frames", "GuestLie",
    "Guests", "HavesFlood", "HeavyMessages", "IdleSockets", "Impostor", "Liar", "LyingServer", "MadeUpAuthors",
    "MadeUpChannels", "MadeUpGoodbyes", "MadeUpMembers", "MadeUpPlayers", "ManyBroadcasts", "ManyGuests", "Nonsense",
    "OneAfterTheOther", "Questions", "ReplayedEnvelopes", "Replays", "RoomHoarders", "ServerLie", "Stranger",
    "TamperedEnvelopes", "TwoFaces", "Withholding", "Worst", "every", "guests", "impostor", "member", "server", "stranger",
    "turn_server",
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
        "testing.hostile.on_sockets": (
            "GUEST_LIES ComingAndGoing Eavesdropper EmptyFrames FalseHellos GuestLie Guests IdleSockets "
            "Impostor ManyGuests RoomHoarders guests impostor turn_server"
        ),
        "testing.hostile.outside": (
            "SERVER_LIES DroppedEnvelopes LyingServer MadeUpGoodbyes MadeUpPlayers "
            "ReplayedEnvelopes ServerLie Stranger TamperedEnvelopes server stranger"
        ),
    },
)
