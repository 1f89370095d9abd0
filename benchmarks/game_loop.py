"""`python -m benchmarks.game_loop`: what the network costs a game with a loop of its own, beside the same loop without it.

    poll           p99 of `poll()` with 15 players at 60 Hz
    frames         p99 of a 60 FPS loop that burns 2 and 10 ms of Python a frame, beside the same loop alone; 7 players, 60 Hz:
                   from one frame to the next (`frame`), and the work inside it (`work`)
    latency        from the sender's frame to the receiver's `poll`, beyond the half frame that a frame waits on average
    stall          the game's thread stands still for 60 s: who left, and what came (`--stall`)
    intervals      the frames again with other switch intervals (`--intervals`): why half a millisecond

The other players are in a process of their own. Needs an idle machine.
"""

from __future__ import annotations

import contextlib
import json as json_module
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import trio
import typer

from benchmarks.work import percentile
from psyne_mesh import WebRTCConfig, join_game_room, sync
from psyne_mesh.sync import thread as sync_thread

HZ = 60
# Two loops of one rate keep the distance with which they began, and the figure would say which one that was; so it goes by
SWEEPING_HZ = 57
STALL_WORDS_HZ = 20
LOOPBACK = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
WARM_S = 1.0
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Position(sync.Message):
    sent_ns: int
    x: float
    y: float
    z: float
    yaw: float


