"""`psyne-mesh sim report`: runs what the pictures need, draws them, and writes one page that needs no other file."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from psyne_mesh.simulations import pictures
from psyne_mesh.simulations.figures import measured
from psyne_mesh.simulations.findings import percentiles
from psyne_mesh.simulations.run import Result, Run, run_once
from psyne_mesh.simulations.scenario import Scenario, load
from psyne_mesh.simulations.series import neighbours

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:13px}td,th{border:1px solid #ccc;padding:3px 7px;text-align:left;vertical-align:top}
.no{color:#b00;font-weight:bold}svg{max-width:100%;height:auto}"""


@attrs.frozen
class Sizes:
    """How large the rooms of a report are, and how many runs that makes."""

    split: int = 64
    broadcast: int = 1000
    crash_seeds: int = 20
    crash: int = 256
    load: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512)

    @property
    def runs(self) -> int:
        return 1 + len(_PROTOCOLS) + 2 * (self.crash_seeds + self.large_crash_seeds) + 2 * len(self.load)

    @property
    def large_crash_seeds(self) -> int:
        return max(1, self.crash_seeds // 10)


FULL = Sizes()
QUICK = Sizes(split=24, broadcast=48, crash_seeds=2, crash=32, load=(4, 8, 16, 32))


def write_report(
    folder: Path,
    results: Path,
    *,
    sizes: Sizes = FULL,
    seed: int = 0,
    on_run: Callable[[str], None] = lambda what: None,
) -> Path:
    """Draws every picture and returns the path of the page. `results` may hold the summary.json of `sim all`.

    `on_run` hears of each of the `sizes.runs` runs when it is over.
    """
    scenarios = load()
    sections = [
        ("A room is cut and heals", _partition(scenarios, folder, sizes.split, seed, on_run)),
        ("How a broadcast spreads", _coverage(scenarios, folder, sizes.broadcast, seed, on_run)),
        ("How soon a crash is known", _detection(scenarios, folder, sizes, seed, on_run)),
        ("What it costs", _load(scenarios, folder, sizes.load, seed, on_run)),
    ]
    body = "".join(f"<h2>{html.escape(title)}</h2>{content}" for title, content in sections)
    page = folder / "index.html"
    page.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>psyne-mesh simulations</title><style>{_STYLE}</style>"
        f"<h1>psyne-mesh simulations</h1>{_table(results / 'summary.json')}{body}</html>\n",
        encoding="utf-8",
    )
    return page


def run_with_pictures(scenario: Scenario, nodes: int | None, seed: int, folder: Path) -> Result:
    """One run of one scenario, all its arms judged, with the pictures of its main arm that the data allow."""
    result = run_once(scenario, nodes, seed)
    run = Run(scenario, result.nodes, seed)
    run.play()  # the main arm again, now to look into: a seed is a trace
    pictures.save(pictures.timeline(run.series, _cut_times(run), run.t0), folder, "timeline")
    pictures.save(pictures.mesh_graph([("at the end", _edges(run))], *_sides(run)), folder, "mesh")
    if run.accounting.sent:
        hops = [list(sent.hops.values()) for sent in measured(run)]
        pictures.save(pictures.coverage_per_hop({"psyne-mesh": hops}, run.nodes), folder, "coverage")
    if run.findings.samples.get("detection_s"):
        drawn = pictures.ecdf({scenario.name: run.findings.samples["detection_s"]}, scenario.title, "s")
        pictures.save(drawn, folder, "detection")
    return result


# ------------------------------------------------------------------------------------------------------------ sections


OnRun = Callable[[str], None]


def _partition(scenarios: dict[str, Scenario], folder: Path, nodes: int, seed: int, on_run: OnRun) -> str:
    split_s = 60.0
    scenario = attrs.evolve(scenarios["split-with-signaling"].scaled("ci"), nodes=nodes)
    scenario = attrs.evolve(scenario, params={"duration_s": 120.0, "split_s": split_s})
    run = Run(scenario, nodes, seed)
    panels: list[tuple[str, list[tuple[int, int]]]] = []
    moments = (("before the cut", 4.0), ("just before the heal", split_s + 4), ("20 s after the heal", split_s + 25))

    def take_pictures() -> None:
        for title, at in moments:
            run.world.at(run.t0 + at, lambda title=title: panels.append((title, _edges(run))))

    run.before_play = take_pictures
    run.play()
    on_run("a cut")
    graph = pictures.save(pictures.mesh_graph(panels, *_sides(run)), folder, "mesh")
    line = pictures.save(pictures.timeline(run.series, _cut_times(run), run.t0), folder, "timeline")
    merged = run.findings.figures["merged_s_max"]
    return f"<p>{nodes} nodes, {split_s:.0f} s apart, one room again {merged:.1f} s after the heal.</p>{graph}{line}"


_PROTOCOLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("psyne-mesh", {}),
    ("flooding", {"name": "f", "actor": "flooding"}),
    ("GossipSub mesh", {"name": "g", "actor": "gossipsub"}),
)


