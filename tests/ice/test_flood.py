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
ROUNDS = 300
SOL_UDP, UDP_SEGMENT = 17, 103


def flood(port: int, stop: Event, sent: object) -> None:
    """Binding requests of strangers who guess at a user name and a password, steadily."""
    name = b"abcd:efgh"
    attributes = struct.pack("!HH", 0x0006, len(name)) + name + bytes(-len(name) % 4)
    attributes += struct.pack("!HHI", 0x0024, 4, 1) + struct.pack("!HH", 0x0008, 20) + os.urandom(20)
    packet = struct.pack("!HHI", 1, len(attributes), 0x2112A442) + os.urandom(12) + attributes
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(packet)))]
    due = time.monotonic()
    while not stop.is_set():
        one.sendmsg([packet] * RUN, control, 0, ("127.0.0.1", port))
        sent.value += RUN  # type: ignore[attr-defined]
        due += RUN / PER_SECOND
        time.sleep(max(0.0, due - time.monotonic()))


async def round_trips(a: Side, b: Side) -> list[float]:
    """Of messages there and back, in seconds, sorted."""
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
    return sorted(took)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux sends so fast from Python (UDP_SEGMENT)")
async def test_a_flood_of_forged_stun_does_not_double_the_latency_of_others() -> None:
    spawn = multiprocessing.get_context("spawn")
    async with open_pair() as (a, b):
        quiet = await round_trips(a, b)
        stop, sent = spawn.Event(), spawn.Value("L", 0)
        port = a.transport._gateway.port
        process = spawn.Process(target=flood, args=(port.bases[0].address[1], stop, sent), daemon=True)
        process.start()
        try:
            with trio.fail_after(30):
                while not sent.value:
                    await trio.sleep(0.01)
            before, began = sent.value, time.perf_counter()
            flooded = await round_trips(a, b)
            rate = (sent.value - before) / (time.perf_counter() - began)
        finally:
            stop.set()
            process.join(5)
        refused = sum(port.drops.values())
    calm, busy = statistics.median(quiet), statistics.median(flooded)
    words = (
        f"{rate:.0f} forged packets/s, {refused} refused: median {calm * 1e6:.0f} us quiet, {busy * 1e6:.0f} us flooded"
    )
    print(f"{words}, p95 {quiet[ROUNDS * 95 // 100] * 1e6:.0f} and {flooded[ROUNDS * 95 // 100] * 1e6:.0f} us")
    assert refused > 1_000
    assert busy < 2 * calm, words
