"""Coming and going: what it costs others and the server, as bytes."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.identity import PeerId
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.churn import Churn, ChurnLimits, Weight
from psyne_mesh.signaling.registry import RegistryLimits
from psyne_mesh.signaling.switchboard import Switchboard

RECORD = "r" * 700  # a usual one
EVIL = PeerId("e" * 32)


def peer(number: int) -> PeerId:
    return PeerId(f"{number:032x}")


def crowded(size: int) -> Switchboard:
    board = Switchboard(RegistryLimits())
    for number in range(size):
        join = m.Join(ref=0, name="r", max_players=10_000, record=RECORD)
        board.receive(peer(number), join, 0.0, f"{number}")
    board.take_outputs()
    return board


def spoken(board: Switchboard) -> int:
    """Bytes out, to whomever."""
    return sum(len(m.encode(d.message)) * len(d.peers) for d in board.take_outputs())


@pytest.mark.parametrize(
    ("size", "record", "keys"),
    [(16, "", 500), (100, "", 1), (100, RECORD, 500), (1_000, RECORD, 1), (1_000, "", 500)],
)
def test_a_byte_of_churn_makes_the_server_say_at_most_ten(size: int, record: str, keys: int) -> None:
    """1.15 Mbit/s of joins and leaves from one address for 20 s, the hellos not counted."""
    board, heard, said, now, turn = crowded(size), 0, 0, 1_000.0, 0
    while now < 1_020.0:
        who = peer(10_000 + turn % keys)
        for message in (m.Join(ref=turn, name="r", record=record), m.Leave(ref=turn, room="//r")):
            bytes_in = len(m.encode(message))
            heard += bytes_in
            now += bytes_in / (1.15e6 / 8)
            board.receive(who, message, now, "evil")
            said += spoken(board)
        turn += 1
    assert said <= 10 * heard, said / heard


def test_the_restless_are_told_to_a_few_and_then_refused() -> None:
    board = crowded(100)
    told: list[int] = []
    refusals: list[str] = []
    for _ in range(200):
        board.receive(EVIL, m.Join(ref=1, name="r"), 0.0, "evil")
        for delivery in board.take_outputs():
            if isinstance(delivery.message, m.MemberJoined):
                told.append(len(delivery.peers))
            if isinstance(delivery.message, m.Error):
                refusals.append(delivery.message.message)
        board.receive(EVIL, m.Leave(ref=2, room="//r"), 0.0, "evil")
        board.take_outputs()
    assert (told[0], told[-1]) == (100, 4)
    assert "too often; come back in" in refusals[-1]
    assert 10 < len(told) < 90
    board.receive(EVIL, m.Join(ref=1, name="r"), 300.0, "evil")
    assert any(isinstance(d.message, m.MemberJoined) and len(d.peers) == 100 for d in board.take_outputs())


def test_players_who_come_and_go_as_players_do_are_told_to_all() -> None:
    """A lobby of 256 that its players enter again every two minutes, and whose connections flap now and then."""
    board, rng, now = crowded(256), random.Random(1), 1_000.0
    short = 0
    for _ in range(1_000):
        now += rng.expovariate(256 / 120)
        who = rng.randrange(256)
        board.depart(peer(who), "lost", now)
        board.receive(peer(who), m.Join(ref=1, name="r", record=RECORD), now + 0.5, f"{who}")
        for delivery in board.take_outputs():
            short += isinstance(delivery.message, m.MemberJoined) and len(delivery.peers) < 255
    assert short <= 2


def test_neighbours_behind_one_address_are_never_refused() -> None:
    churn = Churn(ChurnLimits())
    weights = []
    for number in range(5_000):
        weights.append(churn.weigh(peer(number), "town", 0.0))
        churn.charge(peer(number), "town", 100, 0.0)
    assert set(weights) == {Weight.FULL, Weight.THIN, Weight.BARE}
    assert weights.count(Weight.FULL) == pytest.approx(82, abs=2)
    assert churn.weigh(peer(1), "another town", 0.0) is Weight.FULL
