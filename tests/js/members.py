"""Members in TypeScript, each in a process that takes commands as lines of JSON: in Node.js, or in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.interop.browser_peer import find_browser
from tests.js.node import JS, ROOT, run_node

KINDS = ("node", "chromium", "firefox")
START_S = 60.0  # the first start of a browser on a busy machine with a cold disk
ANSWER_S = 40.0
_POLYFILL = ROOT / "tests/interop/js/node_modules/node-datachannel/dist/esm/polyfill/index.mjs"
_INDEX = '<!doctype html><meta charset="utf-8"><title>A player</title><script type="module" src="/page.js"></script>\n'


def needs(kind: str) -> None:
    """Skips, and says how to get it, where this machine has none."""
    if kind == "node" and not _POLYFILL.is_file():
        pytest.skip("node-datachannel is not installed: .ci/install-browsers, or `npm install` in tests/interop/js")
    if kind != "node" and not find_browser(kind):
        pytest.skip(f"{kind} is not installed: .ci/install-browsers does that on Debian")


def build(place: Path) -> Path:
    """What members run, for Node.js and as a page."""
    common = ("--bundle", "--format=esm", "--log-level=error", "--sourcemap=inline")
    esbuild = ("node", "node_modules/esbuild/bin/esbuild")
    run_node(*esbuild, "test/process.ts", *common, "--platform=node", f"--outfile={place}/member.mjs")
    run_node(*esbuild, "test/page.ts", *common, "--platform=browser", f"--outfile={place}/pages/page.js")
    run_node(*esbuild, "src/tick.ts", "--bundle", "--log-level=error", f"--outfile={place}/pages/psyne-mesh-tick.js")
    (place / "pages/index.html").write_text(_INDEX, encoding="ascii")
    return place


class Member:
    """`await member.ask(command, *parameters)`, one at a time; see js/test/member.ts for what there is."""

    def __init__(self, process: trio.Process, kind: str) -> None:
        self.kind = kind
        self.me = ""
        self._process = process
        self._buffer = b""

    async def ask(self, *words: object) -> Any:
        with trio.fail_after(ANSWER_S):
            await self.tell(*words)
            return await self.answer()

    async def tell(self, *words: object) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(words).encode() + b"\n")

    async def answer(self) -> Any:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            more = await self._process.stdout.receive_some()
            if not more:
                raise trio.BrokenResourceError(f"the {self.kind} member ended")
            self._buffer += more
        line, self._buffer = self._buffer.split(b"\n", 1)
        said = json.loads(line)
        if "error" in said:
            raise AssertionError(f"the {self.kind} member: {said['error']}")
        return said["result"]

    async def join(self, name: str, url: str, **options: object) -> str:
        self.me = await self.ask("join", name, url, options)
        return self.me

    async def play(self, channels: list[str], count: int, per_second: int) -> None:
        with trio.fail_after(count / per_second * 3 + ANSWER_S):
            await self.tell("play", channels, count, per_second)
            await self.answer()

    async def kill(self) -> None:
        """At once: the process of Node.js, or the browser and all its processes."""
        if self.kind == "node":
            self._process.kill()
        else:
            assert self._process.stdin is not None
            await self._process.stdin.aclose()


@asynccontextmanager
async def open_member(kind: str, built: Path) -> AsyncIterator[Member]:
    """A member that has not joined yet. Its process, and its browser, end with the block."""
    command = [sys.executable, "-m", "tests.interop.browser_peer", kind, "--pages", str(built / "pages")]
    if kind == "node":
        flags = ("--enable-source-maps", "--experimental-websocket", "--no-warnings")
        command = ["node", *flags, str(built / "member.mjs"), str(_POLYFILL)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        member = Member(process, kind)
        with trio.fail_after(START_S):
            await member.tell("nap", 0)
            await member.answer()
        yield member
    finally:
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.move_on_after(5, shield=True):
            await process.wait()
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


__all__ = ["JS", "KINDS", "Member", "build", "needs", "open_member"]
