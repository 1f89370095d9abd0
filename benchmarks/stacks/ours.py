"""psyne-mesh's own stack, used as the README shows: an endpoint for each player, `send` and `async for`."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import trio

from benchmarks.stacks.trio_peer import BenchChannel, TrioPeer
from psyne_mesh.config import DataChannelConfig, WebRTCConfig
from psyne_mesh.webrtc import stack
from psyne_mesh.webrtc.data_channel import DataChannel
from psyne_mesh.webrtc.endpoint import Endpoint, open_endpoint
from psyne_mesh.webrtc.peer import PeerConnection


class Connecting:
    def __init__(self, peer: PeerConnection, channel: DataChannel | None) -> None:
        self._peer = peer
        self._channel = channel

    async def offer(self) -> str:
        return await self._peer.create_offer()

    async def answer(self, offer: str) -> str:
        return await self._peer.create_answer(offer)

    async def finish(self, answer: str | None) -> BenchChannel:
        if answer is not None:
            await self._peer.set_answer(answer)
        if self._channel is None:
            self._channel = await anext(self._peer.incoming_channels)
        await self._channel.wait_open()
        return self._channel


class Ours(TrioPeer):
    def __init__(self) -> None:
        super().__init__()
        self._endpoints: dict[str, Endpoint] = {}

    def versions(self) -> dict[str, str]:
        return {
            "psyne-mesh": version("psyne-mesh"),
            "build": "pure" if str(stack.__file__).endswith(".py") else "compiled",
            "trio": trio.__version__,
            "python": platform.python_version(),
        }

    @asynccontextmanager
    async def connecting(
        self, *, offerer: bool, player: str, reliable: bool, settings: dict[str, Any]
    ) -> AsyncIterator[Connecting]:
        endpoint = await self._endpoint(player, WebRTCConfig(**settings))
        async with endpoint.open_peer(offerer=offerer) as peer:
            channel = None
            if offerer:
                channel = peer.create_channel(
                    DataChannelConfig(ordered=reliable, max_retransmits=None if reliable else 0)
                )
            yield Connecting(peer, channel)

    async def _endpoint(self, player: str, config: WebRTCConfig) -> Endpoint:
        """A player has one UDP port for all its peers."""
        if player not in self._endpoints:
            self._endpoints[player] = await self.nursery.start(_hold_endpoint, config)
        return self._endpoints[player]


async def _hold_endpoint(config: WebRTCConfig, task_status: trio.TaskStatus[Endpoint]) -> None:
    async with open_endpoint(config) as endpoint:
        task_status.started(endpoint)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(Ours().main)
