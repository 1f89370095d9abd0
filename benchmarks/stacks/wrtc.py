"""wrtc (libwebrtc under Python, import name `webrtc`), with the browser's API and trickled candidates."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import webrtc

from benchmarks.stacks.asyncio_peer import AsyncioPeer, Connecting, Hear, Wire


class WrtcConnecting(Connecting):
    def __init__(self, *, offerer: bool, reliable: bool) -> None:
        super().__init__()
        self.connection = webrtc.RTCPeerConnection()
        self.channel: webrtc.RTCDataChannel
        self._described = asyncio.Event()
        if offerer:
            limits = webrtc.RTCDataChannelInit() if reliable else webrtc.RTCDataChannelInit(False, max_retransmits=0)
            self.channel = self.connection.create_data_channel("benchmark", limits)
            self._await_open()
        else:
            self.connection.on("datachannel", self._announced)

    def _announced(self, event: webrtc.RTCDataChannelEvent) -> None:
        self.channel = event.channel
        self._await_open()

    def _await_open(self) -> None:
        self.channel.on("open", lambda event: self.opened.set_result(self.channel))

    def _trickle(self, wire: Wire) -> None:
        serial = wire.serial

        def send(event: webrtc.RTCPeerConnectionIceEvent) -> None:
            if event.candidate is not None:
                wire.send({"candidate": dict(event.candidate.to_json()), "serial": serial})

        self.connection.on("icecandidate", send)

    async def offer(self, wire: Wire) -> None:
        self._trickle(wire)
        offer = await self.connection.create_offer()
        wire.send({"offer": offer.sdp})  # before the candidates that belong to it
        await self.connection.set_local_description(offer)

    async def answer(self, offer: str, wire: Wire) -> None:
        self._trickle(wire)
        await self.connection.set_remote_description(webrtc.RTCSessionDescriptionInit("offer", offer))
        self._described.set()
        answer = await self.connection.create_answer()
        wire.send({"answer": answer.sdp})
        await self.connection.set_local_description(answer)

    async def accept(self, answer: str) -> None:
        await self.connection.set_remote_description(webrtc.RTCSessionDescriptionInit("answer", answer))
        self._described.set()

    async def close(self) -> None:
        self.connection.close()

    async def add_candidate(self, candidate: dict[str, Any]) -> None:
        await self._described.wait()
        await self.connection.add_ice_candidate(webrtc.RTCIceCandidateInit.from_json(candidate))


class WrtcPeer(AsyncioPeer):
    def versions(self) -> dict[str, str]:
        return {"wrtc": version("wrtc"), "python": platform.python_version()}

    def connecting(self, *, offerer: bool, reliable: bool) -> Connecting:
        return WrtcConnecting(offerer=offerer, reliable=reliable)

    def hear(self, channel: Any, hear: Hear) -> None:
        channel.remove_all_listeners("message")
        channel.on("message", lambda event: hear(event.data))

    def buffered_amount(self, channel: Any) -> int:
        return int(channel.buffered_amount)

    def on_low(self, channel: Any, threshold: int, call: Callable[[], None]) -> None:
        channel.buffered_amount_low_threshold = threshold
        channel.on("bufferedamountlow", lambda event: call())


if __name__ == "__main__":
    asyncio.run(WrtcPeer().main())
