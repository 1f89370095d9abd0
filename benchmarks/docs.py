"""The result table and the growth plot of README.md, written by the benchmarks themselves.

What full runs measured is kept in results/benchmarks-full.json, work by work: a later run of some works replaces those, and
the page says of each which run it comes from. Quick runs are a look and are not kept there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, short

PAGE = Path(__file__).with_name("README.md")
PLOT = Path(__file__).with_name("growth.svg")
BEGIN, END = "<!-- results: begin (written by `python3 run.py bench --write-docs`) -->", "<!-- results: end -->"
OTHERS = ("aiortc", "wrtc", "node-datachannel", "werift")
SHOWN = ("ours", "compiled", "rooms", *OTHERS, "udp", "simulator", "simulator-compiled")

Kept = dict[str, dict[str, Any]]  # by work: its part of the object that `--json` prints, with machine and repetitions


def keep(result: Mapping[str, Any], names: Sequence[str], kept: Path | None = None) -> Kept:
    """Puts what this full run measured in the place of what earlier ones did; all of it, in the order of `names`."""
    path = kept or RESULTS / "benchmarks-full.json"
    works: Kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for work, measured in result["results"].items():
        works[work] = {
            "result": measured,
            "targets": [target for target in result["targets"] if target["work"] == work],
            "failures": [failure for failure in result["failures"] if failure["work"] == work],
            "machine": result["machine"],
            "repetitions": result["repetitions"],
        }
    works = {name: works[name] for name in names if name in works}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(works), encoding="utf-8")
    return works


def write(works: Kept, page: Path = PAGE, plot: Path = PLOT) -> None:
    """Replaces what stands between the two marks of the page, and the plot; the rest of the page is written by people."""
    text = page.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} lacks the marks {BEGIN} and {END}")
    parts = [_runs(works), _targets(works), _medians(works), _failures(works)]
    if "growth" in works:
        from benchmarks.plots import draw_growth

        figures = works["growth"]["result"]["figures"]
        draw_growth({name: _stacks(figure) for name, figure in figures.items()}, plot)
        parts.append(f"![The cost of one unit against the size of the work]({plot.name})")
    body = "\n\n".join(part for part in parts if part)
    page.write_text(f"{head}{BEGIN}\n\n{body}\n\n{END}{tail}", encoding="utf-8")


def _runs(works: Kept) -> str:
    """Machine, versions and load of each run that the tables are made of."""
    lines = []
    for time in dict.fromkeys(work["machine"]["time"] for work in works.values()):
        names = [name for name, work in works.items() if work["machine"]["time"] == time]
        one = works[names[0]]
        about = one["machine"]
        versions = ", ".join(
            f"{stack} {said[stack]}" for stack, said in about.get("versions", {}).items() if stack in said
        )
        what = "Everything below" if len(names) == len(works) else ", ".join(names)
        lines.append(
            f"{what}: {time}, commit {about['commit']}, {about['system']}, {about['cores']} x {about['processor']}, "
            f"Python {about['python']}{', ' + versions if versions else ''}; {one['repetitions']} repetitions; load "
            f"before {_load(about.get('load'))}, used by others meanwhile {_percent(about.get('others_percent'))}."
        )
    return "\n\n".join(lines)


def _load(load: Sequence[float] | None) -> str:
    return f"{load[0]:.2f}" if load else "not known"


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{value:.0f} % of a core"


def _targets(works: Kept) -> str:
    """One line for each target: what the default build measured, and the compiled one beside it."""
    lines = [
        "| target | must | aim | measured [min-max] | / aiortc | / wrtc | met: must, aim | compiled | met: must, aim |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, work in works.items():
        verdicts = work["targets"]
        for figure, stack in dict.fromkeys((v["figure"], v["stack"]) for v in verdicts if v["stack"] != "compiled"):
            result = work["result"]["figures"][figure]
            cells = [
                f"{name}{'' if stack == 'ours' else f' ({stack})'}: {figure} ({result['unit']})",
                *(_wanted(verdicts, figure, stack, level) for level in ("must", "aim")),
                _measured(result, stack),
                *(_ratio(result[key]) if stack == "ours" else "" for key in ("ratio", "ratio_wrtc")),
                _met(verdicts, figure, stack),
                _measured(result, "compiled") if stack == "ours" else "",
                _met(verdicts, figure, "compiled") if stack == "ours" else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _wanted(verdicts: Sequence[Mapping[str, Any]], figure: str, stack: str, level: str) -> str:
    return ", ".join(v["wanted"] for v in _of(verdicts, figure, stack) if v["level"] == level)


def _met(verdicts: Sequence[Mapping[str, Any]], figure: str, stack: str) -> str:
    words = {True: "yes", False: "**no**", None: "not measured"}
    levels = [[v["met"] for v in _of(verdicts, figure, stack) if v["level"] == level] for level in ("must", "aim")]
    # Of several conditions the worst one counts: one that failed before one that could not be judged.
    return ", ".join(words[False if False in met else None if None in met else True] for met in levels if met)


def _of(verdicts: Sequence[Mapping[str, Any]], figure: str, stack: str) -> list[Mapping[str, Any]]:
    return [v for v in verdicts if (v["figure"], v["stack"]) == (figure, stack)]


def _measured(result: Mapping[str, Any], stack: str) -> str:
    if result.get(stack) is None:
        return ""
    low, high = result["spread"][stack]
    return f"{short(result[stack])} [{short(low)}-{short(high)}]"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _medians(works: Kept) -> str:
    """Every figure of every stack; the series of `growth` stand in the plot."""
    lines = [f"| medians | {' | '.join(SHOWN)} |", "|---" * (len(SHOWN) + 1) + "|"]
    for name, work in works.items():
        for figure, result in work["result"]["figures"].items():
            if name != "growth" or figure == work["result"]["figure"]:
                known = _stacks(result)
                cells = [short(known[stack]) if stack in known else "" for stack in SHOWN]
                lines.append(f"| {name}: {figure} ({result['unit']}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _stacks(result: Mapping[str, Any]) -> dict[str, float]:
    """What was measured of the figure, by stack: not what another stack stands in for."""
    return {stack: result[stack] for stack in SHOWN if result.get(stack) is not None and stack in result["spread"]}


def _failures(works: Kept) -> str:
    """How often a stack could not do its work: its medians are of the other repetitions."""
    failed = [(failure["work"], failure["stack"]) for work in works.values() for failure in work["failures"]]
    return "; ".join(
        f"{stack} failed {failed.count((work, stack))} times at {work}" for work, stack in dict.fromkeys(failed)
    )
