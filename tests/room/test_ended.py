"""A room that has ended says so, whoever asks it and whoever waits for others in it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import ClosedError, InvalidConfig, PeerGone
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.room.direct import PeerChannel
from psyne_mesh.room.events import PeerLeft
from psyne_mesh.room.room import inside
from psyne_mesh.testing import open_world


@pytest.mark.parametrize("how", ["block", "leave", "evicted"])
async def test_who_waits_for_another_to_leave_hears_that_its_own_room_has_ended(
    autojump_clock: MockClock, how: str
) -> None:
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        bob = await world.join("lobby", "bob")
        told: list[str] = []
        async with world.joining("lobby", "ada") as ada:
            await ada.wait_connected(1)
            to_bob = PeerChannel(ada, ada.peers[bob.me], (), "reliable")

            async def waits(what: str) -> None:
                with pytest.raises(ClosedError):
                    await (to_bob.wait_left() if what == "wait_left" else to_bob.receive())
                told.append(what)

            nursery.start_soon(waits, "wait_left")
            nursery.start_soon(waits, "receive")
            await trio.testing.wait_all_tasks_blocked()
            if how == "leave":
                world.hub.kill()  # so that the goodbye to it takes a while
                await ada.leave()
            elif how == "evicted":
                inside(ada).on_gossip(gossip_events.Evicted("superseded"))
        with trio.fail_after(5):
            while len(told) < 2:
                await trio.sleep(0.1)
            for late in (to_bob.wait_left, to_bob.receive):
                with pytest.raises(ClosedError):
                    await late()


async def test_a_player_who_has_left_has_left_though_our_room_ends_later(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada = await world.join("lobby", "ada")
        async with world.joining("lobby", "bob") as bob:
            await ada.wait_connected(1)
            to_bob = PeerChannel(ada, ada.peers[bob.me], (), "reliable")
        with trio.fail_after(20):
            await to_bob.wait_left()
            with pytest.raises(PeerGone):
                await to_bob.receive()
            async with world.joining("lobby", "bob"):
                await ada.wait_connected(1)
                await to_bob.wait_left()  # who came back is in a stay of its own
            await ada.leave()
            await to_bob.wait_left()
        word: object = "bob"
        with pytest.raises(InvalidConfig, match="Peer"):
            await ada.wait_left(word)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["block", "leave", "evicted"])
async def test_nobody_is_connected_in_a_room_that_has_ended(autojump_clock: MockClock, how: str) -> None:
    async with open_world(seed=1) as world:
        await world.join("lobby", "bob")
        async with world.joining("lobby", "ada") as ada:
            await ada.wait_connected(1)
            peers = list(ada.peers.values())
            if how == "leave":
                await ada.leave()
            elif how == "evicted":
                inside(ada).on_gossip(gossip_events.Evicted("kicked"))
        assert [peer.name for peer in ada.peers.values()] == ["bob"], "who was here is still good to know"
        assert not ada.connected
        assert not any(peer.connected or peer.relayed for peer in peers)
        assert [event async for event in ada.events()] == []
        for register in (
            ada.on_peer_discovered, ada.on_peer_connected, ada.on_peer_suspected, ada.on_peer_resumed, ada.on_peer_left,
            ada.on_partition, ada.on_heal, lambda callback: ada.on(PeerLeft, callback),
        ):  # fmt: skip
            with pytest.raises(ClosedError):
                register(print)
