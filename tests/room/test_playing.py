"""Rollback games in real rooms on the virtual network: they begin, stay one, take in who comes and let go of who leaves."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.game.rollback import Game, Input, SeatJoined, SeatLeft
from psyne_mesh.room.playing import Play, control_untrusted
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, World, open_world


class Keys(Input):
    up: bool = False
    down: bool = False


class Duel(Game):
    places: list[int] = []
    ticks: int = 0
    total: int = 0

    def tick(self, inputs: list[Keys]) -> None:
        self.places = self.places or [0] * len(inputs)
        for seat, keys in enumerate(inputs):
            self.places[seat] += (keys.up - keys.down) * keys.present
            self.total = (self.total * 33 + self.places[seat] + keys.present) % 1_000_003
        self.ticks += 1
        self.total += self.random.below(100)


class Player:
    def __init__(self, room: Room, number: int, players: int) -> None:
        self.room, self.number = room, number
        self.play: Play[Duel, Keys] = room.play(Duel, inputs=Keys, players=players)
        self.events: list[object] = []
        self.frames = 0

    async def run(self) -> None:
        while True:
            self.frames += 1
            self.play.advance(Keys(up=self.frames // 20 % (self.number + 2) == 0, down=self.frames % 7 == 0))
            self.events += self.play.events()
            await trio.sleep(1 / 60)


async def joined(world: World, nursery: trio.Nursery, *names: str, players: int) -> list[Player]:
    found = []
    for number, name in enumerate(names):
        room = await world.join("duel", name)
        await room.wait_connected()
        found.append(Player(room, number, players))
        nursery.start_soon(found[-1].run)
    return found


async def until(what: str, condition: object) -> None:
    with trio.fail_after(40):
        while not condition():  # type: ignore[operator]
            await trio.sleep(0.05)


def assert_one_game(players: list[Player]) -> None:
    sessions = [player.play._session for player in players]
    frame = min(min(session.confirmed, session.frame) for session in sessions if session) - 5
    states = {session._checks.state(frame) for session in sessions if session}
    assert len(states) == 1
    assert None not in states


async def test_a_game_begins_takes_in_who_comes_later_and_lets_go_of_who_dies(autojump_clock: MockClock) -> None:
    async with (
        open_world(seed=3, quality=Quality(latency_s=0.03, jitter_s=0.005, loss=0.01)) as world,
        trio.open_nursery() as nursery,
    ):
        players = await joined(world, nursery, "ada", "bob", "cid", players=3)
        await until("begun", lambda: all(player.play.is_begun for player in players))
        assert {player.play.seat for player in players} == {0, 1, 2} or len({p.play.seat for p in players}) == 3
        await trio.sleep(4)
        assert_one_game(players)
        assert min(player.play.state.ticks for player in players if player.play.state) > 100

        late = Player(await world.join("duel", "dan"), 3, 3)
        nursery.start_soon(late.run)
        await until("joined", lambda: late.play.is_begun)
        await trio.sleep(3)
        assert_one_game([*players, late])
        assert all(any(isinstance(event, SeatJoined) for event in player.events) for player in players)
        assert late.play.players == players[0].play.players

        world.crash("bob")
        rest = [players[0], players[2], late]
        await until("cut", lambda: all(any(isinstance(event, SeatLeft) for event in player.events) for player in rest))
        await trio.sleep(3)
        assert_one_game(rest)
        assert len({event for player in rest for event in player.events if isinstance(event, SeatLeft)}) == 1
        assert not players[0].play.refused
        nursery.cancel_scope.cancel()


async def test_who_crashes_goes_on_in_its_slot_with_what_it_had(autojump_clock: MockClock) -> None:
    async with (
        open_world(seed=5, quality=Quality(latency_s=0.03, jitter_s=0.005, loss=0.01)) as world,
        trio.open_nursery() as nursery,
    ):
        players = await joined(world, nursery, "ada", "bob", "cid", players=3)
        await until("begun", lambda: all(player.play.is_begun for player in players))
        await trio.sleep(5)
        slot = players[1].play.seat
        assert slot is not None
        rest = [players[0], players[2]]
        world.crash("bob")
        await until("cut", lambda: all(any(isinstance(event, SeatLeft) for event in player.events) for player in rest))
        await trio.sleep(2)
        assert rest[0].play.state is not None
        place = rest[0].play.state.places[slot]
        newcomer = Player(await world.join("duel", "dan"), 3, 3)
        nursery.start_soon(newcomer.run)
        await until("joined", lambda: newcomer.play.is_begun)
        assert newcomer.play.seat != slot  # it is kept for the key
        await trio.sleep(12)
        assert rest[0].play.state.places[slot] == place  # without inputs it stays as it was
        again = Player(await world.join("duel", "bob"), 1, 3)
        nursery.start_soon(again.run)
        await until("back", lambda: again.play.is_begun)
        assert again.play.seat == slot
        assert again.play.state is not None
        assert abs(again.play.state.places[slot] - place) < 60
        await trio.sleep(3)
        assert_one_game([*rest, newcomer, again])
        assert rest[0].play.state.places[slot] != place
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_played_is_told_when_it_is_asked_for(autojump_clock: MockClock) -> None:
    class Endless(Game):
        needed: msgspec.Raw = msgspec.Raw()

    class NoDefault(Input):
        name: str = ""

    async with open_world(seed=4) as world:
        room = await world.join("duel", "ada")
        with pytest.raises(InvalidConfig, match=r"rollback\.Game"):
            room.play(int, inputs=Keys)  # type: ignore[type-var]
        with pytest.raises(InvalidConfig, match=r"NoDefault\.name"):
            room.play(Duel, inputs=NoDefault)
        with pytest.raises(InvalidConfig, match="players"):
            room.play(Duel, inputs=Keys, players=0)
        play = room.play(Duel, inputs=Keys, players=1)
        with pytest.raises(TypeError, match="Keys"):
            play.advance("up")  # type: ignore[arg-type]
        await trio.sleep(8)
        for _ in range(300):
            play.advance(Keys(up=True))
            await trio.sleep(1 / 60)
        assert play.state is not None
        assert play.state.ticks > 100


@given(st.binary(max_size=120))
def test_nothing_but_a_protocol_error_leaves_their_words(data: bytes) -> None:
    with suppress(ProtocolError):
        control_untrusted(data)
