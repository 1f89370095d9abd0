"""What crosses between the two threads: bounded, and nothing that matters is lost by a bound."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from psyne_mesh.game.replicas import Replicas
from psyne_mesh.game.schema import Shared
from psyne_mesh.game.shared import OwnerAbsent
from psyne_mesh.identity import PeerId
from psyne_mesh.sync.handover import BACKLOG_MAX, Backlog, compacted
from tests.game.party import Party


class Thing(Shared):
    a: int = 0
    b: int = 0


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_compacted_backlog_says_the_same_in_the_end(seed: int) -> None:
    rng = random.Random(seed)
    party = Party("ab", seed, fps=30.0)
    a, b = party.players.values()
    backlog: list[Any] = []
    b.take = lambda: backlog.extend((event, "a") for event in b.wire.take_events())  # type: ignore[method-assign]
    mine: list[Thing] = []

    def play(now: float) -> None:
        dice = rng.random()
        if dice < 0.3:
            mine.append(a.share(Thing()))  # type: ignore[arg-type]
        elif dice < 0.5 and mine:
            a.unshare(mine.pop(rng.randrange(len(mine))))
        elif mine:
            setattr(rng.choice(mine), rng.choice("ab"), rng.randrange(100))

    party.run(2.0, play)
    party.run(1.0)
    at, plain, short = rng.randrange(len(backlog) + 1), Replicas(), Replicas()
    for replicas in (plain, short):
        replicas.know(Thing)
    for event, player in backlog:
        event_values = dict(getattr(event, "values", {}))
        plain.apply(event, player)
        if event_values:
            event.values = event_values
    for event, player in backlog[:at] + compacted(backlog[at:]):
        short.apply(event, player)
    values = sorted((thing.a, thing.b) for thing in mine)
    assert sorted((thing.a, thing.b) for thing in plain.all(Thing)) == values
    assert sorted((thing.a, thing.b) for thing in short.all(Thing)) == values


def test_a_backlog_stays_within_its_bound() -> None:
    party = Party("ab")
    a, b = party.players.values()
    backlog = Backlog()
    b.take = lambda: [backlog.put(event, None) for event in b.wire.take_events()]  # type: ignore[method-assign, arg-type, func-returns-value]
    things = [a.share(Thing()) for _ in range(30)]

    def play(now: float) -> None:
        for thing in things:
            thing.a += 1  # type: ignore[attr-defined]

    party.run(10.0, play)
    assert len(backlog._events) <= BACKLOG_MAX
    assert {event.values[0] for event, _ in compacted(backlog.take())[-30:]}  # type: ignore[union-attr]
    assert backlog.take() == []


def test_who_crashed_and_was_heard_since_is_not_absent_in_a_compacted_backlog() -> None:
    party = Party("ab")
    a, b = party.players.values()
    events: list[Any] = []
    b.take = lambda: events.extend((event, "a") for event in b.wire.take_events())  # type: ignore[method-assign]
    thing = a.share(Thing())
    party.run(0.5)
    said = events.copy()
    b.wire.peer_left(PeerId("a"), keep_until=party.now + 45)
    gone = [(event, "a") for event in b.wire.take_events()]
    assert [type(event) for event, _ in gone] == [OwnerAbsent]
    b.wire.peer_joined(PeerId("a"), party.now)
    a.wire.peer_left(PeerId("b"))
    a.wire.peer_joined(PeerId("b"), party.now)
    events.clear()
    thing.a = 5  # type: ignore[attr-defined]
    party.run(0.5)
    for backlog, is_absent in ((said + gone, True), (said + gone + events, False)):
        replicas = Replicas()
        replicas.know(Thing)
        for event, player in compacted([*backlog]):
            replicas.apply(event, player)
        assert [each.is_absent for each in replicas.all(Thing)] == [is_absent]
