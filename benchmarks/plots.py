"""A page of plots from results/benchmarks.jsonl: the newest full run, or the newest of all."""

from __future__ import annotations

import html
import json
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.work import Figure
from benchmarks.works import WORKS

mpl.rcParams["svg.hashsalt"] = "psyne-mesh"  # the same data make the same file

COLOURS = {
    "ours": "#1f6feb",
    "compiled": "#0b3d91",
    "rooms": "#79b8ff",
    "aiortc": "#e36209",
    "wrtc": "#6f42c1",
    "node-datachannel": "#28a745",
    "werift": "#959da5",
    "udp": "#586069",
    "simulator": "#1f6feb",
    "simulator-compiled": "#0b3d91",
}
SERIES = {
    "throughput_cpu_": "CPU s/GB, by connections",
    "throughput_mb_per_s_": "MB/s, by connections",
    "rtt_us_": "round trip us, by connections",
    "sctp_us_": "us per message, by messages outstanding",
}

Line = dict[str, Any]
Medians = dict[str, dict[str, float]]  # by figure and stack


def draw(results: Path) -> Path:
    """PNG files and benchmarks.html beside `results`; the page's path."""
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    newest = _newest(lines)
    pictures = []
    for work in dict.fromkeys(line["work"] for line in newest):
        of_work = [line for line in newest if line["work"] == work]
        picture = results.with_name(f"benchmarks-{work}.png")
        if work == "growth":
            draw_growth(_medians(of_work), picture)
        else:
            _draw_bars(work, of_work, picture)
        pictures.append((work, picture))
    page = results.with_name("benchmarks.html")
    page.write_text(_page(newest, pictures), encoding="utf-8")
    return page


def _newest(lines: list[Line]) -> list[Line]:
    """For each work and stack its newest line, full runs before quick ones."""
    chosen: dict[tuple[str, str], Line] = {}
    for line in sorted(lines, key=lambda line: (line["scale"] == "full", line["time"])):
        chosen[line["work"], line["stack"]] = line
    return list(chosen.values())


def _draw_bars(work: str, lines: list[Line], picture: Path) -> None:
    """One panel a figure; bars are medians, whiskers minimum and maximum."""
    figures = WORKS[work].figures
    drawing, panels = plt.subplots(1, len(figures), figsize=(3.2 * len(figures) + 1, 3.2), squeeze=False)
    for panel, (name, figure) in zip(panels[0], figures.items(), strict=True):
        stacks = [line for line in lines if line["values"].get(name)]
        middles = [median(line["values"][name]) for line in stacks]
        below = [middle - min(line["values"][name]) for middle, line in zip(middles, stacks, strict=True)]
        above = [max(line["values"][name]) - middle for middle, line in zip(middles, stacks, strict=True)]
        colours = [COLOURS.get(line["stack"], "#24292e") for line in stacks]
        panel.bar(range(len(stacks)), middles, yerr=[below, above], color=colours, capsize=3)
        panel.set_xticks(range(len(stacks)), [line["stack"] for line in stacks], rotation=30, ha="right", fontsize=8)
        _finish(panel, name, figure, middles)
    drawing.suptitle(work)
    drawing.tight_layout()
    drawing.savefig(picture, dpi=110)
    plt.close(drawing)


def _finish(panel: Axes, name: str, figure: Figure, values: list[float]) -> None:
    if values and min(values) > 0 and max(values) / min(values) > 30:
        panel.set_yscale("log")
    panel.set_title(f"{name} ({figure.unit}), {figure.better} is better", fontsize=8)
    panel.tick_params(axis="y", labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)


def _medians(lines: list[Line]) -> Medians:
    figures: Medians = {}
    for line in lines:
        for figure, values in line["values"].items():
            if values:
                figures.setdefault(figure, {})[line["stack"]] = median(values)
    return figures


def draw_growth(figures: Medians, picture: Path) -> None:
    """The cost of one unit against the size of the work: what rises steeper than a flat line grows worse than linear."""
    drawing, panels = plt.subplots(1, len(SERIES), figsize=(3.6 * len(SERIES), 3.2))
    for panel, (prefix, title) in zip(panels, SERIES.items(), strict=True):
        sizes = sorted(int(name.removeprefix(prefix)) for name in figures if name.startswith(prefix))
        for stack in dict.fromkeys(stack for size in sizes for stack in figures[f"{prefix}{size}"]):
            points = [(size, figures[f"{prefix}{size}"].get(stack)) for size in sizes]
            known = [(size, value) for size, value in points if value is not None]
            panel.plot(*zip(*known, strict=True), "o-", label=stack, color=COLOURS.get(stack))
        panel.set_xscale("log")
        panel.set_ylim(bottom=0)
        panel.set_title(title, fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        if panel.lines:
            panel.legend(fontsize=7)
    drawing.tight_layout()
    dated = {"Date": None} if picture.suffix == ".svg" else None  # it is committed
    drawing.savefig(picture, dpi=110, metadata=dated)
    plt.close(drawing)


def _page(lines: list[Line], pictures: list[tuple[str, Path]]) -> str:
    newest = max(lines, key=lambda line: line["time"])
    about = (
        f"{newest['system']}, {newest['cores']} x {newest['processor']}, Python {newest['python']}, {newest['time']}"
    )
    parts = [
        f"<h2>{html.escape(work)}</h2><p>{html.escape(' '.join(WORKS[work].about.split()))}</p>"
        f'<img src="{picture.name}" alt="{html.escape(work)}" style="max-width:100%">'
        for work, picture in pictures
    ]
    return (
        "<!doctype html><meta charset=utf-8><title>psyne-mesh benchmarks</title>"
        '<body style="font:15px/1.5 system-ui;max-width:70em;margin:2em auto">'
        f"<h1>psyne-mesh benchmarks</h1><p>{html.escape(about)}</p>{''.join(parts)}</body>"
    )
