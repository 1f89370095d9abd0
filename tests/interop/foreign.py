"""Other WebRTC stacks, each in a process that takes commands as lines of JSON, and our peer connected to one of them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import attrs
import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.webrtc.data_channel import DataChannel
from psyne_mesh.webrtc.endpoint import open_endpoint
from psyne_mesh.webrtc.peer import PeerConnection
from tests.interop.browser_peer import find_browser

Side: TypeAlias = Literal["offerer", "answerer"]  # ours; the other stack has the other

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_START_S = 60  # the first start of a browser on a busy machine with a cold disk
_QUIT_S = 5
DEADLINE_S = 40  # for one connection and all that is done with it


def _browser(name: str) -> str:
    return "" if find_browser(name) else f"{name} is not installed: .ci/install-browsers does that on Debian"


def _node(name: str) -> str:
    if shutil.which("node") and (_HERE / "js/node_modules" / name).is_dir():
        return ""
    return f"{name} is not installed: .ci/install-browsers, or Node.js and `npm install` in tests/interop/js"


def _aiortc() -> str:
    return "" if importlib.util.find_spec("aiortc") else "aiortc is not installed: pip install 'psyne-mesh[interop]'"


@attrs.frozen(kw_only=True)
class ForeignStack:
    """How to start it, why it cannot be started here ("" when it can), and what it can do.

    max_message_size: bytes, what its SDP says.
    interleaves: it agrees to I-DATA (RFC 8260).
    snaps: it takes SCTP's INIT from the description (draft-hancke-tsvwg-snap).
    trickles: it speaks before it has gathered.
    restarts: ICE, on its own offer and on ours.
    is_browser: it hides addresses behind mDNS names, has media and RSA keys, and its `send` raises for what is too large.
    is_slow: left to the long tests.
    describes: a channel of ours has its attributes there.
    announces_order: also of lossy channels.
    sends_empty: an empty message harms nothing.
    bind_host: our address in tests of bulk data, loopback for those that can use it.
    """

    name: str
    command: tuple[str, ...]
    missing: Callable[[], str]
    max_message_size: int
    interleaves: bool = False
    snaps: bool = False
    trickles: bool = True
    restarts: bool = True
    is_browser: bool = False
    is_slow: bool = False
    describes: bool = True
    announces_order: bool = True
    sends_empty: bool = True
    bind_host: str | None = "127.0.0.1"


def _node_stack(name: str, **abilities: Any) -> ForeignStack:
    command = ("node", str(_HERE / "js/node_peer.js"), name)
    return ForeignStack(name=name, command=command, missing=lambda: _node(name), **abilities)


def _browser_stack(name: str, program: str, *flags: str, **abilities: Any) -> ForeignStack:
    command = (sys.executable, "-m", "tests.interop.browser_peer", program, *flags)
    return ForeignStack(name=name, command=command, missing=lambda: _browser(program), is_browser=True, **abilities)


STACKS = (
    ForeignStack(
        name="aiortc",
        command=(sys.executable, "-m", "tests.interop.aiortc_peer"),
        missing=_aiortc,
        max_message_size=262_144,
        trickles=False,
        restarts=False,
        bind_host=None,
    ),
    # 0.25.2 announces every lossy channel as ordered, and an empty message of its own uses a sequence number up unsent,
    # after which nothing ordered arrives any more.
    _node_stack("werift", max_message_size=65_536, announces_order=False, sends_empty=False),
    _node_stack("node-datachannel", max_message_size=262_144, restarts=False, describes=False),
    _browser_stack("chromium", "chromium", max_message_size=262_144),
    # What Chromium tries out: I-DATA, SCTP's handshake in the SDP (SNAP), DTLS's in STUN (SPED).
    _browser_stack(
        "chromium-trials",
        "chromium",
        "--force-fieldtrials=WebRTC-DataChannelMessageInterleaving/Enabled/WebRTC-Sctp-Snap/Enabled/"
        "WebRTC-IceHandshakeDtls/Enabled/",
        max_message_size=262_144,
        interleaves=True,
        snaps=True,
        is_slow=True,
    ),
    _browser_stack("firefox", "firefox", max_message_size=1_073_741_823, interleaves=True, bind_host=None),
)


_Test = TypeVar("_Test", bound=Callable[..., Any])


def those_that(ability: str) -> Callable[[_Test], _Test]:
    """For a test that not every stack can take: the name of an attribute of `ForeignStack`."""

    def mark(test: _Test) -> _Test:
        test.needs = ability  # type: ignore[attr-defined]  # conftest.py reads it
        return test

    return mark


class Figures:
    """What tests measured, for the end of the run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, agent: str, side: Side, text: str) -> None:
        self.lines.append(f"{agent}, we are the {side}: {text}")


