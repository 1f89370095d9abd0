"""A peer process on Trio: obeys the commands of `protocol.py`. A stack gives it connections; see `Dialer`."""

from __future__ import annotations

import json
import os
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Protocol

import trio
import trio.testing

from benchmarks.stacks.protocol import LOST_AFTER_S, Latencies, Sink, now_ns, signaling_socket, stamped, usage
from psyne_mesh.errors import ClosedError, PeerGone

Reply = Any


class BenchChannel(Protocol):
    """What the works use of a channel."""

    async def send(self, data: bytes) -> None: ...
    def send_nowait(self, data: bytes) -> None: ...
    async def receive(self) -> str | bytes: ...
    def __aiter__(self) -> AsyncIterator[str | bytes]: ...


class Lines:
    """JSON objects, one a line, over any stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._rest = bytearray()

    async def send(self, message: dict[str, Any]) -> None:
        await self._stream.send_all(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any]:
        while (end := self._rest.find(b"\n")) < 0:
            more = await self._stream.receive_some()
            if not more:
                raise trio.EndOfChannel
            self._rest += more
        line, self._rest = bytes(self._rest[:end]), self._rest[end + 1 :]
        message: dict[str, Any] = json.loads(line)
        return message


class Connecting(Protocol):
    """One connection on its way: made, not begun."""

    async def offer(self) -> str: ...
    async def answer(self, offer: str) -> str: ...
    async def finish(self, answer: str | None) -> BenchChannel:
        """`answer` for the side that offered. Returns when the channel is open."""
        ...


class TrioPeer(ABC):
    """Subclass with `connecting`, then `trio.run(peer.main)`."""

    def __init__(self) -> None:
        self.sink = Sink()
        self.latencies = Latencies()
        self.channels: dict[str, list[BenchChannel]] = {}  # by the player that they belong to
        self._hung_up = trio.Event()
        self.nursery: trio.Nursery

    @abstractmethod
    def connecting(
        self, *, offerer: bool, player: str, reliable: bool, settings: dict[str, Any]
    ) -> AbstractAsyncContextManager[Connecting]:
        """A new connection that lives as long as the block."""

    def hand_over(self, channel: Any, message: bytes) -> int:
        """Send without waiting; to how many it went."""
        channel.send_nowait(message)
        return 1

    @abstractmethod
    def versions(self) -> dict[str, str]: ...

    async def main(self) -> None:
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(signaling_socket()))
            nursery.start_soon(trio.serve_listeners, self.answer_calls, [listener])
            await self.obey({"signaling": listener.socket.getsockname()[1], "versions": self.versions()})
            nursery.cancel_scope.cancel()

    async def obey(self, hello: dict[str, Any]) -> None:
        commands = Lines(trio.StapledStream(_Deaf(), trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))))
        say = sys.stdout
        print(json.dumps({"result": hello}), file=say, flush=True)
        while True:
            try:
                command = await commands.receive()
            except trio.EndOfChannel:
                return
            if command["do"] == "quit":
                return
            try:
                action: Callable[..., Awaitable[Reply]] = getattr(self, "do_" + command.pop("do"))
                print(json.dumps({"result": await action(**command)}), file=say, flush=True)
            except Exception:  # noqa: BLE001 - the runner tells it to the user
                print(json.dumps({"error": traceback.format_exc()}), file=say, flush=True)

    # ---------------------------------------------------------------------------------------------------- connecting

    async def do_dial(
        self, *, port: int, count: int, reliable: bool, mine: str, theirs: str, settings: dict[str, Any],
        **players: str,
    ) -> list[dict[str, int]]:  # fmt: skip
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            lines = Lines(stream)
            times = []
            for number in range(count):
                created = now_ns()
                connecting = await self.nursery.start(self._hold, True, players.get("from", ""), reliable, settings)
                player = players.get("to", f"player{number}")
                await lines.send({"reliable": reliable, "mode": theirs, "player": player, "settings": settings})
                await lines.receive()  # the other side is made
                began = now_ns()
                await lines.send({"offer": await connecting.offer()})
                channel = await connecting.finish((await lines.receive())["answer"])
                opened = now_ns()
                opened = max(opened, (await lines.receive())["opened_ns"])
                times.append({"setup_ns": opened - began, "created_ns": opened - created})
                self._adopt(players.get("from", ""), channel, mine)
            return times

    async def answer_calls(self, stream: trio.SocketStream) -> None:
        lines = Lines(stream)
        while True:
            try:
                wanted = await lines.receive()
            except (trio.EndOfChannel, trio.BrokenResourceError):
                return
            connecting = await self.nursery.start(
                self._hold, False, wanted["player"], wanted["reliable"], wanted["settings"]
            )
            await lines.send({"made": True})
            await lines.send({"answer": await connecting.answer((await lines.receive())["offer"])})
            channel = await connecting.finish(None)
            await lines.send({"opened_ns": now_ns()})
            self._adopt(wanted["player"], channel, wanted["mode"])

    async def _hold(
        self, offerer: bool, player: str, reliable: bool, settings: dict[str, Any],
        task_status: trio.TaskStatus[Connecting] = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        hung_up = self._hung_up
        async with self.connecting(offerer=offerer, player=player, reliable=reliable, settings=settings) as connecting:
            task_status.started(connecting)
            await hung_up.wait()

    async def do_hang_up(self) -> None:
        self.channels.clear()
        self._hung_up.set()
        self._hung_up = trio.Event()
        await trio.testing.wait_all_tasks_blocked()

    def _adopt(self, player: str, channel: BenchChannel, mode: str) -> None:
        self.channels.setdefault(player, []).append(channel)
        if mode == "echo":
            self.nursery.start_soon(_echo, channel)
        elif mode != "ping":
            self.nursery.start_soon(_hear, channel, self.sink.add if mode == "sink" else self.latencies.add)

    # ------------------------------------------------------------------------------------------------------ measuring

    async def do_ping(self, *, count: int, size: int) -> dict[str, Any]:
        channel = next(iter(self.channels.values()))[0]
        message, times = bytes(size), list[int]()
        lost = 0

        async def watch() -> None:
            nonlocal lost
            seen = -1
            while True:
                await trio.sleep(LOST_AFTER_S)
                if len(times) == seen:
                    lost += 1
                    await channel.send(message)
                seen = len(times)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for _ in range(count):
                started = now_ns()
                await channel.send(message)
                await channel.receive()
                times.append(now_ns() - started)
            nursery.cancel_scope.cancel()
        return {"times_ns": times, "lost": lost}

    async def do_flood(self, *, size: int, seconds: float) -> dict[str, int]:
        channels = [channel for channels in self.channels.values() for channel in channels]
        sent = [0] * len(channels)

        async def flood(number: int, channel: BenchChannel) -> None:
            message, end = bytes(size), now_ns() + int(seconds * 1e9)
            while now_ns() < end:
                await channel.send(message)
                sent[number] += 1

        async with trio.open_nursery() as nursery:
            for number, channel in enumerate(channels):
                nursery.start_soon(flood, number, channel)
        return {"sent": sum(sent)}

    async def do_sink(self, *, warm_s: float) -> None:
        self.sink.reset(warm_s)

    async def do_sunk(self) -> dict[str, Any]:
        return self.sink.report()

    async def do_tick(
        self, *, size: int, hz: float, seconds: float, start_ns: int, phases: dict[str, float]
    ) -> dict[str, int]:
        tallies = [0, 0]

        async def play(player: str, phase: float) -> None:
            tick_ns = int(1e9 / hz)
            due = start_ns + int(phase * tick_ns)
            for _ in range(int(seconds * hz)):
                # Trio's clock is CLOCK_MONOTONIC plus an offset of its own
                await trio.sleep(max(0, due - now_ns()) / 1e9)
                message = stamped(due, size)
                for channel in self.channels[player]:
                    try:
                        tallies[0] += self.hand_over(channel, message)
                    except Exception:  # noqa: BLE001 - whatever the stack says to "not now"
                        tallies[1] += 1
                due += tick_ns

        self.latencies.begin(start_ns)
        async with trio.open_nursery() as nursery:
            for player, phase in phases.items():
                nursery.start_soon(play, player, phase)
        return {"sent": tallies[0], "late": tallies[1]}

    async def do_latencies(self) -> dict[str, Any]:
        return self.latencies.report()

    async def do_usage(self, *, tidy: bool) -> dict[str, float]:
        return usage(tidy=tidy)


async def _echo(channel: BenchChannel) -> None:
    with suppress(ClosedError, PeerGone):  # hung up
        async for message in channel:
            await channel.send(message)  # type: ignore[arg-type]  # the pings are bytes


async def _hear(channel: BenchChannel, add: Callable[[str | bytes], None]) -> None:
    with suppress(ClosedError, PeerGone):
        async for message in channel:
            add(message)


class _Deaf(trio.abc.SendStream):
    """Replies go out through sys.stdout: they are short, and nothing is being measured then."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        return
