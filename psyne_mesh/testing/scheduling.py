"""Trio's own dice: the order in which it runs tasks that are ready together is random, and a seed of ours does not reach it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from psyne_mesh.errors import InvalidConfig


@contextmanager
def seeded_scheduling(seed: int = 0) -> Iterator[None]:
    """Trio runs tasks in the order that the seed says while the block lasts, in this process: what Hypothesis asks of Trio,
    by the same two private names. Best around `trio.run`; inside, it holds from here on.

    Raises `InvalidConfig` when this version of Trio has no such names.
    """
    internals: Any = getattr(trio._core, "_run", None)
    dice = getattr(internals, "_r", None)
    before = getattr(internals, "_ALLOW_DETERMINISTIC_SCHEDULING", None)
    if not isinstance(dice, random.Random) or not isinstance(before, bool):
        raise InvalidConfig(
            f"the scheduler of trio {trio.__version__} cannot be seeded: it has no _ALLOW_DETERMINISTIC_SCHEDULING and _r any "
            "more; without seeded_scheduling, a run differs a little from the next"
        )
    state = dice.getstate()
    internals._ALLOW_DETERMINISTIC_SCHEDULING = True
    dice.seed(seed)
    try:
        yield
    finally:
        internals._ALLOW_DETERMINISTIC_SCHEDULING = before
        dice.setstate(state)
