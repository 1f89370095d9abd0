"""Two players over a bad path, in memory and in virtual time: 100 +- 30 ms of round trip, 3 % loss."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from trio.testing import MockClock

from psyne_mesh import Channel, Room
from psyne_mesh.errors import WouldBlock
from psyne_mesh.testing import Quality, open_world, seeded_scheduling

PATH = Quality(latency_s=0.035, jitter_s=0.03, loss=0.03)  # each way 35 to 65 ms
FRAME_S = 1 / 60
SETTLE_S = 4.0  # links are made, and the room's clock is set

M = TypeVar("M")
Line = list[tuple[float, float]]  # (seconds, where it was or was seen)


@asynccontextmanager
async def two_players(seed: int = 1) -> AsyncIterator[tuple[Room, Room]]:
    async with open_world(seed, PATH) as world:
        ada, bob = await world.join("netcode", "ada"), await world.join("netcode", "bob")
        await ada.wait_connected(1)
        await bob.wait_connected(1)
        ada.time(), bob.time()
        yield ada, bob


async def frames(seconds: float) -> AsyncIterator[float]:
    """Seconds since the first frame, sixty times a second."""
    began = trio.current_time()
    while (passed := trio.current_time() - began) < seconds:
        yield passed
        await trio.sleep(FRAME_S)


def taken(channel: Channel[M]) -> Iterator[M]:
    """What has come since the last frame."""
    while True:
        try:
            yield channel.receive_nowait()[1]
        except WouldBlock:
            return


def play(scene: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    with seeded_scheduling(1):
        return trio.run(scene, *arguments, clock=MockClock(autojump_threshold=0))


def switch(what: str) -> bool:
    """Whether the program was started without `--without`."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--without", action="store_true", help="how it looks without")
    return not parser.parse_args().without