def _coverage(scenarios: dict[str, Scenario], folder: Path, nodes: int, seed: int, on_run: OnRun) -> str:
    curves = {}
    for name, arm in _PROTOCOLS:
        run = Run(scenarios["broadcast-one-source"].scaled("full"), nodes, seed, arm)
        run.play()
        on_run("a broadcast")
        curves[f"{name} ({run.findings.figures['copies_per_delivery']:.2f} copies)"] = [
            list(sent.hops.values()) for sent in measured(run)
        ]
    return pictures.save(pictures.coverage_per_hop(curves, nodes), folder, "coverage")


def _detection(scenarios: dict[str, Scenario], folder: Path, sizes: Sizes, seed: int, on_run: OnRun) -> str:
    samples: dict[str, list[float]] = {}
    rooms = (("crash-16", 16, sizes.crash_seeds), ("crash-256", sizes.crash, sizes.large_crash_seeds))
    for name, size, seeds in rooms:
        for title, arm in ((f"psyne-mesh, {size}", {}), (f"SWIM, {size}", {"name": "s", "actor": "swim"})):
            for number in range(seeds):
                run = Run(scenarios[name].scaled("full"), size, seed + number, arm)
                run.play()
                on_run("a crash")
                samples.setdefault(title, []).extend(run.findings.samples["detection_s"])
    drawn = pictures.save(pictures.ecdf(samples, "From a crash to knowing it", "s"), folder, "detection")
    rows = "".join(
        f"<tr><td>{name}<td>{percentiles(values)['p50']:.2f}<td>{percentiles(values)['p99']:.2f}"
        for name, values in samples.items()
    )
    return f"{drawn}<table><tr><th>room<th>p50 s<th>p99 s{rows}</table>"


def _load(scenarios: dict[str, Scenario], folder: Path, sizes: tuple[int, ...], seed: int, on_run: OnRun) -> str:
    kbytes: dict[str, list[tuple[int, float]]] = {"psyne-mesh, mean": [], "psyne-mesh, p99": [], "SWIM, mean": []}
    calm = attrs.evolve(scenarios["crash-16"], timeline=(), params={"duration_s": 30.0}, measures=("load",))
    for size in sizes:
        run = Run(calm, size, seed)
        run.play()
        on_run(f"{size} at rest")
        kbytes["psyne-mesh, mean"].append((size, run.findings.figures["load_kb_s_mean"]))
        kbytes["psyne-mesh, p99"].append((size, run.findings.figures["load_kb_s_p99"]))
        swim = Run(calm, size, seed, {"name": "s", "actor": "swim"})
        swim.play()
        on_run(f"{size} at rest")
        kbytes["SWIM, mean"].append((size, swim.findings.figures["load_kb_s_mean"]))
    title = "Bytes a node sends while nothing happens (frames, without DTLS and UDP heads)"
    return pictures.save(pictures.load_against_size(kbytes, title, "kB/s"), folder, "load")


# --------------------------------------------------------------------------------------------------------------- parts


def _edges(run: Run) -> list[tuple[int, int]]:
    return [(host.index, other.index) for host in run.up() for other in neighbours(host) if host.index < other.index]


def _sides(run: Run) -> tuple[list[int], dict[int, int]]:
    nodes = [host.index for host in run.world.hosts if host.up]
    first = next((cuts for _, cuts in run.accounting.cuts_since if cuts), ())
    return nodes, dict(first[0].sides) if first else {}


def _cut_times(run: Run) -> list[tuple[float, float]]:
    changes = run.accounting.cuts_since
    ends = [at for at, _ in changes[1:]] + [run.end]
    return [(at, until) for (at, cuts), until in zip(changes, ends, strict=True) if cuts]


def _table(summary: Path) -> str:
    if not summary.exists():
        return "<p>No results here yet: <code>psyne-mesh sim all</code> writes them.</p>"
    lines = json.loads(summary.read_text(encoding="utf-8"))
    return "".join(
        f"<h2>All scenarios, scale {scale}</h2>{_table_of([line for line in lines if line['scale'] == scale])}"
        for scale in dict.fromkeys(line["scale"] for line in lines)
    )


def _table_of(lines: list[dict[str, Any]]) -> str:
    rows = []
    for line in lines:
        figures = line["figures"]
        judged = "<br>".join(
            f"{html.escape(name)} {html.escape(target)}: <b>{'never' if figures.get(name) is None else figures[name]}</b>"
            for name, target in line["targets"].items()
        )
        verdict = "yes" if line["pass"] else "<span class=no>no</span>"
        cells = (line["number"], line["scenario"], line["nodes"], line["seeds"], judged, verdict)
        rows.append("<tr>" + "".join(f"<td>{cell}" for cell in cells))
    head = "<tr><th>#<th>scenario<th>nodes<th>seeds<th>target: measured<th>pass"
    return f"<table>{head}{''.join(rows)}</table>"
