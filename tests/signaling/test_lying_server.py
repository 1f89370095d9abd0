"""A signaling server that lies, generated: nothing it says puts an exception into the game.

10,000 of each kind, once by command: `python -m tests.signaling.liar --count 10000`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from .liar import lie_at_join, lie_in_play


@pytest.mark.parametrize(("kind", "count"), [(lie_at_join, 150), (lie_in_play, 15)])
def test_lies_end_nothing_but_themselves(kind: Callable[[int], Awaitable[None]], count: int) -> None:
    for seed in range(count):
        trio.run(kind, seed, clock=MockClock(autojump_threshold=0))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [(lie_at_join, 2_000), (lie_in_play, 300)])
def test_more_lies(kind: Callable[[int], Awaitable[None]], count: int) -> None:
    for seed in range(1_000_000, 1_000_000 + count):
        trio.run(kind, seed, clock=MockClock(autojump_threshold=0))
