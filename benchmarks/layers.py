"""Where the CPU time of a message goes: microseconds of each layer for one unit of work, both sides in one process.

Run: python -m benchmarks.layers [--seconds 10] [--only rtt]

CPU time, not wall: a timer that counts what this process uses, kernel included (ITIMER_PROF), looks at the Python stack some
hundred times a second, and each look counts for the innermost frame that belongs to a layer. A busy machine changes little of
that. Nothing is lost or delayed here; what two processes pay for being woken is in the work `rtt`, not here. The frames of
compiled modules cannot be seen: for a compiled build the totals are right, and the layers are not shown.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import NamedTuple

import attrs
import trio

from psyne_mesh.config import DataChannelConfig, WebRTCConfig
from psyne_mesh.webrtc import stack
from psyne_mesh.webrtc.data_channel import DataChannel
from psyne_mesh.webrtc.endpoint import open_endpoint

PERIOD_S = 0.001  # asked for; the kernel's clock makes it 4 ms on most machines
CONFIG = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
# The first match of the innermost frame's file and function counts; a file that matches nothing counts for its caller.
PLACES = (
    ("_io_epoll.py:get_events", "waiting for the socket (epoll)"),
    ("/webrtc/ice/udp.py", "socket calls, kernel included"),
    ("/webrtc/ice/", "port and ICE"),
    ("/aioice/", "port and ICE"),
    ("/asyncio/", "port and ICE"),
    ("/trio_asyncio/", "port and ICE"),
    ("/webrtc/dtls/", "DTLS, OpenSSL included"),
    ("/webrtc/sctp/", "SCTP"),
    ("/psyne_mesh/webrtc/", "channels, stack, link"),
    ("/trio/", "Trio"),
    ("/benchmarks/", "the program"),
)
LAYERS = tuple(dict.fromkeys(layer for _, layer in PLACES))


class Work(NamedTuple):
    about: str
    unit: str
    units: Callable[[int, int], float]  # of so many rounds, with messages of that size
    size: int
    channel: DataChannelConfig
    config: WebRTCConfig = CONFIG


UNRELIABLE, RELIABLE = DataChannelConfig(ordered=False, max_retransmits=0), DataChannelConfig()
WORKS = {
    "rtt": Work("round trip of 64 B", "us", lambda rounds, size: rounds, 64, UNRELIABLE),
    "small": Work("message of 100 B", "us", lambda rounds, size: rounds, 100, UNRELIABLE),
    "bulk": Work("64 KiB messages", "us/MB", lambda rounds, size: rounds * size / 1e6, 65_536, RELIABLE),
    "bulk_1191": Work("the same, 1191 B packets", "us/MB", lambda rounds, size: rounds * size / 1e6, 65_536, RELIABLE,
                      attrs.evolve(CONFIG, path_mtu_max=1228)),
}  # fmt: skip


@asynccontextmanager
async def connected(work: Work) -> AsyncIterator[tuple[DataChannel, DataChannel]]:
    async with (
        open_endpoint(work.config) as one,
        open_endpoint(work.config) as two,
        one.open_peer(offerer=True) as offerer,
        two.open_peer(offerer=False) as answerer,
    ):
        ours = offerer.create_channel(work.channel)
        await offerer.set_answer(await answerer.create_answer(await offerer.create_offer()))
        await ours.wait_open()
        yield ours, await anext(answerer.incoming_channels)


async def play(work: Work, *, echo: bool, seconds: float) -> tuple[float, Counter[str]]:
    """CPU microseconds for a unit, and the looks at each layer."""
    looks: Counter[str] = Counter()
    came = 0

    async def answer(channel: DataChannel) -> None:
        nonlocal came
        async for message in channel:
            came += 1
            if echo:
                await channel.send(message)

    async def go(channel: DataChannel, seconds: float) -> None:
        message, end = bytes(work.size), time.process_time() + seconds
        while time.process_time() < end:
            for _ in range(20):
                await channel.send(message)
                if echo:
                    await channel.receive()

    async with connected(work) as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(answer, theirs)
        await go(ours, seconds / 5)  # warm: the path MTU is known then
        came, began = 0, time.process_time()
        with looking(looks):
            await go(ours, seconds)
        spent, rounds = time.process_time() - began, came
        nursery.cancel_scope.cancel()
    return spent / work.units(rounds, work.size) * 1e6, looks


class looking:
    """`with looking(counter):` counts the layers that the time goes to."""

    def __init__(self, looks: Counter[str]) -> None:
        self._looks = looks

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, PERIOD_S, PERIOD_S)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._before)

    def _look(self, number: int, frame: FrameType | None) -> None:
        self._looks[layer_of(frame)] += 1


def layer_of(frame: FrameType | None) -> str:
    while frame is not None:
        place = f"{frame.f_code.co_filename}:{frame.f_code.co_name}"
        for part, layer in PLACES:
            if part in place:
                return layer
        frame = frame.f_back
    return "the program"


def measure(name: str, seconds: float) -> tuple[float, dict[str, float]]:
    """CPU microseconds for a unit, in all and for each layer."""
    run: Callable[[], Awaitable[tuple[float, Counter[str]]]] = lambda: play(  # noqa: E731
        WORKS[name], echo=name == "rtt", seconds=seconds
    )
    total, looks = trio.run(run)
    return total, {layer: total * looks[layer] / max(1, looks.total()) for layer in LAYERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of CPU time for each work")
    parser.add_argument("--only", choices=WORKS, action="append", help="may be repeated")
    chosen = parser.parse_args()
    names = chosen.only or list(WORKS)
    measured = {name: measure(name, chosen.seconds) for name in names}
    pure = str(stack.__file__).endswith(".py")
    print("| CPU of both sides | " + " | ".join(f"{WORKS[name].about}, {WORKS[name].unit}" for name in names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for layer in LAYERS if pure else ():
        print(f"| {layer} | " + " | ".join(f"{measured[name][1][layer]:,.1f}" for name in names) + " |")
    print("| in all | " + " | ".join(f"{measured[name][0]:,.1f}" for name in names) + " |")


if __name__ == "__main__":
    main()
