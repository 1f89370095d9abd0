"""Hostile guests of a signaling server, and servers that lie, on real sockets: others enter their rooms all the same."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from psyne_mesh.errors import InvalidConfig, SignalingError
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.events import PeerJoined
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.registry import RegistryLimits
from psyne_mesh.testing import hostile
from tests.ice.helpers import LOOPBACK, exchange, open_pair
from tests.signaling.guests import calm_server
from tests.signaling.worlds import player

PATIENCE_S = 20.0  # of a shared machine: what is held is that it comes about
WORKS = {
    "IdleSockets": "opened", "ManyGuests": "welcomed", "RoomHoarders": "rooms", "ComingAndGoing": "entered",
    "EmptyFrames": "frames", "FalseHellos": "hellos", "Eavesdropper": "asked",
}  # fmt: skip


@pytest.mark.parametrize("make", hostile.GUEST_LIES, ids=lambda make: make.__name__)
async def test_others_enter_a_room_and_find_each_other_beside_them(make: Any) -> None:
    lie = make()
    async with calm_server() as server, hostile.guests(server.url, lie) as guests:
        with trio.fail_after(PATIENCE_S):
            while not guests.done[WORKS[make.__name__]]:
                await trio.sleep(0.01)
            async with connect_signaling(server.url, player(1)) as a, connect_signaling(server.url, player(2)) as b:
                await a.join(JoinRequest("ours"))
                await b.join(JoinRequest("ours"))
                assert isinstance(await a.next_event(), PeerJoined)


async def test_rooms_of_one_key_have_an_end_and_others_still_make_theirs() -> None:
    limits = RegistryLimits(rooms_max=60, rooms_per_peer_max=4, rooms_created_per_peer_max=4)
    async with (
        calm_server(ServerConfig(registry=limits)) as server,
        hostile.guests(server.url, hostile.RoomHoarders(keys=5)) as guests,
    ):
        with trio.fail_after(PATIENCE_S):
            while guests.done["rooms"] < 20 or not guests.done["refused"]:
                await trio.sleep(0.01)
            async with connect_signaling(server.url, player(1)) as a:
                assert (await a.join(JoinRequest("ours"))).info.players == 1


async def test_nobody_hears_of_rooms_who_is_not_to() -> None:
    async with calm_server() as server, connect_signaling(server.url, player(1)) as a:
        await a.join(JoinRequest("secret"))
        async with hostile.guests(server.url, hostile.Eavesdropper()) as guests:
            with trio.fail_after(PATIENCE_S):
                while guests.done["asked"] < 3:
                    await trio.sleep(0.01)
        assert guests.done["listed"] == guests.done["upgraded"] == 0
        assert guests.heard == []


async def test_a_server_that_a_player_dials_does_not_become_that_player_elsewhere() -> None:
    async with calm_server() as server, hostile.impostor(server.url) as impostor:
        with trio.move_on_after(PATIENCE_S):
            with pytest.raises(SignalingError):
                async with connect_signaling(impostor.url, player(1)):
                    pass
        assert impostor.tried == [player(1).peer_id]
        assert impostor.became == []


@pytest.mark.parametrize("answer", [b"\xff\xff\xff\xff", b"\0\1\0\0", b"\x40\0\xff\xff", b""])
async def test_a_turn_server_that_answers_nonsense_ends_its_own_use_only(answer: bytes) -> None:
    async with hostile.turn_server(answer, then_close=not answer) as entry:
        config = attrs.evolve(LOOPBACK, turn_servers=(entry,), ice_gathering_timeout_s=1.0)
        async with open_pair(config, LOOPBACK) as (a, b):
            await exchange(a, b)
            assert a.transport._gateway.last_fault is None


async def test_what_is_no_lie_of_guests_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="IdleSockets"):
        async with hostile.guests("ws://127.0.0.1:1", hostile.HavesFlood()):  # type: ignore[arg-type]
            pass
