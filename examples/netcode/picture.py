"""The three examples in one picture: `python -m examples.netcode.picture docs/netcode.svg`. Needs matplotlib."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from examples.netcode import interpolation, prediction, rewind
from examples.netcode.path import Line, play


def figures() -> dict[str, Any]:
    """(with, without) of each example."""
    return {scene.__name__.rpartition(".")[2]: (play(scene.scene, True), play(scene.scene, False))
            for scene in (prediction, interpolation, rewind)}  # fmt: skip


def draw(found: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "netcode", "font.size": 8})
    from matplotlib import pyplot

    figure, (first, second, third) = pyplot.subplots(3, 1, figsize=(7.5, 8.0), layout="constrained")

    def line(panel: Any, points: Line, name: str, look: str, width: float = 1.2) -> None:
        panel.plot(*zip(*points), look, label=name, linewidth=width)

    (seen, keyed), (plain, _) = found["prediction"]
    line(first, keyed, "where the keys alone would have it", "k:")
    line(first, plain, "without: drawn where the host says", "C3")
    line(first, seen, "with: predicted, mended over 0.1 s", "C0")
    first.set_title(
        "My own ship, of which the host has the last word; at 3 s something pushes it that only the host knows"
    )

    (seen, truth), (plain, _) = found["interpolation"]
    for name, points, look in (("at its owner", truth, "k:"), ("without: drawn as it comes", plain, "C3"),
                               ("with: smooth", seen, "C0")):  # fmt: skip
        line(second, [each for each in points if each[0] <= 1.5], name, look)
    second.set_title("Somebody else's ship, its first one and a half seconds")

    (hits, claims), (misses, plain) = found["rewind"]
    third.axhspan(-rewind.SIZE, rewind.SIZE, color="0.9", label="the ship")
    for name, points, look in (("without", plain, "C3x"), ("with", claims, "C0.")):
        line(third, [(at / 10, shot - place) for at, (shot, place) in enumerate(points)], name, look)
    third.set_title(f"Shots at what the shooter sees: {sum(hits)} of {len(hits)} hit with rewind, "
                    f"{sum(misses)} of {len(misses)} without")  # fmt: skip
    for panel, unit in ((first, "place"), (second, "place"), (third, "off the ship's middle")):
        panel.set_xlabel("seconds")
        panel.set_ylabel(unit)
        panel.legend(loc="upper left", fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    draw(figures(), Path(sys.argv[1] if len(sys.argv) > 1 else "docs/netcode.svg"))
