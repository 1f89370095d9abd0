"""Objects as they were seen: for who checks whether a shot has hit what the shooter saw.

A shooter sees others in the past, by the way of their messages and a little more for smoothness. What it sees of an object
was so at its owner at a moment that both can name by the room's clock (`shown_time`): the shot says that moment, and whoever
checks it looks at the object as it was then.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.interpolation import Track
from psyne_mesh.game.schema import Shared
from psyne_mesh.identity import PeerId

REWIND_MAX_S = 0.25
"""Who sees the others further in the past must aim ahead: else who hides behind a wall is hit there for longer (Source
allows a second, Valorant 35 ms; a guess between)."""

S = TypeVar("S", bound=Shared)
Past = tuple[PeerId | None, S, Track | None, tuple[str, ...]]
Correction = Callable[[PeerId | None], float | None]


def rewound(objects: Iterable[Past[S]], at: float, now: float, correction: Correction) -> list[S]:
    """Copies of the objects as they were at `at` of the room's time, of which it is `now`; REWIND_MAX_S back at most.

    objects: as `Replicas.pasts` gives them. correction: what an owner (None: we) adds to its clock for the room's time. Only
    smooth fields have a past; an object whose owner's clock is not known is as it is now. Raises InvalidConfig.
    """
    if not isinstance(at, int | float) or not math.isfinite(at):
        raise InvalidConfig(f"rewind(at={at!r}): a moment of the room's time, such as the shot's")
    at = min(max(at, now - REWIND_MAX_S), now)
    corrections: dict[PeerId | None, float | None] = {}
    copies = []
    for owner, shared, track, names in objects:
        seen = copy.copy(shared)
        seen.__dict__.update(shared.__dict__)
        if track is not None:
            if owner not in corrections:
                corrections[owner] = correction(owner)
            adds = corrections[owner]
            if adds is not None and (owner is not None or at - adds < track.newest):
                for name, value in zip(names, track.look_back(at - adds)):
                    setattr(seen, name, value)
        copies.append(seen)
    return copies
