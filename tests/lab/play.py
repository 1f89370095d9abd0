"""Players as the tests see them: processes in a lab that talk JSON lines, and the way of their signals."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import trio

from tests.lab.coturn import PASSWORD, USER
from tests.lab.lab import Lab
from tests.lab.namespaces import Process

Payload = Literal["psyne", "aioice", "room", "crowd"]
MODULES = {
    "psyne": "tests.lab.player",
    "aioice": "tests.lab.player_aioice",
    "room": "tests.lab.player_room",
    "crowd": "tests.lab.player_crowd",
}
SIGNAL_DELAY_S = 0.03  # one way through a signaling server, as for two sites at 15 ms each
READY_DEADLINE_S = 30.0  # importing on a busy machine


class PlayerFailed(RuntimeError):
    """A player's process said or did what it should not; the message holds what it wrote to stderr."""


class RemotePlayer:
    """A player's process.

    events: what it said, in order, signals excluded; `await wait_for("open")` waits for one with that name or key.
    on_signal: gets every signal that it wants to send.
    """

    def __init__(self, name: str, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.name, self.process = name, process
        self.events: list[dict[str, Any]] = []
        self.on_signal: Callable[[Any], None] = lambda _: None
        self._to = trio.lowlevel.FdStream(process.stdin)
        self._from = trio.lowlevel.FdStream(process.stdout)
        process.stdin = process.stdout = None  # the streams own them now
        self._news = trio.Event()
        self._ended = False

    async def tell(self, **content: Any) -> None:
        try:
            await self._to.send_all(json.dumps(content).encode() + b"\n")
        except trio.BrokenResourceError as error:
            raise self.failure("has ended") from error

    async def wait_for(self, *names: str, after: int = 0) -> dict[str, Any]:
        """The first event with one of these names, or answer with one of these keys, from number `after` on.

        Raises PlayerFailed when the process ends before; use `trio.fail_after` around it.
        """
        while True:
            for event in self.events[after:]:
                if event.get("event") in names or any(name in event for name in names):
                    return event
            if self._ended:
                raise self.failure(f"ended before it said {' or '.join(names)}")
            await self._news.wait()

    async def ask(self, **content: Any) -> dict[str, Any]:
        """Tells it to report (or the like) and returns the answer."""
        after = len(self.events)
        await self.tell(**content)
        return await self.wait_for(content["do"], after=after)

    def failure(self, why: str) -> PlayerFailed:
        return PlayerFailed(f"player {self.name} {why}; it said {self.events[-3:]}\n{self.process.errors()}")

    async def listen(self) -> None:
        buffer = b""
        async for piece in self._from:
            *whole, buffer = (buffer + piece).split(b"\n")
            for line in whole:
                content = json.loads(line)
                if "signal" in content:
                    self.on_signal(content["signal"])
                else:
                    self.events.append(content)
                    self._news.set()
                    self._news = trio.Event()
        self._ended = True
        self._news.set()

    async def aclose(self) -> None:
        self.process.kill()
        with trio.CancelScope(shield=True):
            await self._to.aclose()
            await self._from.aclose()


@asynccontextmanager
async def open_players(
    lab: Lab, specs: Mapping[str, Mapping[str, Any]], *, payload: Payload = "psyne"
) -> AsyncIterator[list[RemotePlayer]]:
    """Starts a player at each named host, all at once, and waits until they are ready; a spec as in `Spec`."""
    players = [RemotePlayer(host, lab.python(host, MODULES[payload])) for host in specs]
    try:
        async with trio.open_nursery() as nursery:
            for player in players:
                nursery.start_soon(player.listen)
                await player.tell(**specs[player.name])
            with trio.fail_after(READY_DEADLINE_S):
                for player in players:
                    await player.wait_for("ready")
            yield players
            nursery.cancel_scope.cancel()
    finally:
        for player in players:
            await player.aclose()


async def everybody_connected(player: RemotePlayer, others: set[str]) -> None:
    """Until it has told of a connection to each of the others."""
    seen: set[str] = set()
    after = 0
    while not others <= seen:
        event = await player.wait_for("PeerConnected", after=after)
        after = player.events.index(event) + 1
        seen.add(event["peer"])


def servers(lab: Lab, name: str, *, payload: Payload, turn: bool) -> dict[str, Any]:
    """The part of a spec that names the servers. Our stack gets all of them and must find out which work; aioice takes
    only one, so the lab chooses for it."""
    spec: dict[str, Any] = {"stun": lab.stun_uris(name), "turn": [], "username": USER, "credential": PASSWORD}
    if turn:
        transports = ["udp", "tcp"] if payload != "aioice" or lab.passes_udp(name) else ["tcp"]
        spec["turn"] = lab.turn_uris(name, transports)
    return spec


@asynccontextmanager
async def signaling(a: RemotePlayer, b: RemotePlayer, delay_s: float = SIGNAL_DELAY_S) -> AsyncIterator[None]:
    """Carries the signals of two players to each other, in order and late by `delay_s`, while the block lasts."""
    async with trio.open_nursery() as nursery:
        for source, target in ((a, b), (b, a)):
            send, receive = trio.open_memory_channel[tuple[float, Any]](math.inf)
            source.on_signal = _timestamped(send, delay_s)
            nursery.start_soon(_carry, receive, target)
        yield
        nursery.cancel_scope.cancel()


def _timestamped(channel: trio.MemorySendChannel[tuple[float, Any]], delay_s: float) -> Callable[[Any], None]:
    return lambda signal: channel.send_nowait((trio.current_time() + delay_s, signal))


async def _carry(channel: trio.MemoryReceiveChannel[tuple[float, Any]], target: RemotePlayer) -> None:
    async for due, signal in channel:
        await trio.sleep_until(due)
        await target.tell(signal=signal)
