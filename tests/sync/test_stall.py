"""A game's thread that stands still for a minute: nobody leaves, and what waited arrives."""

from __future__ import annotations

import pytest

from benchmarks.game_loop import STALL_WORDS_HZ, measured_stall
from psyne_mesh import sync

STALL_S = 60.0


@pytest.mark.slow
def test_a_minute_without_poll_half_of_it_asleep_and_half_in_python() -> None:
    with sync.open_server(port=0) as server:
        seen = measured_stall(server.url, STALL_S)
    assert seen["stall_left"] == 0
    assert seen["stall_gaps"] == 0  # every reliable word, in order
    assert (
        seen["stall_came"] >= 0.5 * 2 * STALL_WORDS_HZ * STALL_S
    )  # two players spoke on; a busy machine speaks slower
