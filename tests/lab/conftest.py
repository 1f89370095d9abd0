"""A machine that cannot run the lab says so loudly; with PSYNE_LAB=require it fails instead (CI)."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.lab.namespaces import missing

_not_run: list[str] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("lab") is None:
        return
    why = missing()
    if why is None:
        return
    if os.environ.get("PSYNE_LAB") == "require":
        pytest.fail(f"PSYNE_LAB=require, but {why}", pytrace=False)
    _not_run.append(item.nodeid)
    pytest.skip(f"NETWORK LAB NOT RUN: {why}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _not_run:
        terminalreporter.write_sep("!", f"NETWORK LAB: {len(_not_run)} tests did not run", red=True, bold=True)
        terminalreporter.write_line(str(missing()), red=True)
