"""A planted desync is named by tick and field within a second, a thousand times; a clean game is never accused."""

from __future__ import annotations

import random

import msgspec
import pytest

from psyne_mesh.game.rollback import Contradiction, Desync
from tests.game.rollback_world import Way, World
from tests.game.test_rollback import Keys, Tumble, hands


class Spoiled(Tumble):
    """One machine computes one field wrong, once, in one tick. `wrong_at` is told it beside the state."""

    fields: dict[str, list[int]] = msgspec.field(default_factory=lambda: {"red": [0, 0], "blue": [0, 0]})

    def tick(self, inputs: list[Keys]) -> None:
        super().tick(inputs)
        self.fields["red"][1] = self.total
        self.fields["blue"][0] += 1


def spoiled(wrong_at: int, colour: str, place: int) -> type[Spoiled]:
    class Wrong(Spoiled):
        def tick(self, inputs: list[Keys]) -> None:
            super().tick(inputs)
            if self.ticks == wrong_at:
                self.fields[colour][place] += 1_000_000

    return Wrong


def planted(seed: int) -> None:
    dice = random.Random(seed)
    wrong_at = dice.randint(10, 80)
    colour, place = dice.choice([("blue", 0), ("blue", 1), ("red", 0)])
    world = World(2, seed, Way(0.03, 0.02, 0.03), 60.0, Keys)
    world.hand = hands(seed)
    world.add(0, Spoiled(), Keys)
    world.add(1, spoiled(wrong_at, colour, place)(), Keys)
    world.play(wrong_at / 60)
    began = world.now
    while not (found := [event for event in world.machines[0].events if isinstance(event, Desync)]):
        world.play(0.05)
        assert world.now - began <= 1.05, f"seed {seed}"
    assert (found[0].seat, found[0].frame, found[0].path) == (1, wrong_at, f"fields[{colour!r}][{place}]"), (
        f"seed {seed}"
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_desync_is_named(seed: int) -> None:
    planted(seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("hundred", range(10))
def test_a_planted_desync_is_named_a_thousand_times(hundred: int) -> None:
    for seed in range(hundred * 100, hundred * 100 + 100):
        planted(seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(10))
def test_a_million_clean_ticks_raise_no_alarm(part: int) -> None:
    """Ten games of 100,000 ticks, all machines together, over paths that lose and delay."""
    seats = 2 + part % 3
    world = World(seats, 1000 + part, Way(0.02 + part * 0.005, 0.02, 0.01 * (part % 4)), 60.0, Keys)
    world.hand = hands(part)
    for seat in range(seats):
        world.add(seat, Spoiled(), Keys)
    while sum(machine.session.frame for machine in world.machines.values()) < 100_000:
        world.play(5.0)
        for machine in world.machines.values():
            assert machine.failed is None
            assert not [event for event in machine.events if isinstance(event, Desync | Contradiction)]
            machine.events.clear()
