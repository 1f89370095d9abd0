"""`python -m benchmarks`: measure, tell, keep."""

from __future__ import annotations

import json as json_module
import sys
from typing import Annotated

import trio
import typer
from rich.console import Console

from benchmarks import docs, machine, progress, report, runner, targets
from benchmarks.stacks.registry import STACKS
from benchmarks.work import FULL, QUICK
from benchmarks.works import WORKS

REPETITIONS, REPETITIONS_QUICK = 5, 2
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="Shorter, fewer repetitions: a look.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of: {', '.join(WORKS)}. May be repeated.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object last.")] = False,
    repetitions: Annotated[int | None, typer.Option(min=1, help="Of each work and stack.")] = None,
    stacks: Annotated[str, typer.Option(help=f"Comma-separated, of: {', '.join(STACKS)}.")] = ",".join(STACKS),
    plots: Annotated[bool, typer.Option("--plots", help="Draw results/benchmarks.html.")] = False,
    write_docs: Annotated[bool, typer.Option(help="Write the tables and the plot of benchmarks/README.md.")] = False,
) -> None:
    """Compare psyne-mesh with other WebRTC stacks on this machine. Exit code 1 when our stack failed at something."""
    wanted = [name.strip() for name in stacks.split(",")]
    for name, known in [(n, WORKS) for n in only or []] + [(n, STACKS) for n in wanted]:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
    if quick and write_docs:
        raise typer.BadParameter("a quick run is a look: the page takes full runs only")
    console, news = Console(stderr=json), Console(stderr=True)
    planned = runner.plan([WORKS[name] for name in only or WORKS], wanted, news.print)
    repetitions = repetitions or (REPETITIONS_QUICK if quick else REPETITIONS)
    scale = QUICK if quick else FULL
    about = machine.describe() | {"versions": trio.run(runner.versions, planned)}
    news.print(
        f"{about['system']}, {about['cores']} x {about['processor']}, Python {about['python']}, load {about['load']}"
    )
    others = machine.Others()
    with progress.Shown(progress.Estimate(planned, repetitions, scale), repetitions, news) as shown:
        samples = trio.run(runner.run, planned, scale, repetitions, shown)
    about["others_percent"] = others.percent()
    verdicts = targets.judge(samples)
    result = report.as_object(samples, WORKS, verdicts) | {"machine": about, "repetitions": repetitions}
    report.print_results(result, samples, WORKS, console)
    report.print_verdicts(verdicts, console)
    kept = report.append_lines(result, samples, about, "quick" if quick else "full")
    console.print(f"appended to {kept}")
    if plots:
        from benchmarks.plots import draw

        console.print(f"drew {draw(kept)}")
    if not quick:
        works = docs.keep(result, list(WORKS))
        if write_docs:
            docs.write(works)
            console.print(f"wrote {docs.PAGE} and {docs.PLOT}")
    if json:
        print(json_module.dumps(result))
    sys.exit(1 if any(stack in ("ours", "rooms") for _, stack in samples.failures) else 0)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
