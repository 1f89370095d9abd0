"""Many deadlines on one sleeper, in virtual time."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from psyne_mesh.webrtc.ice.deadlines import Deadlines


class Who:
    """Notes when it was woken, and asks for nothing more."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self.woken: list[float] = []

    def at(self, deadline: float) -> None:
        self.deadlines.set(self, deadline)

    def handle_timeout(self, now: float) -> None:
        self.woken.append(now)
        self.at(math.inf)


@pytest.fixture
async def deadlines(autojump_clock: MockClock) -> AsyncGenerator[Deadlines, None]:
    deadlines = Deadlines()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        yield deadlines
        nursery.cancel_scope.cancel()


async def test_each_is_woken_at_its_time(autojump_clock: MockClock, deadlines: Deadlines) -> None:
    began = trio.current_time()
    many = [Who(deadlines) for _ in range(20)]
    for number, who in enumerate(reversed(many)):
        who.at(began + 1 + number)
    await trio.sleep(30)
    assert [who.woken for who in reversed(many)] == [[began + 1 + number] for number in range(20)]


async def test_a_deadline_may_move_both_ways(autojump_clock: MockClock, deadlines: Deadlines) -> None:
    began = trio.current_time()
    who, other = Who(deadlines), Who(deadlines)
    other.at(began + 7)
    who.at(began + 5)
    await trio.sleep(1)
    who.at(began + 2)
    await trio.sleep(2)
    assert who.woken == [began + 2]
    who.at(began + 4)
    who.at(began + 9)
    await trio.sleep(5)
    assert (who.woken, other.woken) == ([began + 2], [began + 7])
    await trio.sleep(5)
    assert who.woken == [began + 2, began + 9]


async def test_what_is_dropped_is_not_woken_not_even_by_another_in_the_same_pass(
    autojump_clock: MockClock, deadlines: Deadlines
) -> None:
    began = trio.current_time()
    gone, victim = Who(deadlines), Who(deadlines)

    class Murderer(Who):
        def handle_timeout(self, now: float) -> None:
            super().handle_timeout(now)
            deadlines.drop(victim)

    murderer = Murderer(deadlines)
    for who in (gone, murderer, victim):
        who.at(began + 1)
    deadlines.drop(gone)
    deadlines.drop(gone)
    await trio.sleep(5)
    assert (gone.woken, murderer.woken, victim.woken) == ([], [began + 1], [])
    assert len(deadlines) == 1


async def test_a_deadline_that_was_past_already_wakes_at_once(autojump_clock: MockClock, deadlines: Deadlines) -> None:
    who = Who(deadlines)
    now = trio.current_time()
    who.at(now - 5)
    await trio.testing.wait_all_tasks_blocked()
    assert who.woken == [now]
