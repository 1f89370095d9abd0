"""A STUN server and a TURN server for tests: as much of RFC 8489 and RFC 8656 as a client needs, over real sockets."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from aioice import stun

from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.turn_link import split_frames_untrusted

USER, CREDENTIAL, REALM = "player", "secret", "test"
KEY = hashlib.md5(f"{USER}:{REALM}:{CREDENTIAL}".encode()).digest()
Send = Callable[[bytes], Awaitable[None]]


def _family(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


async def _udp(host: str) -> trio.socket.SocketType:
    one = trio.socket.socket(_family(host), socket.SOCK_DGRAM)
    await one.bind((host, 0))
    return one


class StunServer:
    """Says what it sees, or what it is told to say.

    mapped: the answer in place of the truth; silent: no answer; refuse: an error code; legacy: it knows RFC 3489 only.
    """

    def __init__(self) -> None:
        self.address: Address = ("", 0)
        self.asked = 0
        self.silent = False
        self.mapped: Address | None = None
        self.refuse: int | None = None
        self.legacy = False

    async def run(self, one: trio.socket.SocketType) -> None:
        while True:
            data, source = await one.recvfrom(2000)
            self.asked += 1
            if self.silent:
                continue
            request = stun.parse_message(data)
            kind = stun.Class.ERROR if self.refuse else stun.Class.RESPONSE
            answer = stun.Message(stun.Method.BINDING, kind, request.transaction_id)
            if self.refuse:
                answer.attributes["ERROR-CODE"] = (self.refuse, "told to")
            else:
                name = "MAPPED-ADDRESS" if self.legacy else "XOR-MAPPED-ADDRESS"
                answer.attributes[name] = self.mapped or source[:2]
            await one.sendto(bytes(answer), source)


@asynccontextmanager
async def stun_server(host: str = "127.0.0.1") -> AsyncGenerator[StunServer, None]:
    server = StunServer()
    with await _udp(host) as one:
        server.address = one.getsockname()[:2]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run, one)
            yield server
            nursery.cancel_scope.cancel()


class Allocation:
    """One client: where its relay is, and what it may reach."""

    def __init__(self, relay: trio.socket.SocketType, send: Send) -> None:
        self.relay = relay
        self.send = send
        self.channels: dict[int, Address] = {}
        self.permissions: set[str] = set()


class TurnServer:
    """TURN over UDP, and over streams given to `serve_stream`.

    requests: the methods asked for, in order, as their authenticated requests came. silent, refuse, stale_nonces:
    faults to play. Channel bindings that would move a number or a peer are refused as RFC 8656 section 12.1 wants.
    """

    def __init__(self, host: str, nursery: trio.Nursery) -> None:
        self.address: Address = ("", 0)
        self.stream_address: Address = ("", 0)
        self.tls_address: Address = ("", 0)
        self.allocations: dict[Any, Allocation] = {}
        self.requests: list[str] = []
        self.silent = False
        self.refuse: dict[str, int] = {}
        self.stale_nonces = 0
        self.nonce = os.urandom(8).hex().encode()
        self.channel_datagrams = 0
        self.streams: list[trio.abc.Stream] = []
        self.mapped: Address | None = None  # what it says that it sees, in place of the truth
        self._host = host
        self._nursery = nursery

    async def run_udp(self, one: trio.socket.SocketType) -> None:
        while True:
            data, source = await one.recvfrom(65_536)

            async def send(data: bytes, source: Any = source) -> None:
                await one.sendto(data, source)

            await self.received(data, source[:2], source[:2], send)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        self.streams.append(stream)
        key = object()
        buffer = bytearray()
        lock = trio.Lock()

        async def send(data: bytes) -> None:
            async with lock:
                await stream.send_all(data + bytes(-len(data) % 4))

        try:
            while chunk := await stream.receive_some(65_536):
                buffer += chunk
                for frame in split_frames_untrusted(buffer):
                    await self.received(frame, key, ("192.0.2.99", 9), send)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.forget(key)

    async def received(self, data: bytes, key: Any, source: Address, send: Send) -> None:
        if self.silent:
            return
        if data[0] >= 64:
            allocation = self.allocations.get(key)
            number, length = struct.unpack_from("!HH", data)
            if allocation is not None and number in allocation.channels:
                self.channel_datagrams += 1
                await allocation.relay.sendto(data[4 : 4 + length], allocation.channels[number])
            return
        message = stun.parse_message(data)
        if message.message_class == stun.Class.INDICATION:
            await self.indication(message, key)
            return
        if message.message_method == stun.Method.BINDING:
            await self.answer(message, send, {"XOR-MAPPED-ADDRESS": self.mapped or source}, signed=False)
            return
        if not message.check_message_integrity(KEY) or message.attributes.get("NONCE") != self.nonce:
            challenge = {"ERROR-CODE": (401, "who"), "REALM": REALM, "NONCE": self.nonce}
            await self.answer(message, send, challenge, signed=False)
            return
        name = message.message_method.name
        self.requests.append(name)
        if self.stale_nonces:
            self.stale_nonces -= 1
            self.nonce = os.urandom(8).hex().encode()
            fresh = {"ERROR-CODE": (438, "stale"), "REALM": REALM, "NONCE": self.nonce}
            await self.answer(message, send, fresh, signed=False)
        elif name in self.refuse:
            await self.answer(message, send, {"ERROR-CODE": (self.refuse[name], "told to")})
        else:
            await getattr(self, name.lower())(message, key, source, send)

    async def indication(self, message: stun.Message, key: Any) -> None:
        allocation = self.allocations.get(key)
        if allocation is not None and message.message_method == stun.Method.SEND:
            await allocation.relay.sendto(message.attributes["DATA"], message.attributes["XOR-PEER-ADDRESS"])

    async def answer(
        self, request: stun.Message, send: Send, attributes: dict[str, Any], *, signed: bool = True
    ) -> None:
        kind = stun.Class.ERROR if "ERROR-CODE" in attributes else stun.Class.RESPONSE
        answer = stun.Message(request.message_method, kind, request.transaction_id, attributes)
        if signed:
            answer.add_message_integrity(KEY)
        await send(bytes(answer))

    async def allocate(self, message: stun.Message, key: Any, source: Address, send: Send) -> None:
        if key in self.allocations:
            await self.answer(message, send, {"ERROR-CODE": (437, "mismatch")})
            return
        relay = await _udp(self._host)
        allocation = self.allocations[key] = Allocation(relay, send)
        self._nursery.start_soon(self.relay, allocation)
        granted = {
            "LIFETIME": min(600, message.attributes["LIFETIME"]),
            "XOR-MAPPED-ADDRESS": self.mapped or source,
            "XOR-RELAYED-ADDRESS": relay.getsockname()[:2],
        }
        await self.answer(message, send, granted)

    async def refresh(self, message: stun.Message, key: Any, source: Address, send: Send) -> None:
        if key not in self.allocations:
            await self.answer(message, send, {"ERROR-CODE": (437, "mismatch")})
            return
        lifetime = message.attributes["LIFETIME"]
        await self.answer(message, send, {"LIFETIME": lifetime})
        if lifetime == 0:
            self.forget(key)

    async def channel_bind(self, message: stun.Message, key: Any, source: Address, send: Send) -> None:
        allocation, peer = self.allocations[key], message.attributes["XOR-PEER-ADDRESS"]
        number = message.attributes["CHANNEL-NUMBER"]
        other_peer = allocation.channels.get(number, peer) != peer
        other_number = any(bound == peer and n != number for n, bound in allocation.channels.items())
        if other_peer or other_number:
            await self.answer(message, send, {"ERROR-CODE": (400, "bound")})
            return
        allocation.channels[number] = peer
        allocation.permissions.add(peer[0])
        await self.answer(message, send, {})

    async def relay(self, allocation: Allocation) -> None:
        with allocation.relay as one:
            while True:
                try:
                    data, source = await one.recvfrom(65_536)
                except (OSError, trio.ClosedResourceError):
                    return
                peer = source[:2]
                number = next((n for n, bound in allocation.channels.items() if bound == peer), None)
                if peer[0] not in allocation.permissions or self.silent:
                    continue
                if number is not None:
                    framed = struct.pack("!HH", number, len(data)) + data
                else:
                    attributes = {"XOR-PEER-ADDRESS": peer, "DATA": data}
                    framed = bytes(stun.Message(stun.Method.DATA, stun.Class.INDICATION, attributes=attributes))
                try:
                    await allocation.send(framed)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return

    def forget(self, key: Any) -> None:
        allocation = self.allocations.pop(key, None)
        if allocation is not None:
            allocation.relay.close()


@asynccontextmanager
async def turn_server(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncGenerator[TurnServer, None]:
    """UDP, TCP, and TLS when there is a context, each on a port of its own."""
    async with trio.open_nursery() as nursery:
        server = TurnServer(host, nursery)
        with await _udp(host) as one:
            server.address = one.getsockname()[:2]
            nursery.start_soon(server.run_udp, one)
            plain = (await trio.open_tcp_listeners(0, host=host))[0]
            server.stream_address = plain.socket.getsockname()[:2]
            nursery.start_soon(trio.serve_listeners, server.serve_stream, [plain])
            if tls is not None:
                secure = (await trio.open_ssl_over_tcp_listeners(0, tls, host=host, https_compatible=True))[0]
                server.tls_address = secure.transport_listener.socket.getsockname()[:2]  # type: ignore[attr-defined]
                nursery.start_soon(trio.serve_listeners, server.serve_stream, [secure])
            yield server
            nursery.cancel_scope.cancel()
