"""Ten scenarios with small rooms, by this Python: `[[name, trace hash], ...]` as JSON, and which modules it took."""

from __future__ import annotations

import json
import sys
import time

from psyne_mesh.simulations.run import Run
from psyne_mesh.simulations.scenario import load

NAMES = ("join-storm", "crash-16", "one-way-pair", "seat-race", "split-with-signaling", "mass-crash-50", "restart-storm",
         "broadcast-loss-2", "broadcast-random-sources", "phantoms-room-8")  # fmt: skip
NODES_MAX = 16


def traces() -> list[list[object]]:
    scenarios, found = load(), []
    for name in NAMES:
        scenario = scenarios[name]
        nodes = min(scenario.nodes, max(scenario.nodes_min, NODES_MAX))
        began = time.perf_counter()
        run = Run(scenario, nodes, 1)
        run.play()
        result = run.result()
        found.append([name, nodes, result.trace_hash, round(time.perf_counter() - began, 2)])
    return found


if __name__ == "__main__":
    kept_out = sorted({"trio", "cryptography", "asyncio", "aioice"} & set(sys.modules))
    print(json.dumps({"traces": traces(), "modules": kept_out, "python": sys.version.split()[0]}))
