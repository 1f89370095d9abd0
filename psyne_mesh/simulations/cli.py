"""`psyne-mesh sim ...`: list, run, all, report."""

from __future__ import annotations

import contextlib
import enum
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from psyne_mesh.errors import LocalError
from psyne_mesh.simulations import runner, table
from psyne_mesh.simulations.kept import KeptRuns, judged, write_archive
from psyne_mesh.simulations.own import check_nodes, load_own, near
from psyne_mesh.simulations.run import Result
from psyne_mesh.simulations.scenario import Scenario, load

app = typer.Typer(
    help="Rooms of thousands of players in virtual time: scenarios, seeds, figures.", no_args_is_help=True
)
_RESULTS = Path("simulation-results")
_DRAWS = ("matplotlib", "networkx")  # the extra `sim`
_FILE = typer.Option(help="A file of your own scenarios, in place of the package's.")


class Scale(enum.StrEnum):
    """`scenario.SCALES`, as the command line takes them."""

    FULL = "full"
    CI = "ci"
    NIGHTLY = "nightly"
    TINY = "tiny"


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    file: Annotated[Path | None, _FILE] = None,
) -> None:
    """Every scenario with its size and its targets."""
    scenarios = _scenarios(file).values()
    if as_json:
        print(json.dumps({"scenarios": [_described(scenario) for scenario in scenarios]}))
        return
    shown = Table("#", "name", "nodes", "seeds", "what happens", "targets")
    for scenario in scenarios:
        targets = "\n".join(f"{name} {target}" for name, target in scenario.targets.items() if name != "violations")
        shown.add_row(scenario.number, scenario.name, str(scenario.nodes), str(scenario.seeds), scenario.title, targets)
    Console().print(shown)


def _described(scenario: Scenario) -> dict[str, object]:
    return {
        "name": scenario.name,
        "number": scenario.number,
        "title": scenario.title,
        "nodes": scenario.nodes,
        "seeds": scenario.seeds,
        "targets": {name: str(target) for name, target in scenario.targets.items()},
        "best_known": scenario.best_known,
        "known": scenario.known,
    }


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="A scenario of `sim list`.")],
    nodes: Annotated[
        int | None, typer.Option(help="How many nodes, nodes_min or more; default: what the scenario says.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same trace.")] = 0,
    scale: Annotated[Scale, typer.Option(help="The size and length of the run.")] = Scale.FULL,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
    pictures: Annotated[Path | None, typer.Option(help="Also draw this run into the given folder.")] = None,
    file: Annotated[Path | None, _FILE] = None,
) -> None:
    """One scenario with one seed. The exit code says whether it met its targets; with --json the object says it."""
    scenario = _known(name, _scenarios(file)).scaled(scale.value)
    with _told():
        check_nodes(scenario, nodes)
    if pictures is None:
        result = runner.work(runner.Unit(scenario, nodes, seed))
    else:
        result = _report().run_with_pictures(scenario, nodes, seed, _made(pictures))
    line = runner.result_line(result, scenario)
    if as_json:
        print(json.dumps(line))
        return
    _show(result, scenario)
    raise typer.Exit(0 if line["pass"] else 1)


def _report() -> ModuleType:
    """The module that draws; what it needs is not installed with the package."""
    try:
        return importlib.import_module("psyne_mesh.simulations.report")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _DRAWS:
            raise
        Console(stderr=True).print(f"pictures need {error.name}: pip install 'psyne-mesh[sim]'", markup=False)
        raise typer.Exit(2) from error


def _scenarios(file: Path | None) -> dict[str, Scenario]:
    with _told():
        return load() if file is None else load_own(file)


def _known(name: str, scenarios: dict[str, Scenario]) -> Scenario:
    if name not in scenarios:
        raise typer.BadParameter(f"no scenario {name!r}{near(name, scenarios) or '; see: sim list'}")
    return scenarios[name]


def _show(result: Result, scenario: Scenario) -> None:
    console = Console()
    shown = Table(
        "figure", "measured", "target", "", title=f"{scenario.title} ({result.nodes} nodes, seed {result.seed})"
    )
    figures = result.findings.figures
    for name, target in scenario.targets.items():
        value = figures.get(name, float("nan"))
        shown.add_row(name, table.show(value), str(target), "ok" if target.met(value) else "[red]missed[/red]")
    for name, value in figures.items():
        if name not in scenario.targets:
            shown.add_row(f"[dim]{name}[/dim]", f"[dim]{table.show(value)}[/dim]", "", "")
    console.print(shown)
    for note in result.findings.notes:
        console.print(f"  {note}", style="yellow", highlight=False)
    console.print(f"trace {result.trace_hash}; {result.events:,} events in {result.seconds:.1f} s", highlight=False)