@app.command()
def main(
    seconds: Annotated[float, typer.Option(min=1, help="Of each segment.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="With and without a network by turns, so often.")] = 3,
    stall: Annotated[float, typer.Option(help="Stand still for so many seconds, too; the issue says 60.")] = 0.0,
    intervals: Annotated[bool, typer.Option("--intervals", help="Compare switch intervals.")] = False,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure on this machine."""
    figures: dict[str, Any] = {}
    with sync.open_server(port=0) as server:
        figures |= measured_poll(server.url, seconds)
        for burn_ms in (2, 10):
            figures |= measured_frames(server.url, burn_ms, seconds, rounds)
        figures |= measured_latency(server.url, seconds)
        if stall:
            figures |= measured_stall(server.url, stall)
        if intervals:
            for interval_ms in (5.0, 2.0, 1.0, 0.5, 0.2, 0.1):
                sync_thread.SWITCH_INTERVAL_S = interval_ms / 1000
                frames = measured_frames(server.url, 10, seconds, rounds)
                late = measured_latency(server.url, seconds, burn_ms=10)
                figures[f"at_{interval_ms:g}_ms"] = frames | late
    for name, value in figures.items():
        print(f"{name:34} {value if isinstance(value, dict) else format(value, '.3f')}")
    if json:
        print(json_module.dumps(figures))


def measured_poll(url: str, seconds: float) -> dict[str, float]:
    """`poll()` alone, and with reading what came: the game sends at 60 Hz itself."""
    polls: list[float] = []
    reads: list[float] = []
    with crowd(url, "poll", 15) as ready, sync.join_game_room("poll", signaling=url, config=LOOPBACK) as net:
        channel = net.channel("position", Position, mode="unreliable")
        ready(net, 15)
        for _ in frames(seconds):
            began = time.perf_counter()
            net.poll()
            polled = time.perf_counter()
            got = sum(1 for _ in channel)
            polls.append(polled - began)
            reads.append(time.perf_counter() - began)
            channel.send(position())
            assert got >= 0
    return {"poll_p99_ms": 1000 * percentile(polls, 0.99), "poll_and_read_p99_ms": 1000 * percentile(reads, 0.99)}


def measured_frames(url: str, burn_ms: float, seconds: float, rounds: int) -> dict[str, float]:
    """By turns, so that both loops have the same machine."""
    loops = calibrated(burn_ms)
    alone, online = Times(), Times()
    for _ in range(rounds):
        alone.take(seconds, lambda: burn(loops))
        with crowd(url, "frames", 7) as ready, sync.join_game_room("frames", signaling=url, config=LOOPBACK) as net:
            channel = net.channel("position", Position, mode="unreliable")
            ready(net, 7)

            def frame(net: sync.Room = net, channel: sync.Channel[Position] = channel) -> None:
                net.poll()
                for _ in channel:
                    pass
                channel.send(position())
                burn(loops)

            online.take(seconds, frame)
    figures: dict[str, float] = {}
    for what, ours, theirs in (("frame", online.frames, alone.frames), ("work", online.works, alone.works)):
        name = f"{what}_{burn_ms:g}_ms"
        figures[f"{name}_p99_ratio"] = percentile(ours, 0.99) / percentile(theirs, 0.99)
        figures[f"{name}_p50_ratio"] = percentile(ours, 0.5) / percentile(theirs, 0.5)
        figures[f"{name}_p99"] = 1000 * percentile(ours, 0.99)
        figures[f"{name}_alone_p99"] = 1000 * percentile(theirs, 0.99)
    return figures


def measured_latency(url: str, seconds: float, burn_ms: float = 0.0) -> dict[str, float]:
    """Positions of another process, by the clock that both share, when `poll` of a 60 FPS loop has them."""
    loops = calibrated(burn_ms) if burn_ms else 0
    ages: list[float] = []
    with crowd(url, "latency", 1) as ready, sync.join_game_room("latency", signaling=url, config=LOOPBACK) as net:
        channel = net.channel("position", Position, mode="unreliable")
        ready(net, 1)
        list(channel)
        for _ in frames(max(seconds, 5.0), SWEEPING_HZ):
            net.poll()
            now = time.monotonic_ns()
            ages += [(now - position.sent_ns) / 1e6 for _, position in channel]
            if loops:
                burn(loops)
    half = 1000 / SWEEPING_HZ / 2
    return {"latency_p50_ms": percentile(ages, 0.5) - half, "latency_p99_ms": percentile(ages, 0.99) - half}


def measured_stall(url: str, stall_s: float) -> dict[str, float]:
    """No `poll` for so long, half of it asleep and half in Python; two others talk to us reliably."""
    with (
        crowd(url, "stall", 2, reliable=True) as ready,
        sync.join_game_room("stall", signaling=url, config=LOOPBACK) as net,
    ):
        words = net.channel("words", Position)
        ready(net, 2)
        left: list[Any] = []
        net.on_peer_left(lambda peer, reason: left.append(reason))
        newest: dict[str, float] = {}
        gaps = 0
        time.sleep(stall_s / 2)
        until = time.monotonic() + stall_s / 2
        while time.monotonic() < until:
            sum(range(1000))
        for _ in frames(5.0):
            net.poll()
            for sender, word in words:
                gaps += word.x != newest.get(sender.id, word.x - 1) + 1
                newest[sender.id] = word.x
        return {"stall_left": float(len(left)), "stall_gaps": float(gaps), "stall_came": sum(newest.values())}


# ------------------------------------------------------------------------------------------------------------ loops


def frames(seconds: float, hz: float = HZ) -> Iterator[None]:
    due = time.perf_counter()
    for _ in range(int(seconds * hz)):
        yield
        due += 1 / hz
        time.sleep(max(0.0, due - time.perf_counter()))
        due = max(due, time.perf_counter() - 1 / hz)


class Times:
    """frames: from the start of each frame to the next one's, in seconds; works: what was done in each."""

    def __init__(self) -> None:
        self.frames: list[float] = []
        self.works: list[float] = []

    def take(self, seconds: float, frame: Callable[[], object]) -> None:
        last = 0.0
        for _ in frames(seconds):
            began = time.perf_counter()
            frame()
            self.works.append(time.perf_counter() - began)
            if last:
                self.frames.append(began - last)
            last = began


def burn(loops: int) -> int:
    total = 0
    for number in range(loops):
        total += number & 3
    return total


def calibrated(burn_ms: float) -> int:
    began = time.perf_counter()
    burn(200_000)
    return int(200_000 * burn_ms / 1000 / (time.perf_counter() - began))


def position() -> Position:
    return Position(time.monotonic_ns(), 1.0, 2.0, 3.0, 0.5)


# ---------------------------------------------------------------------------------------------------- the other players


@contextlib.contextmanager
def crowd(url: str, room: str, players: int, *, reliable: bool = False) -> Iterator[Callable[[sync.Room, int], None]]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.game_loop",
        "others",
        url,
        room,
        str(players),
        "r" if reliable else "u",
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def ready(net: sync.Room, count: int) -> None:
        net.wait_connected(count, timeout=60)
        until = time.monotonic() + WARM_S
        while time.monotonic() < until:
            net.poll()
            time.sleep(0.01)

    try:
        yield ready
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


async def others(url: str, room: str, players: int, reliable: bool) -> None:
    async def play(number: int) -> None:
        async with join_game_room(room, signaling=url, config=LOOPBACK, player_name=f"p{number}") as net:
            if reliable:
                await net.wait_connected(players)  # everybody is there before the first word
            channel = net.channel(
                "words" if reliable else "position", Position, mode="reliable" if reliable else "unreliable"
            )
            due, count = trio.current_time() + number / players / HZ, 0
            while True:
                if reliable:
                    count += 1
                    await channel.send(Position(time.monotonic_ns(), float(count), 0, 0, 0))
                else:
                    channel.send_nowait(position())
                due += 1 / (STALL_WORDS_HZ if reliable else HZ)
                await trio.sleep_until(due)

    async with trio.open_nursery() as nursery:
        for number in range(players):
            nursery.start_soon(play, number)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    if sys.argv[1:2] == ["others"]:
        trio.run(others, sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "r")
    else:
        app(prog_name="python -m benchmarks.game_loop")
