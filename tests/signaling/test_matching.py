"""Who plays with whom, in virtual time."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.matchmaking import quality
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling.matching import (
    PATIENCE_S,
    ROAM_S,
    SETTLE_S,
    WIDEN_S,
    Seeker,
    best_groups,
    complete_parties,
    overlap,
    reaches,
    region_of,
    widened,
)


def seeker(number: int, skill: float | None = None, since: float = 0.0, **options: object) -> Seeker:
    skill_range = None if skill is None else (skill - 50.0, skill + 50.0)
    return Seeker(peer=PeerId(f"{number:032x}"), since=since, skill_range=skill_range, **options)  # type: ignore[arg-type]


def numbers(groups: list[tuple[Seeker, ...]]) -> list[set[int]]:
    return [{int(one.peer, 16) for one in group} for group in groups]


def test_a_range_widens_by_its_width_and_in_the_end_holds_everybody() -> None:
    assert widened((100, 200), 0) == (100, 200)
    assert widened((100, 200), WIDEN_S / 2) == (50, 250)
    assert widened((100, 200), PATIENCE_S) is None
    assert overlap((100, 200), (200, 300))
    assert not overlap((100, 200), (201, 300))
    assert overlap(None, (1, 2))


def test_a_region_is_ones_own_or_measured_as_near_and_with_waiting_any() -> None:
    assert reaches("eu", "eu", {}, 0)
    assert not reaches("us", "eu", {}, 0)
    assert reaches("us", "eu", {"us": 60}, 0)
    assert not reaches("asia", "eu", {"asia": 250}, ROAM_S), "a measurement says more than patience"
    assert reaches("us", "eu", {}, ROAM_S)
    assert reaches("asia", "eu", {"asia": 250}, PATIENCE_S)


def test_nobody_is_matched_before_others_had_time_to_come() -> None:
    waiting = [seeker(number) for number in range(4)]
    assert best_groups(waiting, 4, SETTLE_S / 2) == []
    assert numbers(best_groups(waiting, 4, SETTLE_S)) == [{0, 1, 2, 3}]


def test_the_nearest_in_skill_play_together() -> None:
    waiting = [seeker(number, skill) for number, skill in enumerate((1000, 1800, 1010, 1790, 1020, 1810))]
    assert sorted(map(sorted, numbers(best_groups(waiting, 3, 1.0)))) == [[0, 2, 4], [1, 3, 5]]


def test_who_has_no_equal_plays_in_the_end_all_the_same() -> None:
    waiting = [seeker(0, 1000), *(seeker(number, 2000, since=PATIENCE_S - 1) for number in (1, 2))]
    assert best_groups(waiting, 3, PATIENCE_S - 0.1) == []
    assert numbers(best_groups(waiting, 3, PATIENCE_S)) == [{0, 1, 2}]


def test_friends_stay_together_and_wait_for_each_other() -> None:
    ada, bob = (seeker(number, 1000, party="friends", party_size=2) for number in (0, 1))
    others = [seeker(number, 1000) for number in (2, 3, 4)]
    assert numbers(best_groups([ada, *others], 3, 1.0)) == [{2, 3, 4}], "half a party does not play"
    assert numbers(best_groups([ada, bob, *others], 3, 1.0)) == [{0, 1, 2}]
    assert complete_parties([ada]) == []
    assert numbers(complete_parties([ada, bob, seeker(5)])) == [{0, 1}]


def test_a_group_plays_where_most_are_at_home_and_then_where_it_is_nearest() -> None:
    group = [seeker(0, region="eu"), seeker(1, region="eu"), seeker(2, region="us")]
    assert region_of(group) == "eu"
    split = [seeker(0, region="eu", rtt_ms={"us": 90.0}), seeker(1, region="us", rtt_ms={"eu": 120.0})]
    assert region_of(split) == "us"


people = st.lists(
    st.tuples(
        st.floats(0, 3000) | st.none(), st.floats(0, 30), st.sampled_from(["", "eu", "us"]),
        st.sampled_from(["", "", "red", "blue"]), st.integers(2, 3),
    ), max_size=40,
)  # fmt: skip


@settings(max_examples=200)
@given(people, st.integers(2, 5))
def test_groups_are_full_and_nobody_is_in_two(
    drawn: list[tuple[float | None, float, str, str, int]], players: int
) -> None:
    waiting = [
        seeker(number, skill, since, region=region, party=party, party_size=size if party else 1)
        for number, (skill, since, region, party, size) in enumerate(drawn)
    ]
    groups = best_groups(waiting, players, 31.0)
    assert all(len(group) == players for group in groups)
    seated = [one.peer for group in groups for one in group]
    assert len(seated) == len(set(seated))
    for group in groups:
        for one in group:
            if one.party:
                mates = [mate for mate in group if (mate.party, mate.party_size) == (one.party, one.party_size)]
                assert len(mates) % one.party_size == 0, "a party is in one room"
    alone = [one for one in waiting if not one.party]
    left = [one for one in alone if one.peer not in seated]
    assert len(left) < players or any(one.party for one in waiting), "after so long everybody fits"


@pytest.mark.parametrize(
    "seeds", [range(2), pytest.param(range(20), marks=pytest.mark.slow)], ids=["some", "twenty seeds"]
)
def test_rooms_are_more_alike_than_those_filled_in_order_of_arrival(seeds: range) -> None:
    found = [quality(seed) for seed in seeds]
    assert statistics.mean(one.spread / one.spread_in_order for one in found) <= 0.5
    assert max(one.longest_wait_s for one in found) <= 30
    assert all((one.rooms, one.left, one.twice) == (125, 0, 0) for one in found)
