"""How fast the world is and how much memory it takes, measured: `psyne-mesh sim speed`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import attrs

from psyne_mesh.simulations.run import Run
from psyne_mesh.simulations.scenario import load

# The world alone is measured with flooding, whose nodes do next to nothing; then with the real node inside.
_CASES = (("flooding", 1000), ("node", 16), ("node", 256))
_MEMORY_NODES = 10_000
_MEMORY_PROGRAM = "from psyne_mesh.simulations.speed import crowd; crowd({nodes})"


def events_per_second(actor: str, nodes: int, seed: int = 0) -> dict[str, Any]:
    """One run of broadcast-one-source on one core: events, processor seconds and their quotient."""
    scenario = attrs.evolve(load()["broadcast-one-source"], arms=(), measures=(), sample_s=1000.0)
    run = Run(scenario, nodes, seed, {"name": "", "actor": actor})
    run.play()
    return {
        "actor": actor,
        "nodes": nodes,
        "events": run.world.events,
        "seconds": round(run.seconds, 2),
        "events_per_second": round(run.world.events / run.seconds),
    }


def crowd(nodes: int) -> None:
    """Gathers so many real nodes, lets them talk, and prints the peak memory of this process in MiB."""
    import resource

    scenario = attrs.evolve(
        load()["broadcast-one-source"],
        arms=(), measures=(), sample_s=1000.0,
        boot={"kind": "settled", "over_s": nodes / 200, "settle_s": 5}, params={"duration_s": 6.0},
    )  # fmt: skip
    run = Run(scenario, nodes, 0)
    run.play()
    linked = sum(bool(host.lanes) for host in run.up())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, run.world.events, linked)


def measure(memory_nodes: int = _MEMORY_NODES) -> dict[str, Any]:
    """Everything; the memory in a process of its own, so that nothing else counts."""
    cases = [events_per_second(actor, nodes) for actor, nodes in _CASES]
    program = [sys.executable, "-c", _MEMORY_PROGRAM.format(nodes=memory_nodes)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    mebibytes, events, linked = (int(word) for word in done.stdout.split())
    return {"speed": cases, "memory": {"nodes": memory_nodes, "mib": mebibytes, "events": events, "linked": linked}}
