"""The state of players and of the room, and its timers, through whole rooms on a virtual network."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel

from psyne_mesh.errors import ClosedError, InvalidConfig, MessageTooLarge, NotHost, UnserialisableMessage
from psyne_mesh.room.events import HostChanged, StateChanged, TimerFired
from psyne_mesh.room.messages import Message
from psyne_mesh.room.plain import decode_plain_untrusted, encode_plain
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, World, open_world
from tests.room.test_host_and_clock import agree_on_a_host, everybody

NAMES = ["ada", "bob", "cid", "dan", "eve", "fox", "gil", "hal"]


class RoundEnds(Message):
    winner: str = ""


def name_of(world_names: list[str], rooms: list[Room], room: Room) -> str:
    return world_names[rooms.index(room)]


async def test_a_player_s_state_is_seen_by_all_and_by_who_comes_later(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=3) as world:
        ada, bob = await everybody(world, "ada", "bob")
        told: list[Any] = []
        bob.on(StateChanged, told.append)
        ada.me.state["ready"] = True
        ada.me.state["car"] = {"name": "comet", "wheels": [1, 2, 3, 4]}
        assert ada.me.state["ready"] is True
        await trio.sleep(0.3)
        seen = bob.peers[ada.me].state
        assert dict(seen) == {"ready": True, "car": {"name": "comet", "wheels": [1, 2, 3, 4]}}
        assert [(event.owner.name, event.key) for event in told] == [("ada", "ready"), ("ada", "car")]
        async with world.joining("arena", "cid") as cid:
            late: list[StateChanged] = []
            cid.on(StateChanged, late.append)
            await cid.wait_connected(2)
            await trio.sleep(0.3)
            assert cid.peers[ada.me].state["car"]["name"] == "comet"
            assert [event.key for event in late] == ["ready", "car"]
            again: list[StateChanged] = []
            cid.on(StateChanged, again.append)
            await trio.sleep(0.01)
            assert [event.key for event in again] == ["ready", "car"]
            cid.me.state["x"] = 1
            del ada.me.state["car"]
            await trio.sleep(0.3)
            assert dict(bob.peers[ada.me].state) == {"ready": True}
            assert [(event.key, event.value) for event in late[-2:]] == [("x", 1), ("car", None)]
            assert bob.peers[cid.me].state == {"x": 1}
        with pytest.raises(KeyError):
            del ada.me.state["car"]


async def test_what_cannot_be_state_is_told_and_changes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=3) as world:
        ada = await world.join("arena", "ada")
        for value in (object(), {1: 2}, float("nan"), {1, 2}, 2**70, [[]] * 3 + [b"x", object()]):
            with pytest.raises(UnserialisableMessage):
                ada.me.state["x"] = value
        with pytest.raises(InvalidConfig):
            ada.me.state[3] = 1  # type: ignore[index]
        with pytest.raises(MessageTooLarge):
            ada.me.state["x"] = bytes(9000)
        with pytest.raises(NotHost, match="no host now"):
            ada.state["round"] = 1
        assert not ada.me.state
        assert not ada.state
        with pytest.raises(InvalidConfig):
            ada.after(-1, RoundEnds())
        with pytest.raises(InvalidConfig, match="RoundEnds\\(\\)"):
            ada.after(1, RoundEnds)  # type: ignore[arg-type]
        await ada.leave()
        with pytest.raises(ClosedError):
            ada.me.state["x"] = 1


async def hosted(world: World, *names: str) -> tuple[list[Room], Room, list[Room]]:
    rooms = await everybody(world, *names)
    host = await agree_on_a_host(rooms)
    await trio.sleep(3)
    return rooms, host, [room for room in rooms if room is not host]


async def test_a_killed_host_leaves_the_room_s_state_and_its_timers_to_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(seed=2, quality=Quality(latency_s=0.03, jitter_s=0.01, loss=0.02)) as world:
        names = ["ada", "bob", "cid", "dan", "eve"]
        rooms, host, rest = await hosted(world, *names)
        fired: dict[str, list[float]] = {name: [] for name in names}
        for name, room in zip(names, rooms, strict=True):
            room.on(TimerFired, lambda event, name=name: fired[name].append(trio.current_time()))
        host.state["round"] = 3
        host.state["map"] = "ice"
        host.after(3.0, RoundEnds("blue"))
        gone = host.after(2.0, RoundEnds("nobody"))
        due = trio.current_time() + 3.0
        host.cancel_timer(gone)
        with pytest.raises(NotHost, match=host.player.name):
            rest[0].state["round"] = 4
        await trio.sleep(0.2)
        host.state["round"] = 5
        await trio.sleep(0.25)  # what is older than this is not lost
        world.crash(names[rooms.index(host)])
        began = trio.current_time()
        second = await agree_on_a_host(rest)
        while second is host or not second.is_host:
            await trio.sleep(0.05)
            second = await agree_on_a_host(rest)
        assert trio.current_time() - began <= 3.0
        assert all(dict(room.state) == {"round": 5, "map": "ice"} for room in rest)
        second.state["round"] = 6
        await trio.sleep(3.0)
        assert all(dict(room.state) == {"round": 6, "map": "ice"} for room in rest)
        others = [times for name, times in fired.items() if name != names[rooms.index(host)]]
        assert all(len(times) == 1 for times in others), (fired, due)
        assert all(-0.1 <= times[0] - due <= 0.6 for times in others), (fired, due)
        late = await world.join("arena", "fox")
        told: list[Any] = []
        late.on(TimerFired, told.append)
        await late.wait_connected(4)
        await trio.sleep(2)
        assert dict(late.state) == {"round": 6, "map": "ice"}
        assert not told


@pytest.mark.parametrize(("players", "latency_s"), [(2, 0.02), (3, 0.01), (5, 0.02), (8, 0.02)])
async def test_who_leaves_in_order_hands_over_the_state_at_once(
    players: int, latency_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Four times one way, and what a machine adds: the resignation, the question, the vote, the first beat."""
    async with open_world(seed=5, quality=Quality(latency_s=latency_s)) as world:
        _, host, rest = await hosted(world, *NAMES[:players])
        host.state["round"] = 1
        before = rest[0].term
        told: list[tuple[float, HostChanged]] = []
        for room in (host, *rest):
            room.on(HostChanged, lambda event: told.append((trio.current_time(), event)))
        await trio.sleep(1)
        await host.leave()
        second = await agree_on_a_host(rest)
        resigned = next(at for at, event in told if event.host is None)
        followed = [at for at, event in told if event.host is not None and event.host.id == second.me]
        assert len(followed) == len(rest)
        assert max(followed) - resigned <= 0.1
        assert second.term == before + 1
        second.state["next"] = True
        await trio.sleep(0.3)
        assert all(dict(room.state) == {"round": 1, "next": True} for room in rest)


