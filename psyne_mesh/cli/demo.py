"""`psyne-mesh demo`: a signaling server and N player processes on this machine, a live table, a verdict.

Each player is a process of its own (`psyne_mesh.cli.player`); this one only starts them, tells them when, and counts.
"""

from __future__ import annotations

import io
import json as json_module
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import trio
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from psyne_mesh.cli.player import ARENA, LATENCY_STEP_US
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.signaling.server import open_server

START_TIMEOUT_S = 60  # sixteen interpreters starting on two cores
MESH_TIMEOUT_S = 30
DRAIN_S = 0.5  # messages on their way when sending stops; loopback needs a thousandth of it
DELIVERED_MIN = 0.99
# Where the processors do not suffice positions are thinned, newest first, and nothing else may suffer: what arrives is fresh.
THINNED_MIN = 0.3
THINNED_AGE_MAX_MS = 1000.0
ARENA_COLUMNS, ARENA_ROWS = 49, 9
COLOURS = ("cyan", "magenta", "yellow", "green", "red", "blue")


@attrs.define
class Seat:
    """One player process, as seen from here."""

    name: str
    process: trio.Process | None = None
    reached: dict[str, dict[str, Any]] = attrs.Factory(dict)  # the newest line of each type
    changed: trio.Event = attrs.Factory(trio.Event)
    problem: str | None = None

    def hear(self, line: dict[str, Any]) -> None:
        self.reached[line["type"]] = line
        self._wake()

    def fail(self, problem: str) -> None:
        self.problem = self.problem or f"{self.name}: {problem}"
        self._wake()

    async def until(self, kind: str) -> dict[str, Any]:
        while kind not in self.reached:
            if self.problem is not None:
                raise DemoFailed(self.problem)
            await self.changed.wait()
        return self.reached[kind]

    async def tell(self, word: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            await self.process.stdin.send_all(json_module.dumps({"do": word}).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.fail("its process has ended")

    def _wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class DemoFailed(Exception):
    """The demo cannot go on; the text is the reason for people."""


async def run_demo(players: int, seconds: float, json: bool, picture: Path | None = None) -> int:
    """The exit code: 0 when every promise of the demo was kept, else 1 with the reasons printed.

    Raises `InvalidConfig` before anybody plays when the picture cannot be written.
    """
    console = Console(stderr=json)
    if picture is not None:
        _check_writable(picture)
    seats = [Seat(f"player{number}") for number in range(1, players + 1)]
    outcome = Outcome(players)
    try:
        with unwrapped():
            await _play(seats, seconds, outcome, console, json)
    except DemoFailed as error:
        outcome.errors.append(str(error))
    except KeyboardInterrupt:
        outcome.errors.append("interrupted")
    result = outcome.result()
    _print_verdict(result, console)
    if picture is not None:
        _save_picture(seats, seconds, result, picture)
    if json:
        sys.stdout.write(json_module.dumps(result) + "\n")
    return 0 if result["ok"] else 1


async def _play(seats: list[Seat], seconds: float, outcome: Outcome, console: Console, json: bool) -> None:
    async with open_server("127.0.0.1", 0) as server, trio.open_nursery() as nursery:
        console.print(f"signaling on {server.url}; starting {len(seats)} players")
        for number, seat in enumerate(seats):
            await nursery.start(run_player, seat, number, len(seats), server.url)
        stages = nursery.start_soon if not json else None
        if stages is not None:
            stages(_show, seats, console)
        try:
            await _stages(seats, seconds, outcome)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(5):
                for seat in seats:
                    await seat.tell("leave")
                for seat in seats:
                    if seat.process is not None:
                        await seat.process.wait()
        nursery.cancel_scope.cancel()


async def _stages(seats: list[Seat], seconds: float, outcome: Outcome) -> None:
    await until_all(seats, "ready", START_TIMEOUT_S, "the players did not start")
    for seat in seats:
        await seat.tell("join")
    try:
        await until_all(seats, "mesh", MESH_TIMEOUT_S, "the mesh is not complete")
    finally:
        outcome.links_open = sum(seat.reached.get("status", {}).get("links", 0) for seat in seats) // 2
    outcome.note_mesh(seats)
    for seat in seats:
        await seat.tell("play")
    await trio.sleep(seconds)
    for seat in seats:
        await seat.tell("stop")
    await until_all(seats, "final", 10 + DRAIN_S, "the players did not report")
    outcome.note_final(seats)


async def until_all(seats: list[Seat], kind: str, patience_s: float, otherwise: str) -> None:
    with trio.move_on_after(patience_s) as scope:
        for seat in seats:
            await seat.until(kind)
    if scope.cancelled_caught:
        missing = ", ".join(seat.name for seat in seats if kind not in seat.reached)
        raise DemoFailed(f"{otherwise} within {patience_s:g} s: still missing {missing}")


async def run_player(
    seat: Seat, number: int, players: int, signaling: str, drain_s: float = DRAIN_S,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:  # fmt: skip
    """The process of one player, whose lines go to `seat`, until it ends."""
    settings = {"name": seat.name, "room": "fps-lobby", "players": players, "signaling": signaling, "seed": number,
                "drain_s": drain_s}  # fmt: skip
    command = [sys.executable, "-m", "psyne_mesh.cli.player", json_module.dumps(settings)]
    process = await trio.lowlevel.open_process(command, stdin=-1, stdout=-1)
    seat.process = process
    task_status.started()
    assert process.stdout is not None
    try:
        rest = b""
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                message = json_module.loads(line)
                if message["type"] == "failed":
                    seat.fail(message["error"])
                else:
                    seat.hear(message)
        code = await process.wait()
        if code != 0 or "left" not in seat.reached:
            seat.fail(f"its process ended early with exit code {code}")
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


# ------------------------------------------------------------------------------------------------------------- verdict


@attrs.define
class Outcome:
    """What the run has shown so far; `result()` is the object that `--json` prints."""

    players: int
    links_open: int = 0
    mesh_seconds: float | None = None
    channels: dict[str, dict[str, Any]] = attrs.Factory(dict)
    errors: list[str] = attrs.Factory(list)
    thinned: bool = False
    paths: Counter[str] = attrs.Factory(Counter)

    def note_mesh(self, seats: list[Seat]) -> None:
        """From the first player's call of join_game_room to the last player's last link, on the machine's clock."""
        began = min(seat.reached["joined"]["started"] for seat in seats)
        complete = max(seat.reached["mesh"]["complete"] for seat in seats)
        self.mesh_seconds = round((complete - began) / 1e9, 3)
        for seat in seats:
            self.paths.update(seat.reached["mesh"]["paths"])

    def note_final(self, seats: list[Seat]) -> None:
        finals = [seat.reached["final"] for seat in seats]
        self.links_open = sum(final["links"] for final in finals) // 2
        for name in ("position", "combat"):
            self.channels[name] = _channel_figures([final[name] for final in finals])
        for seat, final in zip(seats, finals, strict=True):
            self.errors += [f"{seat.name}: {error}" for error in final["errors"]]
            self.errors += [f"{seat.name}: {who} left too early ({why})" for who, why in final["left"]]
        position = self.channels["position"]
        if position["delivered_fraction"] < DELIVERED_MIN:
            self.thinned = True
            if position["delivered_fraction"] < THINNED_MIN:
                self.errors.append(f"only {position['delivered_fraction']:.2%} of the positions arrived")
            if position["latency_ms_p99"] is None or position["latency_ms_p99"] > THINNED_AGE_MAX_MS:
                self.errors.append(f"positions came late (p99 {position['latency_ms_p99']} ms)")
        if self.channels["combat"]["delivered_fraction"] < 1 or self.channels["combat"]["out_of_order"]:
            self.errors.append("combat actions were lost or out of order")

    def result(self) -> dict[str, Any]:
        expected = self.players * (self.players - 1) // 2
        if not self.errors and self.links_open != expected:
            self.errors.append(f"{self.links_open} of {expected} links are open")
        return {
            "ok": not self.errors,
            "players": self.players,
            "links_expected": expected,
            "links_open": self.links_open,
            "mesh_seconds": self.mesh_seconds,
            "channels": self.channels,
            "thinned": self.thinned,
            "paths": dict(self.paths),
            "clock": "time.monotonic_ns of this machine, shared by all processes",
            "errors": self.errors,
        }


def _channel_figures(reports: list[dict[str, Any]]) -> dict[str, Any]:
    sent = sum(report["sent"] for report in reports)
    received = sum(sum(report["received"].values()) for report in reports)
    cells: Counter[int] = Counter()
    for report in reports:
        cells.update({int(cell): count for cell, count in report["cells"].items()})
    return {
        "sent": sent,
        "delivered_fraction": round(received / sent, 6) if sent else 1.0,
        "latency_ms_p50": _percentile(cells, 0.50),
        "latency_ms_p99": _percentile(cells, 0.99),
        "out_of_order": sum(report["out_of_order"] for report in reports),
    }


def _percentile(cells: Counter[int], fraction: float) -> float | None:
    """The upper edge of the histogram cell that holds the fraction, in milliseconds."""
    left = fraction * sum(cells.values())
    for cell in sorted(cells):
        left -= cells[cell]
        if left <= 0:
            return (cell + 1) * LATENCY_STEP_US / 1000
    return None


# ---------------------------------------------------------------------------------------------------------- for people


async def _show(seats: list[Seat], console: Console) -> None:
    if not console.is_terminal:
        return
    began = time.monotonic()
    with Live(console=console, refresh_per_second=8) as live:
        while True:
            live.update(_scene(seats, time.monotonic() - began))
            await trio.sleep(0.2)


def _scene(seats: list[Seat], elapsed: float) -> Group:
    """What the players wait for, their table, and the arena from above."""
    return Group(Text(_waits_for(seats)), _table(seats, elapsed), Panel(_arena(seats), title="arena", expand=False))


def _waits_for(seats: Iterable[Seat]) -> str:
    for kind, what in (
        ("ready", "its Python to start"),
        ("joined", "the signaling server"),
        ("mesh", "links to the others"),
    ):
        late = [seat.name for seat in seats if kind not in seat.reached]
        if late:
            return f"{', '.join(late)}: waiting for {what}"
    if any("final" not in seat.reached for seat in seats):
        return "all are linked to all: playing"
    return "over: the last messages are counted"


def _arena(seats: Iterable[Seat]) -> Text:
    """Each player where it said last that it is; by its number."""
    rows = [[("·", "dim")] * ARENA_COLUMNS for _ in range(ARENA_ROWS)]
    for number, seat in enumerate(seats):
        status = seat.reached.get("status", {})
        if "x" in status:
            column = round((status["x"] / ARENA + 1) / 2 * (ARENA_COLUMNS - 1))
            row = round((status["z"] / ARENA + 1) / 2 * (ARENA_ROWS - 1))
            rows[row][column] = (f"{number + 1:x}", f"bold {COLOURS[number % len(COLOURS)]}")
    return Text("\n").join(Text.assemble(*row) for row in rows)


def _table(seats: Iterable[Seat], elapsed: float) -> Table:
    table = Table(title=f"fps-lobby   {elapsed:4.1f} s", title_justify="left")
    for heading in (
        "player",
        "stage",
        "links",
        "path",
        "latency ms",
        "positions in",
        "loss",
        "combat in",
        "health",
        "hits",
    ):
        table.add_column(heading, justify="left" if heading in ("player", "stage", "path") else "right")
    seats = list(seats)
    sent_to_each = {seat.name: seat.reached.get("status", {}).get("positions_out", 0) for seat in seats}
    links = max(1, len(seats) - 1)
    for seat in seats:
        status = seat.reached.get("status", {})
        offered = sum(sent // links for name, sent in sent_to_each.items() if name != seat.name)
        loss = max(0.0, 1 - status.get("positions_in", 0) / offered) if offered > 600 else None
        health = status.get("health", 100)
        table.add_row(
            seat.name,
            next((kind for kind in ("final", "mesh", "joined", "ready") if kind in seat.reached), "starting"),
            f"{status.get('links', 0)}/{links}",
            ", ".join(f"{kind} {count}" for kind, count in status.get("paths", {}).items()),
            # One way, of the positions: a probe's round trip waits for other things, and would contradict the verdict.
            f"{status['latency_ms']:.2f}" if status.get("latency_ms") is not None else "",
            str(status.get("positions_in", "")),
            f"{loss:.1%}" if loss is not None else "",
            str(status.get("combat_in", "")),
            f"[{'red' if health < 40 else 'green'}]{health}[/]",
            str(status.get("hits", "")),
        )
    return table


def _check_writable(picture: Path) -> None:
    """By opening it: a folder that is there may still be read-only. A picture of an earlier run stays until the new one."""
    try:
        picture.open("a").close()
    except OSError as error:
        raise InvalidConfig(f"the picture {picture} cannot be written: {error.strerror}") from error


def _save_picture(seats: list[Seat], seconds: float, result: dict[str, Any], picture: Path) -> None:
    """The last table and the verdict as SVG: this is how the README's picture is made."""
    paper = Console(record=True, width=110, file=io.StringIO())
    paper.print(_scene(seats, seconds))
    _print_verdict(result, paper)
    paper.save_svg(str(picture), title="python3 run.py demo")


def _print_verdict(result: dict[str, Any], console: Console) -> None:
    if result["mesh_seconds"] is not None:
        console.print(
            f"{result['links_open']} of {result['links_expected']} links, mesh complete in {result['mesh_seconds']:.2f} s, "
            f"paths {result['paths']}"
        )
    for name, figures in result["channels"].items():
        order = f"   {figures['out_of_order']} OUT OF ORDER" if figures["out_of_order"] else ""
        console.print(
            f"{name:9}{figures['sent']:7} sent {figures['delivered_fraction']:9.3%} delivered   "
            f"p50 {figures['latency_ms_p50']} ms, p99 {figures['latency_ms_p99']} ms{order}"
        )
    if result["thinned"]:
        console.print("the processors did not suffice: positions were thinned, the newest of each player arrived")
    for error in result["errors"]:
        console.print(f"[red]{error}[/red]", highlight=False)
    console.print("[bold green]PASS[/bold green]" if result["ok"] else "[bold red]FAIL[/bold red]")
