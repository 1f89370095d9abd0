"""`psyne-mesh rooms | create | join --code` as people type them: processes, and a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from psyne_mesh.signaling.server import open_server

PATIENCE_S = 200  # what happens, never how fast: processes start slowly on a busy machine


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "psyne_mesh", *words]


async def ended(*words: str) -> tuple[int, str, str]:
    """Exit status, and what it said."""
    done = await trio.run_process(command(*words), capture_stdout=True, capture_stderr=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Player:
    """A process in a room, which says on its output what happens."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._said = ""

    async def until(self, pattern: str) -> str:
        assert self._process.stdout is not None
        while (found := re.search(pattern, self._said)) is None:
            more = await self._process.stdout.receive_some()
            assert more, f"it ended, and had said: {self._said}"
            self._said += more.decode()
        return found.group(found.lastindex or 0)

    async def leave(self) -> int:
        """As with Ctrl-D."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        return await self._process.wait()


@asynccontextmanager
async def playing(*words: str) -> AsyncIterator[Player]:
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        process = await nursery.start(run, command(*words))
        yield Player(process)
        process.kill()


async def test_a_room_with_a_password_is_made_listed_and_entered() -> None:
    with trio.fail_after(PATIENCE_S):
        async with open_server(port=0) as server:
            at = ("--signaling", server.url)
            assert (await ended("rooms", "fps", *at))[:2] == (0, "no rooms; psyne-mesh create LOBBY makes one\n")
            async with playing("create", "fps", "--name", "ada", "--password", "swordfish", *at) as ada:
                code = await ada.until(r"--code ([0-9A-Z]{4}-[0-9A-Z]{4})")
                status, said, _ = await ended("rooms", "fps", "--json", *at)
                assert status == 0
                room = msgspec.json.decode(said)
                assert (room["code"], room["policy"], room["players"]) == (code, "password", 1)
                status, _, error = await ended("join", "--code", code, "--password", "sardine", *at)
                assert (status, error.count("\n")) == (1, 1)
                assert "the password is wrong; ask whoever gave you the code" in error
                status, _, error = await ended("join", "--code", code, *at)
                assert status == 1
                assert "this room has a password" in error
                async with playing("join", "--code", code, "--password", "swordfish", "--name", "bob", *at) as bob:
                    await bob.until("ada connected")
                    await ada.until("bob connected")
                    assert await bob.leave() == 0
                await ada.until("bob is gone")
                assert await ada.leave() == 0


async def test_an_invitation_lets_in_and_the_code_alone_does_not() -> None:
    with trio.fail_after(PATIENCE_S):
        async with open_server(port=0) as server:
            at = ("--signaling", server.url)
            async with playing("create", "fps", "--name", "ada", "--policy", "invite", *at) as ada:
                invite = await ada.until(r"--code (psyne-invite-\S+)\n")
                assert (await ended("rooms", "fps", "--json", *at))[:2] == (0, "")
                async with playing("join", "--code", invite, "--name", "bob", *at) as bob:
                    await bob.until("ada connected")
                status, _, error = await ended("join", "--code", invite[:-9], *at)
                assert status == 1
                assert "ask for a new one" in error


async def test_what_cannot_be_is_one_line_with_the_next_step() -> None:
    with trio.fail_after(PATIENCE_S):
        async with open_server(port=0) as server:
            at = ("--signaling", server.url)
            for words, step in (
                (("join", "--code", "AAAA-AAAA", *at), "no room has the code AAAA-AAAA"),
                (("join", "--code", "short", *at), "8 letters and digits"),
                (("join", *at), "psyne-mesh join --code"),
                (("create", "fps", "--policy", "password", *at), "belong together"),
            ):
                status, _, error = await ended(*words)
                assert (status, error.count("\n")) == (1, 1), (words, error)
                assert step in error
        for words in (("rooms",), ("join", "--code", "K7QM-3FHT")):
            status, _, error = await ended(*words, *at)
            assert status == 1
            assert "psyne-mesh serve" in error
