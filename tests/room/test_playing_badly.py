"""What goes wrong in a game, and what others do to it: it is told by its type, and the room lives on."""

from __future__ import annotations

import math
import random
from typing import Annotated, Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import UnserialisableMessage
from psyne_mesh.game.rollback import Contradiction, Desync, Game, GameFailed, Input
from psyne_mesh.room.events import Equivocated, NotSigned
from psyne_mesh.room.playing import Play, Running, Start
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality
from psyne_mesh.testing.plugin import OpenWorld

QUALITY = Quality(latency_s=0.03, jitter_s=0.01, loss=0.02)


class Keys(Input):
    steer: Annotated[int, msgspec.Meta(ge=-9, le=9)] = 0
    blow_up: bool = False


class Race(Game):
    places: list[int] = []
    ticks: int = 0

    def tick(self, inputs: list[Keys]) -> None:
        self.places = self.places or [0] * len(inputs)
        for seat, keys in enumerate(inputs):
            self.places[seat] += keys.steer
        self.ticks += 1
        if any(keys.blow_up for keys in inputs):
            raise ZeroDivisionError("of the game's own")


class Driver:
    def __init__(self, room: Room, players: int) -> None:
        self.room, self.play = room, room.play(Race, inputs=Keys, players=players)
        self.keys, self.failed = Keys(), None
        self.events: list[Any] = []
        room.on(Equivocated, self.events.append)
        room.on(NotSigned, self.events.append)

    async def run(self) -> None:
        dice = random.Random(self.room.player.name)
        while self.failed is None:
            try:
                self.play.advance(Keys(dice.randint(-9, 9), self.keys.blow_up))
            except GameFailed as error:
                self.failed = error
            self.events += [event for event in self.play.events() if isinstance(event, Contradiction | Desync)]
            await trio.sleep(1 / 60)


async def begun(world: Any, nursery: trio.Nursery, *names: str) -> list[Driver]:
    rooms = [await world.join("race", name) for name in names]
    drivers = []
    for room in rooms:
        await room.wait_connected(len(rooms) - 1)
        drivers.append(Driver(room, len(rooms)))
        nursery.start_soon(drivers[-1].run)
    with trio.fail_after(60):
        while not all(driver.play.is_begun for driver in drivers):
            await trio.sleep(0.1)
    return drivers


async def test_a_tick_that_raises_stops_all_at_one_tick_and_the_room_lives_on(
    autojump_clock: MockClock, psyne_world: OpenWorld
) -> None:
    async with psyne_world(quality=QUALITY) as world, trio.open_nursery() as nursery:
        drivers = await begun(world, nursery, "ada", "bob", "cid")
        await trio.sleep(2)
        drivers[1].keys = Keys(blow_up=True)
        with trio.fail_after(10):
            while not all(driver.failed for driver in drivers):
                await trio.sleep(0.1)
        assert len({driver.failed.frame for driver in drivers if driver.failed}) == 1
        assert all(isinstance(driver.failed.__cause__, ZeroDivisionError) for driver in drivers if driver.failed)
        ada, bob = drivers[0].room, drivers[1].room
        await ada.channel("chat").send("still here")
        assert (await bob.channel("chat").receive())[1] == "still here"
        nursery.cancel_scope.cancel()


async def test_an_input_that_cannot_be_is_told_by_its_field_and_changes_nothing(
    autojump_clock: MockClock, psyne_world: OpenWorld
) -> None:
    async with psyne_world(quality=QUALITY) as world, trio.open_nursery() as nursery:
        (ada, _) = await begun(world, nursery, "ada", "bob")
        wrong: list[tuple[Any, str]] = [
            ("up", "Keys"), (Keys(10), "Keys.steer"), (Keys("left"), "Keys.steer"), (None, "Keys"),  # type: ignore[arg-type]
            (Keys(blow_up=1), "Keys.blow_up"), (Input(), "Keys"),  # type: ignore[arg-type]
        ]  # fmt: skip
        for value, named in wrong:
            with pytest.raises(UnserialisableMessage, match=named):
                ada.play.advance(value)
        before = ada.play.stats.ticks if ada.play.stats else 0
        await trio.sleep(2)
        assert ada.play.stats is not None
        assert ada.play.stats.ticks - before > 50
        assert ada.events == []
        nursery.cancel_scope.cancel()


