"""Asking a STUN server how the outside sees one of our sockets (RFC 8489 section 3)."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

import trio

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.library import stun
from psyne_mesh.webrtc.ice.port import Base, UdpPort

RTO_INITIAL_S: Final = 0.25  # RFC 8489 section 6.2.1 says 0.5; one small datagram more is worth a quarter second
RTO_MAX_S: Final = 2.0


class _Query:
    """The receiver of one answer. Called inside the asyncio loop, which runs on the Trio thread."""

    def __init__(self, server: Address) -> None:
        self._server = server
        self.answered = trio.Event()
        self.mapped: Address | None = None

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if addr != self._server or self.answered.is_set():
            return
        message = stun.parse_message(data)
        self.mapped = mapped_in(message)
        self.answered.set()


def mapped_in(message: stun.Message) -> Address | None:
    """Our address, as the answer of a server tells it: those of RFC 3489 know MAPPED-ADDRESS only (RFC 8489 section 12.1)."""
    plain: Address | None = message.attributes.get("MAPPED-ADDRESS")
    mapped: Address | None = message.attributes.get("XOR-MAPPED-ADDRESS", plain)
    return mapped if message.message_class == stun.Class.RESPONSE else None


async def ask_mapped_address(port: UdpPort, base: Base, server: Address) -> Address:
    """Ask until the server answers; give it a deadline with a cancel scope. Raises `ProtocolError` when it refuses."""
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    query = _Query(server)
    port.expect(request.transaction_id, query)
    try:
        rto_s = RTO_INITIAL_S
        while not query.answered.is_set():
            base.send_batch((bytes(request),), server)
            with trio.move_on_after(rto_s):
                await query.answered.wait()
            rto_s = min(2 * rto_s, RTO_MAX_S)
    finally:
        port.forget(request.transaction_id)
    if query.mapped is None:
        raise ProtocolError(f"the STUN server {server} answered with an error")
    return query.mapped


async def resolve(host: str, port: int, family: int) -> Address | None:
    """The first address of a server in one family; None when it has none there or cannot be found."""
    try:
        found = await trio.socket.getaddrinfo(host, port, family=family, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):  # Trio's IDNA 2008 refuses a few names that the configuration takes
        return None
    return (str(found[0][4][0]), int(found[0][4][1])) if found else None


def family_of(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def source_towards(local: Address, server: Address) -> Address:
    """Which of our addresses the kernel uses towards `server`, when the socket itself is bound to all of them."""
    if not ipaddress.ip_address(local[0]).is_unspecified:
        return local
    with socket.socket(family_of(server[0]), socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(server)  # sends nothing
        except OSError:
            return local
        return (probe.getsockname()[0], local[1])
