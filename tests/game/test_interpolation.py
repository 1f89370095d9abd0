"""What is seen of others between two messages: no frozen frames, no steps, never far behind."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.game.clock import SenderClock
from psyne_mesh.game.interpolation import EXTRAPOLATION_MAX_S, Playback, Track
from psyne_mesh.game.schema import Shared, smooth
from tests.game.party import Party

FPS = 60


class Dot(Shared):
    x: float = smooth(0.0)
    y: float = smooth(0.0)


def jitter(rng: random.Random) -> float:
    """50 +- 20 ms."""
    return rng.uniform(0.03, 0.07)


def watched(
    seconds: float, path: Callable[[float], float], *, hz: float = 20.0, loss: float = 0.02, seed: int = 0,
    delay: Callable[[random.Random], float] = jitter,
) -> tuple[list[tuple[float, float]], float]:  # fmt: skip
    """Each frame's time and shown x of a dot on `path`, after two seconds; and the largest delay there was."""
    party = Party("ab", seed, hz=hz, loss=loss, delay=delay)
    a, b = party.players.values()
    dot = a.share(Dot())
    b.replicas.know(Dot)
    shown: list[tuple[float, float]] = []
    delays = [0.0]
    start = party.now

    def frame(now: float) -> None:
        dot.x = path(now - start)
        seen = b.sees(Dot, now)
        if seen and now - start > 2.0:
            shown.append((now - start, seen[0][0]))
            delays.append(b.replicas.delay_s(a.id) or 0.0)

    party.run(seconds, frame)
    return shown, max(delays)


@pytest.mark.parametrize("seed", range(5))
def test_frozen_frames_and_delay_at_20_hz_2_percent_loss_and_jitter(seed: int) -> None:
    """The figure: at most one frozen frame in 1,000, at most two intervals of delay. A frame is frozen when a dot that moves at
    an even speed has moved by less than a tenth of what it should."""
    shown, delay = watched(60, lambda t: 10.0 * t, seed=seed)
    steps = [after[1] - before[1] for before, after in pairwise(shown)]
    frozen = sum(step < 0.1 * 10.0 / FPS for step in steps)
    assert frozen <= len(steps) / 1000
    assert delay <= 2 / 20 + 1e-9
    # Nor does it jump: what is shown lies behind the truth by the way and the delay, give or take.
    late = [t - x / 10.0 for t, x in shown]
    assert min(late) >= 0.03
    assert max(late) <= 0.07 + 2 / 20 + 0.05
    assert max(steps) <= 2.5 * 10.0 / FPS


def test_a_quiet_link_is_shown_one_interval_late() -> None:
    shown, delay = watched(5, lambda t: t, loss=0.0, hz=30.0, delay=lambda rng: 0.01)
    assert delay < 1.2 / 30
    assert all(0.01 <= t - x <= 0.01 + 2 / 30 for t, x in shown)


def test_who_stops_is_not_moved_on_and_who_starts_does_not_glide() -> None:
    def path(t: float) -> float:
        return min(t, 3.0) + max(0.0, t - 6.0)

    shown, _ = watched(8, path, loss=0.0, hz=30.0, delay=lambda rng: 0.02)
    assert max(x for t, x in shown if t < 6.0) <= 3.0 + 0.1
    assert all(x == pytest.approx(3.0, abs=1e-4) for t, x in shown if 3.5 < t < 6.0)  # 32 bits
    assert all(x <= 3.0 + 1e-4 for t, x in shown if 3.5 < t < 6.02)
    assert next(t for t, x in shown if x > 3.05) < 6.2


def test_a_teleport_is_a_jump_and_a_step_is_not() -> None:
    track = Track([5.0], [0.0])
    for number, x in enumerate([0.0, 1.0, 20.0, 21.0]):
        track.add(number / 10, (x,), 0.1)
    seen = [track.at(number / 100)[0] for number in range(30)]
    assert all(not 1.0 < x < 20.0 for x in seen)
    assert 0.4 < seen[5] < 0.6


def test_an_angle_goes_the_short_way() -> None:
    track = Track([math.inf], [360.0])
    track.add(0.0, (350.0,), 0.1)
    track.add(0.1, (10.0,), 0.1)
    assert track.at(0.05)[0] == pytest.approx(360.0)


def test_it_goes_on_for_a_quarter_of_a_second_and_no_further() -> None:
    track = Track([math.inf], [0.0])
    track.add(0.0, (0.0,), 0.1)
    track.add(0.1, (1.0,), 0.1)
    assert track.at(0.2)[0] == pytest.approx(2.0)
    assert track.at(9.0)[0] == pytest.approx(1.0 + EXTRAPOLATION_MAX_S * 10)
    assert track.is_at_rest(9.0)


def test_a_wrong_guess_is_taken_back_without_a_step() -> None:
    track = Track([math.inf], [0.0])
    track.add(0.0, (0.0,), 0.1)
    track.add(0.1, (1.0,), 0.1)
    assert track.at(0.25)[0] == pytest.approx(2.5)
    track.add(0.3, (1.0,), 0.1, True)  # it had turned back
    frames = [track.at(0.25 + number / 100)[0] for number in range(16)]
    assert abs(frames[0] - 2.5) < 0.2
    assert all(abs(after - before) < 0.4 for before, after in pairwise(frames))
    assert frames[-1] == pytest.approx(1.0)


@given(st.lists(st.tuples(st.floats(0.0, 0.5), st.floats(0.0, 2.0)), min_size=1, max_size=60))
def test_playback_never_goes_backwards(steps: list[tuple[float, float]]) -> None:
    playback, now, stamp, last = Playback(), 10.0, 5.0, -math.inf
    for wait, late in steps:
        now += wait
        stamp += wait
        resets = playback.clock.resets
        playback.note(stamp, now + late, 0.05)
        shown = playback.at(now + late)
        assert shown >= last or playback.clock.resets != resets
        assert 0 <= playback.delay_s <= 0.1
        now += late
        last = shown


def test_a_clock_that_jumps_begins_a_new_timeline() -> None:
    playback = Playback()
    for number in range(100):
        playback.note(number / 30, 50 + number / 30, 1 / 30)
        playback.at(50 + number / 30)
    playback.note(1e6, 54.0, 1 / 30)
    assert 1e6 - 0.1 <= playback.at(54.0) <= 1e6


def test_a_slower_path_is_believed_after_the_window() -> None:
    clock = SenderClock()
    for number in range(600):
        stamp = number / 30
        clock.note(stamp, stamp + (0.02 if number < 300 else 0.12))
        if number == 330:
            assert clock.lateness_s == pytest.approx(0.1)
    assert clock.offset_s == pytest.approx(0.12)
    assert clock.lateness_s == pytest.approx(0.0)


@given(
    st.lists(st.tuples(st.floats(-10, 10), st.floats(-1e6, 1e6), st.booleans()), min_size=1, max_size=50),
    st.lists(st.floats(-20, 20), min_size=1, max_size=50),
)
def test_whatever_comes_finite_values_are_shown(samples: list[tuple[float, float, bool]], reads: list[float]) -> None:
    track = Track([100.0], [0.0])
    for number, (stamp, x, at_rest) in enumerate(samples):
        track.add(stamp, (x,), 0.03, at_rest)
        assert math.isfinite(track.at(reads[number % len(reads)])[0])
