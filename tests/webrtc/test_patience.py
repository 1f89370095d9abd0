"""A connection that gets on may take longer, and a loop that is behind looks once more before it gives up."""

from __future__ import annotations

import math

from psyne_mesh.webrtc.loop_lag import LAGGING_S
from psyne_mesh.webrtc.patience import ADDED_MAX, TURNS, Patience


def test_where_steps_come_quickly_nothing_changes() -> None:
    patience = Patience(14.0)
    assert patience.deadline == math.inf
    patience.begin(100.0)
    patience.begin(105.0)
    for number, step in enumerate(("signaling", "ice", "dtls")):
        patience.progress(step, 100.1 + number)
    assert patience.deadline == 114.0
    assert not patience.has_run_out(113.9)
    assert patience.has_run_out(114.0)


def test_each_step_leaves_half_of_it_for_the_next_and_counts_once() -> None:
    patience = Patience(14.0)
    patience.begin(0.0)
    now = 13.0
    for step in ("signaling", "ice", "dtls"):
        patience.progress(step, now)
        assert patience.deadline == now + 7.0
        now += 6.5
    for step in ("signaling", "ice", "dtls"):
        patience.progress(step, now)
    assert patience.deadline == 26.0 + 7.0  # a peer cannot stretch it for ever
    assert patience.stretched_s == 19.0


def test_a_loop_that_comes_late_looks_once_more() -> None:
    patience = Patience(14.0)
    patience.begin(0.0)
    late = 14.0 + 2 * LAGGING_S
    assert not patience.has_run_out(late)
    assert patience.deadline == late + TURNS * 2 * LAGGING_S
    assert patience.has_run_out(patience.deadline)  # in time, and nothing has come


def test_a_slow_loop_gets_the_time_of_its_turns_and_not_for_ever() -> None:
    patience = Patience(10.0)
    patience.begin(0.0)
    patience.progress("signaling", 9.0, lag_s=2.0)
    assert patience.deadline == 9.0 + TURNS * 2.0
    looks = 0
    while not patience.has_run_out(patience.deadline, lag_s=3.0):
        looks += 1
    assert looks < 5
    assert patience.deadline <= 10.0 + (1 + ADDED_MAX) * 10.0


def test_one_that_stands_never_runs_out() -> None:
    patience = Patience(14.0)
    patience.begin(0.0)
    patience.end()
    patience.begin(1.0)
    patience.progress("dtls", 2.0)
    assert patience.deadline == math.inf
