"""The lab for people: `python3 run.py lab --help`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, cast, get_args

import attrs
import trio
import typer
from rich.console import Console
from rich.table import Table

from tests.lab import healing, report
from tests.lab import matrix as pairs
from tests.lab.lab import Lab
from tests.lab.namespaces import missing
from tests.lab.play import Payload
from tests.lab.probing import PROBE, STUN_PORT
from tests.lab.shaper import Shape
from tests.lab.topology import KINDS, Site

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()

PayloadOption = Annotated[str, typer.Option(help=f"Who connects: {', '.join(get_args(Payload))}.")]
DelayOption = Annotated[float, typer.Option(min=0, max=2000, help="One way, each site's link.")]


@app.callback()
def need_a_lab(context: typer.Context) -> None:
    why = missing()
    if why and context.invoked_subcommand != "check":
        console.print(f"[red]{why}[/red]")
        raise typer.Exit(2)


@app.command()
def check() -> None:
    """Say whether this machine can run the lab, and what is missing."""
    why = missing()
    console.print(why or "this machine can run the network lab")
    raise typer.Exit(2 if why else 0)


@app.command()
def kinds() -> None:
    """Build one site of every kind and let STUN tell how its NAT behaves (RFC 5780)."""
    table = Table("kind", "family", "mapping", "filtering", "seen from outside as")
    with Lab([Site(f"s{number}", kind) for number, kind in enumerate(KINDS)]) as lab:
        running = []
        for site in lab.plan.sites.values():
            for address in lab.server_addresses(site.name, "turn"):
                process = lab.namespaces.spawn(site.name, [*PROBE, "nat", address.strip("[]"), STUN_PORT])
                running.append((site.kind, "IPv6" if ":" in address else "IPv4", process))
        for kind, family, process in running:
            process.wait(10)
            found = json.loads(process.read())
            table.add_row(kind, family, *(str(found[key] or "-") for key in ("mapping", "filtering", "address")))
    console.print(table)


@app.command()
def pair(
    a: Annotated[str, typer.Argument(help=f"Kind of A's access: {', '.join(KINDS)}.")],
    b: Annotated[str, typer.Argument(help="Kind of B's access.")],
    payload: PayloadOption = "psyne",
    turn: Annotated[bool, typer.Option(help="Give both a TURN server.")] = True,
    delay_ms: DelayOption = 15,
) -> None:
    """Connect one pair and tell everything about it."""
    case = pairs.pair(_kind(a), _kind(b))
    cell = trio.run(lambda: pairs.run_case(case, turn=turn, payload=_payload(payload), shape=Shape(delay_ms=delay_ms)))
    console.print_json(report.json_line(cell))
    raise typer.Exit(0 if cell.as_expected else 1)


@app.command()
def matrix(
    quick: Annotated[bool, typer.Option(help="A representative part, for CI.")] = False,
    payload: PayloadOption = "psyne",
    only: Annotated[list[str] | None, typer.Option(help="Only cases whose name holds this word; repeatable.")] = None,
    jsonl: Annotated[Path | None, typer.Option(help="Write one JSON object a pair to this file.")] = None,
    write_docs: Annotated[bool, typer.Option(help="Rewrite the tables of docs/networks.md.")] = False,
    delay_ms: DelayOption = 15,
) -> None:
    """Connect every kind of access with every other, with TURN and without; rooms only without, which is what they add.
    Fails when a pair does not connect as well as it could."""
    who, shape = _payload(payload), Shape(delay_ms=delay_ms)
    chosen = [(case, turn) for case, turn in pairs.chosen(quick, only or ()) if not (turn and who == "room")]
    cells: list[pairs.Cell] = []

    def note(cell: pairs.Cell) -> None:
        cells.append(cell)
        mark = "[green]ok [/green]" if cell.as_expected else "[red]BAD[/red]"
        outcome = report.outcome(cell) if cell.connected else f"not connected: {cell.error}"
        words = f"{len(cells):3}/{len(chosen)} {'TURN' if cell.turn else 'STUN'} {cell.case}: {outcome}"
        console.print(mark, words, soft_wrap=True)

    try:
        trio.run(lambda: pairs.run_cases(chosen, payload=who, shape=shape, on_cell=note))
    finally:
        order = [(case.name, turn) for case, turn in chosen]
        cells.sort(key=lambda cell: order.index((cell.case, cell.turn)))
        if jsonl:
            jsonl.write_text("".join(report.json_line(cell) + "\n" for cell in cells), encoding="utf-8")
    if write_docs and who == "room":
        report.write_page(report.room_table(cells), begin=report.ROOM_BEGIN)
    elif write_docs:
        report.write_page(report.markdown(cells))
    figures = pairs.summary(cells)
    console.print_json(json.dumps(attrs.asdict(figures)))
    raise typer.Exit(0 if figures.as_expected == figures.cells else 1)


@app.command()
def breaks(
    only: Annotated[list[str] | None, typer.Option(help="Only breaks whose name holds this word; repeatable.")] = None,
    write_docs: Annotated[bool, typer.Option(help="Rewrite the table of breaks in docs/networks.md.")] = False,
    repeat: Annotated[int, typer.Option(min=1, help="So often each: the table tells the worst beside the median.")] = 1,
    results: Annotated[
        Path | None, typer.Option(help="A file with a line a break as it ends; what stands there is not played again.")
    ] = None,
) -> None:
    """Break the network in the middle of a game in many ways, and see how the players come back together."""
    intact = True
    founds = report.read_healings(results) if results else []
    played = Counter(found.name for found in founds)
    for broken in healing.BREAKS * repeat:
        if all(word in broken.name for word in only or ()) and played[broken.name] < repeat:
            found = trio.run(healing.run_break, broken)
            intact = intact and found.intact
            mark = "[green]ok [/green]" if found.intact else "[red]BAD[/red]"
            founds.append(found)
            played[broken.name] += 1
            if results:
                report.add_healing(results, found)
            words = f"{found.name}: {'healed' if found.healed else 'not healed'}, outage {found.outage_s} s, "
            words += f"{found.missing} reliable missing, {found.doubled} doubled, "
            words += f"oldest fast message {found.replayed_ms:.0f} ms, path {found.path_before} to "
            words += f"{found.path_after}; {' '.join(found.events)}"
            console.print(mark, words, soft_wrap=True)
    if write_docs:
        report.write_page(report.breaks_table(founds), begin=report.BREAKS_BEGIN)
    raise typer.Exit(0 if intact else 1)


def _kind(word: str) -> str:
    if word not in KINDS:
        raise typer.BadParameter(f"{word!r} is no kind; there are {', '.join(KINDS)}")
    return word


def _payload(word: str) -> Payload:
    if word not in get_args(Payload):
        raise typer.BadParameter(f"{word!r} is no payload; there are {', '.join(get_args(Payload))}")
    return cast(Payload, word)


if __name__ == "__main__":
    sys.exit(app())
