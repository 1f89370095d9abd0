"""Ranges behave as the set of their integers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.webrtc.sctp.intervals import Intervals

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=30)


def members(intervals: Intervals) -> set[int]:
    return {value for low, high in intervals for value in range(low, high + 1)}


@given(RANGES, st.integers(-1, 75))
def test_intervals_are_a_set(ranges: list[tuple[int, int]], cut: int) -> None:
    intervals, model = Intervals(), set()
    for start, length in ranges:
        added = set(range(start, start + length + 1))
        fresh = {value for low, high in intervals.add(start, start + length) for value in range(low, high + 1)}
        assert fresh == added - model
        model |= added
        assert members(intervals) == model
        assert all(end + 1 < start for end, start in zip(intervals.ends, intervals.starts[1:]))
    for value in range(75):
        assert (value in intervals) == (value in model)
        end = intervals.end_of(value)
        assert (end in model and end + 1 not in model) if value in model else end == value - 1
    intervals.discard_through(cut)
    assert members(intervals) == {value for value in model if value > cut}
    assert bool(intervals) == (len(intervals) > 0) == bool(members(intervals))


def test_a_long_row_stays_one_range() -> None:
    intervals = Intervals()
    for value in range(10_000):
        intervals.add(value, value)
    assert len(intervals) == 1
    intervals.clear()
    assert not intervals
