"""Kick and vote from a loop of the game's own."""

from __future__ import annotations

from typing import Any

import pytest

from psyne_mesh.errors import InvalidConfig, NotHost
from psyne_mesh.room.events import VoteCast
from tests.sync.conftest import Join
from tests.sync.frames import meet, until


def test_the_host_kicks(join: Join) -> None:
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        until(lambda: (ada.is_host or bob.is_host) and ada.host and bob.host, ada, bob)
        until(lambda: {ada.me, bob.me} <= set(ada.seats) and {ada.me, bob.me} <= set(bob.seats), ada, bob)
        host, other = (ada, bob) if ada.is_host else (bob, ada)
        votes: list[Any] = []
        host.on_vote(votes.append)
        other.vote_kick(host.me, "unfair")
        until(lambda: votes, ada, bob)
        assert votes == [VoteCast(host.me, other.me, 1, 2, "unfair")]
        with pytest.raises(NotHost):
            other.kick(host.me)
        with pytest.raises(InvalidConfig):
            host.kick("x")  # type: ignore[arg-type]
        left: list[str] = []
        host.on_peer_left(lambda peer, reason: left.append(reason))
        host.kick(other.me)
        until(lambda: left, host)
        assert left == ["kicked"]
        assert host.barred == {other.me}
