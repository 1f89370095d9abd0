"""One peer process: started, told what to do, ended."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

ANSWER_TIMEOUT_S = 120.0  # longer than any command of any work
QUIT_TIMEOUT_S = 5.0
ROOT = __file__.rpartition("/benchmarks/")[0]


class PeerFailed(Exception):
    """A peer process could not do what it was told; the text is its traceback or the end of its stderr."""


class PeerProcess:
    """Made by `start_peer`. `call` sends a command and waits for its result."""

    def __init__(self, process: trio.Process, stderr: Any) -> None:
        self._process = process
        self._stderr = stderr
        self._rest = b""
        self.signaling = 0
        self.versions: dict[str, str] = {}

    async def call(self, do: str, **arguments: Any) -> Any:
        """Raises `PeerFailed`. `from_` stands for the key "from"."""
        command = {"do": do} | {name.rstrip("_"): value for name, value in arguments.items()}
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send_all(json.dumps(command).encode() + b"\n")
        except trio.BrokenResourceError:
            raise PeerFailed(self._last_words()) from None
        return await self.result(do)

    async def result(self, do: str = "start") -> Any:
        assert self._process.stdout is not None
        with trio.move_on_after(ANSWER_TIMEOUT_S):
            while b"\n" not in self._rest:
                more = await self._process.stdout.receive_some()
                if not more:
                    raise PeerFailed(self._last_words())
                self._rest += more
            line, _, self._rest = self._rest.partition(b"\n")
            answer = json.loads(line)
            if "error" in answer:
                raise PeerFailed(answer["error"])
            return answer["result"]
        raise PeerFailed(f"no answer to {do!r} within {ANSWER_TIMEOUT_S:g} s. {self._last_words()}")

    def _last_words(self) -> str:
        self._stderr.seek(0)
        return f"exit code {self._process.poll()}: {self._stderr.read()[-2000:].decode(errors='replace')}"


@asynccontextmanager
async def start_peer(command: Sequence[str]) -> AsyncIterator[PeerProcess]:
    """A peer process for the length of the block."""
    with tempfile.TemporaryFile() as stderr:
        process = await trio.lowlevel.open_process(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, cwd=ROOT
        )
        try:
            peer = PeerProcess(process, stderr)
            hello = await peer.result()
            peer.signaling, peer.versions = hello["signaling"], hello["versions"]
            yield peer
        finally:
            with trio.CancelScope(shield=True):
                await _end(process)


async def _end(process: trio.Process) -> None:
    """Some stacks hang at exit: what was measured is in, so no patience for that."""
    with trio.move_on_after(QUIT_TIMEOUT_S):
        if process.stdin is not None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await process.stdin.send_all(b'{"do": "quit"}\n')
            await process.stdin.aclose()
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    if process.stdout is not None:
        await process.stdout.aclose()


@asynccontextmanager
async def start_pair(command: Sequence[str]) -> AsyncIterator[tuple[PeerProcess, PeerProcess]]:
    async with start_peer(command) as one, start_peer(command) as two:
        yield one, two
