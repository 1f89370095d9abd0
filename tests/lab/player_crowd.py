"""Many players in one process, each with an endpoint and an allocation of its own: `python -m tests.lab.player_crowd`.

    <- {"turn": [...], "username": "...", "credential": "...", "numbers": [0, 4], "edges": [[0, 1], [3, 4]]}
    -> {"event": "ready"}  <- {"do": "start"}
    -> {"signal": {"edge": [0, 1], "to": 1, "body": {...}}}   and back, to whoever holds player 1
    -> {"event": "open", "edge": [0, 1], "at": 0, "local": "relay"}  or "failed", with an error
    <- {"do": "traffic", "interval_ms": 100}  <- {"do": "stop"}  <- {"do": "report"}
    -> {"report": [{"edge": [0, 1], "at": 0, "sent": 9, "received": 9, "doubled": 0, ...}], "problems": {"0": {...}}}

The first of an edge makes the offer. All go over relays only.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from psyne_mesh.config import DataChannelConfig, TurnServer, WebRTCConfig
from psyne_mesh.errors import PsyneMeshError
from psyne_mesh.webrtc.data_channel import DataChannel
from psyne_mesh.webrtc.endpoint import Endpoint, open_endpoint
from psyne_mesh.webrtc.peer import PeerConnection
from tests.lab.player import lines, path_of
from tests.lab.player_protocol import say
from tests.lab.player_traffic import Tally

Edge = tuple[int, int]
CHANNEL = DataChannelConfig(label="crowd")


class Seat:
    """One player's end of one edge."""

    def __init__(self, edge: Edge, at: int, peer: PeerConnection, nursery: trio.Nursery) -> None:
        self.edge, self.at = edge, at
        self.tally = Tally()
        self._peer, self._nursery = peer, nursery
        self._channel: DataChannel | None = None

    async def begin(self) -> None:
        if self.at == self.edge[0]:
            self._channel = self._peer.create_channel(CHANNEL)
            self._say({"offer": await self._peer.create_offer(trickle=True)})
            self._nursery.start_soon(self._trickle)
        try:
            await self._peer.wait_connected()
            self._channel = self._channel or await anext(self._peer.incoming_channels)
            await self._channel.wait_open()
        except PsyneMeshError as error:
            say(event="failed", edge=self.edge, at=self.at, error=str(error))
            return
        say(event="open", edge=self.edge, at=self.at, **path_of(self._peer.path))
        async for message in self._channel:
            self.tally.note(message)  # type: ignore[arg-type]  # only bytes are sent

    async def hear(self, body: dict[str, Any]) -> None:
        with suppress(PsyneMeshError):  # this end has failed, and `begin` says so
            await self._hear(body)

    async def _hear(self, body: dict[str, Any]) -> None:
        if "offer" in body:
            self._say({"answer": await self._peer.create_answer(body["offer"], trickle=True)})
            self._nursery.start_soon(self._trickle)
        elif "answer" in body:
            await self._peer.set_answer(body["answer"])
        else:
            self._peer.add_remote_candidate(body["candidate"])

    async def send(self, interval_s: float) -> None:
        while self._channel is not None and self._peer.error is None:
            self._channel.send_nowait(self.tally.next_message())
            await trio.sleep(interval_s)

    async def _trickle(self) -> None:
        async for candidate in self._peer.local_candidates:
            self._say({"candidate": candidate})
        self._say({"candidate": None})

    def _say(self, body: dict[str, Any]) -> None:
        to = self.edge[1] if self.at == self.edge[0] else self.edge[0]
        say(signal={"edge": self.edge, "to": to, "body": body})


class Crowd:
    def __init__(self, spec: dict[str, Any], nursery: trio.Nursery) -> None:
        servers = tuple(TurnServer.parse(uri, spec["username"], spec["credential"]) for uri in spec["turn"])
        self._config = WebRTCConfig(turn_servers=servers, relay_only=True)
        self._spec, self._nursery = spec, nursery
        self._seats: dict[tuple[Edge, int], Seat] = {}
        self._endpoints: dict[int, Endpoint] = {}
        self._sending = trio.CancelScope()

    async def open(self) -> None:
        for number in self._spec["numbers"]:
            self._endpoints[number] = await self._nursery.start(self._hold_endpoint)
        for edge in map(tuple, self._spec["edges"]):
            for at in edge:
                if at in self._endpoints:
                    await self._nursery.start(self._hold_peer, edge, at)

    async def obey(self, line: dict[str, Any]) -> None:
        if "signal" in line:
            signal = line["signal"]
            await self._seats[tuple(signal["edge"]), signal["to"]].hear(signal["body"])  # type: ignore[index]
        elif line["do"] == "start":
            for seat in self._seats.values():
                self._nursery.start_soon(seat.begin)
        elif line["do"] == "traffic":
            self._nursery.start_soon(self._send, line["interval_ms"] / 1000)
        elif line["do"] == "stop":
            self._sending.cancel()
        elif line["do"] == "report":
            report = [{"edge": s.edge, "at": s.at, **s.tally.report()} for s in self._seats.values()]
            problems = {n: e.gateway.problems for n, e in self._endpoints.items() if e.gateway.problems}
            say(report=report, problems=problems)

    async def _send(self, interval_s: float) -> None:
        with self._sending:
            async with trio.open_nursery() as nursery:
                for seat in self._seats.values():
                    nursery.start_soon(seat.send, interval_s)

    async def _hold_endpoint(self, task_status: trio.TaskStatus[Endpoint]) -> None:
        async with open_endpoint(self._config) as endpoint:
            task_status.started(endpoint)
            await trio.sleep_forever()

    async def _hold_peer(self, edge: Edge, at: int, task_status: trio.TaskStatus[None]) -> None:
        async with self._endpoints[at].open_peer(offerer=at == edge[0]) as peer, trio.open_nursery() as nursery:
            self._seats[edge, at] = Seat(edge, at, peer, nursery)
            task_status.started()
            await trio.sleep_forever()


async def main() -> None:
    async with trio.lowlevel.FdStream(0) as stream, trio.open_nursery() as nursery:
        commands = lines(stream)
        crowd = Crowd(await anext(commands), nursery)
        await crowd.open()
        say(event="ready")
        async for line in commands:
            await crowd.obey(line)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
