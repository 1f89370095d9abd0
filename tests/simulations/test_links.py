"""What links do to frames, against the distributions that they are said to have."""

from __future__ import annotations

import random
import statistics

import pytest

from psyne_mesh.simulations.latency import Exponential, Geographic, Uniform, great_circle_km, make_latency
from psyne_mesh.simulations.net import LANE_QUEUE_BYTES_MAX, RTO_MIN_S, NetModel, arrival_times
from tests.simulations.helpers import GRAIN, pair, send

N = 4000


def lane_of(**settings: float):
    world, a, b = pair(**settings)
    return world, a.lanes[b.peer]


def arrivals(lane, world, *, reliable: bool, spaced_s: float = 1.0) -> list[tuple[float, ...]]:
    """Delays of frames that are sent far apart."""
    rng = random.Random(5)
    found = []
    for number in range(N):
        sent_at = 10 + number * spaced_s
        times = arrival_times(lane, 100, reliable, sent_at, world.net, rng)
        found.append(tuple(time - sent_at for time in times))
    return found


def test_a_calm_link_delivers_after_exactly_one_latency():
    world, a, b = pair()
    send(world, a, b, b"one")
    world.run(1.0)
    assert b.actor.times("got") == [pytest.approx(0.525, abs=GRAIN)]
    assert (a.msgs_out, a.bytes_out, b.msgs_in, b.bytes_in) == (1, 3, 1, 3)


@pytest.mark.parametrize("loss", [0.02, 0.1, 0.3])
def test_unreliable_frames_are_lost_at_the_given_rate(loss):
    world, lane = lane_of(loss=loss)
    lost = sum(not times for times in arrivals(lane, world, reliable=False))
    assert lost / N == pytest.approx(loss, abs=4 * (loss * (1 - loss) / N) ** 0.5)


def test_losses_of_network_link_and_hosts_multiply():
    world, lane = lane_of(loss=0.1)
    lane.own_loss, lane.src.loss_out, lane.dst.loss_in = 0.2, 0.3, 0.4
    lane.refresh(world.net)
    assert lane.loss == pytest.approx(1 - 0.9 * 0.8 * 0.7 * 0.6, abs=GRAIN)


def test_a_reliable_frame_always_arrives_and_each_loss_costs_a_doubled_timeout():
    world, lane = lane_of(loss=0.3)
    delays = [times[0] for times in arrivals(lane, world, reliable=True, spaced_s=100.0)]
    rto = RTO_MIN_S + 2 * lane.base_s
    first_try = sum(delay < lane.base_s + rto / 2 for delay in delays)
    second_try = sum(abs(delay - lane.base_s - rto) < rto / 2 for delay in delays)
    third_try = sum(abs(delay - lane.base_s - 3 * rto) < rto / 2 for delay in delays)
    assert first_try / N == pytest.approx(0.7, abs=0.03)
    assert second_try / N == pytest.approx(0.3 * 0.7, abs=0.03)
    assert third_try / N == pytest.approx(0.09 * 0.7, abs=0.02)


def test_reliable_frames_never_overtake_each_other():
    world, lane = lane_of(loss=0.3, jitter_s=0.05)
    rng = random.Random(2)
    times = [arrival_times(lane, 100, True, 0.01 * number, world.net, rng)[0] for number in range(N)]
    assert times == sorted(times)


def test_uniform_jitter_spreads_evenly_over_its_range():
    world, lane = lane_of(jitter_s=0.02)
    extra = [times[0] - lane.base_s for times in arrivals(lane, world, reliable=False)]
    assert 0 <= min(extra) < 0.001
    assert 0.019 < max(extra) <= 0.02
    assert statistics.mean(extra) == pytest.approx(0.01, rel=0.05)


def test_exponential_jitter_has_its_mean_and_its_tail():
    world, lane = lane_of(jitter_mean_s=0.01)
    extra = [times[0] - lane.base_s for times in arrivals(lane, world, reliable=False)]
    assert statistics.mean(extra) == pytest.approx(0.01, rel=0.08)
    assert sum(value > 0.03 for value in extra) / N == pytest.approx(0.0498, abs=0.015)  # e**-3


def test_duplication_and_reordering_happen_at_their_rates():
    world, lane = lane_of(duplicate=0.05, reorder=0.2, reorder_s=0.1)
    found = arrivals(lane, world, reliable=False)
    assert sum(len(times) == 2 for times in found) / N == pytest.approx(0.05, abs=0.015)
    late = sum(times[0] > lane.base_s + 1e-9 for times in found)
    assert late / N == pytest.approx(0.2, abs=0.03)


def test_a_narrow_downlink_serialises_frames_and_bounds_its_queue():
    world, lane = lane_of()
    lane.dst.downlink = 10_000.0
    lane.refresh(world.net)
    rng = random.Random(1)
    times = [arrival_times(lane, 1000, False, 0.0, world.net, rng) for _ in range(10)]
    assert [when[0] for when in times] == pytest.approx([0.1 * (k + 1) + lane.base_s for k in range(10)])
    kept = sum(bool(arrival_times(lane, 60_000, False, 0.0, world.net, rng)) for _ in range(100))
    assert kept * 60_000 < LANE_QUEUE_BYTES_MAX
    assert lane.dst.queued_bytes_max <= LANE_QUEUE_BYTES_MAX


def test_a_reliable_frame_that_finds_the_queue_full_breaks_the_link():
    world, a, b = pair()
    b.downlink = 1000.0
    world.links.refresh([b])
    for _ in range(80):
        send(world, a, b, bytes(60_000), reliable=True)
    world.run(1.0)
    assert a.actor.log[-1][0] == "down"
    assert world.watcher.unlinks["overflow"] == 1  # type: ignore[attr-defined]


def test_pairs_keep_their_distance_whoever_asks_first():
    uniform = Uniform(0.02, 0.2, seed=3)
    delays = [uniform.one_way_s(a, b) for a in range(60) for b in range(a)]
    assert uniform.one_way_s(7, 9) == uniform.one_way_s(9, 7)
    assert min(delays) >= 0.01
    assert max(delays) <= 0.1
    assert statistics.mean(delays) == pytest.approx(0.055, rel=0.05)
    exponential = Exponential(0.01, 0.05, seed=3)
    assert statistics.mean(exponential.one_way_s(a, b) for a in range(80) for b in range(a)) == pytest.approx(
        0.03, rel=0.08
    )


def test_the_globe_has_its_true_distances():
    assert great_circle_km(51.5, -0.1, 40.7, -74.0) == pytest.approx(5570, rel=0.01)  # London, New York
    assert great_circle_km(0, 0, 0, 180) == pytest.approx(20015, rel=0.01)
    world = Geographic(seed=1)
    assert {world.place(index)[0] for index in range(300)} > {"tokyo", "london", "new-york"}
    assert min(world.one_way_s(a, b) for a in range(40) for b in range(a)) >= 0.002
    assert max(world.one_way_s(a, b) for a in range(40) for b in range(a)) < 0.16


def test_an_unknown_latency_model_is_named():
    with pytest.raises(ValueError, match="unknown latency model 'warp'"):
        make_latency("warp", 1)


def test_net_model_has_the_plain_path_only_when_nothing_interferes():
    for field, value in (("loss", 0.1), ("duplicate", 0.1), ("reorder", 0.1), ("jitter_mean_s", 0.1)):
        _, lane = lane_of(**{field: value})
        assert not lane.plain
    _, lane = lane_of(jitter_s=0.1)
    assert lane.plain
    assert NetModel().dial_s == (0.3, 1.5)
