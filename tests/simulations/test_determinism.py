"""Same seed, same run: whatever PYTHONHASHSEED is, whoever ran before, and with the real node inside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from psyne_mesh.simulations.run import Run, run_once
from psyne_mesh.simulations.scenario import load
from psyne_mesh.simulations.trace import Trace

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from psyne_mesh.simulations.run import run_once
from psyne_mesh.simulations.scenario import load
for name, nodes in (("crash-16", 6), ("restart-storm", 18), ("duplicates", 8)):
    result = run_once(load()[name].scaled("tiny"), nodes, 5)
    print(name, result.events, result.trace_hash, sorted(result.findings.figures.items()))
"""


def test_the_trace_is_the_same_under_every_hash_seed():
    outputs = []
    for hash_seed in ("0", "1", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=100
        )
        outputs.append(done.stdout)
    assert outputs[0].count("\n") == 3
    assert outputs[0] == outputs[1] == outputs[2]


def test_seeds_differ_and_repeat():
    scenario = load()["crash-16"].scaled("tiny")
    first, second, again = (run_once(scenario, None, seed) for seed in (1, 2, 1))
    assert first.trace_hash == again.trace_hash
    assert first.trace_hash != second.trace_hash


@pytest.mark.parametrize("actor", ["swim", "flooding", "gossipsub"])
def test_the_baselines_are_deterministic_too(actor):
    scenario = load()["broadcast-one-source"].scaled("tiny")
    hashes = []
    for _ in range(2):
        run = Run(scenario, 12, 3, {"name": "x", "actor": actor})
        run.play()
        hashes.append(run.result().trace_hash)
    assert hashes[0] == hashes[1]


def test_the_hash_does_not_depend_on_when_the_buffer_is_emptied():
    entries = [(0.1 * number, 1, number % 3, number % 5, 100) for number in range(5000)]
    eager, lazy = Trace(), Trace()
    for entry in entries:
        eager.add(*entry)
        eager.digest()
        lazy.add(*entry)
    assert eager.digest() == lazy.digest()
    assert eager.order_digest() == lazy.order_digest()
    assert lazy.count == 5000


def test_the_order_hash_forgets_the_hours_and_nothing_else():
    early, late, other = Trace(), Trace(), Trace()
    early.add(1.0, 1, 2, 3, 4)
    late.add(2.0, 1, 2, 3, 4)
    other.add(1.0, 1, 2, 3, 5)
    assert early.digest() != late.digest()
    assert early.order_digest() == late.order_digest() != other.order_digest()
