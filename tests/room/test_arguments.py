"""What a user gets wrong is told at once, by type, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import InvalidConfig, SignalingUnreachable
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.identity import Identity
from psyne_mesh.room.delivery import DeliveryMode
from psyne_mesh.room.direct import PeerChannel, _find, _wanted, create_channel
from psyne_mesh.room.mesh import join_game_room, open_mesh
from psyne_mesh.room.messages import CombatAction, PlayerPosition
from psyne_mesh.testing import open_world


async def test_a_channel_that_is_asked_for_again_must_be_what_is_asked_for(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada = await world.join("lobby", "ada")
        positions = ada.channel("positions", PlayerPosition, mode="unreliable", inbox_max=8)
        assert ada.channel("positions") is positions
        assert ada.channel("positions", PlayerPosition, mode="unreliable", priority=256) is positions
        for types, other in (
            ((), {"mode": "reliable"}), ((CombatAction,), {}), ((), {"priority": 512}), ((), {"inbox_max": 9}),
            ((), {"mode": "nonsense"}),
        ):  # fmt: skip
            with pytest.raises(InvalidConfig):
                ada.channel("positions", *types, **other)


async def test_callbacks_and_numbers_are_checked_when_they_are_given(autojump_clock: MockClock) -> None:
    nonsense: Any = None
    async with open_world(seed=1) as world:
        ada = await world.join("lobby", "ada")
        for register in (
            ada.on_peer_discovered, ada.on_peer_connected, ada.on_peer_suspected, ada.on_peer_resumed, ada.on_peer_left,
            ada.on_partition, ada.on_heal,
        ):  # fmt: skip
            with pytest.raises(InvalidConfig):
                register(nonsense)
        word: Any = "PeerLeft"
        with pytest.raises(InvalidConfig, match="event class"):
            ada.on(word, print)
        for players in (-1, word):
            with pytest.raises(InvalidConfig):
                await ada.wait_connected(players)
        await world.join("lobby", "bob")
        await ada.wait_connected(1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"signaling": None},
        {"signaling": 5},
        {"identity": b"me"},
        {"config": {"stun_servers": ()}},
        {"rng": 5},
    ],
)
async def test_what_a_mesh_is_made_of_is_checked_before_it_is_opened(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        async with open_mesh(**{"signaling": "ws://127.0.0.1:1", **wrong}):
            pass


async def test_the_gossip_of_a_room_is_checked(autojump_clock: MockClock) -> None:
    gossip: Any = {}
    async with open_world(seed=1) as world:
        with pytest.raises(InvalidConfig, match="gossip"):
            await world.join("lobby", "ada", gossip=gossip)


async def test_the_number_of_seats_is_the_rooms_whatever_a_members_gossip_says(autojump_clock: MockClock) -> None:
    """Else a member could open a lobby, in which nobody knows who holds a seat."""
    async with open_world() as world:
        ada = await world.join("den", "ada", max_players=5, gossip=GossipConfig(max_players=0))
        bob = await world.join("den", "bob", max_players=5, gossip=GossipConfig(max_players=900))
        assert len(ada.seats) == len(bob.seats) == 5


@pytest.mark.parametrize("mode", ["foo", {"Move": "unreliable"}, {PlayerPosition: "foo"}, {int: "reliable"}])
async def test_modes_are_checked_before_anybody_is_waited_for(mode: Any) -> None:
    with pytest.raises(InvalidConfig), trio.fail_after(5):
        async with create_channel("webrtc://bob", mode=mode, player_name="ada", signaling="ws://127.0.0.1:1"):
            pass


@pytest.mark.parametrize("number", [1.5, True, "1"])
def test_numbers_that_go_on_the_wire_are_whole(number: Any) -> None:
    for name in ("priority", "max_retransmits", "max_packet_life_time_ms"):
        with pytest.raises(InvalidConfig, match=name):
            DataChannelConfig(**{name: number})
    with pytest.raises(InvalidConfig):
        DeliveryMode.retransmits(number).data_channel("label", 256)


async def test_a_dead_server_is_unreachable_in_the_kit_as_well(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        world.hub.kill()
        with pytest.raises(SignalingUnreachable):
            await world.join("lobby", "ada")


async def test_whoever_takes_an_id_for_a_name_is_not_taken_for_that_player(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, wanted = await world.join("lobby", "ada"), Identity.generate().peer_id
        impostor = await world.join("lobby", str(wanted))
        await ada.wait_connected(1)
        with trio.move_on_after(20) as waiting:
            await _find(ada, str(wanted))
        assert waiting.cancelled_caught
        assert (await _find(ada, str(impostor.me))).name == str(wanted)
        await world.join("lobby", "bob")
        assert (await _find(ada, "bob")).name == "bob"


async def test_a_player_is_found_by_the_name_that_others_see(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "Rene\u0301")
        with trio.fail_after(20):
            assert (await _find(ada, _wanted("Ren\u00e9", None))).id == bob.me


async def test_nobody_waits_for_more_players_than_there_are_seats(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada = await world.join("lobby", "ada", max_players=3)
        bob = await world.join("lobby", "bob", max_players=16)  # the creator's number holds
        for room in (ada, bob):
            with pytest.raises(InvalidConfig, match="other players"), trio.fail_after(60):
                await room.wait_connected(3)
        await world.join("lobby", "cid")
        await bob.wait_connected(2)


async def test_a_peer_channel_polled_with_a_timeout_loses_nothing(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
        await ada.wait_connected(1)
        await bob.wait_connected(1)
        to_bob, to_ada = (
            PeerChannel(ada, ada.peers[bob.me], (), "reliable"),
            PeerChannel(bob, bob.peers[ada.me], (), "reliable"),
        )
        got: list[bytes] = []

        async def poll() -> None:
            while True:
                with trio.move_on_after(0.001):
                    got.append(await to_ada.receive())

        nursery.start_soon(poll)
        for number in range(200):
            await to_bob.send(b"%d" % number)
            await trio.sleep(0.0007 * (number % 5))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert got == [b"%d" % number for number in range(200)]


async def test_join_game_room_refuses_before_it_opens_anything() -> None:
    with pytest.raises(InvalidConfig, match="identity"):
        async with join_game_room("lobby", identity="me", signaling="ws://127.0.0.1:1"):  # type: ignore[arg-type]
            pass
