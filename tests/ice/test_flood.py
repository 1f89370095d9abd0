"""A flood of forged STUN packets at a player's port, and what another connection on that port feels of it."""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import struct
import sys
import time
from multiprocessing.synchronize import Event

import pytest
import trio

from tests.ice.helpers import Side, open_pair

PER_SECOND = 50_000
RUN = 50  # in one system call, by UDP_SEGMENT; more would drown the receiver's buffer in one stroke
PHASES = 10  # quiet and flooded take turns: what else the machine does meanwhile meets both
ROUNDS = 40
SOL_UDP, UDP_SEGMENT = 17, 103


def flood(port: int, go: Event, stop: Event, sent: object) -> None:
    """Binding requests of strangers who guess at a user name and a password, steadily while `go` is set."""
    name = b"abcd:efgh"
    attributes = struct.pack("!HH", 0x0006, len(name)) + name + bytes(-len(name) % 4)
    attributes += struct.pack("!HHI", 0x0024, 4, 1) + struct.pack("!HH", 0x0008, 20) + os.urandom(20)
    packet = struct.pack("!HHI", 1, len(attributes), 0x2112A442) + os.urandom(12) + attributes
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(packet)))]
    due = time.monotonic()
    while not stop.is_set():
        if not go.is_set():
            go.wait(0.1)
            due = time.monotonic()
            continue
        one.sendmsg([packet] * RUN, control, 0, ("127.0.0.1", port))
        sent.value += RUN  # type: ignore[attr-defined]
        due += RUN / PER_SECOND
        time.sleep(max(0.0, due - time.monotonic()))


async def round_trips(a: Side, b: Side) -> list[float]:
    """Of messages there and back, in seconds."""
    took: list[float] = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        for one, other in ((a, b), (b, a)):
            data = b"\x17" + number.to_bytes(4, "big") + bytes(95)
            other.received.clear()
            one.transport.send([data])
            await other.until(lambda other=other, data=data: data in other.received)  # type: ignore[misc]
        took.append(time.perf_counter() - began)
        await trio.sleep(0.002)
    return took


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux sends so fast from Python (UDP_SEGMENT)")
async def test_a_flood_of_forged_stun_does_not_double_the_latency_of_others() -> None:
    spawn = multiprocessing.get_context("spawn")
    quiet: list[float] = []
    flooded: list[float] = []
    rates: list[float] = []
    async with open_pair() as (a, b):
        go, stop, sent = spawn.Event(), spawn.Event(), spawn.Value("L", 0)
        port = a.transport._gateway.port
        process = spawn.Process(target=flood, args=(port.bases[0].address[1], go, stop, sent), daemon=True)
        process.start()
        try:
            for _ in range(PHASES):
                quiet += await round_trips(a, b)
                before = sent.value
                go.set()
                with trio.fail_after(30):
                    while sent.value == before:
                        await trio.sleep(0.01)
                before, began = sent.value, time.perf_counter()
                flooded += await round_trips(a, b)
                rates.append((sent.value - before) / (time.perf_counter() - began))
                go.clear()
                await trio.sleep(0.05)
        finally:
            stop.set()
            process.join(5)
        refused = sum(port.drops.values())
    rate = statistics.mean(rates)
    quiet.sort()
    flooded.sort()
    calm, busy = statistics.median(quiet), statistics.median(flooded)
    words = (
        f"{rate:.0f} forged packets/s, {refused} refused: median {calm * 1e6:.0f} us quiet, {busy * 1e6:.0f} us flooded"
    )
    p95 = len(quiet) * 95 // 100
    print(f"{words}, p95 {quiet[p95] * 1e6:.0f} and {flooded[p95] * 1e6:.0f} us")
    assert rate > PER_SECOND / 2, words
    assert refused > 10_000, words
    assert busy < 2 * calm, words
