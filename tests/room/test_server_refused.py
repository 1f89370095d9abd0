"""A TURN server that refuses us: the room says so once, and whoever can be reached without it is."""

from __future__ import annotations

import attrs
import trio

from psyne_mesh.config import TurnServer
from psyne_mesh.room import events
from psyne_mesh.room.room import Room
from tests.ice.servers import CREDENTIAL, USER, turn_server
from tests.room.players import LOOPBACK, connected, first, open_party


def warnings(room: Room) -> list[events.ServerRefused]:
    heard: list[events.ServerRefused] = []
    room.on(events.ServerRefused, heard.append)
    return heard


async def test_a_wrong_credential_is_told_once_and_direct_paths_connect() -> None:
    async with turn_server() as turn, open_party() as party:
        wrong = TurnServer(*turn.address, username=USER, credential="wrong")
        ada = await party.join(name="ada", config=attrs.evolve(LOOPBACK, turn_servers=(wrong,)))
        heard = warnings(ada)
        bob = await party.join(name="bob")
        await connected(ada, bob)
        told = await first(ada, events.ServerRefused)
        assert told.server == f"turn:127.0.0.1:{turn.address[1]}?transport=udp"
        assert "refuses the user name 'player' or its credential (401" in told.reason
        gateway = ada._core.endpoint.gateway
        gateway.regather()  # asks again, and is refused again
        with trio.fail_after(5):
            while not gateway.gathered:
                await trio.sleep(0.01)
        assert heard == [told]


async def test_who_comes_late_is_told_too() -> None:
    """A second room on the same mesh, and a subscriber that comes after the fact."""
    async with turn_server() as turn, open_party() as party:
        wrong = TurnServer(*turn.address, username=USER, credential="wrong")
        mesh = await party.mesh("ada", config=attrs.evolve(LOOPBACK, turn_servers=(wrong,)))
        one = await mesh.join_game_room("one")
        await first(one, events.ServerRefused)
        assert await first(one, events.ServerRefused)
        two = await mesh.join_game_room("two")
        assert await first(two, events.ServerRefused)


async def test_a_server_that_lets_us_in_is_not_mentioned() -> None:
    async with turn_server() as turn, open_party() as party:
        right = TurnServer(*turn.address, username=USER, credential=CREDENTIAL)
        ada = await party.join(name="ada", config=attrs.evolve(LOOPBACK, turn_servers=(right,)))
        heard = warnings(ada)
        bob = await party.join(name="bob")
        await connected(ada, bob)
        with trio.fail_after(5):
            while not turn.allocations:
                await trio.sleep(0.01)
        assert not heard
        assert not ada._core.endpoint.gateway.refused
