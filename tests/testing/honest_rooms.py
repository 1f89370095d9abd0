"""Honest rooms that have it hard: nobody in them may be parted from as if it were hostile.

    python -m tests.testing.honest_rooms --rooms 1000 --jobs 2

Each room follows from its seed: three to six players, a tenth of all datagrams lost, jitter, machines that are slow or stand
still, positions at 20 Hz, floods of bulk on reliable channels, and one who storms: a thousand broadcasts a second for a while.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import trio
from trio.testing import MockClock

from psyne_mesh.identity import PeerId
from psyne_mesh.room.room import Room, inside
from psyne_mesh.testing import Quality, World, open_world

PUNISHED = ("flooding", "misbehaving")  # why a link ends to who costs too much, or speaks nonsense
SECONDS = 8.0


async def play(seed: int) -> list[str]:
    """Who was parted from in the room of that seed, and why."""
    rng = random.Random(f"honest/{seed}")
    quality = Quality(
        latency_s=rng.uniform(0.005, 0.1),
        jitter_s=rng.uniform(0, 0.05),
        loss=0.1,
        duplicate=rng.choice((0.0, 0.02)),
        reorder=rng.choice((0.0, 0.05)),
        bytes_per_s=rng.choice((None, 2e5, 1e6)),
    )
    parted: list[str] = []
    async with open_world(seed, quality) as world, trio.open_nursery() as nursery:
        rooms = [await world.join("lobby", f"player {number}") for number in range(rng.randint(3, 5))]
        for room in rooms:
            listen(room, parted)
        if rng.random() < 0.5:
            slow = rng.choice(list(world.hosts.values()))
            slow.slowness_s = rng.uniform(0.02, 0.25)
        for room in rooms:
            nursery.start_soon(positions, room)
            nursery.start_soon(read, room, "positions")
            nursery.start_soon(read, room, "bulk")
            nursery.start_soon(bulk, room, random.Random(rng.random()))
        nursery.start_soon(storm, rng.choice(rooms), rng.uniform(0.5, 4.0), rng.choice((10, 100, 1_000)))
        nursery.start_soon(stand_still, world, random.Random(rng.random()))
        await trio.sleep(SECONDS)
        nursery.cancel_scope.cancel()
    return parted


def listen(room: Room, parted: list[str]) -> None:
    """Notes when this room ends a link as a punishment, or a link overflows."""
    core: Any = room._core
    unwant = core.unwant

    def heard(key: str, peer: PeerId, reason: str) -> None:
        if reason in PUNISHED:
            parted.append(f"{room.player.name} parted from {peer.short}: {reason}")
        unwant(key, peer, reason)

    core.unwant = heard


async def positions(room: Room) -> None:
    channel = room.channel("positions", mode="unreliable")
    while True:
        channel.send_nowait(bytes(24))
        await trio.sleep(1 / 20)


async def read(room: Room, name: str) -> None:
    async for _ in room.channel(name, mode="unreliable" if name == "positions" else "reliable"):
        pass


async def bulk(room: Room, rng: random.Random) -> None:
    """A level or a replay for everybody, now and then."""
    channel = room.channel("bulk")
    while True:
        await trio.sleep(rng.expovariate(0.25))
        for _ in range(rng.randint(1, 6)):
            await channel.send(bytes(rng.choice((1_000, 20_000, 60_000))))


async def storm(room: Room, begins_s: float, size: int) -> None:
    """A thousand broadcasts a second over the overlay, for a third of a second, and the same again."""
    membership = inside(room).joined()
    await trio.sleep(begins_s)
    for _ in range(2):
        for _ in range(330):
            membership.broadcast(bytes(size))
            await trio.sleep(0.001)
        await trio.sleep(1.0)


async def stand_still(world: World, rng: random.Random) -> None:
    while True:
        await trio.sleep(rng.expovariate(0.3))
        with rng.choice(list(world.hosts.values())).pause():
            await trio.sleep(rng.uniform(0.05, 2.0))


def played(seed: int) -> tuple[int, list[str]]:
    return seed, trio.run(play, seed, clock=MockClock(autojump_threshold=0))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.testing.honest_rooms", description=__doc__)
    parser.add_argument("--rooms", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1)
    chosen = parser.parse_args()
    began, found = time.monotonic(), 0
    with ProcessPoolExecutor(chosen.jobs) as pool:
        seeds = range(chosen.first, chosen.first + chosen.rooms)
        for number, (seed, parted) in enumerate(pool.map(played, seeds), 1):
            found += len(parted)
            if parted:
                print(f"room {seed}: {'; '.join(parted)}", flush=True)
            if number % 50 == 0 or number == chosen.rooms:
                print(
                    f"{number} rooms, {found} honest players parted from, {time.monotonic() - began:.0f} s", flush=True
                )
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
