"""One question to a STUN server with a definite end, for measuring: who answered, how fast, and what was said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import ProtocolError
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.gateway import open_sockets
from psyne_mesh.webrtc.ice.library import stun
from psyne_mesh.webrtc.ice.port import Base, UdpPort
from psyne_mesh.webrtc.ice.stun_client import mapped_in
from psyne_mesh.webrtc.ice.udp import SocketFactory

CHANGE_IP: Final = 0x04  # RFC 5780 section 7.2
CHANGE_PORT: Final = 0x02
WAITS_S: Final = (0.25, 0.5, 1.0, 1.25)  # three seconds for four questions: enough at an RTT of 1 s or 50 % loss


@attrs.frozen(kw_only=True)
class Answer:
    """What a STUN server said.

    source: where the answer came from; another address than `server` when a change was asked for.
    mapped: our address as the server sees it. other: its OTHER-ADDRESS (RFC 5780 section 7.4), if it has one.
    """

    server: Address
    source: Address
    mapped: Address
    other: Address | None
    rtt_s: float


class _Inquiry:
    """The receiver of the answers. Each question has a transaction of its own, so that a round trip is measured from
    the question that was answered."""

    def __init__(self, server: Address, *, from_anywhere: bool) -> None:
        self.sent_at: dict[bytes, float] = {}
        self.answered = trio.Event()
        self.answer: Answer | None = None
        self.error: str | None = None
        self._server = server
        self._from_anywhere = from_anywhere

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if self.answered.is_set() or (addr != self._server and not self._from_anywhere):
            return
        message = stun.parse_message(data)
        mapped = mapped_in(message)
        if mapped is None:
            code, reason = message.attributes.get("ERROR-CODE", (0, "an answer without an address"))
            self.error = f"{reason} ({code})" if code else reason
        else:
            self.answer = Answer(
                server=self._server,
                source=addr,
                mapped=mapped,
                other=message.attributes.get("OTHER-ADDRESS"),
                rtt_s=trio.current_time() - self.sent_at[message.transaction_id],
            )
        self.answered.set()


async def inquire(
    port: UdpPort, base: Base, server: Address, *, change: int = 0, waits_s: Sequence[float] = WAITS_S
) -> Answer | None:
    """Ask, and ask again after each of `waits_s`; None when no answer came at all. With `change`, which asks the server
    to answer from another address (RFC 5780 section 4.4), an answer from anywhere counts.

    Raises `ProtocolError` when the server refuses, and `OSError` when our own system does.
    """
    inquiry = _Inquiry(server, from_anywhere=bool(change))
    try:
        for wait_s in waits_s:
            request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
            if change:
                request.attributes["CHANGE-REQUEST"] = change
            inquiry.sent_at[request.transaction_id] = trio.current_time()
            port.expect(request.transaction_id, inquiry)
            if not base.send_batch((bytes(request),), server):
                raise OSError("this machine cannot send there: no route, or a local firewall")
            with trio.move_on_after(wait_s):
                await inquiry.answered.wait()
                break
    finally:
        for transaction_id in inquiry.sent_at:
            port.forget(transaction_id)
    if inquiry.error is not None:
        raise ProtocolError(f"it answered with an error: {inquiry.error}")
    return inquiry.answer


@asynccontextmanager
async def open_inquiry_port(config: WebRTCConfig, sockets: SocketFactory | None) -> AsyncIterator[UdpPort]:
    """Sockets of their own, so no NAT or firewall knows them yet. Nothing here needs the asyncio loop of a gateway."""
    opened = (sockets or open_sockets)(attrs.evolve(config, port_range=None))
    faults: list[Exception] = []
    try:
        port = UdpPort(opened, call_soon=lambda call, *args: call(*args), fault=faults.append, clock=trio.current_time)
        async with open_background_nursery() as nursery:
            nursery.start_soon(port.run)
            yield port
    finally:
        for one in opened:
            one.close()
    if faults:
        raise faults[0]
