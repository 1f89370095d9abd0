"""`python -m benchmarks.stopped [SECONDS ...]`: a real process stopped with SIGSTOP for so long, and let go on.

Told: what each side's events said of the other, whether both told the same story, and when, counted from SIGCONT, both sides
are connected again and the stopped player's avatar (a shared object) is seen to move again. Not on Windows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from psyne_mesh import WebRTCConfig, join_game_room
from psyne_mesh.game.schema import Shared
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.server import open_server

SECONDS = (2.0, 10.0, 40.0, 90.0)
WATCHED = ("PeerLeft", "PeerDiscovered", "PeerConnected")
LOOPBACK = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)


class Avatar(Shared):
    steps: int = 0


async def play(url: str) -> None:
    """The player who is stopped: its avatar takes a step thirty times a second, and what it is told goes to stdout."""
    async with join_game_room("stopped", signaling=url, config=LOOPBACK, player_name="still") as room:
        avatar = room.share(Avatar())

        async def tell() -> None:
            async for event in room.events():
                print(type(event).__name__, flush=True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            while True:
                avatar.steps += 1
                await trio.sleep(1 / 30)


@asynccontextmanager
async def player(url: str) -> AsyncIterator[tuple[trio.Process, list[str]]]:
    told: list[str] = []
    command = [sys.executable, "-m", "benchmarks.stopped", "--play", url]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)

    async def listen() -> None:
        assert process.stdout is not None
        async for chunk in process.stdout:
            told.extend(chunk.decode().split())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        try:
            yield process, told
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()


async def stopped(seconds: float) -> dict[str, object]:
    """Stop the other player for so long; the figures and both stories."""
    async with (
        open_server("127.0.0.1", 0) as server,
        join_game_room("stopped", signaling=server.url, config=LOOPBACK, player_name="friend") as room,
        player(server.url) as (process, there),
        trio.open_nursery() as nursery,
    ):
        here: list[str] = []

        async def watch() -> None:
            async for event in room.events():
                here.append(type(event).__name__)

        nursery.start_soon(watch)
        with trio.fail_after(60):
            await room.wait_connected(1)
            while "PeerConnected" not in there or not _steps(room):
                await trio.sleep(0.02)
        here.clear()
        there.clear()
        os.kill(process.pid, signal.SIGSTOP)
        await trio.sleep(seconds)
        last, gone_on = _steps(room), trio.current_time()
        os.kill(process.pid, signal.SIGCONT)
        with trio.move_on_after(30):
            while _steps(room) <= last:
                await trio.sleep(0.005)
        seen = trio.current_time() - gone_on
        with trio.move_on_after(30):
            while _story(here) != _story(there):
                await trio.sleep(0.005)
        agreed = trio.current_time() - gone_on
        nursery.cancel_scope.cancel()
    return {"seconds": seconds, "avatar_back_s": round(seen, 3), "same_story_s": round(agreed, 3), "here": here, "there": there,
            "same_story": _story(here) == _story(there)}  # fmt: skip


def _steps(room: Room) -> int:
    return max((avatar.steps for avatar in room.all(Avatar) if not avatar.is_mine), default=0)


def _story(told: list[str]) -> list[str]:
    return [event for event in told if event in WATCHED]


async def main(seconds: list[float]) -> None:
    for still_s in seconds:
        print(json.dumps(await stopped(still_s)), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--play"]:
        trio.run(play, sys.argv[2])
    else:
        trio.run(main, [float(word) for word in sys.argv[1:]] or list(SECONDS))
