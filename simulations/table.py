"""The result tables of docs/simulations.md, one for each scale, written by the runner itself between two marks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psyne_mesh.errors import LocalError


class InvalidPage(LocalError, ValueError):
    """A page that the table cannot be written into. The message names it and says what it lacks."""


def marks(scale: str) -> tuple[str, str]:
    """Between which lines of the page the table of a scale stands."""
    return (
        f"<!-- results at scale {scale}: begin (written by `psyne-mesh sim all --write-docs`) -->",
        f"<!-- results at scale {scale}: end -->",
    )


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """One line for each scenario: its targets with what was measured, and the verdict. Takes what summary.json holds."""
    shown = [
        "| # | scenario | nodes | seeds | target: measured | pass | best known |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        figures = line["figures"]
        judged = "<br>".join(
            f"`{name}` {target}: **{show_json(figures.get(name))}**"
            for name, target in line["targets"].items()
            if name != "violations" or figures.get(name)
        )
        verdict = "yes" if line["pass"] else f"**no** ({len(line['seeds_failed'])} of {line['seeds']} seeds)"
        if not line["pass"]:
            verdict += f": {line.get('known') or 'not yet explained'}"
        cells = (
            line["number"], f"`{line['scenario']}`: {line['title']}", line["nodes"], line["seeds"], judged, verdict,
            line["best_known"],
        )  # fmt: skip
        shown.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    passed = sum(line["pass"] for line in lines)
    events, seconds = sum(line["events"] for line in lines), sum(line["seconds"] for line in lines)
    scales = ", ".join(sorted({line["scale"] for line in lines}))
    shown += [
        "",
        f"{passed} of {len(lines)} pass at scale `{scales}`; {events:,} events in {seconds:,.0f} processor seconds, "
        f"{events / max(seconds, 1e-9):,.0f} a second on one core, protocol included.",
    ]
    return "\n".join(shown)


def show_json(value: float | None) -> str:
    """A figure as summary.json has it: null is what never happened or could not be measured."""
    return "never" if value is None else show(value)


def show(value: float) -> str:
    if math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "never"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def write_docs(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Replaces what stands between the two marks of these lines' scale; the rest of the page is written by people."""
    before, after = around(path, lines[0]["scale"])
    path.write_text(f"{before}\n\n{markdown(lines)}\n\n{after}", encoding="utf-8")


def around(path: Path, scale: str) -> tuple[str, str]:
    """What stands before and after the table of this scale, marks included. Raises `InvalidPage`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidPage(f"{path} cannot be read: {error}") from error
    first, last = marks(scale)
    head, begin, rest = text.partition(first)
    _, end, tail = rest.partition(last)
    if not (begin and end):
        raise InvalidPage(f"{path} lacks the marks {first} and {last}")
    return head + begin, end + tail
