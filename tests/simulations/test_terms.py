"""The host in the simulator: four scenarios hold, and what they look for would be found."""

from __future__ import annotations

import pytest

from psyne_mesh.game.host import HostLease
from psyne_mesh.simulations.findings import verdict
from psyne_mesh.simulations.run import Run
from psyne_mesh.simulations.scenario import load

NAMES = ["host-kill", "host-cut", "host-flap", "host-two-deaths"]


def played(name: str, seed: int = 1) -> Run:
    scenario = load()[name]
    run = Run(scenario, scenario.nodes, seed)
    run.play()
    return run


@pytest.mark.parametrize("name", NAMES)
def test_one_host_at_a_time_and_a_new_one_within_three_seconds(name: str) -> None:
    run = played(name)
    assert verdict(run.findings.figures, run.scenario.targets)
    assert run.findings.figures["terms"] >= 2
    written = [term for host in run.up() for term in host.actor.authors]
    assert len(set(written)) >= 2  # by two hosts at least, and somebody accepted it


def test_hosts_that_ask_no_majority_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostLease, "_majority", lambda lease: min(2, len(lease.roster)))
    run = played("host-cut")
    assert run.findings.figures["hosts_at_once"] > 1
    assert run.findings.figures["minority_acts_s"] > 2
    assert not verdict(run.findings.figures, run.scenario.targets)
