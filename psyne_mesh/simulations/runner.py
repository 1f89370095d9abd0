"""Many scenarios, many seeds, many processors: what `psyne-mesh sim all` does.

A unit of work is one (scenario, nodes, seed): a module-level function with one argument that pickles, so any
`concurrent.futures.Executor` can run it: processes on this machine, Dask, Ray (docs/simulations.md shows both).
"""

from __future__ import annotations

import contextlib
import csv
import gc
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import attrs

from psyne_mesh.simulations.findings import pool, rounded, verdict
from psyne_mesh.simulations.own import check_nodes
from psyne_mesh.simulations.run import Result, run_once
from psyne_mesh.simulations.scenario import SCALES, Scenario, load

BASELINE_FILE = Path(__file__).with_name("baseline.json")
# Not decided by the seed but by what else the process has done: it has a target, and no slip of it is one of the code.
OF_THE_MACHINE = {"memory_growth_percent"}
# Against the committed baseline a figure may be so much worse before the comparison complains: seeds differ with every
# change of the protocol, so small steps mean nothing.
BASELINE_SLACK = 0.25


@attrs.frozen
class Unit:
    scenario: Scenario  # itself, not its name: it may be one of your own, or changed by `attrs.evolve`
    nodes: int | None
    seed: int


@attrs.frozen
class Row:
    """One scenario over all its seeds: the line of the result table."""

    scenario: Scenario
    nodes: int
    seeds: tuple[int, ...]
    figures: dict[str, float]
    passed: bool
    seeds_failed: tuple[int, ...]  # which of the seeds fail when judged alone
    events: int
    seconds: float
    trace_hashes: tuple[str, ...]
    notes: tuple[str, ...]


def work(unit: Unit) -> Result:
    """Runs one unit, in whatever process this is."""
    try:
        return run_once(unit.scenario, unit.nodes, unit.seed)
    finally:
        gc.collect()  # a world is full of cycles, and large ones are made too seldom for the collector to come by itself


def run_all(
    scenarios: Sequence[Scenario],
    *,
    nodes: int | None = None,
    seeds: Sequence[int] | None = None,
    executor: Executor | None = None,
    on_result: Callable[[Result], None] = lambda result: None,
    kept: Iterable[tuple[Unit, Result]] = (),
    reduce: Callable[[Result, Scenario], Result] = lambda result, scenario: result,
) -> list[Row]:
    """Every scenario (already scaled) with all its seeds. Without an executor: one after the other, here.

    Each scenario's first seed comes before anybody's second, so that a run cut off has seen something of all. What is
    in `kept` (results of earlier runs) is not run again, and `on_result` does not hear of it. What `reduce` makes of each
    result, kept or new, is what the rows are made of.
    """
    # By the object: the same scenario at two scales, or with two losses, has one name.
    found: dict[int, list[Result]] = {id(scenario): [] for scenario in scenarios}
    done: set[tuple[int, int]] = set()
    for unit, result in kept:
        done.add((id(unit.scenario), unit.seed))
        found[id(unit.scenario)].append(reduce(result, unit.scenario))
    units = [unit for unit in units_of(scenarios, nodes, seeds) if (id(unit.scenario), unit.seed) not in done]
    for unit, result in _worked(executor, units):
        found[id(unit.scenario)].append(reduce(result, unit.scenario))
        on_result(result)
    return [row_of(scenario, found[id(scenario)]) for scenario in scenarios]


def units_of(scenarios: Iterable[Scenario], nodes: int | None, seeds: Sequence[int] | None) -> list[Unit]:
    """What there is to run, seed by seed. Raises `InvalidScenario` where `nodes` are too few."""
    scenarios = list(scenarios)
    for scenario in scenarios:
        check_nodes(scenario, nodes)
    units = [
        Unit(scenario, nodes, seed)
        for scenario in scenarios
        for seed in (range(scenario.seeds) if seeds is None else seeds)
    ]
    return sorted(units, key=lambda unit: unit.seed)


@contextlib.contextmanager
def processes(jobs: int | None = None) -> Iterator[Executor | None]:
    """An executor with so many processes (default: one for each processor); None where one process does as well."""
    number = jobs or os.cpu_count() or 1
    if number == 1:
        yield None
        return
    # Spawned, not forked: the progress bar has a thread, and a fork would copy its locks.
    with ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def _worked(executor: Executor | None, units: Iterable[Unit]) -> Iterator[tuple[Unit, Result]]:
    """Each unit with its result, as they end."""
    if executor is None:
        for unit in units:
            yield unit, work(unit)
        return
    futures = {executor.submit(work, unit): unit for unit in units}
    for future in as_completed(futures):
        yield futures[future], future.result()


