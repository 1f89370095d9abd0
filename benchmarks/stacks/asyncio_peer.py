"""A peer process on asyncio: obeys the commands of `protocol.py`, for stacks with the browser's API of callbacks."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from benchmarks.stacks.protocol import LOST_AFTER_S, Latencies, Sink, now_ns, signaling_socket, stamped, usage

# The back-pressure of a browser program: fill the buffer to the high mark, go on when the low mark calls.
HIGH_WATER_BYTES = 2**20
LOW_WATER_BYTES = 2**18

Hear = Callable[[Any], None]
_quiet: Hear = lambda message: None  # noqa: E731


class AsyncioPeer(ABC):
    """Subclass with one class of connections and the ways of its channels, then `asyncio.run(peer.main())`."""

    def __init__(self) -> None:
        self.sink = Sink()
        self.latencies = Latencies()
        self.channels: dict[str, list[Any]] = {}  # by the player that they belong to
        self._connections: list[Connecting] = []

    @abstractmethod
    def versions(self) -> dict[str, str]: ...

    @abstractmethod
    def connecting(self, *, offerer: bool, reliable: bool) -> Connecting: ...

    @abstractmethod
    def hear(self, channel: Any, hear: Hear) -> None:
        """Call `hear` with the data of every message from now on, and nothing else any more."""

    @abstractmethod
    def buffered_amount(self, channel: Any) -> int: ...

    @abstractmethod
    def on_low(self, channel: Any, threshold: int, call: Callable[[], None]) -> None: ...

    async def main(self) -> None:
        server = await asyncio.start_server(self._answer_calls, sock=signaling_socket())
        commands = asyncio.StreamReader(limit=2**20)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(commands), sys.stdin.buffer
        )
        hello = {"signaling": server.sockets[0].getsockname()[1], "versions": self.versions()}
        print(json.dumps({"result": hello}), flush=True)
        while line := await commands.readline():
            command = json.loads(line)
            if command["do"] == "quit":
                break
            try:
                action = getattr(self, "do_" + command.pop("do"))
                print(json.dumps({"result": await action(**command)}), flush=True)
            except Exception:  # noqa: BLE001 - the runner tells it to the user
                print(json.dumps({"error": traceback.format_exc()}), flush=True)

    # ---------------------------------------------------------------------------------------------------- connecting

    async def do_dial(
        self, *, port: int, count: int, reliable: bool, mine: str, theirs: str, settings: dict[str, Any],
        **players: str,
    ) -> list[dict[str, int]]:  # fmt: skip
        wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
        hearing = asyncio.create_task(wire.hear_out())
        times = []
        for number in range(count):
            created = now_ns()
            connecting = self.connecting(offerer=True, reliable=reliable)
            wire.begin(connecting)
            wire.send({"reliable": reliable, "mode": theirs, "player": players.get("to", f"player{number}")})
            await wire.receive()  # the other side is made
            began = now_ns()
            await connecting.offer(wire)
            await connecting.accept((await wire.receive())["answer"])
            channel = await connecting.opened
            opened = max(now_ns(), (await wire.receive())["opened_ns"])
            times.append({"setup_ns": opened - began, "created_ns": opened - created})
            self._connections.append(connecting)
            self._adopt(players.get("from", ""), channel, mine)
        hearing.cancel()
        wire.close()
        return times

    async def _answer_calls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wire.hear_out())
            while (wanted := await wire.receive()) is not None:
                connecting = self.connecting(offerer=False, reliable=wanted["reliable"])
                wire.begin(connecting)
                wire.send({"made": True})
                await connecting.answer((await wire.receive())["offer"], wire)
                channel = await connecting.opened
                wire.send({"opened_ns": now_ns()})
                self._connections.append(connecting)
                self._adopt(wanted["player"], channel, wanted["mode"])
        wire.close()

    async def do_hang_up(self) -> None:
        self.channels.clear()
        connections, self._connections = self._connections, []
        for connection in connections:
            await connection.close()

    def _adopt(self, player: str, channel: Any, mode: str) -> None:
        self.channels.setdefault(player, []).append(channel)
        if mode == "echo":
            self.hear(channel, channel.send)
        elif mode != "ping":
            self.hear(channel, self.sink.add if mode == "sink" else self.latencies.add)

    # ------------------------------------------------------------------------------------------------------ measuring

    async def do_ping(self, *, count: int, size: int) -> dict[str, Any]:
        channel = next(iter(self.channels.values()))[0]
        message, times = bytes(size), list[int]()
        done = asyncio.get_running_loop().create_future()
        started = lost = 0

        def hear(_: Any) -> None:
            nonlocal started
            times.append(now_ns() - started)
            if len(times) == count:
                done.set_result(None)
                return
            started = now_ns()
            channel.send(message)

        self.hear(channel, hear)
        started = now_ns()
        channel.send(message)
        seen = -1
        while not (await asyncio.wait({done}, timeout=LOST_AFTER_S))[0]:
            if len(times) == seen:
                lost += 1
                channel.send(message)
            seen = len(times)
        self.hear(channel, _quiet)
        return {"times_ns": times, "lost": lost}

    async def do_flood(self, *, size: int, seconds: float) -> dict[str, int]:
        channels = [channel for channels in self.channels.values() for channel in channels]
        return {"sent": sum(await asyncio.gather(*(self._flood(channel, size, seconds) for channel in channels)))}

    async def _flood(self, channel: Any, size: int, seconds: float) -> int:
        message, end, sent = bytes(size), now_ns() + int(seconds * 1e9), 0
        low = asyncio.Event()
        self.on_low(channel, LOW_WATER_BYTES, low.set)
        while now_ns() < end:
            low.clear()
            while self.buffered_amount(channel) <= HIGH_WATER_BYTES and now_ns() < end:
                channel.send(message)
                sent += 1
            while self.buffered_amount(channel) > LOW_WATER_BYTES and now_ns() < end + 10_000_000_000:
                await low.wait()
                low.clear()
        return sent

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
                await asyncio.sleep(max(0, due - now_ns()) / 1e9)
                message = stamped(due, size)
                for channel in self.channels[player]:
                    try:
                        channel.send(message)
                        tallies[0] += 1
                    except Exception:  # noqa: BLE001 - whatever the stack says to "not now"
                        tallies[1] += 1
                due += tick_ns

        self.latencies.begin(start_ns)
        await asyncio.gather(*(play(player, phase) for player, phase in phases.items()))
        return {"sent": tallies[0], "late": tallies[1]}

    async def do_latencies(self) -> dict[str, Any]:
        return self.latencies.report()

    async def do_usage(self, *, tidy: bool) -> dict[str, float]:
        return usage(tidy=tidy)


class Connecting(ABC):
    """One connection on its way. `opened` gets the channel when it is open on this side."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @abstractmethod
    async def offer(self, wire: Wire) -> None: ...

    @abstractmethod
    async def answer(self, offer: str, wire: Wire) -> None: ...

    @abstractmethod
    async def accept(self, answer: str) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def add_candidate(self, candidate: dict[str, Any]) -> None:
        """One that the other side trickled. May come before the description that it belongs to."""


class Wire:
    """Signaling between two peers: JSON lines. Trickled candidates go to the connection as they come.

    begin: the messages from now on are about that connection. hear_out: in a task, as long as the wire is used.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serial = 0
        self._reader = reader
        self._writer = writer
        self._messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._connecting: Connecting | None = None

    def begin(self, connecting: Connecting) -> None:
        self._connecting = connecting
        self.serial += 1

    def send(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def hear_out(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while line := await self._reader.readline():
                message = json.loads(line)
                if "candidate" not in message:
                    self._messages.put_nowait(message)
                elif self._connecting is not None and message["serial"] == self.serial:
                    tasks.create_task(self._connecting.add_candidate(message["candidate"]))
        self._messages.put_nowait(None)

    async def receive(self) -> Any:
        """The next message; `None` when the other side hung up."""
        return await self._messages.get()

    def close(self) -> None:
        self._writer.close()
