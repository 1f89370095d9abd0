"""Plots drawn by a seed: who is behind what, what breaks, when and for how long, and what goes on beside. In virtual time.

`python -m tests.room.plots FIRST LAST [RESULTS]` plays the seeds from FIRST to before LAST and names whose promise was broken.
RESULTS is a file with a line for each seed as it ends; what stands there already is not played again, so a run can be cut.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import get_args

import attrs
import trio
from trio.testing import MockClock

from psyne_mesh.testing import Quality, seeded_randomness, seeded_scheduling
from psyne_mesh.testing.network import NatKind
from tests.room.breaks import NATS, Act, Break, Story, play

KEPT = "kept"
MTUS = (1280, 1100, 1000, 600, 576)


@attrs.frozen
class Plot:
    """What a seed plays."""

    seed: int
    nats: tuple[NatKind, NatKind]
    carrier: bool
    acts: tuple[Act, ...]
    bulk_bytes: int
    quality: Quality

    @classmethod
    def of(cls, seed: int) -> Plot:
        rng = random.Random(f"plot {seed}")
        nats = rng.choice(NATS), rng.choice(NATS)
        carrier = rng.random() < 0.4
        acts = [_act(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
        if carrier or "symmetric" not in nats:  # else there is no way without the server, which does not come back
            acts += [_act(rng, "silence, server dead")] if rng.random() < 0.2 else []
        quality = Quality(latency_s=rng.choice((0.005, 0.03, 0.1)), loss=rng.choice((0.0, 0.0, 0.01)))
        return cls(seed, nats, carrier, tuple(acts), rng.choice((0, 0, 1_000, 8_000)), quality)

    async def play(self) -> Story:
        return await play(
            self.seed, self.acts, self.nats, carrier=self.carrier, quality=self.quality, bulk_bytes=self.bulk_bytes
        )

    @property
    def is_short(self) -> bool:
        """No silence of it is longer than the room waits: nothing may be lost."""
        return all(act.lasts_s <= 45.0 for act in self.acts)

    def check(self, story: Story) -> None:
        # Where signaling is the only way, or was dead with all others, its client has to come back first.
        waits_for_server = "signaling" in story.rungs or any("server dead" in act.kind for act in self.acts)
        story.check(healed_within_s=4.0 if waits_for_server else 3.0, complete=self.is_short)


def _act(rng: random.Random, kind: Break | None = None) -> Act:
    kind = kind or rng.choice([kind for kind in get_args(Break) if kind != "silence, server dead"])
    after_s = rng.choice((rng.uniform(0.5, 5.0), rng.uniform(20.0, 40.0)))
    lasts_s = 0.0 if kind in ("rebinding", "move") else rng.choice((rng.uniform(0.3, 12.0), rng.uniform(12.0, 90.0)))
    return Act(after_s, kind, lasts_s, rng.choice(MTUS))


def main() -> int:
    first, last = map(int, sys.argv[1:3])
    results = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    verdicts = _read(results)
    for seed in range(first, last):
        if seed in verdicts:
            continue
        verdicts[seed] = verdict = _verdict(Plot.of(seed))
        if verdict != KEPT:
            print(f"{seed}: {verdict}\n    {Plot.of(seed)}", flush=True)
        if results:
            with results.open("a") as file:
                file.write(f"{seed} {verdict}\n")
    broken = sum(verdicts[seed] != KEPT for seed in range(first, last))
    print(f"{last - first} plots, {broken} broken promises")
    return min(broken, 1)


def _read(results: Path | None) -> dict[int, str]:
    lines = results.read_text().splitlines() if results and results.exists() else []
    return {int(seed): verdict for seed, _, verdict in (line.partition(" ") for line in lines)}


def _verdict(plot: Plot) -> str:
    with seeded_scheduling(plot.seed), seeded_randomness(plot.seed):  # else a broken promise comes and goes
        story = trio.run(plot.play, clock=MockClock(autojump_threshold=0))
    try:
        plot.check(story)
    except AssertionError as error:
        return str(error).splitlines()[0]
    return KEPT


if __name__ == "__main__":
    sys.exit(main())
