"""Talks to a WebRTC stack in another process by JSON lines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio


class Remote:
    """`await remote.call("command", ...)` runs a command there and returns its result; one at a time."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""

    async def call(self, *command: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        await stdin.send_all(json.dumps(command).encode() + b"\n")
        while b"\n" not in self._buffer:
            more = await stdout.receive_some()
            assert more, f"the peer ended while it was asked to {command[0]}"
            self._buffer += more
        line, self._buffer = self._buffer.split(b"\n", 1)
        reply = json.loads(line)
        assert "error" not in reply, reply["error"]
        return reply["result"]


@asynccontextmanager
async def open_remote(script: str) -> AsyncIterator[Remote]:
    """`script` of this directory, in a Python of its own; it is gone when the block is left."""
    path = str(Path(__file__).parent / script)
    process = await trio.lowlevel.open_process([sys.executable, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        remote = Remote(process)
        yield remote
        with trio.move_on_after(5):
            await remote.call("quit")
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()
