"""Lobbies as players use them: rooms over the kit's virtual network, a hub in memory, virtual time."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress

import attrs
import msgspec
import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import (
    AppVersionMismatch,
    InvalidConfig,
    InviteExpired,
    ManifestRefused,
    NotInvited,
    RoomExists,
    RoomFull,
    RoomGone,
    SignalingLost,
    UnknownCode,
    WrongPassword,
)
from psyne_mesh.room.listing import RoomChange
from psyne_mesh.room.mesh import Mesh, create_room, list_rooms, quick_match
from psyne_mesh.room.options import Party
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.joining import RoomQuery, SeekRequest
from psyne_mesh.testing import World, open_world


async def all_connected(rooms: Iterable[Room]) -> None:
    rooms = list(rooms)
    with trio.fail_after(30):
        for room in rooms:
            await room.wait_connected(len(rooms) - 1)


async def test_the_player_after_the_last_seat_plays_in_a_second_room(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        rooms = [await world.join("fps", f"p{number}", max_players=2) for number in range(4)]
        await all_connected(rooms[:2])
        await all_connected(rooms[2:])
        assert rooms[0].code == rooms[1].code != rooms[2].code == rooms[3].code
        with pytest.raises(RoomFull, match="create_room"):
            await world.join("fps", "p4", create=False)


async def test_another_skill_or_version_plays_elsewhere(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada = await world.join("fps", "ada", skill_range=(1, 2))
        bob = await world.join("fps", "bob", skill_range=(3, 4))
        cid = await world.join("fps", "cid", skill_range=(3, 4), app_version="2")
        assert len({ada.code, bob.code, cid.code}) == 3
        assert bob.skill_range == (3, 4)
        with pytest.raises(AppVersionMismatch) as told:
            await world.join("fps", "eve", app_version="3", create=False)
        assert told.value.ours == "3"


async def test_a_region_that_was_measured_as_near_will_do(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        east = await world.join("fps", "ada", region="us-east")
        far = await world.join("fps", "bob", region="asia", region_rtt_ms={"us-east": 210})
        near = await world.join("fps", "cid", region="us-west", region_rtt_ms={"us-east": 60, "asia": 150})
        assert near.code == east.code != far.code
        assert near.region == "us-east"
        await all_connected([east, near])


async def test_a_player_who_crashed_comes_back_to_its_own_instance(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        rooms = [await world.join("fps", f"p{number}", max_players=3) for number in range(6)]
        await all_connected(rooms[3:])
        world.crash("p4")
        await trio.sleep(35)  # signaling has missed it, and holds its seat
        again = await world.join("fps", "p4", max_players=3)
        assert again.code == rooms[3].code
        await all_connected([rooms[3], rooms[5], again])


async def test_a_room_of_our_own_is_entered_by_its_code_only(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        host, friend, other = [await world.mesh(name) for name in ("host", "friend", "other")]
        room = await host.create_room("fps", policy="code", max_players=4, room_metadata={"map": "dust"})
        assert (await other.join_game_room("fps")).code != room.code
        assert [info.code for info in await other.list_rooms("fps")] != [room.info.code]
        guest = await friend.join_room(room.code.lower().replace("-", " "))
        await all_connected([room, guest])
        assert (guest.name, guest.max_players, guest.info.metadata) == ("fps", 4, {"map": "dust"})
        for wrong in ("AAAA-AAAA", "0000-0000"):
            with pytest.raises(UnknownCode, match=wrong):
                await other.join_room(wrong)
        with pytest.raises(RoomExists):
            await friend.join_room(room.code)
        await guest.leave()
        await room.leave()
        await trio.sleep(1)
        with pytest.raises(UnknownCode):
            await friend.join_room(room.code)


async def test_a_password_opens_a_room_and_is_nowhere_to_be_seen(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_world(seed=1) as world:
        host, friend, thief = [await world.mesh(name) for name in ("host", "friend", "thief")]
        room = await host.create_room("fps", password="swordfish")
        assert [info.policy for info in await thief.list_rooms("fps")] == ["password"]
        for wrong in ("swordfisH", None):
            with pytest.raises(WrongPassword) as told:
                await thief.join_room(room.code, password=wrong)
            assert "swordfis" not in str(told.value)
        guest = await friend.join_room(room.code, password="swordfish")
        await all_connected([room, guest])
        seen = world.hub.registry.list_rooms(RoomQuery(code=room.info.code)).rooms
        assert "swordfish" not in repr(seen) + caplog.text + repr(room) + repr(guest.info)


async def test_who_is_let_in_by_the_server_alone_is_nobody_in_a_locked_room(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        host, friend, spy = [await world.mesh(name) for name in ("host", "friend", "spy")]
        room = await host.create_room("fps", password="swordfish")
        guest = await friend.join_room(room.code, password="swordfish")
        await all_connected([room, guest])
        # A server that lies: the spy is in its list, and gets the records of the members.
        registry = world.hub.registry
        [key] = registry.rooms_of(room.me)
        spied = await spy.join_game_room("elsewhere")
        host_request = spied._core.admission._requests[spied.info.room]  # the hub's part is played by the test
        forged = attrs.evolve(
            host_request, name="fps", instance=room.info.instance, manifest=room.info.manifest,
            door=host._core.admission._requests[key].door,
        )  # fmt: skip
        arrival = registry.join(spy.me, forged, trio.current_time())
        world.hub._tell_arrival(arrival)
        await trio.sleep(30)
        assert spy.me not in room.peers
        assert spy.me not in guest.peers


async def test_an_invitation_lets_a_friend_in_until_it_ends(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        host, friend, late = [await world.mesh(name) for name in ("host", "friend", "late")]
        room = await host.create_room("fps", policy="invite")
        invite = room.invite(lifetime_s=60)
        with pytest.raises(NotInvited):
            await late.join_room(room.code)
        guest = await friend.join_room(invite)
        await all_connected([room, guest])
        with pytest.raises(InvalidConfig, match="only who made"):
            guest.invite()
        await trio.sleep(61)
        with pytest.raises(InviteExpired):
            await late.join_room(invite)
        with pytest.raises(NotInvited):
            await late.join_room(invite[:-8])
        with pytest.raises(InvalidConfig, match="lifetime_s"):
            room.invite(0)
        with pytest.raises(InvalidConfig, match="enter it by its code"):
            (await late.create_room("fps")).invite()


async def test_a_version_that_differs_is_named_with_ours(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        host, guest = await world.mesh("host"), await world.mesh("guest")
        room = await host.create_room("fps", app_version="1.2")
        with pytest.raises(AppVersionMismatch) as told:
            await guest.join_room(room.code, app_version="1.3")
        assert (told.value.ours, told.value.theirs) == ("1.3", "1.2")
        assert "'1.2'" in str(told.value)
        assert "'1.3'" in str(told.value)


class Lying:
    """A hub that shows a room otherwise than its creator signed it, to who does not avoid it."""

    def __init__(self, world: World, key: str) -> None:
        self._seek = world.hub._seek
        self._key = key
        world.hub._seek = self.seek  # type: ignore[method-assign]

    async def seek(self, peer: object, request: SeekRequest) -> RoomInfo:
        info = await self._seek(peer, request)  # type: ignore[arg-type]
        return attrs.evolve(info, max_players=1000) if info.room == self._key else info


async def test_a_manifest_that_lies_is_passed_over(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada = await world.join("fps", "ada")
        Lying(world, ada.info.room)
        with pytest.raises(ManifestRefused):
            await world.join("fps", "bob", create=False, max_players=3)
        bob = await world.join("fps", "bob")
        assert bob.code != ada.code
        cid = await world.join("fps", "cid")
        assert cid.code == bob.code


async def test_a_room_that_ends_while_we_come_is_followed_by_the_next(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await world.mesh("ada"), await world.mesh("bob")
        first = await ada.join_game_room("fps", max_players=2)
        second = await bob.create_room("fps")
        registry, place = world.hub.registry, world.hub.registry.place

        def place_and_end(*arguments: object, **options: object) -> RoomInfo:
            info = place(*arguments, **options)  # type: ignore[arg-type]
            if info.room == first.info.room:
                registry.depart(first.me, "left", trio.current_time())
                registry._forget(info.room)
            return info

        registry.place = place_and_end  # type: ignore[method-assign]
        cid = await world.join("fps", "cid")
        assert cid.code == second.code


async def test_a_room_of_a_code_that_ends_while_we_come_says_so(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await world.mesh("ada"), await world.mesh("bob")
        room = await ada.create_room("fps")
        registry, listed = world.hub.registry, world.hub.registry.list_rooms

        def list_and_end(query: RoomQuery | None = None) -> object:
            listing = listed(query)
            registry._forget(room.info.room)
            return listing

        registry.list_rooms = list_and_end  # type: ignore[method-assign,assignment]
        with pytest.raises(RoomGone):
            await bob.join_room(room.code)


async def test_a_quick_match_begins_when_all_are_there(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        meshes = [await world.mesh(f"p{number}") for number in range(8)]
        found: dict[str, Room] = {}

        async def match(number: int, mesh: Mesh) -> None:
            found[f"p{number}"] = await mesh.quick_match(players=4)

        async with trio.open_nursery() as nursery:
            for number, mesh in enumerate(meshes):
                nursery.start_soon(match, number, mesh)
                await trio.sleep(0.1)
                if number == 2:
                    await trio.sleep(10)
                    assert not found, "three are not four"
        by_code: dict[str, list[Room]] = {}
        for room in found.values():
            by_code.setdefault(room.code, []).append(room)
        assert sorted(map(len, by_code.values())) == [4, 4]
        for rooms in by_code.values():
            assert all(len(room.connected) == 3 for room in rooms)


async def test_a_match_whose_player_does_not_come_is_made_again(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        meshes = [await world.mesh(f"p{number}") for number in range(3)]
        found: list[Room] = []

        async def match(mesh: Mesh) -> None:
            with suppress(SignalingLost):  # the machine that crashes has lost everything
                found.append(await mesh.quick_match(players=2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(match, meshes[0])
            nursery.start_soon(match, meshes[1])
            await trio.sleep(0.6)
            world.crash("p0")
            await trio.sleep(5)
            nursery.start_soon(match, meshes[2])
            with trio.fail_after(90):
                while len(found) < 2:
                    await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert {room.me for room in found} == {meshes[1].me, meshes[2].me}
        assert found[0].code == found[1].code


async def test_who_stops_waiting_is_in_no_match(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob, cid = [await world.mesh(name) for name in ("ada", "bob", "cid")]
        with trio.move_on_after(5):
            await ada.quick_match(players=2)
        found: list[Room] = []

        async def match(mesh: Mesh) -> None:
            found.append(await mesh.quick_match(players=2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(match, bob)
            await trio.sleep(5)
            assert not found
            nursery.start_soon(match, cid)
        assert len(found) == 2


async def test_friends_enter_together(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        await world.join("fps", "stranger", max_players=2)
        ada, bob = await world.mesh("ada"), await world.mesh("bob")
        party, rooms = Party("ada and bob", 2), []

        async def enter(mesh: Mesh) -> None:
            rooms.append(await mesh.join_game_room("fps", max_players=2, party=party))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(enter, ada)
            await trio.sleep(5)
            assert not rooms
            nursery.start_soon(enter, bob)
        assert rooms[0].code == rooms[1].code
        await all_connected(rooms)


async def test_a_list_tells_what_changes(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        watcher, host = await world.mesh("watcher"), await world.mesh("host")
        told: list[tuple[str, int]] = []

        async def watch() -> None:
            change: RoomChange
            async for change in watcher.list_rooms("fps"):
                told.append((change.kind, change.room.players))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            room = await host.create_room("fps")
            await trio.sleep(3)
            guest = await world.join("fps", "guest")
            await trio.sleep(3)
            world.hub.kill()
            await trio.sleep(3)
            world.hub.revive()
            await guest.leave()
            await trio.sleep(3)
            await room.leave()
            await trio.sleep(3)
            nursery.cancel_scope.cancel()
        assert [kind for kind, _ in told] == ["new", "changed", "changed", "gone"]
        assert [players for _, players in told][:3] == [1, 2, 1]


async def test_rooms_survive_the_server_with_code_and_lock(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        host, friend, late = [await world.mesh(name) for name in ("host", "friend", "late")]
        room = await host.create_room("fps", password="swordfish")
        guest = await friend.join_room(room.code, password="swordfish")
        await all_connected([room, guest])
        world.hub.kill()
        await trio.sleep(5)
        world.hub.revive()
        await trio.sleep(1)
        last = await late.join_room(room.code, password="swordfish")
        await all_connected([room, guest, last])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"policy": "secret"}, "policy"),
        ({"policy": "password"}, "password"),
        ({"policy": "code", "password": "x"}, "password"),
        ({"policy": "invite", "visible": True}, "visible"),
        ({"password": ""}, "password"),
        ({"app_version": "a/b"}, "app_version"),
    ],
)
async def test_what_contradicts_itself_is_said_before_anything_is_opened(options: dict[str, object], word: str) -> None:
    with pytest.raises(InvalidConfig, match=word):
        async with create_room("fps", signaling="ws://127.0.0.1:1", **options):  # type: ignore[arg-type]
            pass


async def test_wrong_numbers_of_players_and_parties_are_told() -> None:
    with pytest.raises(InvalidConfig, match="players"):
        async with quick_match(players=1):
            pass
    with pytest.raises(InvalidConfig, match="party"):
        async with quick_match(players=2, party=Party("x", 3)):
            pass
    with pytest.raises(InvalidConfig, match="region_rtt_ms"):
        async with quick_match(players=2, region_rtt_ms={"eu": -1}):
            pass
    for wrong in (("", 2), ("x", 1), ("x", "2")):
        with pytest.raises(InvalidConfig):
            Party(*wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfig, match="limit"):
        await list_rooms(limit=0)
    with pytest.raises(InvalidConfig, match="async with list_rooms"):
        async for _ in list_rooms():
            pass


def test_a_struct_of_the_wire_and_its_value_have_the_same_names() -> None:
    from psyne_mesh.signaling import messages
    from psyne_mesh.signaling.joining import JoinRequest

    for value, message in ((JoinRequest, messages.Join), (RoomQuery, messages.ListRooms), (SeekRequest, messages.Seek)):
        wire = {field.name for field in msgspec.structs.fields(message)} - {"v", "ref"}
        assert {field.name for field in attrs.fields(value)} == wire
