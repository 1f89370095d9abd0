"""A room of 13 to 16 players is a full mesh from its first moment on, also while its links are being made."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.testing import open_world


@pytest.mark.parametrize("players", [13, 16])
async def test_nobody_is_reached_before_there_is_a_link_and_nothing_is_broadcast(
    players: int, autojump_clock: MockClock
) -> None:
    with trio.fail_after(60):
        async with open_world(seed=players) as world:
            rooms = [await world.join("arena", f"player{number}", max_players=16) for number in range(players)]
            assert all(len(room.connected) < players - 1 for room in rooms)
            assert not any(peer.relayed for room in rooms for peer in room.peers.values())
            broadcasts: list[bytes] = []
            for room in rooms:
                room._joined().broadcast = broadcasts.append  # type: ignore[method-assign]
                room.channel("position", mode="unreliable").send_nowait(b"here")
            for room in rooms:
                await room.wait_connected(players - 1)
                assert len(room.connected) == players - 1
                room.channel("position", mode="unreliable").send_nowait(b"here")
            assert broadcasts == []


async def test_above_sixteen_others_carry(autojump_clock: MockClock) -> None:
    gossip = GossipConfig(full_mesh_max=4, full_mesh_hysteresis=2)
    with trio.fail_after(120):
        async with open_world(seed=3) as world:
            rooms = [await world.join("arena", f"player{number}", max_players=16, gossip=gossip) for number in range(5)]
            for room in rooms:
                await room.wait_connected(4)
            assert all(room._joined().is_large for room in rooms)
