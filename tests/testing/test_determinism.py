"""The sync test finds each fault by its tick and field, warns of what it cannot find, and leaves a sound game alone."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.rollback import Game, lint
from psyne_mesh.testing import OutOfSync, SyncWarning, sync_test
from psyne_mesh.testing.plugin import SyncTest
from tests.testing import games
from tests.testing.games import Keys


def quiet(game: type[Game], **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyncWarning)
        sync_test(game, Keys, **{"ticks": 60, **options})


def test_a_sound_game_passes_in_two_processes_without_a_word(psyne_sync_test: SyncTest) -> None:
    report = psyne_sync_test(games.Sound, Keys, ticks=200, seats=3)
    assert report.replayed == (200 - 7) * 8
    assert report.findings == []
    assert report.budget.fits
    assert report.budget.tick_s > 0
    assert report.budget.save_s > 0


def test_state_outside_the_fields_is_found_by_the_replay() -> None:
    with pytest.raises(OutOfSync) as raised:
        quiet(games.Hidden, other_process=False)
    assert (raised.value.path, raised.value.how) == ("shots", "replayed")
    assert raised.value.tick <= 20


def test_an_order_that_differs_is_found_in_another_process_only() -> None:
    quiet(games.Unordered, other_process=False)
    with pytest.raises(OutOfSync) as raised:
        quiet(games.Unordered)
    assert "another process" in str(raised.value)
    assert raised.value.tick == 0
    assert raised.value.path in ("first", "names")


@pytest.mark.parametrize(("game", "field"), [(games.Dicey, "luck"), (games.Clocked, "root")])
def test_dice_and_clocks_are_found_and_warned_of(game: type[Game], field: str) -> None:
    with pytest.warns(SyncWarning), pytest.raises(OutOfSync, match=f"after tick 0 {field} is"):
        sync_test(game, Keys, ticks=20, other_process=False)


@pytest.mark.parametrize(
    ("game", "said"),
    [
        (games.Wavy, ["math.sin", "a power"]),
        (games.Unordered, ["Unordered.names: a set", "goes through a set"]),
        (games.Dicey, ["randint: dice"]),
        (games.Clocked, ["time.perf_counter"]),
        (games.Sound, []),
    ],
)
def test_the_lint_says_where_and_what(game: type[Game], said: list[str]) -> None:
    found = [str(finding) for finding in lint(game)]
    assert len(found) == len(said)
    assert all(any(expected in text for text in found) for expected in said)
    assert all(f"{game.__name__}." in text for text in found)


def test_what_cannot_be_tested_is_told() -> None:
    class Local(games.Sound):
        pass

    with pytest.raises(InvalidConfig, match="put it into a module"):
        quiet(Local)
    quiet(Local, other_process=False)
    for wrong in ({"ticks": 3}, {"distance": 0}, {"seats": 0}):
        with pytest.raises(InvalidConfig):
            quiet(games.Sound, **wrong)
    with pytest.raises(ZeroDivisionError):
        quiet(games.Crashing)
    quiet(games.Sound, hand=lambda seat, tick: Keys(steer=seat - tick % 3), other_process=False)
