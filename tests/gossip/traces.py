"""The gate of a change that should change nothing: the fingerprints of a dozen small runs, before and after.

    python -m tests.gossip.traces record before.json   # on the old tree
    python -m tests.gossip.traces compare before.json  # on the new one: names each run that went another way

Together they take every road of the gossip core once: full, partial and lobby rooms, seats, churn, cuts, deaf nodes, relays,
hostile members, a dead signaling server. About a minute.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import attrs

from psyne_mesh.simulations.run import run_once
from psyne_mesh.simulations.scenario import load

_SHRUNK = {
    "full_mesh_max": 8,
    "full_mesh_hysteresis": 2,
    "full_knowledge_max": 24,
    "shuffle_interval_s": 3.0,
    "max_players": 0,
}
# name of the run -> (scenario, nodes, scale, what differs)
RUNS: dict[str, tuple[str, int, str, dict[str, Any]]] = {
    "full mesh": ("crash-16", 16, "tiny", {}),
    "join storm": ("join-storm", 16, "tiny", {}),
    "one-way pair": ("one-way-pair", 8, "tiny", {}),
    "partial mesh": ("crash-256", 40, "tiny", {"config": {"max_players": 40}}),
    "churn": ("churn", 40, "ci", {}),
    "split with signaling": ("split-with-signaling", 32, "ci", {}),
    "split without signaling": ("split-without-signaling", 32, "ci", {}),
    "mass death": ("mass-death-50", 32, "ci", {}),
    "deaf nodes": ("flip-flop", 24, "ci", {"params": {"duration_s": 200.0, "fault_s": 5.0, "late_s": 60.0}}),
    "seat race": ("seat-race", 7, "ci", {}),
    "restart storm": ("restart-storm", 24, "tiny", {}),
    "sybils": ("sybils-40", 40, "tiny", {}),
    "broadcast": ("broadcast-random-sources", 48, "tiny", {}),
    "broadcast with loss": ("broadcast-loss-10", 32, "tiny", {}),
    "incarnation attacks": ("incarnation-attacks", 12, "ci", {}),
    "signaling dead": ("signaling-dead", 8, "ci", {}),
    "slow consumer": ("slow-consumer", 20, "tiny", {}),
    "lobby": ("join-by-seed", 60, "tiny", {"config": _SHRUNK}),
    "lobby with churn": ("churn", 48, "ci", {"config": _SHRUNK}),
}


def play(name: str) -> str:
    scenario_name, nodes, scale, changes = RUNS[name]
    scenario = attrs.evolve(load()[scenario_name].scaled(scale), arms=(), measures=(), ratios={}, **changes)
    return run_once(scenario, nodes, 7).trace_hash


def main(verb: str, file: str) -> int:
    path, begun = Path(file), time.process_time()
    if verb == "record":
        path.write_text(json.dumps({name: play(name) for name in RUNS}, indent=1) + "\n", encoding="utf-8")
        return 0
    before = json.loads(path.read_text(encoding="utf-8"))
    moved = [name for name in RUNS if play(name) != before[name]]
    print(
        f"{len(RUNS) - len(moved)} of {len(RUNS)} equal, {time.process_time() - begun:.0f} s;",
        "moved:",
        *moved or ["-"],
    )
    return bool(moved)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
