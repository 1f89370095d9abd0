"""Shared objects through rooms, on a virtual network."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from psyne_mesh.errors import ClosedError, InvalidConfig, UnserialisableMessage
from psyne_mesh.game.schema import Shared, smooth
from psyne_mesh.room.events import SharedAppeared, SharedGone, SharedKept, SharedRefused
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, open_world
from tests.room.players import open_party
from tests.room.test_host_and_clock import agree_on_a_host, everybody


class Ship(Shared):
    x: float = smooth(0.0)
    hp: int = 100


class Ball(Shared):
    x: float = smooth(0.0)
    bounces: int = 0


class Bomb(Shared):
    fuse: int = 0


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
            (left,) = [each for each in room.all(Ball) if each.bounces != 100]
            assert left is shown[room.me]
            assert (left.x, left.bounces, left.owner.id, left.is_mine) == (5.0, 7, second.me, room is second)
        shown[second.me].bounces = 8
        late = await world.join("arena", "eve")
        late.all(Ball)
        await late.wait_connected(3)
        await trio.sleep(1.5)
        (shown[late.me],) = late.all(Ball)
        assert [each.bounces for room in (*rest, late) for each in room.all(Ball) if not each.is_absent] == [8] * 4
        assert not gone
        await trio.sleep(45)  # the crashed player's own ball waits for it
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


async def test_what_a_crashed_player_had_waits_for_its_key(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=4, quality=Quality(latency_s=0.03, jitter_s=0.01, loss=0.02)) as world:
        rooms = await everybody(world, "ada", "bob", "cid")
        ada, bob, cid = rooms
        ship = bob.share(Ship(hp=80))
        bombs = [bob.share(Bomb(fuse=fuse)) for fuse in (1, 2, 3)]
        gone: dict[str, list[float]] = {"ada": [], "cid": []}
        for room, name in ((ada, "ada"), (cid, "cid")):
            room.all(Ship), room.all(Bomb)
            room.on(SharedGone, lambda event, name=name: gone[name].append(trio.current_time()))
        await trio.sleep(3)
        ship.x, ship.hp = 40.0, 33
        bob.unshare(bombs[0])
        await trio.sleep(2)
        seen = {room.me: next(iter(room.all(Ship))) for room in (ada, cid)}
        before = {name: len(times) for name, times in gone.items()}
        world.crash("bob")
        await trio.sleep(20)
        for room in (ada, cid):
            (left,) = room.all(Ship)
            assert left is seen[room.me]
            assert (left.x, left.hp, left.owner.name, left.is_absent) == (40.0, 33, "bob", True)
            assert sorted(bomb.fuse for bomb in room.all(Bomb)) == [2, 3]
        liar = await world.join("arena", "eve")
        liar.update_player(name="bob")  # the name, and not the key
        kept: dict[str, list[Any]] = {"liar": [], "bob": []}
        liar.on(SharedKept, lambda event: kept["liar"].append(event.shared))
        liar.all(Ship)
        await liar.wait_connected(2)
        await trio.sleep(2)
        again = await world.join("arena", "bob")
        again.on(SharedKept, lambda event: kept["bob"].append(event.shared))
        again.all(Ship), again.all(Bomb)
        await again.wait_connected(3)
        await trio.sleep(2)
        assert not kept["liar"]
        (old,) = [shared for shared in kept["bob"] if isinstance(shared, Ship)]
        assert (old.x, old.hp, old.is_mine) == (40.0, 33, False)
        assert sorted(shared.fuse for shared in kept["bob"] if isinstance(shared, Bomb)) == [2, 3]
        old.hp -= 1
        assert again.share(old).is_mine
        await trio.sleep(1)
        for room in (ada, cid):
            (left,) = room.all(Ship)
            assert left is seen[room.me]
            assert (left.x, left.hp, left.owner, left.is_absent) == (40.0, 32, room.peers[bob.me], False)
            assert room.peers[bob.me].seat == again.seats.index(again.me)
        old.x, old.hp = 50.0, 31
        await trio.sleep(6)
        for room in (ada, cid, liar):
            assert [(each.x, each.hp) for each in room.all(Ship)] == [(50.0, 31)]
            assert not list(room.all(Bomb))  # which the game did not take up
        assert [len(times) - before[name] for name, times in gone.items()] == [2, 2]


async def test_what_nobody_comes_back_for_goes_everywhere_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=5, quality=Quality(latency_s=0.03, loss=0.02)) as world:
        rooms = await everybody(world, "ada", "bob", "cid", "dan")
        ada, bob, cid, dan = rooms
        bob.share(Ship(hp=80))
        ball = dan.share(Ship(hp=1))
        gone: list[float] = []
        for room in (ada, cid):
            room.all(Ship)
            room.on(SharedGone, lambda event: gone.append(trio.current_time()) if event.shared.hp == 80 else None)
        await trio.sleep(5)
        world.crash("bob")
        crashed = trio.current_time()
        dan.unshare(ball)
        await trio.sleep(44)
        assert [ship.is_absent for room in (ada, cid) for ship in room.all(Ship)] == [True, True]
        await trio.sleep(6)
        assert not [ship for room in (ada, cid) for ship in room.all(Ship)]
        assert len(gone) == 2
        assert max(gone) - min(gone) <= 1.0
        assert max(gone) - crashed <= 50.0
        kept: list[Any] = []
        again = await world.join("arena", "bob")
        again.on(SharedKept, kept.append)
        again.all(Ship)
        await again.wait_connected(3)
        await trio.sleep(3)
        assert not kept


async def test_who_was_cut_off_is_back_with_the_same_objects(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=6, quality=Quality(latency_s=0.03)) as world:
        rooms = await everybody(world, "ada", "bob", "cid")
        ships = [room.share(Ship(hp=hp)) for hp, room in enumerate(rooms)]
        changes: list[Any] = []
        for room in rooms:
            room.all(Ship)
        await trio.sleep(3)
        for room in rooms:
            room.on(SharedGone, changes.append)
            room.on(SharedKept, changes.append)
        with world.net.partition({"ada", "cid"}, {"bob"}, signaling=False):
            await trio.sleep(20)
            assert sorted((ship.hp, ship.is_absent) for ship in rooms[0].all(Ship)) == [
                (0, False),
                (1, True),
                (2, False),
            ]
            ships[1].hp = 9
        with trio.fail_after(30):
            while sorted((ship.hp, ship.is_absent) for ship in rooms[0].all(Ship)) != [
                (0, False), (2, False), (9, False),
            ]:  # fmt: skip
                await trio.sleep(0.1)
        await trio.sleep(8)
        assert [sorted(ship.hp for ship in room.all(Ship)) for room in rooms] == [[0, 2, 9]] * 3
        assert not changes
