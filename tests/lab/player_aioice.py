"""The same player with plain aioice in place of our stack: `python -m tests.lab.player_aioice`.

It proves the lab independently of the product, and is what the product is measured against. No channels: "open" means
that a datagram of the other side has come over the pair that ICE selected. aioice takes one STUN and one TURN server.
It must not import psyne_mesh: that brings trio-asyncio, which changes asyncio for the whole process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from urllib.parse import urlsplit

import aioice

from tests.lab.player_protocol import Spec, read_spec, say


async def read_lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def make_connection(spec: Spec) -> aioice.Connection:
    options: dict[str, Any] = {}
    if spec.stun:
        options["stun_server"] = host_port(spec.stun[0])
    if spec.turn:
        options |= {
            "turn_server": host_port(spec.turn[0]),
            "turn_username": spec.username,
            "turn_password": spec.credential,
            "turn_transport": "udp" if spec.turn[0].endswith("udp") else "tcp",
            "turn_ssl": spec.turn[0].startswith("turns:"),
        }
    return aioice.Connection(ice_controlling=spec.offerer, **options)


def host_port(uri: str) -> tuple[str, int]:
    place = urlsplit("//" + uri.partition(":")[2])
    assert place.hostname is not None
    return place.hostname, place.port or 3478


async def connect(connection: aioice.Connection, deadline_s: float) -> None:
    try:
        async with asyncio.timeout(deadline_s):
            await connection.connect()
            await connection.send(b"hello")
            await connection.recv()
    except (ConnectionError, TimeoutError) as error:
        say(event="failed", phase="ice", error=str(error) or type(error).__name__)
        return
    pair = connection._nominated[1]
    say(event="open", local=pair.local_candidate.type, remote=pair.remote_candidate.type, relay_protocol=None)


async def main(spec: Spec) -> None:
    connection = make_connection(spec)
    lines = await read_lines()
    say(event="ready")
    async for raw in lines:
        line = json.loads(raw)
        if line.get("do") == "start":
            await connection.gather_candidates()
            candidates = [candidate.to_sdp() for candidate in connection.local_candidates]
            say(signal={"user": connection.local_username, "password": connection.local_password, "all": candidates})
        elif "signal" in line:
            signal = line["signal"]
            connection.remote_username, connection.remote_password = signal["user"], signal["password"]
            for text in signal["all"]:
                await connection.add_remote_candidate(aioice.Candidate.from_sdp(text))
            await connection.add_remote_candidate(None)
            say(event="known")
            task = asyncio.create_task(connect(connection, spec.deadline_s))
            task.add_done_callback(lambda done: done.result())
        elif line.get("do") == "quit":
            break
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(read_spec()))
