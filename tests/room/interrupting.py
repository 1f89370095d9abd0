"""Ctrl-C again and again, at moments drawn by lot, into a game under load: `python -m tests.room.interrupting --times 100`.

Each time a program of its own plays beside three others at 60 Hz through one of the two doors, and gets SIGINT. It must end as
interrupted, without a word of ours on its standard error, and all three must be told that it "left".
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import attrs
import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.server import open_server

OTHERS = 3
PATIENCE_S = 60.0
LATEST_S = 0.6  # after the game has begun
TRIO = """
import random, sys, trio
import psyne_mesh
from psyne_mesh import WebRTCConfig

async def main():
    config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
    async with psyne_mesh.join_game_room("doomed", signaling=sys.argv[1], player_name="doomed", config=config) as room:
        positions = room.channel("position", mode="unreliable")
        words = room.channel("words")
        room.channel("called").on_message(lambda peer, message: sum(range(300)))
        room.on_peer_left(lambda peer, reason: None)
        await room.wait_connected(OTHERS)
        print("ready", flush=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, positions)
            nursery.start_soon(read, words)
            while True:
                positions.send_nowait(b"x" * 100)
                await words.send("y" * 300)
                await trio.sleep(1 / 60)

async def read(channel):
    async for peer, message in channel:
        sum(range(300))

trio.run(main)
"""
SYNC = """
import sys, time
from psyne_mesh import WebRTCConfig, sync

config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
with sync.join_game_room("doomed", signaling=sys.argv[1], player_name="doomed", config=config) as net:
    positions = net.channel("position", mode="unreliable")
    words = net.channel("words")
    called = net.channel("called")
    while len(net.connected) < OTHERS:
        net.poll()
        time.sleep(0.01)
    print("ready", flush=True)
    while True:
        net.poll()
        positions.send(b"x" * 100)
        words.send("y" * 300)
        for channel in (positions, words, called):
            for peer, message in channel:
                sum(range(300))
        time.sleep(1 / 60)
"""
DOORS = {"trio": TRIO, "sync": SYNC}


@attrs.frozen
class Outcome:
    code: int
    told: tuple[str, ...]  # to the others
    errors: str

    @property
    def is_good(self) -> bool:
        if self.code != -signal.SIGINT or self.told != ("left",) * OTHERS:
            return False
        return self.errors.rstrip().endswith("KeyboardInterrupt") and "Exception Group" not in self.errors


async def _play(room: Room, reasons: list[str]) -> None:
    room.on_peer_left(lambda peer, reason: reasons.append(reason))
    channels = room.channel("position", mode="unreliable"), room.channel("words"), room.channel("called")
    async with trio.open_nursery() as nursery:
        for channel in channels:
            nursery.start_soon(_read, channel)
        while True:
            for channel in channels:
                channel.send_nowait("z" * 100)
            await trio.sleep(1 / 60)


async def _read(channel: Any) -> None:
    async for _ in channel:
        pass


async def _doom(program: str, url: str, after_s: float, told: list[str]) -> Outcome:
    command = [sys.executable, "-c", program.replace("OTHERS", str(OTHERS)), url]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with trio.fail_after(PATIENCE_S):
            said = b""
            while not said.endswith(b"\n") and (
                data := await process.stdout.receive_some()
            ):  # a line may come in two parts
                said += data
            assert said == b"ready\n", said
            await trio.sleep(after_s)
            process.send_signal(signal.SIGINT)
            errors = b""
            while data := await process.stderr.receive_some():
                errors += data
            await process.wait()
            with trio.move_on_after(10):
                while len(told) < OTHERS:
                    await trio.sleep(0.05)
    finally:
        process.kill()
    assert process.returncode is not None
    return Outcome(process.returncode, tuple(told), errors.decode(errors="replace"))


async def interrupted(
    door: str, times: int, seed: int = 0, tell: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """What became of each of so many games; `tell` hears it as it comes."""
    rng = random.Random(seed)
    outcomes: list[Outcome] = []
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server("127.0.0.1", 0))
        nursery = await stack.enter_async_context(trio.open_nursery())
        told: list[str] = []
        config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
        for number in range(OTHERS):
            room = await stack.enter_async_context(
                join_game_room("doomed", signaling=server.url, player_name=f"other{number}", config=config)
            )
            nursery.start_soon(_play, room, told)
        for _ in range(times):
            told.clear()
            outcomes.append(await _doom(DOORS[door], server.url, rng.uniform(0.0, LATEST_S), told))
            tell(outcomes[-1])
        nursery.cancel_scope.cancel()
    return outcomes


def _show(outcome: Outcome) -> None:
    """A dot, or what went wrong, so that a run that is cut has said something."""
    bad = f"\nexit {outcome.code}, told {Counter(outcome.told)}\n{outcome.errors}"
    print("." if outcome.is_good else bad, end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--door", choices=DOORS, action="append")
    arguments = parser.parse_args()
    bad = 0
    for door in arguments.door or DOORS:
        outcomes = trio.run(interrupted, door, arguments.times, arguments.seed, _show)
        good = sum(outcome.is_good for outcome in outcomes)
        bad += len(outcomes) - good
        print(f"\n{door}: {good} of {len(outcomes)} ended as interrupted, and all others were told", flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