async def test_who_does_not_know_the_rooms_time_yet_begins_when_it_does(
    autojump_clock: MockClock, psyne_world: OpenWorld
) -> None:
    """A host may be found before the clock is set: a start of another clock is billions of ticks away."""
    async with psyne_world(quality=QUALITY) as world, trio.open_nursery() as nursery:
        rooms = [await world.join("race", name) for name in ("ada", "bob")]
        for room in rooms:
            await room.wait_connected(1)
        late, right, error = rooms[1], rooms[1].time, rooms[1].time_error
        late.time, late.time_error = trio.current_time, lambda: math.inf  # type: ignore[method-assign]
        drivers = [Driver(room, 2) for room in rooms]
        for driver in drivers:
            nursery.start_soon(driver.run)
        await trio.sleep(12)
        assert not drivers[1].play.is_begun
        late.time, late.time_error = right, error  # type: ignore[method-assign]
        await trio.sleep(6)
        for driver in drivers:
            assert driver.play.stats is not None
            assert driver.play.stats.ticks > 200
            assert driver.play._session is not None
            assert driver.play._session._schedule.slipped < 1000
        nursery.cancel_scope.cancel()


async def test_who_has_no_seat_and_who_talks_nonsense_ends_nobodys_game(
    autojump_clock: MockClock, psyne_world: OpenWorld
) -> None:
    async with psyne_world(quality=QUALITY) as world, trio.open_nursery() as nursery:
        ada, bob = await begun(world, nursery, "ada", "bob")
        eve = await world.join("race", "eve")
        await eve.wait_connected(2)
        inputs = eve.channel("psyne.play.Race", mode="unreliable")
        words = eve.channel("psyne.play.Race.words", mode="reliable")
        dice = random.Random(1)
        own = [(2, eve.me.raw), (0, eve.me.raw), (1, ada.room.me.raw)]
        lies = [b"\0" + msgspec.msgpack.encode(word) for word in (Start(1.0, 5, own), Running(2.0, own))]
        for _ in range(200):
            inputs.send_nowait(dice.randbytes(dice.randrange(40)))
            inputs.send_nowait("text")
            words.send_nowait(dice.choice([b"\1", b"\0", b""]) + dice.randbytes(dice.randrange(40)))
            words.send_nowait(dice.choice(lies))
            await trio.sleep(0.01)
        await trio.sleep(2)
        assert set(ada.play.players.values()) == {ada.room.me, bob.room.me}
        assert ada.play.stats is not None
        assert ada.play.stats.ticks > 200
        assert ada.play.stats.stalled_ticks == 0
        assert ada.play.refused > 100
        assert ada.events + bob.events == []
        nursery.cancel_scope.cancel()


async def test_inputs_of_which_another_story_is_signed_are_noticed(
    autojump_clock: MockClock, psyne_world: OpenWorld
) -> None:
    async with psyne_world(quality=QUALITY) as world, trio.open_nursery() as nursery:
        drivers = await begun(world, nursery, "ada", "bob", "eve")
        await trio.sleep(3)
        assert all(driver.events == [] for driver in drivers)
        eve = drivers[2]
        sign(eve.play)
        await trio.sleep(3)
        for driver in drivers[:2]:
            (noticed,) = driver.events
            assert isinstance(noticed, NotSigned)
            assert (noticed.peer.id, noticed.stream.split("@")[0]) == (eve.room.me, "psyne.play.Race")
        nursery.cancel_scope.cancel()


def sign(play: Play[Race, Keys]) -> None:
    """From now on something else than what it says."""
    honest = play._testimony
    assert honest is not None

    class Lying:
        def said_span(self, stream: str, span: int, entries: list[bytes]) -> None:
            honest.said_span(stream, span, [bytes(16), *entries[1:]])

        def __getattr__(self, name: str) -> Any:
            return getattr(honest, name)

    play._testimony = Lying()  # type: ignore[assignment]
