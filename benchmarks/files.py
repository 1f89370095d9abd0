"""`python -m benchmarks.files [--mebibytes 64] [--cut 5]`: a large file beside play, over a path that is cut in the middle.

Two players on a virtual network (20 ms one way, 8 MB/s, so the processor does not matter) send positions 60 times a second.
Told: the 99th percentile of a position's way with the file and without, how fast the file came, and how much of it had to be
sent again after the cut.
"""

from __future__ import annotations

import random
from typing import Annotated, Any

import attrs
import trio
import typer
from trio.testing import MockClock

from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, open_world

QUALITY = Quality(latency_s=0.02, bytes_per_s=8e6)
TICK_S = 1 / 60
QUIET_S = 10.0  # of play without a file


@attrs.frozen
class Outcome:
    """p99_s: of a position's way beside the file, and `quiet_p99_s` without one. before_cut: the share of the file that was
    there when the path was cut; wire_bytes: what the sender sent all in all. took_s: without the cut."""

    p99_s: float
    quiet_p99_s: float
    before_cut: float
    wire_bytes: int
    took_s: float
    is_whole: bool

    @property
    def ratio(self) -> float:
        return self.p99_s / self.quiet_p99_s


async def beside_play(n_bytes: int, cut_s: float, quality: Quality = QUALITY, seed: int = 3) -> Outcome:
    """To be run under a `MockClock(autojump_threshold=0)`."""
    async with open_world(seed=seed, quality=quality) as world:
        ada, bob = await world.join("files", "ada"), await world.join("files", "bob")
        await ada.wait_connected(1)
        files = bob.files()
        data = random.Random(seed).randbytes(n_bytes)
        ways = _listen(bob)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_play, ada)
            await trio.sleep(QUIET_S)
            quiet = ways.copy()
            ways.clear()
            began, wire_before = trio.current_time(), world.hosts["ada"].bytes_sent
            nursery.start_soon(ada.send_file, bob.me, data)
            share = 0.0
            if cut_s:
                while share < 0.4:
                    await trio.sleep(0.1)
                    share = max((each.done / each.size for each in files.arriving), default=0.0)
                with world.net.partition({"ada"}, {"bob"}, signaling=False):
                    await trio.sleep(cut_s)
            received = await files.receive()
            took_s = trio.current_time() - began - cut_s
            wire = world.hosts["ada"].bytes_sent - wire_before
            nursery.cancel_scope.cancel()
        return Outcome(_p99(ways), _p99(quiet), share, wire, took_s, received.data == data)


def _listen(room: Room) -> list[float]:
    ways: list[float] = []
    room.channel("positions", mode="unreliable").on_message(
        lambda peer, sent: ways.append(trio.current_time() - float(sent))
    )
    return ways


async def _play(room: Room) -> None:
    channel: Any = room.channel("positions", mode="unreliable")
    while True:
        channel.send_nowait(repr(trio.current_time()))
        await trio.sleep(TICK_S)


def _p99(ways: list[float]) -> float:
    return sorted(ways)[len(ways) * 99 // 100]


def main(
    mebibytes: Annotated[float, typer.Option(min=1 / 16, max=64)] = 64.0,
    cut: Annotated[float, typer.Option(min=0.0, max=60.0, help="seconds")] = 5.0,
) -> None:
    n_bytes = int(mebibytes * 2**20)
    outcome = trio.run(beside_play, n_bytes, cut, clock=MockClock(autojump_threshold=0))
    print(f"{mebibytes:g} MiB in {outcome.took_s:.1f} s beside play and a cut of {cut:g} s, whole: {outcome.is_whole}")
    print(
        f"at the cut {outcome.before_cut:.0%} were there; sent on the wire: {outcome.wire_bytes / n_bytes:.2f} x the file"
    )
    print(f"positions p99: {outcome.p99_s * 1000:.1f} ms, {outcome.ratio:.2f} x that without a file")


if __name__ == "__main__":
    typer.run(main)
