"""A processor that does not suffice: what becomes of a room then.

    python -m benchmarks.overload game --players 16 --ratio 1 --ratio 1.5 --ratio 2 --ratio 3
    python -m benchmarks.overload crowd --players 50 --cores 0.5

game: a process for each player, all meet and play at 60 Hz, as in `psyne-mesh demo`. First it is measured how much processor
they take when nothing holds them back; then all of them together get that divided by the ratio, from the moment they dial. Told
are the links, when the mesh stood, who left too early, what became of the reliable messages, and how old the positions were.
crowd: all players in one process, which has so many cores; told is when how many of them knew all others and had links.

The limit is a quota of cgroups (Linux, root). Elsewhere busy loops stand beside the players, as many as the ratio wants, and
the figures tell less. A busy machine only makes the ratio larger. Exit code 1 when a promise was not kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Annotated, Any

import trio
import typer

from benchmarks.scarcity import Quota, busy_loops, cpu_s, open_quota
from psyne_mesh.cli.demo import DemoFailed, Outcome, Seat, run_player, until_all
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.signaling.server import open_server

RATIOS = [1.0, 1.5, 2.0, 3.0]
MESH_S = {1.0: 6.0, 3.0: 20.0}  # between them in proportion
AGE_P99_MS = 250.0
CROWD_S = 75.0
DRAIN_S = 5.0  # after the last message: what is reliable may come that much later
PATIENCE_S = 120.0
START_S = 120.0
app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


def mesh_s_max(ratio: float) -> float:
    (low, low_s), (high, high_s) = MESH_S.items()
    return low_s + (high_s - low_s) * max(0.0, ratio - low) / (high - low)


class Game:
    """One meeting of all players, from the start of their processes to the last word."""

    def __init__(self, players: int, seconds: float) -> None:
        self.outcome = Outcome(players)
        self.wanted = 0.0  # cores, while they played
        self._seconds = seconds
        self._seats = [Seat(f"player{number}") for number in range(1, players + 1)]

    async def play(self, quota: Quota | None, cores: float | None, loops: int = 0) -> dict[str, Any]:
        with unwrapped():
            async with open_server("127.0.0.1", 0) as server, trio.open_nursery() as nursery:
                for number, seat in enumerate(self._seats):
                    await nursery.start(run_player, seat, number, len(self._seats), server.url, DRAIN_S)
                try:
                    with ExitStack() as stack:
                        await self._stages(stack, quota, cores, loops)
                except DemoFailed as error:
                    self.outcome.errors.append(str(error))
                finally:
                    if quota is not None:
                        quota.limit(None)
                    with trio.CancelScope(shield=True), trio.move_on_after(20):
                        for seat in self._seats:
                            await seat.tell("leave")
                        for seat in self._seats:
                            if seat.process is not None:
                                await seat.process.wait()
                nursery.cancel_scope.cancel()
        return self._told(cores)

    async def _stages(self, stack: ExitStack, quota: Quota | None, cores: float | None, loops: int) -> None:
        seats = self._seats
        await until_all(seats, "ready", START_S, "the players did not start")
        pids = [seat.process.pid for seat in seats if seat.process is not None]
        if quota is not None:
            for pid in pids:
                quota.hold(pid)
            quota.limit(cores)
        else:
            stack.enter_context(busy_loops(loops))
        for seat in seats:
            await seat.tell("join")
        try:
            await until_all(seats, "mesh", PATIENCE_S, "the mesh is not complete")
        finally:
            self.outcome.links_open = sum(seat.reached.get("status", {}).get("links", 0) for seat in seats) // 2
        self.outcome.note_mesh(seats)
        for seat in seats:
            await seat.tell("play")
        began, spent = time.monotonic(), cpu_s(pids)
        await trio.sleep(self._seconds)
        self.wanted = (cpu_s(pids) - spent) / (time.monotonic() - began)
        for seat in seats:
            await seat.tell("stop")
        await until_all(seats, "final", PATIENCE_S, "the players did not report")
        self.outcome.note_final(seats)

    def _told(self, cores: float | None) -> dict[str, Any]:
        outcome, position = self.outcome, self.outcome.channels.get("position", {})
        combat = outcome.channels.get("combat", {})
        return {
            "cores": None if cores is None else round(cores, 2),
            "used_cores": round(self.wanted, 2),
            "links": outcome.links_open,
            "links_expected": outcome.players * (outcome.players - 1) // 2,
            "mesh_s": outcome.mesh_seconds,
            "left_early": sum("left too early" in error for error in outcome.errors),
            "combat": combat.get("delivered_fraction"),
            "combat_out_of_order": combat.get("out_of_order"),
            "positions": position.get("delivered_fraction"),
            "age_p50_ms": position.get("latency_ms_p50"),
            "age_p99_ms": position.get("latency_ms_p99"),
            "errors": [error for error in outcome.errors if "combat" not in error and "position" not in error][:5],
        }


def broken(told: dict[str, Any], ratio: float) -> list[str]:
    """The promises that were not kept."""
    checks = {
        "links": told["links"] == told["links_expected"],
        "mesh": told["mesh_s"] is not None and told["mesh_s"] <= mesh_s_max(ratio),
        "nobody leaves": not told["left_early"],
        "reliable": told["combat"] == 1 and not told["combat_out_of_order"],
        "age": told["age_p99_ms"] is not None and told["age_p99_ms"] <= AGE_P99_MS,
    }
    return [name for name, kept in checks.items() if not kept]


@app.command()
def game(
    players: Annotated[int, typer.Option()] = 16,
    seconds: Annotated[float, typer.Option(help="Of play, each time.")] = 10.0,
    ratio: Annotated[list[float] | None, typer.Option(help="Demand over supply; may be repeated.")] = None,
    demand: Annotated[float | None, typer.Option(help="Cores that they want, if that is known.")] = None,
) -> None:
    failed = False
    with open_quota() as quota:
        if quota is None:
            print("no quota of cgroups here: busy loops stand beside the players", file=sys.stderr)
        wanted = demand
        if wanted is None and quota is not None:
            free = Game(players, seconds)
            told = trio.run(free.play, quota, None)
            wanted = free.wanted
            print(json.dumps({"ratio": None, **told}), flush=True)
        for each in ratio or RATIOS:
            cores = None if wanted is None else wanted / each
            loops = round((os.cpu_count() or 1) * (each - 1))
            told = trio.run(Game(players, seconds).play, quota, cores, loops)
            missed = broken(told, each)
            failed |= bool(missed)
            print(json.dumps({"ratio": each, **told, "not_kept": missed}), flush=True)
    sys.exit(failed)


# ------------------------------------------------------------------------------------------------------------ a crowd


async def _gather_crowd(players: int, patience_s: float) -> None:
    """In the process that has the quota: for each second one line, how many are there."""
    from psyne_mesh.config import WebRTCConfig
    from psyne_mesh.room.mesh import join_game_room
    from psyne_mesh.room.room import Room

    rooms: list[Room] = []
    config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)

    async def enter(url: str, number: int) -> None:
        async with join_game_room(
            "crowd", signaling=url, config=config, max_players=players, player_name=f"p{number}"
        ) as room:
            rooms.append(room)
            await trio.sleep_forever()

    async with open_server("127.0.0.1", 0) as server, trio.open_nursery() as nursery:
        began = trio.current_time()
        for number in range(players):
            nursery.start_soon(enter, server.url, number)
        while trio.current_time() - began < patience_s:
            await trio.sleep(0.5)
            ready = sum(len(room.peers) == players - 1 and bool(room.connected) for room in rooms)
            told = {
                "at_s": round(trio.current_time() - began, 1),
                "ready": ready,
                "in_room": len(rooms),
                "links": sum(len(room.connected) for room in rooms) // 2,
                "cpu_s": round(time.process_time(), 1),
            }
            print(json.dumps(told), flush=True)
            if ready == players:
                break
        sys.stdout.flush()
        os._exit(0)  # goodbyes of so many on half a core are another measurement


@app.command()
def crowd(
    players: Annotated[int, typer.Option()] = 50,
    cores: Annotated[float, typer.Option()] = 0.5,
    patience_s: Annotated[float, typer.Option()] = 150.0,
) -> None:
    with open_quota() as quota:
        if quota is None:
            raise SystemExit("this needs a quota of cgroups: Linux, as root")
        command = [sys.executable, "-m", "benchmarks.overload", "crowd-inside", str(players), str(patience_s)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        quota.hold(process.pid)
        process.stdout.readline()  # everything is imported
        quota.limit(cores)
        print("go", file=process.stdin, flush=True)
        last: dict[str, Any] = {}
        for line in process.stdout:
            last = json.loads(line)
            print(line, end="", file=sys.stderr, flush=True)
        process.wait()
    print(json.dumps({"players": players, "cores": cores, **last}))
    sys.exit(last.get("ready") != players or last["at_s"] > CROWD_S)


@app.command(hidden=True)
def crowd_inside(players: int, patience_s: float) -> None:
    import psyne_mesh.room.mesh  # noqa: F401 - not under the quota: what is measured is the meeting

    print("ready", flush=True)
    sys.stdin.readline()
    trio.run(_gather_crowd, players, patience_s)


if __name__ == "__main__":
    app()
