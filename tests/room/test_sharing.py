"""Shared objects through rooms, on a virtual network."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from psyne_mesh.errors import ClosedError, UnserialisableMessage
from psyne_mesh.game.schema import Shared, smooth
from psyne_mesh.room.events import SharedAppeared, SharedGone, SharedRefused
from psyne_mesh.room.room import Room
from psyne_mesh.testing import open_world
from tests.room.players import open_party


class Ship(Shared):
    x: float = smooth(0.0)
    hp: int = 100


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
