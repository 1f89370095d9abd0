"""A message makes nothing that the garbage collector has to find: decision 93."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.testing import open_world

TICK_S, TICKS, WARM_UP_TICKS, PLAYERS = 1 / 60, 120, 120, 4


@pytest.fixture
def by_hand() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


async def test_play_leaves_no_cycles_and_keeps_no_objects(autojump_clock: MockClock, by_hand: None) -> None:
    async with open_world(seed=1) as world:
        rooms = [await world.join("arena", f"player-{number}") for number in range(PLAYERS)]
        heard = 0

        def hear(_: object, message: object) -> None:
            nonlocal heard
            heard += 1

        channels = []
        for room in rooms:
            await room.wait_connected(PLAYERS - 1)
            for mode in ("unreliable", "reliable"):
                channel = room.channel(f"position-{mode}", mode=mode)
                channel.on_message(hear)
                channels.append(channel)

        async def play(ticks: int) -> None:
            for _ in range(ticks):
                for channel in channels:
                    channel.send_nowait(bytes(100))
                await trio.sleep(TICK_S)

        await play(WARM_UP_TICKS)
        in_cycles, kept = [], []
        for _ in range(2):  # what tests before this one have left behind may come to an end in the first
            gc.collect()
            before, messages = len(gc.get_objects()), heard
            await play(TICKS)
            messages = heard - messages
            in_cycles.append(gc.collect())
            kept.append(len(gc.get_objects()) - before)
        assert messages >= 2 * TICKS * PLAYERS * (PLAYERS - 1) * 0.99
        assert min(in_cycles) <= messages / 100, in_cycles  # an ended task now and then, nothing for each message
        assert min(kept) <= messages / 100, kept
