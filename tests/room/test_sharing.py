"""Shared objects through rooms, on a virtual network."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from psyne_mesh.errors import ClosedError, InvalidConfig, UnserialisableMessage
from psyne_mesh.game.schema import Shared, smooth
from psyne_mesh.room.events import SharedAppeared, SharedGone, SharedRefused
from psyne_mesh.room.room import Room
from psyne_mesh.testing import open_world
from tests.room.players import open_party
from tests.room.test_host_and_clock import agree_on_a_host, everybody


class Ship(Shared):
    x: float = smooth(0.0)
    hp: int = 100


class Ball(Shared):
    x: float = smooth(0.0)
    bounces: int = 0


def hps(room: Room) -> list[tuple[str, int]]:
    return sorted((ship.owner.name, ship.hp) for ship in room.all(Ship))


async def test_ships_are_seen_by_all_and_by_those_who_come_late(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=3) as world:
        ada, bob = await world.join("arena", "ada"), await world.join("arena", "bob")
        ship = ada.share(Ship())
        bob.share(Ship(hp=50))
        assert hps(ada) == [("ada", 100), ("bob", 50)][:1]
        await ada.wait_connected(1)
        await trio.sleep(0.5)
        ship.hp = 7
        await trio.sleep(0.5)
        assert hps(ada) == hps(bob) == [("ada", 7), ("bob", 50)]
        async with world.joining("arena", "cid") as cid:
            told: list[Any] = []
            cid.on(SharedAppeared, told.append)
            assert hps(cid) == []
            await cid.wait_connected(2)
            await trio.sleep(0.5)
            assert hps(cid) == [("ada", 7), ("bob", 50)]
            assert sorted(event.shared.owner.name for event in told) == ["ada", "bob"]
            late: list[Any] = []
            cid.on(SharedAppeared, late.append)
            cid.share(Ship(hp=1))
            await trio.sleep(0.5)
            assert len(late) == 2
            assert hps(bob) == [("ada", 7), ("bob", 50), ("cid", 1)]
        gone: list[Any] = []
        bob.on(SharedGone, gone.append)
        ada.unshare(ship)
        await trio.sleep(1.0)
        assert hps(bob) == [("bob", 50)]
        assert [event.shared.hp for event in gone] in ([1, 7], [7])


async def test_another_version_is_told_on_both_sides(autojump_clock: trio.testing.MockClock) -> None:
    class Other(Shared):
        x: float = 0.0
        hp: int = 100

    Other.__name__ = "Ship"
    async with open_world(seed=3) as world:
        ada, bob = await world.join("arena", "ada"), await world.join("arena", "bob")
        told: list[SharedRefused] = []
        ada.on(SharedRefused, told.append)
        bob.on(SharedRefused, told.append)
        ada.share(Ship())
        bob.share(Other())
        await ada.wait_connected(1)
        await trio.sleep(1.0)
        assert sorted((event.peer.name, event.reason) for event in told) == [
            ("ada", "Ship.x is float here and float of 32 bits there"),
            ("bob", "Ship.x is float of 32 bits here and float there"),
        ]
        assert len(list(ada.all(Ship))) == 1


async def test_a_value_that_cannot_travel_ends_the_block() -> None:
    async with open_party() as party:
        with pytest.raises(UnserialisableMessage, match=r"Ship\.hp"):
            async with party.joining() as room:
                room.share(Ship()).hp = "dead"  # type: ignore[assignment]
                await trio.sleep_forever()
        with pytest.raises(ClosedError):
            room.share(Ship())
        with pytest.raises(ClosedError):
            room.all(Ship)


async def test_the_owner_of_our_own_is_ourselves() -> None:
    async with open_party() as party:
        room = await party.join(name="ada")
        ship = room.share(Ship())
        assert ship.owner == room.player
        assert (room.player.id, room.player.name) == (room.me, "ada")
        assert list(room.all(Ship)) == [ship]


async def test_the_next_host_goes_on_with_the_hosts_objects(autojump_clock: trio.testing.MockClock) -> None:
    names = ["ada", "bob", "cid", "dan"]
    async with open_world(seed=2) as world:
        rooms = await everybody(world, *names)
        with pytest.raises(InvalidConfig, match="no host yet"):
            rooms[0].share(Ball(), owner=rooms[0].host)
        first = await agree_on_a_host(rooms)
        with pytest.raises(InvalidConfig, match="only the host"):
            next(room for room in rooms if room is not first).share(Ball(), owner=first.player)
        own, ball = first.share(Ball(bounces=100)), first.share(Ball(), owner=first.host)
        appeared: list[Any] = []
        gone: list[Any] = []
        for room in rooms:
            room.all(Ball)
            room.on(SharedAppeared, appeared.append)
            room.on(SharedGone, gone.append)
        await trio.sleep(0.5)
        ball.x, ball.bounces = 5.0, 7
        await trio.sleep(1.0)
        rest = [room for room in rooms if room is not first]
        shown = {room.me: next(each for each in room.all(Ball) if each.bounces != 100) for room in rest}
        world.crash(names[rooms.index(first)])
        await trio.sleep(2.5)
        second = await agree_on_a_host(rest)
        await trio.sleep(0.5)
        for room in rest:
            (left,) = room.all(Ball)
            assert left is shown[room.me]
            assert (left.x, left.bounces, left.owner.id, left.is_mine) == (5.0, 7, second.me, room is second)
        shown[second.me].bounces = 8
        late = await world.join("arena", "eve")
        late.all(Ball)
        await late.wait_connected(3)
        await trio.sleep(1.5)
        (shown[late.me],) = late.all(Ball)
        assert [each.bounces for room in (*rest, late) for each in room.all(Ball)] == [8] * 4
        assert {id(event.shared) for event in gone} == {
            id(event.shared) for event in appeared if event.shared.bounces == 100
        }
        assert own.bounces == 100

        await second.leave()  # a host that leaves hands over
        third = await agree_on_a_host([room for room in (*rest, late) if room is not second])
        shown[third.me].bounces += 1
        await trio.sleep(1.0)
        assert [each.bounces for room in (*rest, late) if room is not second for each in room.all(Ball)] == [9] * 3
        third.unshare(shown[third.me])
        await trio.sleep(1.0)
        assert not [each for room in (*rest, late) if room is not second for each in room.all(Ball)]
