"""A player whose process stood still: those who let it go and the player itself are told the same story."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest
import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.signaling.server import open_server
from psyne_mesh.simulations.actors import NodeFactory
from psyne_mesh.simulations.latency import Constant
from psyne_mesh.simulations.net import Host, NetModel
from psyne_mesh.simulations.watcher import Watcher
from psyne_mesh.simulations.world import World


class Notes(Watcher):
    def __init__(self) -> None:
        self.world: World
        self.told: list[tuple[float, int, str, Any]] = []  # when, whom, what, of whom

    def on_event(self, host: Host, event: Any) -> None:
        kind = type(event)
        if kind in (gossip_events.LetGo, gossip_events.PeerDiscovered):
            self.told.append((self.world.now, host.index, kind.__name__, event.record.peer))
        elif kind is gossip_events.PeerLeft:
            self.told.append((self.world.now, host.index, kind.__name__, event.peer))


def played(players: int, still_s: float, after_s: float = 15.0) -> tuple[World, list[tuple[float, int, str, Any]]]:
    """What everybody is told from the moment on in which the first player stands still."""
    notes = Notes()
    factory = NodeFactory("node", 1, {"max_players": max(8, players)})
    world = notes.world = World(1, NetModel(dial_s=(0.1, 0.2), signaling_s=0.01), Constant(0.02), factory, notes)
    hosts = [world.add_host(factory.new_peer()) for _ in range(players)]
    for number, host in enumerate(hosts):
        world.at(0.3 * number, world.start, host)
    world.run(after_s)
    notes.told.clear()
    world.pause(hosts[0], still_s)
    world.run(after_s + still_s + 5)
    return world, notes.told


@pytest.mark.parametrize(("players", "still_s"), [(3, 3.0), (4, 10.0), (8, 90.0), (24, 20.0)])
def test_who_was_let_go_is_told_once_of_each_member_and_is_back_within_a_second(players: int, still_s: float) -> None:
    world, told = played(players, still_s)
    still, *others = world.hosts
    goes_on = 15.0 + still_s
    of_still = [(when, kind) for when, _, kind, peer in told if peer == still.peer]
    assert [kind for _, kind in of_still].count("PeerLeft") == players - 1
    back = [when for when, kind in of_still if kind == "PeerDiscovered"]
    assert len(back) == players - 1
    assert max(back) - goes_on <= (1.0 if players <= 16 else 3.0)
    let_go = [(when, peer) for when, index, kind, peer in told if index == still.index and kind == "LetGo"]
    assert sorted(peer for _, peer in let_go) == sorted(host.peer for host in others)
    assert max(when for when, _ in let_go) - goes_on <= 1.0
    assert all(kind == "LetGo" for _, index, kind, _ in told if index == still.index)


@pytest.mark.parametrize("after_s", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("still_s", [2.0, 2.2, 3.0, 5.0])
def test_nor_does_it_matter_how_long_ago_they_met(after_s: float, still_s: float) -> None:
    world, told = played(2, still_s, after_s)
    still, friend = (host.index for host in world.hosts)
    lost = [kind for _, index, kind, _ in told if index == friend]
    assert lost in ([], ["PeerLeft", "PeerDiscovered"])
    assert [kind for _, index, kind, _ in told if index == still] == ["LetGo"] * bool(lost)


def test_nobody_is_told_that_it_was_let_go_who_was_not() -> None:
    _, told = played(4, 0.3)
    assert told == []


PLAYER = """
import sys, trio
from psyne_mesh import WebRTCConfig, join_game_room
async def main():
    config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
    async with join_game_room("still", signaling=sys.argv[1], config=config, player_name="still") as room:
        async for event in room.events():
            print(type(event).__name__, flush=True)
trio.run(main)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process and let it go on")
async def test_a_stopped_process_and_its_friend_are_told_the_same_story() -> None:
    config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
    async with (
        open_server("127.0.0.1", 0) as server,
        join_game_room("still", signaling=server.url, config=config) as room,
        trio.open_nursery() as nursery,
    ):
        here: list[str] = []
        there: list[str] = []
        player = await trio.lowlevel.open_process([sys.executable, "-c", PLAYER, server.url], stdout=subprocess.PIPE)

        async def watch() -> None:
            async for event in room.events():
                here.append(type(event).__name__)

        async def listen() -> None:
            assert player.stdout is not None
            async with player.stdout:
                async for chunk in player.stdout:
                    there.extend(chunk.decode().split())

        nursery.start_soon(watch)
        nursery.start_soon(listen)
        try:
            with trio.fail_after(60):
                await room.wait_connected(1)
                while "PeerConnected" not in there:
                    await trio.sleep(0.1)
                here.clear()
                there.clear()
                os.kill(player.pid, signal.SIGSTOP)
                while "PeerLeft" not in here:
                    await trio.sleep(0.1)
                os.kill(player.pid, signal.SIGCONT)
                while "PeerConnected" not in here or "PeerConnected" not in there:
                    await trio.sleep(0.1)
        finally:
            player.kill()
            with trio.CancelScope(shield=True):
                await player.wait()
            nursery.cancel_scope.cancel()
    assert here == ["PeerSuspected", "PeerLeft", "PeerDiscovered", "PeerConnected"]
    assert there == ["PeerLeft", "PeerDiscovered", "PeerConnected"]