class Remote:
    """`await remote.call("command", ...)` runs a command there and returns its result; one at a time."""

    def __init__(self, process: ForeignProcess, stdin: trio.lowlevel.FdStream, stdout: trio.lowlevel.FdStream) -> None:
        self._process = process
        self._stdin, self._stdout = stdin, stdout

    async def call(self, *command: Any) -> Any:
        self._process.is_busy = True
        await self._stdin.send_all(json.dumps(command).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            more = await self._stdout.receive_some()
            assert more, f"{self._process.stack.name} ended while it was asked to {command[0]}"
            line += more
        self._process.is_busy = False
        reply = json.loads(line)
        assert "error" not in reply, reply["error"]
        return reply["result"]


class ForeignProcess:
    """One process for all the tests of a stack, since a browser takes seconds to start.

    A test that failed while a command ran there leaves it in an unknown state: then the next test gets a new one.
    """

    def __init__(self, stack: ForeignStack) -> None:
        self.stack = stack
        self.is_busy = False
        self.agent = ""
        self._process: subprocess.Popen[bytes] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Remote]:
        """Commands for a new connection there; it is closed at the end."""
        if self.is_busy:
            self.stop()
        # Duplicates, because a Trio stream closes what it is given.
        stdin, stdout = (trio.lowlevel.FdStream(os.dup(descriptor)) for descriptor in self._start())
        async with stdin, stdout:
            remote = Remote(self, stdin, stdout)
            with trio.fail_after(_START_S):
                self.agent = f"{self.stack.name} ({await remote.call('begin')})"
            yield remote
            with trio.fail_after(_QUIT_S):
                await remote.call("end")

    def _start(self) -> tuple[int, int]:
        """Its stdin and stdout."""
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self.stack.command, cwd=_ROOT, stdin=pipe, stdout=pipe, bufsize=0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin.fileno(), self._process.stdout.fileno()

    def stop(self) -> None:
        process, self._process, self.is_busy = self._process, None, False
        if process is None:
            return
        with process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_QUIT_S)
            except subprocess.TimeoutExpired:
                process.kill()


@asynccontextmanager
async def connected(
    foreign: ForeignProcess,
    side: Side,
    theirs: Sequence[dict[str, Any]] = (),
    config: WebRTCConfig | None = None,
    deadline_s: float = DEADLINE_S,
) -> AsyncIterator[tuple[PeerConnection, Remote]]:
    """Our peer on `side`, and the other stack with the channels `theirs`."""
    async with introduced(foreign, side, config, deadline_s) as (peer, remote):
        await exchange(peer, remote, side, theirs)
        yield peer, remote


@asynccontextmanager
async def introduced(
    foreign: ForeignProcess, side: Side, config: WebRTCConfig | None = None, deadline_s: float = DEADLINE_S
) -> AsyncIterator[tuple[PeerConnection, Remote]]:
    """The two before they have told each other anything."""
    async with foreign.open() as remote:
        with trio.fail_after(deadline_s):
            async with (
                open_endpoint(config) as endpoint,
                endpoint.open_peer(offerer=side == "offerer", name=foreign.stack.name) as peer,
            ):
                yield peer, remote


async def exchange(peer: PeerConnection, remote: Remote, side: Side, theirs: Sequence[dict[str, Any]] = ()) -> str:
    """Offer and answer, until the two are connected; the description that they gave."""
    if side == "offerer":
        description: str = await remote.call("answer", await peer.create_offer(), theirs)
        await peer.set_answer(description)
    else:
        # An offer without any channel has no data section.
        description = await remote.call("offer", theirs or [{"label": "unused"}])
        await remote.call("accept", await peer.create_answer(description))
    await peer.wait_connected()
    return description


async def incoming(peer: PeerConnection, label: str) -> DataChannel:
    """The peer's channel of this label; others are passed over."""
    async for channel in peer.incoming_channels:
        if channel.label == label:
            return channel
    raise AssertionError(f"no channel {label}")
