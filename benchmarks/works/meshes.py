"""Full meshes of players, in one process or in one process each."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from benchmarks.process import PeerFailed, PeerProcess, start_peer
from benchmarks.stacks.protocol import CELL_NS, now_ns
from benchmarks.stacks.registry import Stack
from benchmarks.work import Figures, Scale
from benchmarks.works.usage import CpuMeter

HZ, SIZE = 60, 100
WARM_S = 1.0
LEAD_S = 0.3  # between the command and the first tick, so that all processes have it
STILL_S = 1.0
PATIENCE_S = 20.0  # a stack that cannot keep up may deliver late; what comes after that counts as lost
SERVE = (sys.executable, "-m", "psyne_mesh.cli", "serve", "--port", "0")


class Mesh:
    """players: by their process."""

    def __init__(self, players: dict[PeerProcess, list[str]]) -> None:
        self.players = players
        self.processes = list(players)
        self.names = [name for names in players.values() for name in names]

    async def play(self, seconds: float) -> tuple[int, Counter[int]]:
        """Every player sends to every other one at 60 Hz; messages sent, and the latency cells of those that came."""
        start = now_ns() + int(LEAD_S * 1e9)
        sent: list[int] = []

        async def tick(process: PeerProcess, names: list[str]) -> None:
            # Players' clocks are not aligned in a game: the phases are spread evenly over a tick.
            phases = {name: self.names.index(name) / len(self.names) for name in names}
            done = await process.call("tick", size=SIZE, hz=HZ, seconds=seconds, start_ns=start, phases=phases)
            sent.append(done["sent"] + done["late"])

        async with trio.open_nursery() as nursery:
            for process, names in self.players.items():
                nursery.start_soon(tick, process, names)
        return sum(sent), await self._all_that_came(sum(sent))

    async def _all_that_came(self, sent: int) -> Counter[int]:
        still_since, before = trio.current_time(), -1
        cells: Counter[int] = Counter()
        with trio.move_on_after(PATIENCE_S):
            while True:
                reports = [await process.call("latencies") for process in self.processes]
                cells = Counter()
                for report in reports:
                    cells.update({int(cell): count for cell, count in report["cells"].items()})
                if cells.total() != before:
                    still_since, before = trio.current_time(), cells.total()
                if before >= sent or trio.current_time() - still_since > STILL_S:
                    break
                await trio.sleep(0.1)
        return cells


@asynccontextmanager
async def open_mesh(stack: Stack, n_players: int, *, one_process: bool) -> AsyncIterator[Mesh]:
    names = [f"player{number}" for number in range(n_players)]
    async with AsyncExitStack() as exits:
        n_processes = 1 if one_process else n_players
        processes = [await exits.enter_async_context(start_peer(stack.command)) for _ in range(n_processes)]
        share = n_players // n_processes
        players = {process: names[number * share : (number + 1) * share] for number, process in enumerate(processes)}
        mesh = Mesh(players)
        if stack.name == "rooms":
            url = await exits.enter_async_context(serve_signaling())
            async with trio.open_nursery() as nursery:
                for process, hosted in players.items():
                    nursery.start_soon(_enter, process, url, hosted, n_players)
        else:
            await _dial_all(mesh)
        yield mesh


async def _dial_all(mesh: Mesh) -> None:
    where = {name: process for process, names in mesh.players.items() for name in names}
    for number, name in enumerate(mesh.names):
        for other in mesh.names[number + 1 :]:
            await where[name].call(
                "dial", port=where[other].signaling, count=1, reliable=False, mine="latency", theirs="latency",
                from_=name, to=other, settings={},
            )  # fmt: skip


async def _enter(process: PeerProcess, url: str, names: list[str], n_players: int) -> None:
    await process.call("enter", url=url, room="benchmark", names=names, players=n_players)


@asynccontextmanager
async def serve_signaling() -> AsyncIterator[str]:
    """`psyne-mesh serve` in a process of its own; its URL."""
    process = await trio.lowlevel.open_process(list(SERVE), stdout=-1)
    try:
        assert process.stdout is not None
        text = b""
        while b"stats:" not in text:
            more = await process.stdout.receive_some()
            if not more:
                raise PeerFailed("the signaling server did not start")
            text += more
        yield text.decode().split()[2]
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


async def measure(stack: Stack, scale: Scale, *, one_process: bool) -> Figures:
    async with open_mesh(stack, scale.players, one_process=one_process) as mesh:
        await mesh.play(min(WARM_S, scale.mesh_s))
        async with CpuMeter(*mesh.processes) as cpu:
            sent, cells = await mesh.play(scale.mesh_s)
    return {
        "p99_ms": cell_percentile(cells, 0.99),
        "p50_ms": cell_percentile(cells, 0.50),
        "delivered_percent": 100 * cells.total() / sent,
        "cpu_percent": 100 * cpu.seconds / scale.mesh_s,
    }


def cell_percentile(cells: Counter[int], fraction: float) -> float:
    """Milliseconds: the upper edge of the cell that holds the fraction."""
    left = fraction * cells.total()
    for cell in sorted(cells):
        left -= cells[cell]
        if left <= 0:
            return (cell + 1) * CELL_NS / 1e6
    raise PeerFailed("no message came")
