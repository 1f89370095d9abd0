"""Rules find cheats quickly, and nothing that a network does looks like one."""

from __future__ import annotations

import heapq
import math
import random

import msgspec
import pytest

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.rules import Breach, Rule, RuleBook, between, cooldown, rate, sequence, speed, stamped, within


class Move(msgspec.Struct):
    sequence: int
    sent_s: float
    x: float
    y: float
    fires: bool = False


RULES = (
    speed(max=12, fields=("x", "y")), rate(per_s=60), sequence(), within((-1e6, -1e6), (1e6, 1e6), ("x", "y")), stamped(),
    cooldown(0.5, lambda move: move.fires),
)  # fmt: skip


def book(*rules: Rule) -> RuleBook:
    return RuleBook(rules or RULES, stamp=lambda move: move.sent_s)


def played(
    seed: int, seconds: float, pace: float = 1.0, hurry: float = 1.0, hz: float = 60.0, latency: float = 0.1,
    jitter: float = 0.05, loss: float = 0.05,
) -> list[tuple[float, Move]]:  # fmt: skip
    """(when it came, message) of a player who runs at `pace` times the allowed speed in changing directions, ordered
    as it came; with retransmissions of an ordered channel. `hurry` is how fast its clock runs.
    """
    dice = random.Random(seed)
    came: list[tuple[float, int, Move]] = []
    x = y = heading = 0.0
    newest = 0.0
    fired = -1.0
    for tick in range(int(seconds * hz)):
        now = tick / hz * 1.0 + dice.uniform(0, 0.004)
        if dice.random() < 0.02:
            heading = dice.uniform(0, 2 * math.pi)
        x += math.cos(heading) * 12 * pace / hz
        y += math.sin(heading) * 12 * pace / hz
        fires = dice.random() < 0.05 and now - fired >= 0.5
        fired = now if fires else fired
        if dice.random() >= loss:
            newest = now + latency + dice.uniform(-jitter, jitter)
            heapq.heappush(came, (newest, tick, Move(tick, 50 + now * hurry, x, y, fires)))
    ordered = []
    last = -1
    while came:
        when, tick, move = heapq.heappop(came)
        if tick > last:  # an unreliable_ordered channel drops what is older
            ordered.append((when + 50, move))
            last = tick
    return ordered


def first_breach(rules: RuleBook, came: list[tuple[float, Move]], error_s: float = 0.005) -> Breach | None:
    for now, move in came:
        found = rules.check("p", move, now, error_s)
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("minutes", [5, pytest.param(1000, marks=pytest.mark.slow)])
def test_nothing_that_a_network_does_is_a_breach(minutes: int) -> None:
    """5 % loss, 100 +- 50 ms, a player at the very limit of its speed."""
    for seed in range(minutes):
        assert first_breach(book(), played(seed, 60)) is None


@pytest.mark.parametrize("seed", range(10))
def test_a_speed_of_twelve_tenths_is_found_within_a_second(seed: int) -> None:
    came = played(seed, 5, pace=1.2)
    found = first_breach(RuleBook([speed(max=12, fields=("x", "y"))], stamp=lambda move: move.sent_s), came)
    assert found is not None
    assert found.rule == "speed(max=12)"
    assert found.at - came[0][0] <= 1.6  # curves are shorter than they are run: the first straight second shows it
    assert found.before is not None


def test_a_player_who_runs_straight_too_fast_is_found_in_less_than_a_second() -> None:
    came = [(50 + tick / 60 + 0.1, Move(tick, 50 + tick / 60, tick / 60 * 12 * 1.2, 0.0)) for tick in range(120)]
    found = first_breach(book(), came)
    assert found is not None
    assert found.at - came[0][0] <= 0.9
    assert "14" in found.reason


@pytest.mark.parametrize("hurry", [1.2, 1.5])
def test_who_lets_its_clock_run_to_cover_its_speed_is_found_by_its_stamps(hurry: float) -> None:
    came = [
        (50 + tick / 60 + 0.1, Move(tick, 50 + tick / 60 * hurry, tick / 60 * 12 * hurry, 0.0)) for tick in range(300)
    ]
    found = first_breach(book(), came)
    assert found is not None
    assert found.at - came[0][0] <= 1.6


def test_a_teleport_a_replay_a_flood_and_a_place_outside_are_named() -> None:
    base = [(50 + tick / 60 + 0.1, Move(tick, 50 + tick / 60, 0.0, 0.0)) for tick in range(60)]
    after = base[-1][0] + 1 / 60
    for move, rule in (
        (Move(60, 51.0, 500.0, 0.0), "speed(max=12)"),
        (Move(30, 51.0, 0.0, 0.0), "sequence('sequence')"),
        (Move(60, 60.0, 0.0, 0.0), "stamped"),
        (Move(60, 30.0, 0.0, 0.0), "stamped"),
    ):
        rules = book()
        assert first_breach(rules, base) is None
        found = rules.check("p", move, after, 0.005)
        assert found is not None
        assert found.rule == rule
        assert (
            rules.check("p", Move(61, 51.02, 0.0, 0.0), after + 0.02, 0.005) is None
        )  # what was refused changed nothing
    flood = [(50 + tick / 600 + 0.1, Move(tick, 50 + tick / 600, 0.0, 0.0)) for tick in range(600)]
    found = first_breach(book(), flood)
    assert found is not None
    assert found.rule == "rate(per_s=60)"
    far = book(within((0, 0), (10, 10), ("x", "y"))).check("p", Move(1, 50.0, 11.0, 0.0), 50.1)
    assert far is not None
    assert far.reason == "x is 11, outside 0 to 10"
    assert book(between("x", 0, 1)).check("p", Move(1, 50.0, float("nan"), 0.0), 50.1) is not None


def test_a_shot_before_its_time_is_named_and_senders_do_not_share_a_memory() -> None:
    rules = book(cooldown(0.5, lambda move: move.fires))
    assert rules.check("a", Move(1, 50.0, 0, 0, True), 50.1) is None
    assert rules.check("b", Move(1, 50.1, 0, 0, True), 50.2) is None
    assert rules.check("a", Move(2, 50.2, 0, 0, True), 50.3) is not None
    assert rules.check("a", Move(3, 50.5, 0, 0, True), 50.6) is None
    rules.forget("a")
    assert rules.check("a", Move(4, 50.6, 0, 0, True), 50.7) is None


def test_rules_that_cannot_be_are_refused() -> None:
    for wrong in (
        lambda: speed(max=0), lambda: rate(per_s=-1), lambda: within((0,), (1, 2)), lambda: within((5,), (1,)),
    ):  # fmt: skip
        with pytest.raises(InvalidConfig):
            wrong()


def test_senders_are_forgotten_before_they_fill_the_memory() -> None:
    rules = book()
    for sender in range(3000):
        rules.check(sender, Move(1, 50.0, 0, 0), 50.1)
    assert len(rules._senders) <= 1024