@app.command("all")
def all_(
    nightly: Annotated[bool, typer.Option(help="200 seeds, up to 10,000 nodes: hours.")] = False,
    ci: Annotated[
        bool, typer.Option(help="Fewer seeds and nodes: 15 minutes on 2 cores; compared with the baseline.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only these scenarios; may be given several times.")] = None,
    seeds: Annotated[int | None, typer.Option(help="So many seeds for each, from 0.", min=1)] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; default: one for each processor.", min=1)] = None,
    output: Annotated[
        Path, typer.Option(help="Where results.jsonl, results.csv, summary.json and runs.jsonl go.")
    ] = _RESULTS,
    resume: Annotated[
        bool, typer.Option(help="Go on where a run into the same folder stopped: what it finished is not run again.")
    ] = False,
    archive: Annotated[
        Path | None,
        typer.Option(help="A small file of runs: what stands there is not run again, what is new is added."),
    ] = None,
    write_docs: Annotated[
        Path | None, typer.Option(help="Write the result table into this page; what it says of other scenarios stays.")
    ] = None,
    write_baseline: Annotated[bool, typer.Option(help="Make these figures the committed baseline.")] = False,
    file: Annotated[Path | None, _FILE] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Every scenario, with all its seeds, against its targets and against the committed baseline.

    What earlier runs found about other scenarios, or at another scale, stays in the output folder beside the new results.
    An archive holds of each run what its targets are judged by; the table then has no other figures.
    The exit code says whether all met their targets (with --ci: whether none is worse than the baseline), with --json as well.
    """
    if ci and nightly:
        raise typer.BadParameter("--ci and --nightly are two scales: one of them")
    if write_baseline and file is not None:
        raise typer.BadParameter("--write-baseline and --file: the baseline is of the package's scenarios only")
    known = _scenarios(file)
    scale = "nightly" if nightly else "ci" if ci else "full"
    scenarios = [_known(name, known).scaled(scale) for name in dict.fromkeys(only or known)]
    with _told():  # now, not after hours
        if write_docs is not None:
            table.around(write_docs, scale)
        if archive is not None:
            archive.open("a").close()
        (_made(output) / "results.jsonl").open("a").close()
    chosen = range(seeds) if seeds is not None else None
    units = runner.units_of(scenarios, None, chosen)
    told = runner.other_runs(output / "results.jsonl", scenarios)
    by_name = {scenario.name: scenario for scenario in scenarios}
    runs = KeptRuns(output / "runs.jsonl", resume=resume)
    archived = KeptRuns(archive, resume=True) if archive is not None else runs
    kept = _kept(units, runs, archived)
    finished: list[tuple[Scenario, Result]] = []
    with (output / "results.jsonl").open("w", encoding="utf-8") as lines, _progress("scenarios", len(units)) as advance:
        lines.writelines(json.dumps(line) + "\n" for line in told)
        lines.flush()

        def show(result: Result) -> None:
            finished.append((by_name[result.scenario], result))
            told.append({**runner.result_line(result, by_name[result.scenario]), "scale": scale})
            lines.write(json.dumps(told[-1]) + "\n")
            lines.flush()
            advance(f"{result.scenario} #{result.seed}")

        def keep(result: Result) -> None:
            runs.keep(by_name[result.scenario], None, result)
            show(result)

        for _, result in kept:
            show(result)
        reduce = judged if archive is not None else lambda result, scenario: result
        with runner.processes(jobs) as executor:
            rows = runner.run_all(scenarios, seeds=chosen, executor=executor, on_result=keep, kept=kept, reduce=reduce)
    if archive is not None:
        for name in write_archive(archive, finished):
            Console(stderr=True).print(f"{name}: its runs are too large for {archive}", highlight=False)
    runner.write_csv(output / "results.csv", told)
    lines_of_all = runner.merged_summary(output / "summary.json", rows)
    worse = runner.compare(rows, runner.read_baseline())
    # CI guards against getting worse; elsewhere, and of your own, the targets themselves are the question.
    passed = not worse if ci and file is None else all(row.passed for row in rows)
    if not as_json:
        _summary(rows, worse)
    if write_docs is not None:
        _write_docs(write_docs, lines_of_all, scale, list(known))
    if write_baseline:
        runner.write_baseline(rows)
    if as_json:
        _print_json(rows, scale, worse, passed=passed)
    raise typer.Exit(0 if passed else 1)


def _kept(units: list[runner.Unit], *places: KeptRuns) -> list[tuple[runner.Unit, Result]]:
    """What is finished already, from the first place that has it."""
    asked = [(unit, place.find(unit.scenario, None, unit.seed)) for unit in units for place in places]
    found: dict[int, tuple[runner.Unit, Result]] = {}
    for unit, result in asked:
        if result is not None:
            found.setdefault(id(unit), (unit, result))
    return list(found.values())


def _print_json(rows: list[runner.Row], scale: str, worse: list[str], *, passed: bool) -> None:
    lines = [runner.row_line(row) for row in rows]
    print(json.dumps({"scale": scale, "pass": passed, "worse": worse, "scenarios": lines}))


def _write_docs(page: Path, lines: list[dict[str, Any]], scale: str, known: list[str]) -> None:
    with _told():
        shown = [line for line in lines if line["scale"] == scale and line["scenario"] in known]
        table.write_docs(page, shown, known)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What the caller can mend is told as any wrong option is, without a traceback."""
    try:
        yield
    except (LocalError, OSError) as error:
        raise typer.BadParameter(str(error)) from error


def _made(folder: Path) -> Path:
    """The folder, there from now on: who misspelt it hears of it before anything runs."""
    with _told():
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _progress(what: str, count: int) -> Iterator[Callable[[str], None]]:
    """A bar of so many runs; call what it yields with a word on each run that is over."""
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=count)
        yield lambda run: progress.update(task, advance=1, description=run)


