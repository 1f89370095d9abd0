"""A port waits a moment between two looks where a crowd sends, and never else."""

from __future__ import annotations

import pytest

from psyne_mesh.webrtc.ice.collecting import WAIT_S, Collecting


def waits(senders: int, hz: float, *, seconds: float = 1.0, burst: int = 1) -> list[float]:
    collecting = Collecting()
    now, said = 100.0, []
    for number in range(int(seconds * hz * senders / burst)):
        now += burst / (hz * senders)
        said.append(collecting.note([(b"x", ("192.0.2.1", (number + n) % senders)) for n in range(burst)], now))
    return said


def test_a_room_of_sixteen_is_collected() -> None:
    said = waits(15, 60)
    assert set(said[-500:]) == {WAIT_S}
    assert set(waits(15, 60, burst=3)[-200:]) == {WAIT_S}  # once it is, fewer looks find more each


@pytest.mark.parametrize(("senders", "hz"), [(5, 60), (1, 5000), (3, 240), (15, 2)])
def test_few_players_a_dialogue_and_idleness_are_not(senders: int, hz: float) -> None:
    assert set(waits(senders, hz)) == {0.0}


def test_the_crowd_is_forgotten_when_it_has_gone() -> None:
    collecting = Collecting()
    now = 100.0
    for number in range(300):
        now += 0.001
        last = collecting.note([(b"x", ("192.0.2.1", number % 15))], now)
    assert last == WAIT_S
    assert collecting.note([(b"x", ("192.0.2.1", 1))], now + 1.0) == 0.0
