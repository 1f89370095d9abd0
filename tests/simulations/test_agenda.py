"""The queue of the world: entries come by time, and in the order in which they were pushed."""

from __future__ import annotations

import random

from psyne_mesh.simulations.agenda import Agenda, grained


def test_entries_come_by_time_and_then_in_the_order_of_their_pushing():
    rng = random.Random(7)
    agenda, due, taken = Agenda(), [], []
    for number in range(3000):
        now = number / 100
        time = now + rng.choice((0.0, 0.001, 0.02, 0.5, 4.0, 15.0)) * rng.randrange(3)
        agenda.push(time, 0, "entry", number)
        due.append((grained(time), number))
        while (entry := agenda.pop(now)) is not None:
            taken.append((entry[0], entry[4]))
            assert taken[-1] == min(due)
            due.remove(taken[-1])
        assert not due or min(due)[0] > now
    assert len(taken) > 2000


def test_what_is_pushed_into_the_slot_at_hand_is_not_late():
    agenda = Agenda()
    agenda.push(10.0, 0, "late", None)
    assert agenda.pop(9.0) is None
    agenda.push(9.5, 0, "early", None)
    assert [agenda.pop(20.0)[3], agenda.pop(20.0)[3]] == ["early", "late"]
    assert agenda.pop(20.0) is None


def test_a_grain_is_never_before_the_time_that_it_stands_for():
    assert grained(1.0) == 1.0
    assert 0.1 <= grained(0.1) < 0.1 + 2e-6
    assert grained(grained(0.1)) == grained(0.1)
