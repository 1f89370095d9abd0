"""One side sends as fast as back-pressure allows, the other counts."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import Any

import attrs
import trio

from benchmarks.process import PeerFailed, PeerProcess, start_pair, start_peer
from benchmarks.stacks.registry import Stack
from benchmarks.work import Scale
from benchmarks.works.usage import CpuMeter

RELAY = (sys.executable, "-m", "benchmarks.relay")
STILL_S = 0.5  # nothing came for so long: nothing more will come
PATIENCE_S = 15.0


@attrs.frozen
class BadPath:
    """Stands between the two; see `relay.py`. loss: of datagrams, in each direction. mtu: bytes of UDP payload."""

    delay_ms: float
    loss: float
    mtu: int = 1472
    seed: int = 1


async def flood(
    stack: Stack,
    scale: Scale,
    *,
    size: int,
    reliable: bool,
    connections: int = 1,
    settings: dict[str, Any] | None = None,
    path: BadPath | None = None,
) -> dict[str, float]:
    """rate (messages/s and bytes/s after the warm-up), lost fraction, CPU seconds of both sides for all of it."""
    async with AsyncExitStack() as exits:
        one, two = await exits.enter_async_context(start_pair(stack.command))
        port = two.signaling
        if path is not None:
            relay = await exits.enter_async_context(start_peer(RELAY))
            await relay.call("route", port=port, **attrs.asdict(path))
            port = relay.signaling
        await one.call(
            "dial", port=port, count=connections, reliable=reliable, mine="ping", theirs="sink",
            settings=settings or {},
        )  # fmt: skip
        async with CpuMeter(one, two) as cpu:
            await two.call("sink", warm_s=scale.warm_s)
            sent = (await one.call("flood", size=size, seconds=scale.warm_s + scale.seconds))["sent"]
            # On a bad path what is still in the sender's buffer could take a minute, and the rate is known by now.
            sunk = await (two.call("sunk") if path is not None else _all_that_comes(two, sent))
    if not sunk["span_ns"]:
        raise PeerFailed(f"{sunk['messages']} of {sent} messages came: nothing to measure a rate with")
    return {
        "messages_per_s": sunk["span_messages"] / sunk["span_ns"] * 1e9,
        "bytes_per_s": sunk["span_bytes"] / sunk["span_ns"] * 1e9,
        "lost": 1 - sunk["messages"] / sent,
        "cpu_s": cpu.seconds,
        "bytes": sunk["bytes"],
        "messages": sunk["messages"],
    }


async def _all_that_comes(receiver: PeerProcess, sent: int) -> dict[str, Any]:
    """What the sink has once everything is there, or nothing has come for a while."""
    sunk: dict[str, Any] = await receiver.call("sunk")
    still_since = trio.current_time()
    with trio.move_on_after(PATIENCE_S):
        while sunk["messages"] < sent and trio.current_time() - still_since < STILL_S:
            await trio.sleep(0.05)
            before, sunk = sunk, await receiver.call("sunk")
            if sunk["messages"] != before["messages"]:
                still_since = trio.current_time()
    return sunk