async def test_a_timer_that_is_set_before_the_room_has_a_clock_fires_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(seed=5) as world:
        ada = await world.join("arena", "ada")
        fired: list[TimerFired] = []
        ada.on(TimerFired, fired.append)
        assert ada.host is None
        await trio.sleep(2.5)
        ada.after(0.2, RoundEnds("me"))
        await trio.sleep(1)
        assert fired == [TimerFired(RoundEnds("me"))]


async def test_name_and_metadata_change_while_we_are_there(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=5) as world:
        ada, bob = await everybody(world, "ada", "bob")
        told: list[str] = []
        bob.on_peer_changed(lambda peer: told.append(peer.name))
        ada.update_player(name="Ada Lovelace", metadata={"team": "red"})
        await trio.sleep(0.5)
        seen = bob.peers[ada.me]
        assert (seen.name, seen.profile.metadata) == ("Ada Lovelace", {"team": "red"})
        assert ada.player.name == "Ada Lovelace"
        ada.update_player(metadata={"team": "blue"})
        await trio.sleep(0.5)
        assert (seen.name, seen.profile.metadata) == ("Ada Lovelace", {"team": "blue"})
        assert told == ["Ada Lovelace", "Ada Lovelace"]
        for wrong in ({"name": "a\nb"}, {"name": ""}, {"metadata": {"a": 1}}, {"metadata": {"a": "x" * 999}}):
            with pytest.raises(InvalidConfig):
                ada.update_player(**wrong)  # type: ignore[arg-type]


def test_plain_values_come_back_as_they_were() -> None:
    for value in (None, True, 0, -(2**63), 2**64 - 1, 1.5, "é", b"\0", [1, [2]], {"a": {"b": []}}):
        assert decode_plain_untrusted(encode_plain(value)) == value
