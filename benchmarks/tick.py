"""What one position costs, from the sender's call to the receiver's hand: microseconds of CPU, kernel included.

Run: python -m benchmarks.tick [--players 16] [--bare] [--callback] [--profile] [--against /path/to/another/checkout]

All players are in one process and meet over sockets of the loopback, each with a port of its own. In turn each sends
100 bytes to all others, and gets back to its loop when all of them have had theirs: no time passes idle, so a busy machine
changes little of the figure. With `--against` two processes, one of this checkout and one of another, measure by turns, and
the ratio of their medians is told. `--bare`: connections with a data channel each, no rooms. Wake-ups of processes are not
in it; `mesh16_processes` has them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import FrameType

import trio

SIZE = 100
SEGMENTS = 7
SEGMENT_S = 1.0  # of CPU
QUIET_TURNS = 400  # of the loop without a message: the rest is lost


class Game:
    """send: by player, to all others at once. received: messages that came to hand, of all players."""

    def __init__(self) -> None:
        self.send: list[Callable[[bytes], object]] = []
        self.received = 0

    async def round(self, message: bytes) -> None:
        for send in self.send:
            send(message)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()

    async def segment(self, cpu_s: float) -> float:
        """Microseconds of CPU for one message that came."""
        message = bytes(SIZE)
        began, before = time.process_time(), self.received
        while time.process_time() - began < cpu_s:
            await self.round(message)
        last, quiet = self.received, 0
        while quiet < QUIET_TURNS:
            await trio.lowlevel.checkpoint()
            quiet = quiet + 1 if self.received == last else 0
            last = self.received
            if quiet == 3:
                spent = time.process_time() - began
        return 1e6 * spent / (self.received - before)


@asynccontextmanager
async def open_rooms(players: int, *, callback: bool = False) -> AsyncIterator[Game]:
    from psyne_mesh.config import WebRTCConfig
    from psyne_mesh.identity import Identity
    from psyne_mesh.room.mesh import join_game_room
    from psyne_mesh.signaling.memory import open_memory_signaling

    game = Game()
    config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(open_memory_signaling())
        nursery = await stack.enter_async_context(trio.open_nursery())
        rooms = []
        for number in range(players):
            identity = Identity.from_seed(bytes((number,)) * 32)
            transport = await stack.enter_async_context(hub.connect(identity.peer_id))
            room = await stack.enter_async_context(
                join_game_room(
                    "tick",
                    signaling=transport,
                    identity=identity,
                    config=config,
                    rng=random.Random(number),
                    max_players=64,
                )
            )
            rooms.append(room)
        for room in rooms:
            await room.wait_connected(players - 1)
            positions = room.channel("position", mode="unreliable")

            async def read(channel: object = positions) -> None:
                async for _ in channel:  # type: ignore[attr-defined]
                    game.received += 1

            def hear(_: object, message: object) -> None:
                game.received += 1

            if callback:
                positions.on_message(hear)
            else:
                nursery.start_soon(read)
            game.send.append(positions.send_nowait)
        await trio.sleep(1.0)
        yield game
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_bare(players: int) -> AsyncIterator[Game]:
    from psyne_mesh.config import DataChannelConfig, WebRTCConfig
    from psyne_mesh.webrtc.endpoint import open_endpoint

    game = Game()
    config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        endpoints = [await stack.enter_async_context(open_endpoint(config)) for _ in range(players)]
        links: list[list[object]] = [[] for _ in endpoints]

        async def read(channel: object) -> None:
            async for _ in channel:  # type: ignore[attr-defined]
                game.received += 1

        for one in range(players):
            for other in range(one + 1, players):
                near = await stack.enter_async_context(endpoints[one].open_peer(offerer=True))
                far = await stack.enter_async_context(endpoints[other].open_peer(offerer=False))
                sent = near.create_channel(DataChannelConfig(ordered=False, max_retransmits=0))
                await near.set_answer(await far.create_answer(await near.create_offer()))
                got = await anext(far.incoming_channels)
                await sent.wait_open()
                links[one].append(sent)
                links[other].append(got)
                nursery.start_soon(read, sent)
                nursery.start_soon(read, got)
        for channels in links:

            def send(message: bytes, channels: list[object] = channels) -> None:
                for channel in channels:
                    channel.send_nowait(message)  # type: ignore[attr-defined]

            game.send.append(send)
        await trio.sleep(0.2)
        yield game
        nursery.cancel_scope.cancel()


async def serve(players: int, bare: bool, callback: bool, profile: bool, shares: bool) -> None:
    """For each line on standard input one segment, its figure on standard output."""
    async with open_bare(players) if bare else open_rooms(players, callback=callback) as game:
        await game.segment(0.5)
        print("ready", flush=True)
        seen: Counter[tuple[str, str]] = Counter()
        if profile or shares:
            _sample_into(seen)
        # In a thread: the links must live through the turns of the others.
        while await trio.to_thread.run_sync(sys.stdin.readline):
            print(await game.segment(SEGMENT_S), flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if shares:
            by_file: Counter[str] = Counter()
            for (path, _name), count in seen.items():
                by_file[path] += count
            print(json.dumps(by_file), flush=True)
        if profile:
            for (path, name), count in seen.most_common(70):
                print(f"{100 * count / seen.total():5.1f} %  {'/'.join(path.split('/')[-2:])}:{name}", file=sys.stderr)


def _sample_into(seen: Counter[tuple[str, str]]) -> None:
    def look(_: int, frame: FrameType | None) -> None:
        if frame is not None:
            seen[frame.f_code.co_filename, frame.f_code.co_qualname] += 1

    signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)


class Child:
    def __init__(self, where: str, arguments: argparse.Namespace) -> None:
        options = ["--serve", "--players", str(arguments.players)]
        for name in ("bare", "callback", "profile", "shares"):
            options += [f"--{name}"] * getattr(arguments, name, False)
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), *options],
            env={**os.environ, "PYTHONPATH": where},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.figures: list[float] = []
        self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a process of the measurement has ended early")
        return line

    def measure(self) -> None:
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)
        self.figures.append(float(self._line()))

    def last_words(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.close()
        line = self._line()
        self.process.wait()
        return line

    def end(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        return statistics.median(self.figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--players", type=int, default=16)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--callback", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--against", default="")
    parser.add_argument("--segments", type=int, default=SEGMENTS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--shares", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        trio.run(serve, arguments.players, arguments.bare, arguments.callback, arguments.profile, arguments.shares)
        return
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    children = [Child(here, arguments)] + [Child(arguments.against, arguments)] * bool(arguments.against)
    for _ in range(arguments.segments):
        for child in children:
            child.measure()
    medians = [child.end() for child in children]
    print(
        f"{medians[0]:.1f} us a message",
        *(f"against {median:.1f}: {medians[0] / median:.3f}" for median in medians[1:]),
    )


if __name__ == "__main__":
    main()
