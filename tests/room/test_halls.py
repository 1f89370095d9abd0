"""Matchmaking while the signaling server is dead: over a room that the players are in, with the same calls and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from psyne_mesh.errors import (
    InviteExpired,
    ManifestRefused,
    NotInvited,
    RoomFull,
    RoomNotFound,
    SignalingLost,
    UnknownCode,
    WrongPassword,
)
from psyne_mesh.identity import PeerId
from psyne_mesh.room.events import SignalingUp
from psyne_mesh.room.mesh import Mesh
from psyne_mesh.room.options import Party
from psyne_mesh.room.room import Room
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.hall_placer import HallPlacer
from psyne_mesh.signaling.joining import SeekRequest
from psyne_mesh.testing import World, open_world


class HallOf:
    """Players in one room, by seat, and the signaling server is dead from then on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.meshes: list[Mesh] = []
        self.halls: list[Room] = []

    def name(self, seat: int) -> str:
        """Of the machine of who has the seat."""
        return str(self.meshes[seat]._name)

    async def fill(self, players: int, before: Callable[[], Awaitable[Room]] | None = None) -> None:
        for number in range(players):
            mesh = await self.world.mesh(f"p{number}")
            self.meshes.append(mesh)
            self.halls.append(await mesh.join_game_room("hall", max_players=128))
        for hall in self.halls:
            await hall.wait_connected(players - 1)
        if before is not None:
            await before()
        self.world.hub.kill()
        await trio.sleep(5)
        by_seat = list(self.halls[0].seats)
        self.meshes.sort(key=lambda mesh: by_seat.index(mesh.me))  # the first one places
        self.halls.sort(key=lambda room: by_seat.index(room.me))


async def hall_of(world: World, players: int) -> HallOf:
    hall = HallOf(world)
    with trio.fail_after(60):
        await hall.fill(players)
    return hall


async def all_connected(*rooms: Room) -> None:
    with trio.fail_after(10):
        for room in rooms:
            await room.wait_connected(len(rooms) - 1)


async def quick_matches(
    hall: HallOf, meshes: list[Mesh], players: int, spread_s: float = 1.0
) -> tuple[list[Room], float]:
    found: list[Room] = []
    began = trio.current_time()

    async def match(mesh: Mesh, after_s: float) -> None:
        await trio.sleep(after_s)
        found.append(await mesh.quick_match(players=players))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number, mesh in enumerate(meshes):
                nursery.start_soon(match, mesh, spread_s * number / len(meshes))
    return found, trio.current_time() - began - spread_s


