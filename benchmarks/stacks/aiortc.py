"""aiortc, as its examples use it."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from typing import Any

import aiortc

from benchmarks.stacks.asyncio_peer import AsyncioPeer, Connecting, Hear, Wire


class AiortcConnecting(Connecting):
    def __init__(self, *, offerer: bool, reliable: bool) -> None:
        super().__init__()
        self.connection = aiortc.RTCPeerConnection()
        if offerer:
            channel = self.connection.createDataChannel(
                "benchmark", ordered=reliable, maxRetransmits=None if reliable else 0
            )
            channel.on("open", lambda: self.opened.set_result(channel))
        else:
            self.connection.on("datachannel", self.opened.set_result)

    async def offer(self, wire: Wire) -> None:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        wire.send({"offer": self.connection.localDescription.sdp})

    async def answer(self, offer: str, wire: Wire) -> None:
        await self.connection.setRemoteDescription(aiortc.RTCSessionDescription(offer, "offer"))
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        wire.send({"answer": self.connection.localDescription.sdp})

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))

    async def close(self) -> None:
        await self.connection.close()

    async def add_candidate(self, candidate: dict[str, Any]) -> None:
        raise NotImplementedError("aiortc does not trickle")


class AiortcPeer(AsyncioPeer):
    def versions(self) -> dict[str, str]:
        return {"aiortc": aiortc.__version__, "python": platform.python_version()}

    def connecting(self, *, offerer: bool, reliable: bool) -> Connecting:
        return AiortcConnecting(offerer=offerer, reliable=reliable)

    def hear(self, channel: Any, hear: Hear) -> None:
        channel.remove_all_listeners("message")
        channel.on("message", hear)

    def buffered_amount(self, channel: Any) -> int:
        return int(channel.bufferedAmount)

    def on_low(self, channel: Any, threshold: int, call: Callable[[], None]) -> None:
        channel.bufferedAmountLowThreshold = threshold
        channel.on("bufferedamountlow", call)


if __name__ == "__main__":
    asyncio.run(AiortcPeer().main())
