"""A player who joins a room by the lab's signaling server: `python -m tests.lab.player_room`.

The protocol of `player.py` with these differences: no signals pass through the test; the spec also holds `name`, `room`
and `signaling`; every event of the room is told as {"event": "PeerConnected", "peer": "b", "path": {...}}, and the report
is {"report": {peer: {channel: {...}}}, "peers": {peer: path}}.
"""

from __future__ import annotations

from typing import Any

import trio

from psyne_mesh.errors import PsyneMeshError
from psyne_mesh.room.channel import Channel
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.room import Room
from tests.lab.player import config, lines, path_of
from tests.lab.player_protocol import Spec, read_spec, say
from tests.lab.player_traffic import Tally

MODES = {"reliable": "reliable", "fast": "unreliable"}


class RoomPlayer:
    def __init__(self, room: Room, nursery: trio.Nursery) -> None:
        self._room, self._nursery = room, nursery
        self._channels: dict[str, Channel[Any]] = {name: room.channel(name, mode=mode) for name, mode in MODES.items()}
        self._out = {name: Tally() for name in MODES}
        self._in: dict[str, dict[str, Tally]] = {}
        self._traffic: list[trio.CancelScope] = []

    async def obey(self, line: dict[str, Any]) -> None:
        if line["do"] == "traffic":
            for name in line.get("channels", self._channels):
                self._traffic.append(trio.CancelScope())
                self._nursery.start_soon(self._send, name, line["interval_ms"] / 1000, self._traffic[-1])
        elif line["do"] == "bulk":
            self._traffic.append(trio.CancelScope())
            self._nursery.start_soon(self._send_bulk, line["message_bytes"], self._traffic[-1])
        elif line["do"] == "stop":
            for scope in self._traffic:
                scope.cancel()
        elif line["do"] == "report":
            report = {peer: {name: tally.report() for name, tally in kept.items()} for peer, kept in self._in.items()}
            peers = {peer.name: path_of(peer.path) if peer.connected else None for peer in self._room.peers.values()}
            say(report=report, sent={name: tally.sent for name, tally in self._out.items()}, peers=peers)
        elif line["do"] == "quit":
            self._nursery.cancel_scope.cancel()

    async def tell_events(self) -> None:
        async for event in self._room.events():
            peer = getattr(event, "peer", None)
            facts: dict[str, Any] = {"event": type(event).__name__}
            if isinstance(peer, Peer):
                facts |= {"peer": peer.name, "path": path_of(peer.path)}
            for extra in ("reason", "error"):
                if hasattr(event, extra):
                    facts[extra] = str(getattr(event, extra))
            say(**facts)

    async def receive(self, name: str) -> None:
        async for peer, message in self._channels[name]:
            self._in.setdefault(peer.name, {}).setdefault(name, Tally()).note(message)

    async def _send(self, name: str, interval_s: float, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                try:
                    self._channels[name].send_nowait(self._out[name].next_message())
                except PsyneMeshError as error:
                    say(event="refused", channel=name, error=str(error))
                await trio.sleep(interval_s)

    async def _send_bulk(self, message_bytes: int, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                message = self._out["reliable"].next_message(message_bytes)
                try:
                    await self._channels["reliable"].send(message)
                except trio.Cancelled:  # nothing was sent
                    self._out["reliable"].sent -= 1
                    raise


async def main(spec: Spec) -> None:
    say(event="ready")
    async with trio.lowlevel.FdStream(0) as stream:
        commands = lines(stream)
        assert (await anext(commands)) == {"do": "start"}
        try:
            async with join_game_room(
                spec.room, max_players=64, signaling=spec.signaling, player_name=spec.name, config=config(spec)
            ) as room, trio.open_nursery() as nursery:  # fmt: skip
                player = RoomPlayer(room, nursery)
                say(event="joined")
                nursery.start_soon(player.tell_events)
                for name in MODES:
                    nursery.start_soon(player.receive, name)
                async for line in commands:
                    await player.obey(line)
                nursery.cancel_scope.cancel()
        except PsyneMeshError as error:
            say(event="failed", phase=type(error).__name__, error=str(error))


if __name__ == "__main__":
    trio.run(main, read_spec())
