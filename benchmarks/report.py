"""Results for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.samples import Samples
from benchmarks.targets import Verdict
from benchmarks.work import Work

OURS = ("ours", "rooms", "simulator")  # what stands for "ours" in a work that is not about data channels alone
RESULTS = Path(__file__).resolve().parents[1] / "results"


def as_object(samples: Samples, works: Mapping[str, Work], verdicts: list[Verdict]) -> dict[str, Any]:
    """The object that `--json` prints: for each work its headline figure, and all figures below `figures`."""
    results: dict[str, Any] = {}
    for name in samples.works():
        figures = {
            figure: _figure(samples, name, figure) | {"unit": kind.unit, "better": kind.better}
            for figure, kind in works[name].figures.items()
        }
        results[name] = {"figure": works[name].headline, **figures[works[name].headline], "figures": figures}
    return {
        "results": results,
        "targets": [
            {"work": v.work, "stack": v.stack, "figure": v.figure, "level": v.level, "wanted": v.wanted,
             "measured": v.measured, "met": v.met}
            for v in verdicts
        ],
        "failures": [
            {"work": work, "stack": stack, "reason": reason}
            for (work, stack), reasons in samples.failures.items()
            for reason in reasons
        ],
    }  # fmt: skip


def _figure(samples: Samples, work: str, figure: str) -> dict[str, Any]:
    measured: dict[str, Any] = dict.fromkeys(("ours", "aiortc", "wrtc"))
    measured |= {stack: samples.median(work, stack, figure) for stack in samples.stacks(work)}
    ours = next((stack for stack in OURS if stack in samples.stacks(work)), "ours")
    measured["ours"] = samples.median(work, ours, figure)
    return measured | {
        "ratio": samples.ratio(work, figure, ours, "aiortc"),
        "ratio_wrtc": samples.ratio(work, figure, ours, "wrtc"),
        "compiled_ratio": samples.ratio(work, figure, "compiled", ours),
        "spread": {stack: samples.spread(work, stack, figure) for stack in samples.stacks(work)},
    }


def append_lines(report: dict[str, Any], samples: Samples, machine: dict[str, Any], scale: str) -> Path:
    """One JSON line for each work and stack, with every repetition, into results/benchmarks.jsonl."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "benchmarks.jsonl"
    with path.open("a", encoding="utf-8") as lines:
        for work, result in report["results"].items():
            for stack in samples.stacks(work):
                values = {figure: samples.values(work, stack, figure) for figure in result["figures"]}
                lines.write(
                    json.dumps({"work": work, "stack": stack, "scale": scale, "values": values, **machine}) + "\n"
                )
    return path


def print_results(report: dict[str, Any], samples: Samples, works: Mapping[str, Work], console: Console) -> None:
    table = Table(title="medians \\[min-max]; ratios are medians of ours / theirs, repetition by repetition")
    stacks = list(dict.fromkeys(stack for work in samples.works() for stack in samples.stacks(work)))
    for heading in ("work", "figure", *stacks, "/ aiortc", "/ wrtc"):
        table.add_column(heading, justify="left" if heading in ("work", "figure") else "right", overflow="fold")
    for work in samples.works():
        for figure, result in report["results"][work]["figures"].items():
            cells = [_cell(result.get(stack), result["spread"].get(stack)) for stack in stacks]
            first = figure == works[work].headline
            table.add_row(
                work if first else "", f"{figure} ({result['unit']})", *cells,
                *(f"{result[key]:.2f}" if result[key] is not None else "" for key in ("ratio", "ratio_wrtc")),
            )  # fmt: skip
        table.add_section()
    console.print(table)


def _cell(value: float | None, spread: tuple[float, float] | None) -> str:
    if value is None or spread is None:
        return ""
    return f"{short(value)} [dim]\\[{short(spread[0])}-{short(spread[1])}][/dim]"


def short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def print_verdicts(verdicts: list[Verdict], console: Console) -> None:
    table = Table(title="targets")
    for heading in ("work", "figure", "level", "wanted", "measured", "met"):
        table.add_column(heading, justify="right" if heading == "measured" else "left")
    for v in verdicts:
        met = {True: "[green]yes[/]", False: "[bold red]no[/]", None: "not measured"}[v.met]
        name = v.work if v.stack == "ours" else f"{v.work} ({v.stack})"
        table.add_row(name, v.figure, v.level, v.wanted, "" if v.measured is None else f"{v.measured:.4g}", met)
    console.print(table)
