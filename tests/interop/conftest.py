"""One process for each foreign stack, and what the tests measured, printed at the end of the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest

from tests.interop.foreign import STACKS, Figures, ForeignProcess, ForeignStack, Side

_FIGURES = pytest.StashKey[Figures]()
_MISSING = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = Figures()
    config.stash[_MISSING] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what `those_that` says a stack cannot take."""
    unfit = [item for item in items if isinstance(item, pytest.Function) and not _fits(item)]
    if unfit:
        items[:] = [item for item in items if item not in unfit]
        config.hook.pytest_deselected(items=unfit)


def _fits(item: pytest.Function) -> bool:
    ability = getattr(item.function, "needs", None)
    return ability is None or getattr(item.callspec.params["foreign"], ability)


_PARAMS = [pytest.param(stack, id=stack.name, marks=[pytest.mark.slow] if stack.is_slow else []) for stack in STACKS]


@pytest.fixture(scope="session", params=_PARAMS)
def foreign(request: pytest.FixtureRequest) -> Iterator[ForeignProcess]:
    """Every stack in turn; skipped, loudly, where it is not installed."""
    stack: ForeignStack = request.param
    reason = stack.missing()
    if reason:
        request.config.stash[_MISSING][stack.name] = reason
        pytest.skip(reason)
    process = ForeignProcess(stack)
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(params=get_args(Side))
def side(request: pytest.FixtureRequest) -> Side:
    role: Side = request.param
    return role


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return request.config.stash[_FIGURES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if missing := config.stash[_MISSING]:
        terminalreporter.section("NOT TESTED: stacks that are missing on this machine", sep="!", red=True, bold=True)
        for reason in missing.values():
            terminalreporter.line(reason)
    if lines := config.stash[_FIGURES].lines:
        terminalreporter.section("interop figures")
        for line in lines:
            terminalreporter.line(line)
