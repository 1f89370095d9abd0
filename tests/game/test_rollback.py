"""One simulation on several machines: the same everywhere, whatever the paths do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Annotated

import msgspec
import pytest

from psyne_mesh.game.rollback import Game, Input, SeatLeft, SeatJoined, Stalled
from tests.game.rollback_world import Machine, Way, World


class Keys(Input):
    steer: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    fire: bool = False
    filler: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFF)] = 0


class Tumble(Game):
    """Every input of every tick changes the whole rest of the game."""

    total: int = 0
    ticks: int = 0
    present: int = 0
    rolls: list[int] = []

    def tick(self, inputs: list[Keys]) -> None:
        for seat, keys in enumerate(inputs):
            self.total = (self.total * 31 + keys.steer * (seat + 1) + keys.fire + keys.filler) % 1_000_003
            self.present += keys.present
        self.ticks += 1
        if self.ticks % 10 == 0:
            self.rolls = [*self.rolls[-3:], self.random.below(6)]


def hands(seed: int, hold: int = 8) -> Callable[[int, int], Keys]:
    """A player who holds each key for `hold` ticks or so, the same for each run of a seed."""

    def hand(seat: int, frame: int) -> Keys:
        dice = random.Random(f"{seed} {seat} {(frame + seat * 3) // hold}")
        return Keys(dice.randint(-1000, 1000), dice.random() < 0.3, dice.randint(0, 0xFFFFF))

    return hand


def a_game(seats: int, seed: int, way: Way, hz: float = 60.0, **options: object) -> World:
    world = World(seats, seed, way, hz, Keys)
    world.hand = hands(seed)
    for seat in range(seats):
        world.add(seat, Tumble(), Keys, **options)
    return world


def confirmed_states(world: World) -> list[bytes]:
    machines = [machine for machine in world.machines.values() if machine.is_on and machine.spectator is None]
    frame = min(min(machine.session.confirmed, machine.session.frame) for machine in machines) - 4
    assert frame > 0
    return [machine.session._checks.state(frame) or b"" for machine in machines if machine.spectator is None]


def assert_one_game(world: World) -> None:
    assert [machine.failed for machine in world.machines.values() if machine.failed] == []
    states = confirmed_states(world)
    assert states[0]
    assert len(set(states)) == 1


@pytest.mark.parametrize("seats", [1, 2, 4, 16])
def test_all_machines_simulate_the_same_game(seats: int) -> None:
    world = a_game(seats, 1, Way(0.05, 0.02, 0.02))
    world.play(5)
    assert_one_game(world)
    for machine in world.machines.values():
        assert 295 <= machine.session.frame <= 301
        assert not machine.session.stats.stalled_ticks


def test_a_path_that_is_slow_one_way_only_keeps_nobody_behind() -> None:
    """fortress-rollback halves the round trip and leaves both seven frames apart at 10/200 ms. Ticks here stand on a clock."""
    world = a_game(2, 3, Way())
    world.ways = {(0, 1): Way(0.01), (1, 0): Way(0.2)}
    apart = []
    for _ in range(100):
        world.play(0.1)
        first, second = world.machines.values()
        apart.append(abs(first.session.frame - second.session.frame))
    assert max(apart[20:]) <= 1
    assert_one_game(world)
    assert (
        sum(machine.session.stats.stalled_ticks for machine in world.machines.values()) <= 60
    )  # until the delay has grown


@pytest.mark.parametrize("error_s", [0.005, -0.02, 0.1])
def test_a_clock_that_is_a_little_wrong_costs_guesses_only(error_s: float) -> None:
    world = a_game(2, 4, Way(0.03, 0.01, 0.01))
    world.machines[1].clock_error_s = error_s
    world.play(2)  # delays grow to what the paths and the clocks need
    before = [machine.session.stats.stalled_ticks for machine in world.machines.values()]
    world.play(10)
    assert_one_game(world)
    assert [machine.session.stats.stalled_ticks for machine in world.machines.values()] == before


def test_a_machine_that_stands_still_stalls_the_others_and_nobody_races_afterwards() -> None:
    world = a_game(3, 5, Way(0.02, 0.005))
    world.play(2)
    world.machines[0].is_on = False
    world.play(10)
    frames = [machine.session.frame for machine in world.machines.values()]
    assert max(frames) - min(frames) <= 8 + 4 + 1
    assert any(isinstance(event, Stalled) and event.seat == 0 for event in world.machines[1].events)
    world.machines[0].is_on = True
    before = world.machines[1].session.frame
    world.play(1)
    assert 40 <= world.machines[1].session.frame - before <= 60 + 4 * 8
    world.play(5)
    assert_one_game(world)


@pytest.mark.parametrize("seed", range(20))
def test_who_dies_is_cut_off_at_one_tick_everywhere(seed: int) -> None:
    """The survivors have heard different numbers of its inputs, and hear of its death at different times."""
    world = a_game(5, seed, Way(0.05, 0.04, 0.2))
    world.play(1 + seed / 20)
    world.remove(2, told_after_s=0.5)
    if seed % 3 == 0:
        world.remove(4, told_after_s=0.5)  # a second one dies before the first is settled
    world.play(4)
    assert_one_game(world)
    cuts = [
        [event for event in machine.events if isinstance(event, SeatLeft)]
        for machine in world.machines.values()
        if machine.is_on
    ]
    assert all(sorted(cut, key=repr) == sorted(cuts[0], key=repr) for cut in cuts)
    assert {event.seat for event in cuts[0]} == ({2, 4} if seed % 3 == 0 else {2})
    assert all(machine.session.frame > 200 for machine in world.machines.values() if machine.is_on)


def test_one_member_alone_ends_nobodys_game() -> None:
    world = a_game(3, 6, Way(0.02))
    world.play(1)
    world.machines[0].session.drop(2, world.now)  # a lie, or a mistake
    world.flush(world.machines[0])
    world.play(1)
    assert not any(isinstance(event, SeatLeft) for machine in world.machines.values() for event in machine.events)


@pytest.mark.parametrize("seed", range(10))
def test_a_player_joins_while_the_others_play(seed: int) -> None:
    world = World(4, seed, Way(0.04, 0.02, 0.05), 60.0, Keys)
    world.hand = hands(seed)
    for seat in range(3):
        world.add(seat, Tumble(), Keys, players={0, 1, 2})
    world.play(2 + seed / 7)
    newcomer = world.add(3, Tumble(), Keys, newcomer=True)
    world.watch(3, source=0)
    before = [world.machines[seat].session.stats.stalled_ticks for seat in range(3)]
    while not newcomer.spectator.is_live:
        world.play(0.1)
    world.machines[0].session.admit(3, world.now)
    world.flush(world.machines[0])
    world.play(4)
    assert newcomer.spectator is None
    assert_one_game(world)
    assert [world.machines[seat].session.stats.stalled_ticks for seat in range(3)] == before
    joined = {event for machine in world.machines.values() for event in machine.events if isinstance(event, SeatJoined)}
    assert {event.seat for event in joined} == {3}
    assert len(joined) == 1
    state = world.machines[3].simulation.state
    assert state.present > 3 * state.ticks  # its seat was there for a while


def test_who_dies_while_letting_somebody_in_leaves_one_answer() -> None:
    for seed in range(30):
        world = World(4, seed, Way(0.04, 0.03, 0.1), 60.0, Keys)
        world.hand = hands(seed)
        for seat in range(3):
            world.add(seat, Tumble(), Keys, players={0, 1, 2})
        world.add(3, Tumble(), Keys, newcomer=True)
        world.watch(3, source=0)
        world.play(2)
        world.machines[0].session.admit(3, world.now)
        world.flush(world.machines[0])
        world.play(seed * 0.01)
        world.remove(0, told_after_s=0.3)
        world.play(1.5)
        joined = [{e.seat for e in world.machines[s].events if isinstance(e, SeatJoined)} for s in (1, 2)]
        assert joined[0] == joined[1]
        if joined[0]:  # the newcomer itself was told by nobody, and the room lets go of it
            for seat in (1, 2):
                world.machines[seat].session.drop(3, world.now)
                world.flush(world.machines[seat])
        world.play(2)
        assert_one_game(world)
        assert world.machines[1].session.frame > 200
