"""Pong for two, and a game of four, by real processes over loopback that loses 3 %: a minute without a desync or a stall."""

from __future__ import annotations

import pytest

from tests.room import played_for_real


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("players", [2, 4])
def test_real_processes_play_one_game(players: int) -> None:
    told = played_for_real.play(players, 60.0)
    assert played_for_real.faults(told) == []
    for each in told:
        assert each["ticks"] > 3000
        assert each["rtt_during_ms"] <= 1.5 * each["rtt_before_ms"] + 1.0
