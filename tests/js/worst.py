"""The frames of `psyne_mesh.testing.hostile` for the member in TypeScript: `python -m tests.js.worst FILE` writes them as JSON.

Keys and signatures are those of `tests.gossip.cluster.CheapIdentity`; `js/test/bounds.ts` has the same.
"""

from __future__ import annotations

import json
import random
import sys
from itertools import count
from pathlib import Path

from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip.costs import SIZES
from psyne_mesh.gossip.records import RoomKey
from psyne_mesh.testing.hostile import WORST, Frames
from tests.gossip.cluster import CheapIdentity

ROOM = RoomKey.of(b"//arena/1")
DATED = (7, 1_796_000_000)
VARIANTS = 5  # of each frame: a second copy of one is known already, and costs less
MEMBERS, STREAMS = 40, 200


def worst() -> dict[str, object]:
    numbers, evil = count(9000), CheapIdentity(666)
    frames = Frames(ROOM, evil, random.Random(1), lambda: CheapIdentity(next(numbers)), lambda: DATED)
    kinds: dict[int, list[list[str]]] = {}
    for kind in sorted(WORST):
        variants = [[frame for frame in frames.worst(kind) if len(frame) <= SIZES[kind]] for _ in range(VARIANTS)]
        kinds[kind] = [[frame.hex() for frame in shape] for shape in zip(*variants, strict=True)]
    streams = [
        wire.encode_gossip(
            wire.Head(0, 0), wire.sign_message(ROOM, CheapIdentity(3000 + n), 1, 1, 1, b"x", *DATED).body
        )
        for n in range(STREAMS)
    ]
    return {
        "room": ROOM.raw.hex(), "evil": 666, "instance": DATED[0], "at": DATED[1], "kinds": kinds,
        "members": [frame.hex() for frame in frames.made_up_members(MEMBERS, ballots=True)],
        "streams": [frame.hex() for frame in streams],
    }  # fmt: skip


def write(path: Path) -> Path:
    path.write_text(json.dumps(worst()), encoding="ascii")
    return path


if __name__ == "__main__":
    write(Path(sys.argv[1]))