async def test_a_quick_match_is_made_without_the_server(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        hall = await hall_of(world, 12)
        rooms, took_s = await quick_matches(hall, hall.meshes, 4)
        assert sorted(Counter(room.code for room in rooms).values()) == [4, 4, 4]
        assert len({room.me for room in rooms}) == 12
        assert took_s <= 10


async def test_join_game_room_finds_and_makes_rooms(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        hall = await hall_of(world, 3)
        ada, bob, cid = hall.meshes
        with pytest.raises(RoomNotFound):
            await ada.join_game_room("fps", create=False)
        rooms = [await mesh.join_game_room("fps", max_players=2) for mesh in (ada, bob)]
        await all_connected(*rooms)
        assert rooms[0].code == rooms[1].code
        with pytest.raises(RoomFull):
            await cid.join_game_room("fps", create=False)
        assert (await cid.join_game_room("fps", max_players=2)).code != rooms[0].code


async def test_a_room_of_our_own_is_made_listed_and_entered(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob, cid = (await hall_of(world, 3)).meshes
        room = await ada.create_room("fps", password="swordfish", room_metadata={"map": "dust"})
        hidden = await ada.create_room("fps", policy="code")
        for mesh in (ada, bob):
            [info] = await mesh.list_rooms("fps")
            assert (info.code, info.policy, info.metadata) == (room.info.code, "password", {"map": "dust"})
        with pytest.raises(WrongPassword):
            await bob.join_room(room.code, password="sardine")
        await all_connected(room, await bob.join_room(room.code, password="swordfish"))
        await all_connected(hidden, await bob.join_room(hidden.code))
        with pytest.raises(UnknownCode):
            await cid.join_room("AAAA-AAAA")


async def test_an_invitation_holds_until_it_ends(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob, cid = (await hall_of(world, 3)).meshes
        room = await ada.create_room("fps", policy="invite")
        invite = room.invite(lifetime_s=30)
        await all_connected(room, await bob.join_room(invite))
        with pytest.raises(NotInvited):
            await cid.join_room(room.code)
        await trio.sleep(31)
        with pytest.raises(InviteExpired):
            await cid.join_room(invite)


async def test_a_list_tells_what_changes(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob, cid = (await hall_of(world, 3)).meshes
        told: list[tuple[str, str, int]] = []

        async def watch() -> None:
            async for change in cid.list_rooms("fps"):
                told.append((change.kind, change.room.name, change.room.players))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.sleep(3)
            room = await ada.create_room("fps")
            await trio.sleep(3)
            guest = await bob.join_room(room.code)
            await trio.sleep(3)
            await guest.leave()
            await trio.sleep(3)
            await room.leave()
            await trio.sleep(3)
            nursery.cancel_scope.cancel()
        assert told == [("new", "fps", 1), ("changed", "fps", 2), ("changed", "fps", 1), ("gone", "fps", 1)]


async def test_friends_enter_together(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        hall = await hall_of(world, 4)
        party, rooms = Party("ada and bob", 2), []

        async def enter(mesh: Mesh) -> None:
            rooms.append(await mesh.join_game_room("fps", max_players=2, party=party))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(enter, hall.meshes[2])
            await trio.sleep(5)
            assert not rooms
            nursery.start_soon(enter, hall.meshes[3])
        await all_connected(*rooms)


async def test_rooms_from_before_are_found_too(autojump_clock: MockClock) -> None:
    """A room that the server knew is told in the hall, with its code and its lock."""
    async with open_world(seed=1) as world:
        hall = HallOf(world)
        with trio.fail_after(60):
            await hall.fill(3, before=lambda: hall.meshes[1].create_room("fps", password="swordfish"))
        [info] = await hall.meshes[2].list_rooms("fps")
        with pytest.raises(WrongPassword):
            await hall.meshes[2].join_room(info.code, password="sardine")
        guest = await hall.meshes[2].join_room(info.code, password="swordfish")
        await guest.wait_connected(1)


async def test_who_places_dies_and_the_next_one_does(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        hall = await hall_of(world, 6)
        room = await hall.meshes[1].create_room("fps")
        world.crash(hall.name(0))
        rooms, took_s = await quick_matches(hall, hall.meshes[2:], 4)
        assert len({found.code for found in rooms}) == 1
        assert took_s <= 10
        await trio.sleep(30)
        guest = await hall.meshes[2].join_room(room.code)
        await all_connected(room, guest)


async def test_the_server_comes_back_and_knows_what_was_made_without_it(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        hall = await hall_of(world, 3)
        ada, bob, _ = hall.meshes
        room = await ada.create_room("fps", password="swordfish")
        events = room.events()
        found: list[Room] = []

        async def match() -> None:
            found.append(await bob.quick_match(players=2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(match)
            await trio.sleep(5)
            world.hub.revive()
            with trio.fail_after(5):
                while not isinstance(await anext(events), SignalingUp):
                    pass
            stranger = await world.mesh("stranger")
            late = await stranger.join_room(room.code, password="swordfish")
            await all_connected(room, late)
            assert not found
            # Who waited in the hall waits at the server now.
            with trio.fail_after(10):
                await stranger.quick_match(players=2)
        assert found


async def test_without_others_it_is_said_that_the_server_is_away(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        alone, other_game = await world.mesh("alone"), await world.mesh("other")
        await alone.join_game_room("fps")
        await alone.join_game_room("other", app_id="game")
        await other_game.join_game_room("other", app_id="game")
        await trio.sleep(3)
        world.hub.kill()
        await trio.sleep(1)
        with pytest.raises(SignalingLost):
            await alone.quick_match(players=2)
        with pytest.raises(SignalingLost):
            await alone.list_rooms("fps")


async def test_a_hall_that_was_left_answers_nobody(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        hall = await hall_of(world, 2)
        async with trio.open_nursery() as nursery:

            async def match() -> None:
                with pytest.raises(SignalingLost):
                    await hall.meshes[1].quick_match(players=2)

            nursery.start_soon(match)
            await trio.sleep(2)
            await hall.halls[1].leave()


async def test_who_stops_waiting_is_in_no_match(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        hall = await hall_of(world, 3)
        with trio.move_on_after(5):
            await hall.meshes[1].quick_match(players=2)
        with trio.move_on_after(5) as scope:
            await hall.meshes[2].quick_match(players=2)
        assert scope.cancelled_caught


# --------------------------------------------------------------------------------------------------------------- liars


class Lying:
    """What a placer answers to a seek, otherwise than it is."""

    def __init__(self, mesh: Mesh, room: Room, lie: Callable[[messages.Placed], messages.Placed]) -> None:
        self.told = 0
        self._lie = lie
        hall = mesh._core.halls._hall_of(room.info.room)
        placer = hall._placer = HallPlacer(lambda: 0, trio.current_time())
        self._answer = placer._answer
        placer._answer = self.answer  # type: ignore[method-assign]

    def answer(self, peer: PeerId, message: messages.Message) -> None:
        if isinstance(message, messages.Placed):
            self.told += 1
            message = self._lie(message)
        self._answer(peer, message)


def larger(placed: messages.Placed) -> messages.Placed:
    return replace(placed, info=replace(placed.info, max_players=1_000))


def unsigned(placed: messages.Placed) -> messages.Placed:
    return replace(placed, info=replace(placed.info, manifest=replace(placed.info.manifest, signature="", creator="")))


def elsewhere(placed: messages.Placed) -> messages.Placed:
    return replace(placed, info=replace(placed.info, room="//other", name="other"))


@pytest.mark.parametrize("lie", [larger, unsigned, elsewhere])
async def test_who_shows_what_nobody_signed_is_passed_over(
    autojump_clock: MockClock, lie: Callable[[messages.Placed], messages.Placed]
) -> None:
    async with open_world(seed=1) as world:
        hall = await hall_of(world, 5)
        liar = Lying(hall.meshes[0], hall.halls[0], lie)
        rooms, took_s = await quick_matches(hall, hall.meshes[1:], 4)
        assert len({room.code for room in rooms}) == 1
        assert liar.told == 4
        assert took_s <= 10


async def test_where_all_lie_it_is_one_typed_error(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        hall = await hall_of(world, 6)
        for mesh, room in zip(hall.meshes[:5], hall.halls[:5], strict=True):
            Lying(mesh, room, larger)
        with pytest.raises(ManifestRefused, match="another room"):
            await hall.meshes[5].join_game_room("fps")


async def test_who_places_players_alone_is_passed_over(autojump_clock: MockClock) -> None:
    """Each gets a true room of the placer's own making, and nobody else."""
    async with open_world(seed=1) as world:
        hall = await hall_of(world, 3)
        placer = HallPlacer(lambda: 0, trio.current_time())
        hall.meshes[0]._core.halls._hall_of(hall.halls[0].info.room)._placer = placer
        placing = placer._switchboard._placing
        place = placing.seek

        def alone(peer: PeerId, ref: int, request: SeekRequest, now: float, address: str = "") -> None:
            place(peer, ref, attrs.evolve(request, players=0, avoid=("//",)), now, address)

        placing.seek = alone  # type: ignore[method-assign]
        registry = placer._switchboard.registry
        registry._best = lambda *_: None  # type: ignore[method-assign]
        rooms, took_s = await quick_matches(hall, hall.meshes[1:], 2)
        assert len({room.code for room in rooms}) == 1
        assert took_s <= 60


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_hundred_players_are_in_full_rooms_within_ten_seconds(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        hall = HallOf(world)
        await hall.fill(100)
        rooms, took_s = await quick_matches(hall, hall.meshes, 4)
        assert sorted(Counter(room.code for room in rooms).values()) == [4] * 25
        assert len({room.me for room in rooms}) == 100
        assert all(len(room.connected) == 3 for room in rooms)
        assert took_s <= 10