def _summary(rows: list[runner.Row], worse: list[str]) -> None:
    console = Console()
    shown = Table("#", "scenario", "nodes", "seeds", "target: measured", "")
    for row in rows:
        judged = "\n".join(
            f"{name} {target}: {table.show(row.figures.get(name, float('nan')))}"
            for name, target in row.scenario.targets.items()
            if not (name == "violations" and row.figures.get(name) == 0)
        )
        verdict = "pass" if row.passed else f"[red]FAIL[/red] {len(row.seeds_failed)}/{len(row.seeds)}"
        shown.add_row(row.scenario.number, row.scenario.name, str(row.nodes), str(len(row.seeds)), judged, verdict)
    console.print(shown)
    console.print(f"{sum(row.passed for row in rows)} of {len(rows)} scenarios pass", highlight=False)
    for sentence in worse:
        console.print(f"worse than the baseline: {sentence}", style="red", highlight=False)


@app.command()
def speed(
    memory_nodes: Annotated[int, typer.Option(help="How many nodes the memory is measured with.", min=2)] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Events a second on one core, with and without the real node, and the memory of a large room."""
    from psyne_mesh.simulations.speed import measure

    found = measure(memory_nodes)
    if as_json:
        print(json.dumps(found))
        return
    shown = Table("node", "nodes", "events", "processor s", "events/s")
    for case in found["speed"]:
        shown.add_row(case["actor"], *(f"{case[key]:,}" for key in ("nodes", "events", "seconds", "events_per_second")))
    console = Console()
    console.print(shown)
    memory = found["memory"]
    console.print(
        f"{memory['nodes']:,} nodes: {memory['mib']:,} MiB, {memory['linked']:,} of them linked", highlight=False
    )


@app.command()
def report(
    output: Annotated[Path, typer.Option(help="The folder for the pictures and index.html.")] = _RESULTS / "report",
    results: Annotated[Path, typer.Option(help="The folder that `sim all` wrote.")] = _RESULTS,
    quick: Annotated[bool, typer.Option(help="Small rooms: a look in a minute.")] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures; of several, the first.")] = 0,
) -> None:
    """Pictures (PNG and SVG) and one self-contained HTML page."""
    drawing = _report()
    folder = _made(output)
    sizes = drawing.QUICK if quick else drawing.FULL
    with _progress("pictures", sizes.runs) as advance:
        page = drawing.write_report(folder, results, sizes=sizes, seed=seed, on_run=advance)
    print(page)
