"""The fixtures for users' tests, and what a seed decides."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.testing import Quality, open_world, seeded_scheduling
from psyne_mesh.testing.plugin import OpenWorld

pytest_plugins = ["pytester"]


async def meet(opened: OpenWorld) -> tuple[float, int, int]:
    """When four players are connected over a bad network, and what was sent and lost until then."""
    async with opened(quality=Quality(latency_s=0.03, jitter_s=0.01, loss=0.05)) as world:
        rooms = [await world.join("lobby", name) for name in "abcd"]
        for room in rooms:
            await room.wait_connected(3)
        return trio.current_time(), world.net.sent, world.net.lost


def test_a_seed_decides_how_players_meet() -> None:
    """Three seeds, each three times: by chance Trio's own order is the same once in a while."""

    def met(seed: int) -> tuple[float, int, int]:
        with seeded_scheduling(seed):
            return trio.run(meet, lambda **options: open_world(seed, **options), clock=MockClock(autojump_threshold=0))

    runs = [[met(seed) for _ in range(3)] for seed in (1, 2, 3)]
    assert [len(set(same)) for same in runs] == [1, 1, 1]
    assert len({same[0] for same in runs}) == 3


@pytest.mark.psyne(seed=7)
def test_the_fixture_takes_the_seed_of_the_marker_and_needs_no_pytest_trio(
    psyne_world: OpenWorld, psyne_seed: int
) -> None:
    assert psyne_seed == 7
    first = trio.run(meet, psyne_world, clock=MockClock(autojump_threshold=0))
    assert first[0] < 10


@pytest.mark.parametrize(
    "marked", ["7", "sed=7", "", "seed='7'", "seed=7.5", "seed=None", "7, seed=7", "seed=7, world=1"]
)
def test_a_marker_without_a_seed_is_an_error_of_its_test(pytester: pytest.Pytester, marked: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.psyne({marked})\ndef test_it(psyne_seed): pass")
    done = pytester.runpytest_inprocess("-p", "psyne_mesh.testing.plugin", "-p", "no:cacheprovider")
    done.assert_outcomes(errors=1)
    assert f"psyne({marked}): must be @pytest.mark.psyne(seed=NUMBER)" in done.stdout.str()


def test_trio_is_left_as_it_was() -> None:
    internals = trio._core._run  # type: ignore[attr-defined]
    before = internals._ALLOW_DETERMINISTIC_SCHEDULING, internals._r.getstate()
    with seeded_scheduling(1):
        assert internals._ALLOW_DETERMINISTIC_SCHEDULING is True
        internals._r.random()
    assert (internals._ALLOW_DETERMINISTIC_SCHEDULING, internals._r.getstate()) == before


@pytest.mark.parametrize("name", ["_r", "_ALLOW_DETERMINISTIC_SCHEDULING"])
def test_a_trio_whose_dice_are_elsewhere_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(f"trio._core._run.{name}")
    with pytest.raises(InvalidConfig, match=f"trio {trio.__version__} cannot be seeded"), seeded_scheduling(1):
        pass
