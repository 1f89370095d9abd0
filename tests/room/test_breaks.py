"""A break interrupts a link and does not end it, on whichever rung, early and late in play. In virtual time.

28 s of play are late: ICE has given up by then where it never found a path.
"""

from __future__ import annotations

import itertools

import pytest
from trio.testing import MockClock

from psyne_mesh.testing import Quality
from psyne_mesh.testing.network import NatKind
from tests.room.breaks import NATS, Act, Break, Rung, play
from tests.room.plots import Plot

LATE_S = 28.0
SERVER_S = 4.0  # for the way over signaling, which has to come back first
CASES: list[tuple[Rung, Break, float]] = [
    ("signaling", "silence", 3.0), ("signaling", "silence", 45.0), ("peer", "move", 0.0),
    ("peer", "silence, server dead", 10.0),
]  # fmt: skip
MORE_CASES: list[tuple[Rung, Break, float]] = [
    ("signaling", "move", 0.0), ("peer", "silence", 3.0), ("peer", "silence, server dead", 45.0),
    ("direct", "silence, server dead", 45.0), ("direct", "one way", 10.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rung", "kind", "lasts_s"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_CASES)]
)
async def test_a_late_break_loses_nothing(autojump_clock: MockClock, rung: Rung, kind: Break, lasts_s: float) -> None:
    nats: tuple[NatKind, NatKind] = ("full-cone", "port") if rung == "direct" else ("symmetric", "symmetric")
    story = await play(1, [Act(LATE_S, kind, lasts_s)], nats, carrier=rung == "peer")
    assert story.rungs == (rung, rung)
    story.check(healed_within_s=SERVER_S if rung == "signaling" else 3.0)


@pytest.mark.slow
@pytest.mark.parametrize("carrier", [False, True])
@pytest.mark.parametrize("nats", list(itertools.combinations_with_replacement(NATS, 2)))
async def test_all_pairs_of_access_kinds(
    autojump_clock: MockClock, nats: tuple[NatKind, NatKind], carrier: bool
) -> None:
    acts = [Act(2.0, "silence", 3.0), Act(LATE_S, "silence", 10.0), Act(20.0, "rebinding"), Act(20.0, "move"),
            Act(20.0, "one way", 8.0), Act(20.0, "silence", 45.0)]  # fmt: skip
    story = await play(sum(map(len, nats)), acts, nats, carrier=carrier)
    story.check(healed_within_s=SERVER_S if "signaling" in story.rungs else 3.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
async def test_a_stale_answer_does_not_end_a_link(autojump_clock: MockClock, seed: int) -> None:
    """Answers to the restarts of 17 s of silence come in at its end, over the carrier, and none may be taken for another's."""
    story = await play(seed, [Act(LATE_S, "silence, server dead", 17.0)], ("symmetric", "symmetric"), carrier=True)
    story.check()


@pytest.mark.parametrize("seed", [1, 3])
async def test_a_rebinding_far_away_heals_as_quickly(autojump_clock: MockClock, seed: int) -> None:
    """800 ms there and back, and as much to the server: what the first word through the tunnel sets off may go no wrong way."""
    far = Quality(latency_s=0.4)
    story = await play(seed, [Act(20.0, "rebinding")], ("port", "port"), carrier=False, quality=far)
    assert story.rungs == ("direct", "direct")
    story.check()


# A rebinding with loss; one way, where the server carries; with bulk a move, and a rebinding just after another break.
@pytest.mark.parametrize(
    "seed", [0, 11, 19, 52, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(100, 140))]
)
async def test_random_breaks(autojump_clock: MockClock, seed: int) -> None:
    """More of them by `python -m tests.room.plots FIRST LAST`."""
    plot = Plot.of(seed)
    plot.check(await plot.play())
