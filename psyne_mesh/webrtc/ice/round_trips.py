"""How far servers are: one STUN question to each, from a socket of its own (RFC 8489 section 3), answered in time or not."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping, Sequence

import attrs
import trio

from psyne_mesh.config import StunServer, WebRTCConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.gateway import open_sockets
from psyne_mesh.webrtc.ice.library import stun
from psyne_mesh.webrtc.ice.stun_client import family_of, mapped_in, resolve
from psyne_mesh.webrtc.ice.udp import DatagramSocket, SocketFactory

PATIENCE_S = 0.3
"""Whoever answers later is further than any region worth playing in, and joining waits no longer for it."""
AGAIN_S = 0.1
"""A lost question or answer costs one of three."""
ASKED_MAX = 32


@attrs.define
class _Asked:
    region: str
    server: Address
    sent_at: float


@uninterrupted
async def round_trips_ms(
    servers: Mapping[str, str], config: WebRTCConfig, sockets: SocketFactory | None = None
) -> dict[str, float]:
    """By region, the round trip to its STUN server in ms, as far as it answered within `PATIENCE_S`; all are asked at once.
    servers: as `StunServer.parse` reads them; what it does not read is left out. Names are looked up in that time, too."""
    opened = (sockets or open_sockets)(attrs.evolve(config, port_range=None))
    measured: dict[str, float] = {}
    waiting: dict[bytes, _Asked] = {}
    try:
        with unwrapped(), trio.move_on_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for base in opened:
                    nursery.start_soon(_read, base, waiting, measured)
                async with trio.open_nursery() as asking:
                    for region, text in list(servers.items())[:ASKED_MAX]:
                        asking.start_soon(_ask, opened, region, text, waiting, measured)
                nursery.cancel_scope.cancel()
    finally:
        for base in opened:
            base.close()
    return measured


async def _ask(
    opened: Sequence[DatagramSocket], region: str, text: str, waiting: dict[bytes, _Asked], measured: dict[str, float]
) -> None:
    try:
        server = StunServer.parse(text)
    except InvalidConfig:
        return
    for base in opened:
        family = family_of(base.address[0])
        address = await _address(server, family)
        if address is None:
            continue
        while region not in measured:
            request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction_id=secrets.token_bytes(12))
            waiting[request.transaction_id] = _Asked(region, address, trio.current_time())
            base.send_batch((bytes(request),), address)
            await trio.sleep(AGAIN_S)
        return


async def _address(server: StunServer, family: int) -> Address | None:
    try:
        socket.inet_pton(family, server.host)
    except OSError:
        return await resolve(server.host, server.port, family)
    return server.host, server.port


async def _read(base: DatagramSocket, waiting: dict[bytes, _Asked], measured: dict[str, float]) -> None:
    while True:
        await base.wait_readable()
        now = trio.current_time()
        for data, source in base.receive_batch():
            try:
                message = stun.parse_message(data)
            except ValueError:
                continue
            asked = waiting.pop(message.transaction_id, None)
            if asked is not None and asked.server == source[:2] and mapped_in(message) is not None:
                measured.setdefault(asked.region, 1000 * (now - asked.sent_at))
