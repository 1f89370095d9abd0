"""The same as under Trio, for a program with a loop of its own, over real sockets."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from psyne_mesh import sync
from psyne_mesh.errors import ClosedError, OnlyWatching
from psyne_mesh.room.events import PeerDiscovered, StateChanged


class Tank(sync.Shared):
    x: float = sync.smooth(0.0)


class Goal(sync.Message):
    scorer: str


def until(holds: Callable[[], object], *rooms: object, patience_s: float = 60.0) -> None:
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end
        for room in rooms:
            room.poll()  # type: ignore[attr-defined]
        time.sleep(0.01)


def test_a_loop_watches_a_room() -> None:
    with sync.open_server(port=0) as server, sync.create_room("cup", spectators=2, signaling=server.url) as net:
        net.share(Tank(x=3.0))
        net.me.state["ready"] = True
        with sync.join_room(net.code, spectate=True, signaling=server.url) as watched:
            told: list[object] = []
            watched.on(PeerDiscovered, told.append)
            watched.on(StateChanged, told.append)
            goals = watched.channel("goals", Goal)
            until(lambda: watched.peers, net, watched)
            net.channel("goals", Goal).send(Goal("ada"))
            until(lambda: len(goals), net, watched)
            assert [(peer.id, goal) for peer, goal in goals] == [(net.me, Goal("ada"))]
            until(lambda: watched.all(Tank), net, watched)
            until(lambda: len(told) >= 2, net, watched)
            assert watched.peers[net.me].state["ready"]
            assert watched.spectators == 1
            with pytest.raises(OnlyWatching):
                goals.send(Goal("me"))
            watched.leave()
            with pytest.raises(ClosedError):
                until(lambda: False, net, watched)
        with sync.join_game_room("cup", spectate=True, signaling=server.url) as again:
            until(lambda: again.peers, net, again)
