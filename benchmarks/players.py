"""What one position costs as players join: CPU of all sides for each message that comes to hand, in rooms of 2, 4, 8, 16, 24.

Run: python -m benchmarks.players [--sizes 2,4,8,16,24] [--rounds 3] [--bare] [--picture benchmarks/players.svg]

The work is that of `benchmarks.tick`, one process for each size, one after another, in rounds; the median of all segments of
a size counts. With 16 all are linked to all; in the room of 24 positions reach most players through others
(docs/decisions/28-full-and-partial-mesh.md). Wants a machine that is idle: a process that has to wait for the processor pays
in it for the probes and timers of the time that passes, the more the more players it has. The picture shows the last run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from benchmarks.tick import Child

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path(__file__).with_name("players.svg")
SIZES = "2,4,8,16,24"


def measure(sizes: list[int], arguments: argparse.Namespace) -> dict[int, list[float]]:
    """Microseconds of CPU for a message, of every segment, by players."""
    figures: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(arguments.rounds):
        for size in sizes:
            child = Child(str(ROOT), argparse.Namespace(players=size, bare=arguments.bare))
            for _ in range(arguments.segments):
                child.measure()
            child.end()
            figures[size] += child.figures
            told = f"round {number + 1}, {size} players: {statistics.median(child.figures):.1f} us a message"
            print(told, file=sys.stderr, flush=True)
    return figures


def draw(figures: dict[int, list[float]], picture: Path, what: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "psyne-mesh"
    from matplotlib import pyplot as plt

    sizes = list(figures)
    middles = [statistics.median(figures[size]) for size in sizes]
    low = [middle - min(figures[size]) for size, middle in zip(sizes, middles, strict=True)]
    high = [max(figures[size]) - middle for size, middle in zip(sizes, middles, strict=True)]
    plot, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.errorbar(sizes, middles, yerr=[low, high], marker="o", capsize=3, color="#1f6feb")
    axes.set(xlabel="players", ylabel="CPU of a message, us", ylim=(0, None), xticks=sizes, title=what)
    axes.grid(alpha=0.3)
    plot.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)
    plt.close(plot)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--segments", type=int, default=3)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    figures = measure([int(size) for size in arguments.sizes.split(",")], arguments)
    print("| players | CPU of a message, us, median [min-max] |\n|---|---|")
    for size, values in figures.items():
        print(f"| {size} | {statistics.median(values):.1f} [{min(values):.1f}-{max(values):.1f}] |")
    draw(figures, arguments.picture, "positions between bare peers" if arguments.bare else "positions in a room")


if __name__ == "__main__":
    main()
