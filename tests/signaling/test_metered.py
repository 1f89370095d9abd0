"""Who sends much is read slowly, whatever the frames are; and logs that strangers can fill are short."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair

from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.dialing import WebSocketUrl
from psyne_mesh.signaling.doors import DoorLimits
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.sparse_log import SparseLog
from psyne_mesh.signaling.websocket import open_websocket

from .guests import hello
from .worlds import Network, open_network, player

MASK = b"mask"
FLOODS = {
    "empty continuations": (b"\x01\x80" + MASK, b"\x00\x80" + MASK),
    "pings": (b"", b"\x89\x80" + MASK),
    "pongs": (b"", b"\x8a\x80" + MASK),
    "long texts that are no messages": (b"", b"\x01\xfe\xff\xff" + MASK + bytes(65_535)),
}


async def flood(network: Network, number: int, first: bytes, frame: bytes, seconds: float) -> int:
    """How many bytes the server took."""
    ours, theirs = lockstep_stream_pair()  # they hold nothing: what is not read is not sent

    async def dial() -> trio.abc.Stream:
        network._nursery.start_soon(network.server.handle, theirs)
        await trio.lowlevel.checkpoint()
        return ours

    taken, address = 0, WebSocketUrl.parse("ws://server")
    async with open_websocket(address, dial, max_message_bytes=2**20, timeout_s=5) as websocket:
        challenge = m.decode_server_untrusted(await websocket.receive())
        assert isinstance(challenge, m.Challenge)
        await websocket.send(m.encode(hello(player(number), challenge.nonce, audience=address.authority)))
        assert isinstance(m.decode_server_untrusted(await websocket.receive()), m.Welcome)
        with trio.move_on_after(seconds), suppress(trio.BrokenResourceError):  # it may have had enough of us
            await ours.send_all(first)
            while True:
                chunk = frame * max(1, 600 // len(frame))
                await ours.send_all(chunk)
                taken += len(chunk)
    return taken


@pytest.mark.parametrize("kind", FLOODS)
async def test_frames_and_bytes_are_metered(kind: str, autojump_clock: MockClock) -> None:
    first, frame = FLOODS[kind]
    config = ServerConfig(messages_per_s=100, burst=200, garbage_max=10**9)
    async with open_network(config) as network:
        taken = await flood(network, 1, first, frame, 20.0)
    tokens = taken / len(frame) * (1 + len(frame) // 4_096)
    assert tokens <= 200 + 20 * 100 + 700, "its burst, its rate, and what one read can bring"


async def test_the_connections_of_one_address_are_metered_together(autojump_clock: MockClock) -> None:
    frame = FLOODS["pongs"][1]
    config = ServerConfig(doors=DoorLimits(messages_per_address_per_s=50, messages_per_address_burst=50))
    taken: list[int] = []
    async with open_network(config) as network, trio.open_nursery() as nursery:

        async def one(number: int) -> None:
            taken.append(await flood(network, number, b"", frame, 20.0))

        for number in range(1, 6):
            nursery.start_soon(one, number)
    assert sum(taken) / len(frame) <= 50 + 20 * 50 + 5 * 700


async def test_a_log_line_that_strangers_cause_comes_now_and_then(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = SparseLog(logging.getLogger("test"))
    for _ in range(1_000):
        log.say("garbage", "nonsense came")
        await trio.sleep(0.125)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:2] == ["nonsense came", "nonsense came (and 79 more like it before)"]
    assert len(lines) == 13
