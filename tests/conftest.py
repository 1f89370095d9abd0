"""Shared settings: hypothesis draws the same examples on every run, so a failure is a failure for everybody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["psyne_mesh.testing.plugin"]

settings.register_profile(
    "psyne", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100
)
settings.load_profile("psyne")


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
