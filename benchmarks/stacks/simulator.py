"""The simulator of the gossip layer, as a process that obeys one command of its own.

simulate  {scenario, nodes, seed}: one run in virtual time. -> {events, wall_s, cpu_s, simulated_s}
"""

from __future__ import annotations

import platform
import time
from typing import Any

import trio

from benchmarks.stacks.trio_peer import Connecting, TrioPeer
from psyne_mesh.simulations.run import run_once
from psyne_mesh.simulations.scenario import load


class Simulator(TrioPeer):
    def versions(self) -> dict[str, str]:
        return {"python": platform.python_version()}

    def connecting(self, **_: Any) -> Any:
        raise NotImplementedError(f"a simulator has no {Connecting.__name__}")

    async def do_simulate(self, *, scenario: str, nodes: int, seed: int) -> dict[str, float]:
        began, cpu = time.perf_counter(), time.process_time()
        result = run_once(load()[scenario].scaled("ci"), nodes, seed)
        return {
            "events": result.events,
            "wall_s": time.perf_counter() - began,
            "cpu_s": time.process_time() - cpu,
        }


if __name__ == "__main__":
    trio.run(Simulator().main)
