"""One player as a process of its own, somewhere in a lab: `python -m tests.lab.player`, JSON lines on stdin and stdout.

    <- {"offerer": true, "stun": [...], "turn": [...], ...}   first of all; see `player_protocol.Spec`
    -> {"event": "ready"}                                     everything is imported
    <- {"do": "start"}
    -> {"signal": {...}}  <- {"signal": {...}}                to and from the other player, by whatever way
    -> {"event": "known"}                                     description and first candidate of the other are here
    -> {"event": "open", "local": "srflx", "remote": "host"}  channels carry messages
    -> {"event": "failed", "phase": "ice", "error": "..."}    or not; the process ends
    <- {"do": "traffic", "interval_ms": 50}                   numbered messages from now on, on every channel or on "channels"
    <- {"do": "bulk", "message_bytes": 16384}                 as many large ones on "reliable" as it takes, instead
    <- {"do": "stop"}  <- {"do": "report"}  -> {"report": {...}}
    <- {"do": "restart"}                                      ICE restart (offerer)
    <- {"do": "quit"}                                         so does the end of stdin

Every event carries "t", the monotonic clock, which all processes of the machine share.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import attrs
import trio

from psyne_mesh.config import DataChannelConfig, StunServer, TurnServer, WebRTCConfig
from psyne_mesh.errors import ConnectFailed, PsyneMeshError
from psyne_mesh.webrtc.data_channel import DataChannel
from psyne_mesh.webrtc.endpoint import Endpoint, open_endpoint
from psyne_mesh.webrtc.ice import Path, gather
from psyne_mesh.webrtc.peer import PeerConnection
from tests.lab.player_protocol import Spec, read_spec, say
from tests.lab.player_traffic import Tally

CHANNELS = {
    "reliable": DataChannelConfig(label="reliable"),
    "fast": DataChannelConfig(label="fast", ordered=False, max_retransmits=0),
}


def config(spec: Spec) -> WebRTCConfig:
    return WebRTCConfig(
        stun_servers=tuple(StunServer.parse(uri) for uri in spec.stun),
        turn_servers=tuple(
            attrs.evolve(TurnServer.parse(uri, spec.username, spec.credential), max_bytes_per_s=spec.turn_bytes_per_s)
            for uri in spec.turn
        ),
        connection_timeout_s=spec.deadline_s,
        relay_only=spec.relay_only,
    )


async def lines(stream: trio.lowlevel.FdStream) -> AsyncIterator[dict[str, Any]]:
    buffer = b""
    async for piece in stream:
        *whole, buffer = (buffer + piece).split(b"\n")
        for line in whole:
            yield json.loads(line)


class Player:
    """Talks to one other player over one peer connection."""

    def __init__(self, spec: Spec, peer: PeerConnection, nursery: trio.Nursery) -> None:
        self._spec, self._peer, self._nursery = spec, peer, nursery
        self._channels: dict[str, DataChannel] = {}
        self._tallies = {label: Tally() for label in CHANNELS}
        self._described = self._has_candidate = self._known = False
        self._traffic: list[trio.CancelScope] = []

    async def obey(self, line: dict[str, Any]) -> None:
        if "signal" in line:
            await self._take_signal(line["signal"])
        elif line["do"] == "start":
            self._nursery.start_soon(self._connect)
        elif line["do"] == "traffic":
            for label in line.get("channels", self._channels):
                self._traffic.append(trio.CancelScope())
                self._nursery.start_soon(self._send, label, line["interval_ms"] / 1000, self._traffic[-1])
        elif line["do"] == "bulk":
            self._traffic.append(trio.CancelScope())
            self._nursery.start_soon(self._send_bulk, line["message_bytes"], self._traffic[-1])
        elif line["do"] == "stop":
            for scope in self._traffic:
                scope.cancel()
        elif line["do"] == "report":
            say(report={label: tally.report() for label, tally in self._tallies.items()}, path=path_of(self._peer.path))
        elif line["do"] == "restart":
            say(signal={"offer": await self._peer.restart_ice(trickle=True)})
            self._nursery.start_soon(self._trickle)
        elif line["do"] == "quit":
            self._nursery.cancel_scope.cancel()

    async def _connect(self) -> None:
        peer = self._peer
        if self._spec.offerer:
            self._channels = {label: peer.create_channel(config) for label, config in CHANNELS.items()}
            say(signal={"offer": await peer.create_offer(trickle=True)})
            self._nursery.start_soon(self._trickle)
        try:
            with trio.fail_after(self._spec.deadline_s + 2):
                await self._wait_open()
        except (PsyneMeshError, trio.TooSlowError) as error:
            phase = error.phase if isinstance(error, ConnectFailed) else type(error).__name__
            say(event="failed", phase=phase, error=str(error))
            self._nursery.cancel_scope.cancel()
            return
        say(event="open", **path_of(self._peer.path))
        for label, channel in self._channels.items():
            self._nursery.start_soon(self._receive, label, channel)
        await peer.wait_closed()
        say(event="closed", error=str(peer.error))

    async def _wait_open(self) -> None:
        await self._peer.wait_connected()
        while len(self._channels) < len(CHANNELS):
            channel = await anext(self._peer.incoming_channels)
            self._channels[channel.label] = channel
        for channel in self._channels.values():
            await channel.wait_open()

    async def _take_signal(self, signal: dict[str, Any]) -> None:
        if "offer" in signal:
            answer = await self._peer.create_answer(signal["offer"], trickle=True)
            say(signal={"answer": answer})
            self._nursery.start_soon(self._trickle)
            self._described = True
        elif "answer" in signal:
            await self._peer.set_answer(signal["answer"])
            self._described = True
        else:
            self._peer.add_remote_candidate(signal["candidate"])
            self._has_candidate = True
        if self._described and not self._known and (self._has_candidate or "a=candidate" in str(signal)):
            self._known = True
            say(event="known")

    async def _trickle(self) -> None:
        async for candidate in self._peer.local_candidates:
            say(signal={"candidate": candidate})
        say(signal={"candidate": None})

    async def _receive(self, label: str, channel: DataChannel) -> None:
        try:
            async for message in channel:
                self._tallies[label].note(message)  # type: ignore[arg-type]  # only bytes are sent
        except PsyneMeshError as error:
            say(event="channel-ended", label=label, error=str(error))

    async def _send(self, label: str, interval_s: float, scope: trio.CancelScope) -> None:
        with scope:
            while self._peer.error is None:
                try:
                    self._channels[label].send_nowait(self._tallies[label].next_message())
                except PsyneMeshError as error:
                    say(event="refused", label=label, error=str(error))
                await trio.sleep(interval_s)

    async def _send_bulk(self, message_bytes: int, scope: trio.CancelScope) -> None:
        with scope:
            while self._peer.error is None:
                await self._channels["reliable"].send(self._tallies["reliable"].next_message(message_bytes))


def path_of(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {"local": None, "remote": None}
    if path.kind in ("peer", "signaling"):  # a tunnel has no candidates: who carries is both ends
        return {"local": path.kind, "remote": path.kind, "relay_protocol": None}
    return {"local": path.local_kind, "remote": path.remote_kind, "relay_protocol": path.relay_protocol}


async def play(spec: Spec, endpoint: Endpoint, stream: trio.lowlevel.FdStream) -> None:
    async with endpoint.open_peer(offerer=spec.offerer) as peer, trio.open_nursery() as nursery:
        player = Player(spec, peer, nursery)
        say(event="ready")
        async for line in lines(stream):
            await player.obey(line)
        nursery.cancel_scope.cancel()


def quicken_turn(times: float) -> None:
    """A server that lives faster than RFC 8656 allows needs a client that does; everything else keeps its pace."""
    gather.CHANNEL_REFRESH_S /= times  # type: ignore[misc]
    gather.KEEPALIVE_S /= times  # type: ignore[misc]


async def main(spec: Spec) -> None:
    quicken_turn(spec.turn_clock)
    async with open_endpoint(config(spec)) as endpoint, trio.lowlevel.FdStream(0) as stream:
        await play(spec, endpoint, stream)


if __name__ == "__main__":
    trio.run(main, read_spec())
