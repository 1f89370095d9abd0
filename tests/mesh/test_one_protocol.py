"""The simulator and the product are one protocol: a script is played in both, and every player is told the same story."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import pytest
from trio.testing import MockClock

from tests.mesh.one_script import Fact, Facts, Step, play_rooms, play_simulator

NAMES = ("ada", "bob", "cid", "dan", "eve", "fay")
SCRIPT = [
    *(Step(0.4 * number, "join", (name,)) for number, name in enumerate(NAMES)),
    Step(6, "crash", ("fay",)),
    Step(10, "hang_up", ("ada", "bob")),
    Step(13, "cut", ("ada", "bob")),
    Step(20, "heal"),
    Step(29, "crash", ("cid",)),
    Step(29.5, "start", ("cid",)),
    Step(33, "leave", ("dan",)),
]
END = 36.0
# How far apart the two may be, in seconds. Verdicts take the same rounds in both; after a heal the next check of a path
# decides, one a second, and who comes second may have to wait for another round of dials.
APART_S, APART_HEALING_S = 0.8, 4.0
HEALING = (20.0, 29.0)


def stories(facts: Iterable[Fact]) -> dict[tuple[str, ...], list[Fact]]:
    """What was told of each player, in order. Cuts are apart, and of several events that tell of one the first is taken: which
    of its members come in one event is a matter of milliseconds."""
    told: dict[tuple[str, ...], list[Fact]] = {}
    for fact in facts:
        is_cut = fact.kind in ("cut", "healed")
        story = told.setdefault(("a cut",) if is_cut else fact.about, [])
        if is_cut and story and story[-1].kind == fact.kind:
            story[-1] = attrs.evolve(story[-1], about=tuple(sorted({*story[-1].about, *fact.about})))
        else:
            story.append(fact)
    return told


def said(story: Iterable[Fact]) -> list[tuple[str, str]]:
    return [(fact.kind, fact.reason) for fact in story]


def bound_s(fact: Fact) -> float:
    return APART_HEALING_S if HEALING[0] <= fact.at < HEALING[1] else APART_S


def assert_same_story(rooms: Facts, simulated: Facts) -> None:
    for name in NAMES:
        real, played = stories(rooms[name]), stories(simulated[name])
        assert real.keys() == played.keys(), name
        for about, story in real.items():
            other = played[about]
            assert [fact.about for fact in story] == [fact.about for fact in other]
            assert said(story) == said(other), f"{name} of {about}: {story} in rooms, {other} in the simulator"
            for one, two in zip(story, other, strict=True):
                assert abs(one.at - two.at) <= bound_s(one), f"{name}: {one} in rooms, {two} in the simulator"


@pytest.mark.parametrize("seed", [1])
async def test_one_script_is_one_story_in_rooms_and_in_the_simulator(autojump_clock: MockClock, seed: int) -> None:
    rooms = await play_rooms(SCRIPT, END, seed, max_players=8)
    simulated = play_simulator(SCRIPT, END, seed, max_players=8)
    assert_same_story(rooms, simulated)
    survivor = said(fact for fact in rooms["ada"] if fact.about == ("cid",))
    assert survivor == [
        ("discovered", ""), ("suspected", ""), ("left", "timeout"), ("discovered", ""), ("left", "superseded"),
        ("discovered", ""),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 10))
async def test_it_is_under_other_seeds(autojump_clock: MockClock, seed: int) -> None:
    assert_same_story(
        await play_rooms(SCRIPT, END, seed, max_players=8), play_simulator(SCRIPT, END, seed, max_players=8)
    )