def row_of(scenario: Scenario, results: Sequence[Result]) -> Row:
    ordered = sorted(results, key=lambda result: result.seed)
    figures = pool([result.findings for result in ordered], scenario.targets)
    alone = [result.seed for result in ordered if not verdict(result.findings.figures, scenario.targets)]
    return Row(
        scenario=scenario,
        nodes=ordered[0].nodes,
        seeds=tuple(result.seed for result in ordered),
        figures=figures,
        passed=verdict(figures, scenario.targets),
        seeds_failed=tuple(alone),
        events=sum(result.events for result in ordered),
        seconds=sum(result.seconds for result in ordered),
        trace_hashes=tuple(result.trace_hash for result in ordered),
        notes=tuple(note for result in ordered for note in result.findings.notes)[:5],
    )


# --------------------------------------------------------------------------------------------------------------- files


def result_line(result: Result, scenario: Scenario) -> dict[str, Any]:
    """What `sim run --json` prints; a line of results.jsonl has the scale as well."""
    return {
        "scenario": result.scenario,
        "nodes": result.nodes,
        "seed": result.seed,
        "trace_hash": result.trace_hash,
        "pass": verdict(result.findings.figures, scenario.targets),
        "figures": rounded(result.findings.figures),
        "targets": {name: str(target) for name, target in scenario.targets.items()},
    }


def row_line(row: Row) -> dict[str, Any]:
    return {
        "scenario": row.scenario.name,
        "number": row.scenario.number,
        "title": row.scenario.title,
        "best_known": row.scenario.best_known,
        "known": row.scenario.known,
        "scale": row.scenario.scale,
        "nodes": row.nodes,
        "seeds": len(row.seeds),
        "pass": row.passed,
        "seeds_failed": list(row.seeds_failed),
        "figures": rounded(row.figures),
        "targets": {name: str(target) for name, target in row.scenario.targets.items()},
        "events": row.events,
        "seconds": round(row.seconds, 1),
        "notes": list(row.notes),
    }


def merged_summary(path: Path, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Writes the lines of `rows` into summary.json in place of those of the same scenario and scale; all others stay."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    known = {(line["scale"], line["scenario"]): line for line in [*old, *map(row_line, rows)]}
    order = {name: number for number, name in enumerate(load())}  # yours after ours
    lines = sorted(
        known.values(), key=lambda line: (SCALES.index(line["scale"]), order.get(line["scenario"], len(order)))
    )
    path.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    return lines


def other_runs(path: Path, scenarios: Iterable[Scenario]) -> list[dict[str, Any]]:
    """The lines of results.jsonl that are not of these scenarios at these scales.

    Those from before the lines named their scale could be of any, and are left out; runs.jsonl still has them.
    """
    if not path.exists():
        return []
    fresh = {(scenario.name, scenario.scale) for scenario in scenarios}
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # cut off
            lines.append(json.loads(text))
    return [line for line in lines if "scale" in line and (line["scenario"], line["scale"]) not in fresh]


def write_csv(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Lines of results.jsonl as one line for each figure of each run: scenario, scale, nodes, seed, figure, value."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["scenario", "scale", "nodes", "seed", "figure", "value"])
        for line in lines:
            of = [line[key] for key in ("scenario", "scale", "nodes", "seed")]
            for name, value in line["figures"].items():
                writer.writerow([*of, name, "" if value is None else value])


# ------------------------------------------------------------------------------------------------------------ baseline


def read_baseline(path: Path = BASELINE_FILE) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return known


def write_baseline(rows: Iterable[Row], path: Path = BASELINE_FILE) -> None:
    """Keeps the judged figures of each scenario and scale; entries of other scales stay."""
    known = read_baseline(path)
    for row in rows:
        judged = {name: row.figures.get(name, math.nan) for name in row.scenario.targets}
        known[f"{row.scenario.name}@{row.scenario.scale}"] = {"pass": row.passed, "figures": rounded(judged)}
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def compare(rows: Iterable[Row], baseline: dict[str, Any]) -> list[str]:
    """What is worse than the committed baseline, as sentences: a pass that became a failure, a figure that slipped."""
    worse = []
    for row in rows:
        known = baseline.get(f"{row.scenario.name}@{row.scenario.scale}")
        if known is None:
            continue
        if known["pass"] and not row.passed:
            worse.append(f"{row.scenario.name}: passed in the baseline, fails now")
        for name, target in row.scenario.targets.items():
            before, now = known["figures"].get(name), row.figures.get(name, math.nan)
            if before is None or name in OF_THE_MACHINE or target.op == "==" or not math.isfinite(now):
                continue
            slack = BASELINE_SLACK * max(abs(before), 0.01 * abs(target.bound))
            slipped = now > before + slack if target.op == "<=" else now < before - slack
            if slipped and not row.passed:
                worse.append(f"{row.scenario.name}: {name} was {before:g}, is {now:g} (target {target})")
    return worse
