"""Rooms of eight, half of them TypeScript members, in the scenarios that Python's own rooms are held to, with the same bars."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs
import pytest

from psyne_mesh.simulations.findings import pool
from psyne_mesh.simulations.run import Result, Run
from psyne_mesh.simulations.scenario import load
from tests.js.node import needs_node
from tests.js.simulated import Process, build, seat

SCENARIOS = load()
NODES = 8
# What happens to the room, and for how many seconds where that is looked at for longer than the smallest size has it. The bars
# are those of the scenario.
STORIES: dict[str, dict[str, float]] = {
    "join-storm": {}, "crash-16": {}, "loss-10-room-16": {"duration_s": 60}, "one-way-pair": {}, "mass-crash-50": {},
    "broadcast-one-source": {}, "churn": {"duration_s": 40, "churn_s": 30}, "restart-storm": {}, "seat-race": {},
    "split-with-signaling": {"duration_s": 60, "split_s": 30}, "split-without-signaling": {"duration_s": 90, "split_s": 30},
    "incarnation-attacks": {}, "phantoms-room-8": {}, "signaling-dead": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    needs_node()
    started = Process(build(tmp_path_factory.mktemp("simulated")))
    yield started
    started.close()


def played(name: str, seed: int, process: Process | None, nodes: int = NODES) -> Result:
    scenario = SCENARIOS[name].scaled("tiny")
    scenario = attrs.evolve(scenario, params={**scenario.params, **STORIES[name]}, arms=())
    run = Run(scenario, scenario.nodes if name == "seat-race" else nodes, seed)
    if process is not None:
        seat(run, process)
    run.play()
    return run.result()


def missed(name: str, seeds: range, process: Process | None, nodes: int = NODES) -> dict[str, tuple[float, str]]:
    """The figures that do not meet their bars, of all seeds together, as the table of scenarios has them."""
    targets = SCENARIOS[name].targets
    figures = pool([played(name, seed, process, nodes).findings for seed in seeds], targets)
    return {
        figure: (figures.get(figure, math.nan), str(target))
        for figure, target in targets.items()
        if not target.met(figures.get(figure, math.nan))
    }


@pytest.mark.parametrize("name", STORIES)
def test_half_of_the_room_is_in_typescript(name: str, process: Process) -> None:
    assert missed(name, range(1), process) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", STORIES)
def test_with_more_seeds(name: str, process: Process) -> None:
    assert missed(name, range(1, 7), process) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["crash-16", "broadcast-one-source", "churn"])
def test_a_room_that_is_no_full_mesh(name: str, process: Process) -> None:
    """Of 24, half of them leaves of its tree."""
    assert missed(name, range(1), process, nodes=24) == {}
