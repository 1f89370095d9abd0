"""Shared settings: hypothesis draws the same examples on every run, so a failure is a failure for everybody."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from psyne_mesh.testing import seeded_randomness, seeded_scheduling

pytest_plugins = ["psyne_mesh.testing.plugin"]

settings.register_profile(
    "psyne", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100
)
settings.load_profile("psyne")

# A job that a shell puts into the background ignores Ctrl-C, and so would every game that a test starts and ends by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests of pure code and virtual time ask for a processor and nothing else, so they may run side by side. All others open
# sockets, start programs or build networks, and look at a clock sooner or later: they share one worker, one after the other.
SIDE_BY_SIDE = {"conformance", "dtls", "fuzz", "game", "gossip", "house", "sctp", "simulations"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Nightly tests take many minutes each: only an -m that names them runs them."""
    if "nightly" in config.option.markexpr:
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    if nightly:
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]
        config.hook.pytest_deselected(items=nightly)
    compiled = os.environ.get("PSYNE_COMPILED") == "1"
    for item in items:
        if compiled and item.get_closest_marker("python_only"):
            item.add_marker(
                pytest.mark.skip(
                    reason="puts a part of its own into a module, or counts its steps: a compiled one takes and shows none"
                )
            )
        if Path(item.fspath).parent.name not in SIDE_BY_SIDE:
            item.add_marker(pytest.mark.xdist_group("sockets"))


@pytest.fixture(autouse=True)
def decided_by_a_seed(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test in virtual time comes out the same on every machine: the order of tasks that are ready together and the dice of
    the system are of the seed, too. `PSYNE_SEED=7` plays another order: what a test says holds for each of them."""
    if "mock_clock" not in request.fixturenames and "autojump_clock" not in request.fixturenames:
        yield
        return
    seed = int(os.environ.get("PSYNE_SEED", "0"))
    with seeded_scheduling(seed), seeded_randomness(seed):
        yield
