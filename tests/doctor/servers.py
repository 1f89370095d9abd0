"""A STUN server with two addresses and two ports on loopback (RFC 5780 section 6), and the lies of a NAT on top."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import trio
from aioice import stun

from psyne_mesh.webrtc.ice.events import Address

HOSTS = ("127.0.0.1", "127.0.0.2")
Obedience = Literal["obeys", "ignores", "refuses", "is filtered", "ip change is filtered"]


class TwoFacedServer:
    """mapped: what it says about an address asked at one of its own. change: what becomes of CHANGE-REQUEST.
    alternate_is_dead: nobody answers at its second host, as when one is configured that does not exist."""

    def __init__(self) -> None:
        self.sockets: dict[Address, trio.socket.SocketType] = {}
        self.mapped: Callable[[Address, Address], Address] = lambda source, asked: source
        self.change: Obedience = "obeys"
        self.alternate_is_dead = False
        self.address: Address = ("", 0)

    async def run(self, asked: Address) -> None:
        hosts, ports = HOSTS, sorted({port for _, port in self.sockets})
        other = (hosts[asked[0] == hosts[0]], ports[asked[1] == ports[0]])
        while True:
            data, source = await self.sockets[asked].recvfrom(2000)
            if self.alternate_is_dead and asked[0] != self.address[0]:
                continue
            request = stun.parse_message(data)
            answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
            answer.attributes["XOR-MAPPED-ADDRESS"] = self.mapped(source[:2], asked)
            answer.attributes["OTHER-ADDRESS"] = other
            change = request.attributes.get("CHANGE-REQUEST", 0)
            sender: Address | None = (other[0] if change & 4 else asked[0], other[1] if change & 2 else asked[1])
            if change and self.change == "ignores":
                sender = asked
            elif change and self.change == "refuses":
                answer = stun.Message(stun.Method.BINDING, stun.Class.ERROR, request.transaction_id)
                answer.attributes["ERROR-CODE"] = (420, "Unknown Attribute")
                sender = asked
            elif change and (self.change == "is filtered" or (self.change == "ip change is filtered" and change & 4)):
                sender = None
            if sender is not None:
                await self.sockets[sender].sendto(bytes(answer), source)


@asynccontextmanager
async def two_faced_server() -> AsyncGenerator[TwoFacedServer, None]:
    server = TwoFacedServer()
    ports: list[int] = [0, 0]
    try:
        for index in (0, 1):
            for host in HOSTS:
                one = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                await one.bind((host, ports[index]))
                ports[index] = one.getsockname()[1]
                server.sockets[(host, ports[index])] = one
        server.address = (HOSTS[0], ports[0])
        async with trio.open_nursery() as nursery:
            for address in server.sockets:
                nursery.start_soon(server.run, address)
            yield server
            nursery.cancel_scope.cancel()
    finally:
        for one in server.sockets.values():
            one.close()
