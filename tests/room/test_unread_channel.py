"""A player that leaves one reliable channel unread: the others play on, see it, and lose nothing."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.room.channel import SOFT_BUDGET_BYTES, Channel
from psyne_mesh.room.events import PeerLeft, PeerSuspected
from psyne_mesh.testing import Quality, open_world


async def count(channel: Channel[object], got: list[object]) -> None:
    async for _, message in channel:
        got.append(message)


@pytest.mark.parametrize("mode", ["unreliable", "reliable"])
async def test_the_rest_of_the_link_goes_on(autojump_clock: MockClock, mode: str) -> None:
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        ada, bob = await world.join("arena", "ada"), await world.join("arena", "bob")
        await ada.wait_connected(1)
        await bob.wait_connected(1)
        world.net.set_quality("ada", "bob", Quality(bytes_per_s=4_000_000, queue_s=0.2))
        state, unread = ada.channel("state"), bob.channel("state")
        live: list[object] = []
        nursery.start_soon(count, bob.channel("live", mode=mode), live)
        sender = ada.channel("live", mode=mode)
        told: list[object] = []

        async def listen() -> None:
            async for event in ada.events():
                if isinstance(event, PeerLeft | PeerSuspected):
                    told.append(event)

        nursery.start_soon(listen)
        (peer,) = ada.peers.values()
        behind = []
        for second in range(15):
            before = len(live)
            for _ in range(20):
                report = state.send_nowait(b"s" * 40_000)
                sender.send_nowait(b"%d" % second)
                await trio.sleep(0.05)
            await trio.sleep(0.2)
            assert len(live) - before >= 19
            behind.append(report.behind.get(peer.id, 0))
        assert told == []
        assert behind[0] == 0
        assert behind[-1] > SOFT_BUDGET_BYTES
        assert peer.waiting_bytes >= behind[-1]
        got: list[object] = []
        nursery.start_soon(count, unread, got)
        await trio.sleep(10)
        assert len(got) == 300
        assert peer.waiting_bytes == 0
        nursery.cancel_scope.cancel()
