"""A wrtc peer (libwebrtc under Python) in a process of its own: as much of what `js/peer.js` understands as a handshake needs.

JSON lines: a command on stdin, one reply on stdout. Every channel that we open there echoes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version
from typing import Any

import webrtc


class Peer:
    def __init__(self) -> None:
        self.connection: webrtc.RTCPeerConnection | None = None

    async def begin(self) -> str:
        await self.end()
        self.candidates: list[str] = []
        self.gathered = asyncio.Event()
        self.connection = webrtc.RTCPeerConnection()
        self.connection.on("icecandidate", self.adopt_candidate)
        self.connection.on("datachannel", lambda event: self.adopt_channel(event.channel))
        return version("wrtc")

    async def end(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def adopt_candidate(self, event: Any) -> None:
        if event.candidate is None:
            self.gathered.set()
        else:
            self.candidates.append(event.candidate.to_json()["candidate"])

    def adopt_channel(self, channel: Any) -> None:
        self.channel = channel
        channel.on("message", lambda event: channel.send(event.data))

    async def described(self, description: Any) -> str:
        assert self.connection is not None
        await self.connection.set_local_description(description)
        await asyncio.wait_for(self.gathered.wait(), 10)
        return str(description.sdp) + "".join(f"a={candidate}\r\n" for candidate in self.candidates if candidate)

    async def offer(self, channels: list[dict[str, Any]]) -> str:
        assert self.connection is not None
        self.adopt_channel(self.connection.create_data_channel(channels[0]["label"], webrtc.RTCDataChannelInit()))
        return await self.described(await self.connection.create_offer())

    async def answer(self, sdp: str, channels: list[dict[str, Any]]) -> str:
        assert self.connection is not None
        await self.connection.set_remote_description(webrtc.RTCSessionDescriptionInit("offer", sdp))
        return await self.described(await self.connection.create_answer())

    async def accept(self, sdp: str) -> None:
        assert self.connection is not None
        await self.connection.set_remote_description(webrtc.RTCSessionDescriptionInit("answer", sdp))


async def main() -> None:
    loop, peer = asyncio.get_running_loop(), Peer()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, *arguments = json.loads(line)
        try:
            reply = {"result": await getattr(peer, command)(*arguments)}
        except Exception as error:  # noqa: BLE001 - the test reads it
            reply = {"error": repr(error)}
        print(json.dumps(reply), flush=True)
    await peer.end()


if __name__ == "__main__":
    asyncio.run(main())
