"""Fixtures for pytest: `pytest_plugins = ["psyne_mesh.testing.plugin"]` in the `conftest.py` at the root of your tests.

Opt-in, and not an entry point: nobody else's test run imports the kit. pytest-trio is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest

from psyne_mesh.game.rollback import Game, Input
from psyne_mesh.testing.determinism import SyncReport, sync_test
from psyne_mesh.testing.network import Quality
from psyne_mesh.testing.randomness import seeded_randomness
from psyne_mesh.testing.scheduling import seeded_scheduling
from psyne_mesh.testing.world import World, open_world


class OpenWorld(Protocol):
    """`open_world` with the seed of the test."""

    def __call__(self, *, quality: Quality | None = None) -> AbstractAsyncContextManager[World]: ...


class SyncTest(Protocol):
    """`sync_test` with the seed of the test."""

    def __call__(self, game: type[Game], inputs: type[Input], **options: Any) -> SyncReport: ...


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "psyne(seed=0): the seed of the `psyne_world` fixture and of Trio's scheduler")


@pytest.fixture
def psyne_seed(request: pytest.FixtureRequest) -> int:
    """From `@pytest.mark.psyne(seed=7)`, else 0; or parametrize it: `@pytest.mark.parametrize("psyne_seed", range(20))`.

    Any other marker of that name is an error of the test: it would run with a seed that nobody chose.
    """
    marker = request.node.get_closest_marker("psyne")
    if marker is None:
        return 0
    match marker.args, marker.kwargs:
        case (), {"seed": int(seed), **others} if not others:
            return seed
    given = ", ".join([*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())])
    pytest.fail(f"@pytest.mark.psyne({given}): must be @pytest.mark.psyne(seed=NUMBER)", pytrace=False)


@pytest.fixture
def psyne_world(psyne_seed: int) -> Iterator[OpenWorld]:
    """`async with psyne_world(quality=...) as world:`, with Trio's scheduler and the system's dice under the same seed."""

    def opened(*, quality: Quality | None = None) -> AbstractAsyncContextManager[World]:
        return open_world(psyne_seed, quality)

    with seeded_scheduling(psyne_seed), seeded_randomness(psyne_seed):
        yield opened


@pytest.fixture
def psyne_sync_test(psyne_seed: int) -> SyncTest:
    """`psyne_sync_test(Pong, Keys)`: a rollback game comes out the same however it is replayed, and in a process with another
    PYTHONHASHSEED; see `psyne_mesh.testing.determinism`."""

    def run(game: type[Game], inputs: type[Input], **options: Any) -> SyncReport:
        return sync_test(game, inputs, **{"seed": psyne_seed, **options})

    return run
