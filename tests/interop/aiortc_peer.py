"""An aiortc peer in a process of its own, so that its asyncio loop and our Trio loop stay clean.

JSON lines: a command on stdin, one reply on stdout; the commands are those of `js/peer.js`. A channel whose label begins
with "echo" echoes; every other one counts and hashes what it gets.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from typing import Any

import aiortc
from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription

Hash = Any  # hashlib has no public name for it


class Peer:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.connection = RTCPeerConnection()
        self.channels: dict[str, RTCDataChannel] = {}
        self.hashes: dict[str, Hash] = {}
        self.counts: dict[str, list[int]] = {}
        self.changed = asyncio.Event()
        self.connection.on("datachannel", self.adopt)

    async def begin(self) -> str:
        """A new connection in the place of the last one; says which stack this is."""
        await self.end()
        self.reset()
        version: str = aiortc.__version__
        return version

    async def end(self) -> None:
        await self.connection.close()

    def adopt(self, channel: RTCDataChannel) -> None:
        label = channel.label
        self.channels[label] = channel
        self.hashes[label], self.counts[label] = hashlib.sha256(), [0, 0]

        def on_message(message: str | bytes) -> None:
            data = message.encode() if isinstance(message, str) else message
            if label.startswith("echo"):
                channel.send(message)
            else:
                self.hashes[label].update(data)
                self.counts[label][0] += 1
                self.counts[label][1] += len(data)
            self.changed.set()

        channel.on("message", on_message)
        channel.on("open", self.changed.set)
        channel.on("close", self.changed.set)
        channel.on("bufferedamountlow", self.changed.set)
        self.changed.set()

    def create(self, channels: list[dict[str, Any]]) -> None:
        for settings in channels:
            self.adopt(self.connection.createDataChannel(**settings))

    async def until(self, label: str, ready: Any) -> None:
        while label not in self.channels or not ready(self.channels[label]):
            self.changed.clear()
            await self.changed.wait()

    async def offer(self, channels: list[dict[str, Any]]) -> str:
        self.create(channels)
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def answer(self, sdp: str, channels: list[dict[str, Any]]) -> str:
        self.create(channels)
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        return self.connection.localDescription.sdp

    async def accept(self, sdp: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    async def open_later(self, settings: dict[str, Any]) -> int | None:
        self.create([settings])
        await self.until(settings["label"], lambda channel: channel.readyState == "open")
        return self.channels[settings["label"]].id

    async def flood(self, label: str, size: int, count: int) -> str:
        """Sends `count` messages of `size` bytes; the hash of all."""
        await self.until(label, lambda channel: channel.readyState == "open")
        channel, digest = self.channels[label], hashlib.sha256()
        channel.bufferedAmountLowThreshold = 1_000_000
        for _ in range(count):
            data = os.urandom(size)
            digest.update(data)
            channel.send(data)
            await self.until(label, lambda channel: channel.bufferedAmount <= 2_000_000)
            await asyncio.sleep(0)
        return digest.hexdigest()

    async def received(self, label: str, messages: int) -> list[Any]:
        """What came on a channel, once so many messages have: messages, bytes, hash. Forgets them."""
        await self.until(label, lambda _: self.counts[label][0] >= messages)
        got = [*self.counts[label], self.hashes[label].hexdigest()]
        self.hashes[label], self.counts[label] = hashlib.sha256(), [0, 0]
        return got

    async def count(self, label: str) -> int:
        """How many messages have come so far on a channel that may lose some."""
        return self.counts[label][0]

    async def send_text(self, label: str, text: str) -> None:
        await self.until(label, lambda channel: channel.readyState == "open")
        self.channels[label].send(text)

    async def send_bytes(self, label: str, size: int) -> None:
        await self.until(label, lambda channel: channel.readyState == "open")
        self.channels[label].send(bytes(size))

    async def describe(self, label: str) -> dict[str, Any]:
        await self.until(label, lambda channel: channel.readyState == "open")
        channel = self.channels[label]
        return {name: getattr(channel, name) for name in
                ("id", "label", "protocol", "ordered", "maxRetransmits", "maxPacketLifeTime", "negotiated")}  # fmt: skip

    async def close_channel(self, label: str) -> None:
        self.channels[label].close()

    async def wait_channel_closed(self, label: str) -> None:
        await self.until(label, lambda channel: channel.readyState == "closed")

    async def wait_state(self, *states: str) -> str:
        while self.connection.connectionState not in states:
            await asyncio.sleep(0.01)
        return self.connection.connectionState

    async def leave(self) -> None:
        await self.connection.close()


async def main() -> None:
    loop, peer = asyncio.get_running_loop(), Peer()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, *arguments = json.loads(line)
        try:
            reply = {"result": await getattr(peer, command)(*arguments)}
        except Exception as error:  # noqa: BLE001 - the test reads it
            reply = {"error": repr(error)}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
