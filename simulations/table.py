"""The result table of docs/simulations.md, written by the runner itself between two marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from simulations.runner import Row

BEGIN, END = "<!-- results: begin (written by `psyne-mesh sim all --write-docs`) -->", "<!-- results: end -->"


def markdown(rows: Sequence[Row]) -> str:
    """One line for each scenario: its targets with what was measured, and the verdict."""
    lines = [
        "| # | scenario | nodes | seeds | target: measured | pass | best known |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        scenario = row.scenario
        judged = "<br>".join(
            f"`{name}` {target}: **{show(row.figures.get(name, math.nan))}**"
            for name, target in scenario.targets.items()
            if name != "violations" or row.figures.get(name)
        )
        verdict = "yes" if row.passed else f"**no** ({len(row.seeds_failed)} of {len(row.seeds)} seeds)"
        cells = (
            scenario.number, f"`{scenario.name}`: {scenario.title}", row.nodes, len(row.seeds), judged, verdict,
            scenario.best_known,
        )  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    passed = sum(row.passed for row in rows)
    events, seconds = sum(row.events for row in rows), sum(row.seconds for row in rows)
    scales = sorted({row.scenario.scale for row in rows})
    lines += [
        "",
        f"{passed} of {len(rows)} pass at scale `{', '.join(scales)}`; {events:,} events in {seconds:,.0f} processor "
        f"seconds, {events / max(seconds, 1e-9):,.0f} a second on one core, protocol included.",
    ]
    return "\n".join(lines)


def show(value: float) -> str:
    if math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "never"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def write_docs(path: Path, rows: Sequence[Row]) -> None:
    """Replaces what stands between the two marks; the rest of the page is written by people."""
    text = path.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} lacks the marks {BEGIN} and {END}")
    path.write_text(f"{head}{BEGIN}\n\n{markdown(rows)}\n\n{END}{tail}", encoding="utf-8")
