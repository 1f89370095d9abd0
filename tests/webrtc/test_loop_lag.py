"""How far behind the loop is, and that a lagging loop looks for no other paths."""

from __future__ import annotations

import pytest

from psyne_mesh.webrtc.loop_lag import HALF_LIFE_S, LoopLag


def test_the_worst_of_the_last_moments_counts_and_is_forgotten() -> None:
    lag = LoopLag()
    assert lag.seconds(5.0) == 0
    lag.note(1.0, 5.0)
    lag.note(0.1, 5.1)
    assert lag.seconds(5.0 + HALF_LIFE_S) == pytest.approx(0.5)
    assert lag.seconds(10.0) < 0.001
    lag.note(0.1, 10.0)
    assert lag.seconds(10.0) == pytest.approx(0.1)
