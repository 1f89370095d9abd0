"""The result tables of docs/simulations.md, one for each scale, written by the runner itself between two marks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psyne_mesh.errors import LocalError

_STANDING = re.compile(r"^\| [^|]* \| `([^`]+)`: .*\|$", re.MULTILINE)


class InvalidPage(LocalError, ValueError):
    """A page that the table cannot be written into. The message names it and says what it lacks."""


def marks(scale: str) -> tuple[str, str]:
    """Between which lines of the page the table of a scale stands."""
    return (
        f"<!-- results at scale {scale}: begin (written by `psyne-mesh sim all --write-docs`) -->",
        f"<!-- results at scale {scale}: end -->",
    )


def markdown(lines: Sequence[Mapping[str, Any]], others: Mapping[str, str] | None = None) -> str:
    """One line for each scenario: its targets with what was measured, and the verdict. Takes what summary.json holds.

    `others`: lines that stand in the table already, by the names of their scenarios, in the order of the whole table. They
    stay, but for those that are written anew.
    """
    rows = {**(others or {}), **{line["scenario"]: _row(line) for line in lines}}
    passed = sum("| yes |" in row for row in rows.values())
    events, seconds = sum(line["events"] for line in lines), sum(line["seconds"] for line in lines)
    scales = ", ".join(sorted({line["scale"] for line in lines}))
    of = "" if len(lines) == len(rows) else f" of {len(lines)} of them"
    return "\n".join([
        "| # | scenario | nodes | seeds | target: measured | pass | best known |",
        "|---|---|---|---|---|---|---|",
        *rows.values(),
        "",
        f"{passed} of {len(rows)} pass at scale `{scales}`; {events:,} events{of} in {seconds:,.0f} processor seconds, "
        f"{events / max(seconds, 1e-9):,.0f} a second on one core, protocol included.",
    ])  # fmt: skip


def _row(line: Mapping[str, Any]) -> str:
    figures = line["figures"]
    judged = "<br>".join(
        f"`{name}` {target}: **{show_json(figures.get(name))}**{_spread(figures, name)}"
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
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _spread(figures: Mapping[str, Any], name: str) -> str:
    """Of a ratio, which is one of sums: between what it lies with single seeds. Seeds of a sweep are its cells."""
    least, most = figures.get(f"{name}_least"), figures.get(f"{name}_most")
    return "" if least is None or most is None or least == most else f" ({show(least)} to {show(most)})"


def show_json(value: float | None) -> str:
    """A figure as summary.json has it: null is what never happened or could not be measured."""
    return "never" if value is None else show(value)


def show(value: float) -> str:
    if math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "never"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def write_docs(path: Path, lines: Sequence[Mapping[str, Any]], order: Sequence[str]) -> None:
    """Writes the table of these lines' scale between its two marks; the rest of the page is written by people.

    What stands there of other scenarios of `order` stays: a table of hours is made piece by piece, on several machines.
    """
    before, after = around(path, lines[0]["scale"])
    standing = path.read_text(encoding="utf-8")[len(before) : -len(after)]
    found = {match[1]: match[0] for match in _STANDING.finditer(standing)}
    fresh = {line["scenario"] for line in lines}
    others = {name: found.get(name, "") for name in order if name in found or name in fresh}
    path.write_text(f"{before}\n\n{markdown(lines, others)}\n\n{after}", encoding="utf-8")


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
