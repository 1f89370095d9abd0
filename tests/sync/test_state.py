"""The state of players and rooms, timers and the host's fence from a loop of the game's own."""

from __future__ import annotations

from typing import Any

import pytest

from psyne_mesh import sync
from psyne_mesh.errors import MessageTooLarge, NotHost, UnserialisableMessage
from psyne_mesh.room.events import StateChanged, TimerFired
from tests.sync.conftest import Join
from tests.sync.frames import meet, until


class RoundEnds(sync.Message):
    winner: str = ""


def test_state_and_timers_in_a_loop(join: Join) -> None:
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        feed = bob.events()
        told: list[Any] = []
        bob.on_state_changed(lambda owner, key, value: told.append((owner and owner.name, key, value)))
        ada.me.state["ready"] = True
        seen = bob.peers[ada.me]
        until(lambda: seen.state.get("ready"), ada, bob)
        until(lambda: told, ada, bob)
        assert told == [("ada", "ready", True)]
        assert dict(ada.me.state) == {"ready": True}
        with pytest.raises(UnserialisableMessage):
            ada.me.state["x"] = object()
        with pytest.raises(MessageTooLarge):
            ada.me.state["x"] = bytes(9000)
        until(lambda: ada.host is not None and bob.host is not None and (ada.is_host or bob.is_host), ada, bob)
        host, other = (ada, bob) if ada.is_host else (bob, ada)
        with pytest.raises(NotHost):
            other.state["round"] = 1
        host.state["round"] = 1
        until(lambda: other.state.get("round") == 1, ada, bob)
        fired: list[RoundEnds] = []
        other.on_timer(fired.append)
        cancelled = host.after(0.05, RoundEnds("nobody"))
        host.cancel_timer(cancelled)
        host.after(0.1, RoundEnds("blue"))
        until(lambda: fired, ada, bob)
        assert fired == [RoundEnds("blue")]
        kinds = {type(event) for event in feed}
        assert StateChanged in kinds
        if other is bob:
            assert TimerFired in kinds
        changed: list[str] = []
        bob.on_peer_changed(lambda peer: changed.append(peer.name))
        ada.update_player(name="Countess")
        until(lambda: changed, ada, bob)
        assert changed == ["Countess"]
        late: list[Any] = []
        bob.on_state_changed(lambda owner, key, value: late.append(key))
        bob.poll()
        assert sorted(late) == ["ready", "round"]
