"""An allocation on a TURN server as a base of ICE (RFC 8656): aioice asks for it, we carry its data.

One allocation serves all peers of the endpoint, as one socket does. It is known before the second peer comes, a
restart or the end of one peer asks nothing of the server, and the user quota of a server counts one where it would
count thirty. The price: its bandwidth limit is shared, and when it is lost, all relayed paths are.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Literal

import trio

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.library import stun, turn
from psyne_mesh.webrtc.ice.port import Route, ServerLink, UdpPort
from psyne_mesh.webrtc.ice.rate_limit import QuotaLimit
from psyne_mesh.webrtc.ice.stun_guard import REQUEST, check_stun_untrusted
from psyne_mesh.webrtc.ice.turn_link import Link

ALLOCATION_MISMATCH: Final = 437  # RFC 8656 section 19
STALE_NONCE: Final = 438  # the same
NONCES_MAX: Final = 3  # taken up for one request: a server behind a balancer may not know that of its brother
LIFETIME_S: Final = 600  # RFC 8656 section 3.2; `verify` asks for so much again and again
# RFC 8656 section 9: permissions live 300 s whatever the channel does, so one refresh of both well before that.
CHANNEL_REFRESH_S: Final = 240.0
REFRESH_AT_ONCE: Final = 16  # bindings: one after the other, hundreds would take longer than a permission has left
CHANNEL_FIRST: Final = 0x4000  # RFC 8656 section 12
CHANNELS_MAX: Final = 0x1000
PENDING_MAX: Final = 16  # datagrams to one peer while its channel is being bound; the newest is dropped
RETRY_S: Final = 5.0  # after a refused binding

_CHANNEL_DATA: Final = struct.Struct("!HH")


class Channel:
    """A peer address that the server knows under a number."""

    __slots__ = ("address", "bound", "number", "pending", "retry_at", "used")

    def __init__(self, address: Address, number: int) -> None:
        self.address = address
        self.number = number
        self.bound = False
        self.used = True  # since the last refresh
        self.pending: list[bytes] | None = None  # while a binding is under way
        self.retry_at = 0.0


class TurnClient(turn.TurnClientMixin):
    """aioice's TURN requests over a link of ours."""

    def __init__(self, link: Link, server: Address, username: str, credential: str, lost: Callable[[], None]) -> None:
        super().__init__(server, username or None, credential or None, LIFETIME_S, LIFETIME_S)
        self._link = link
        self.transport: Any = _ClientTransport(lost)

    def _send(self, data: bytes) -> None:
        self._link.send((data,))

    async def allocate(self) -> Address:
        try:
            return await self.connect()
        except stun.TransactionFailed as error:
            # RFC 8656 section 7.4: this port has an allocation already, left by a process that was killed.
            if not is_mismatch(error):
                raise
        await self._free()
        return await self.connect()

    async def request_with_retry(self, request: stun.Message) -> tuple[stun.Message, Address]:
        """aioice takes up one new nonce; but the answer to the challenge itself may be met by another (RFC 8489 section
        9.2.5)."""
        try:
            return await super().request_with_retry(request)
        except stun.TransactionFailed as error:
            refusal = error
        for _ in range(NONCES_MAX):
            attributes = refusal.response.attributes
            if refusal.response.error_code != STALE_NONCE or "NONCE" not in attributes or self.integrity_key is None:
                break
            self.nonce = attributes["NONCE"]
            request.transaction_id = secrets.token_bytes(12)
            try:
                return await self.request(request)
            except stun.TransactionFailed as error:
                refusal = error
        raise refusal

    async def _free(self) -> None:
        request = stun.Message(stun.Method.REFRESH, stun.Class.REQUEST, attributes={"LIFETIME": 0})
        with contextlib.suppress(stun.TransactionFailed):  # the second attempt to allocate tells what is wrong
            await self.request_with_retry(request)

    async def verify(self) -> stun.TransactionError | None:
        """Ask for the allocation, which also renews it and keeps the way to the server open; what is wrong, if anything.

        A Binding request would do for the way, but a server that has begun anew answers it as ever.
        """
        request = stun.Message(stun.Method.REFRESH, stun.Class.REQUEST, attributes={"LIFETIME": LIFETIME_S})
        try:
            await self.request_with_retry(request)
        except stun.TransactionError as error:
            return error
        return None

    async def refresh(self, time_to_expiry: int) -> None:
        """In the place of aioice's, which sleeps for as long as the server says: a lifetime of 0 would keep it busy. `verify`
        renews the allocation often enough."""


def is_mismatch(error: Exception) -> bool:
    """The server has no allocation for where we come from, or another one (RFC 8656 sections 7.4 and 7.3)."""
    return isinstance(error, stun.TransactionFailed) and error.response.error_code == ALLOCATION_MISMATCH


class _ClientTransport:
    """aioice closes it when the allocation is gone."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._closing = False

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._lost()


class Relay:
    """A base whose socket is on a TURN server.

    1. `await open()` inside the asyncio loop makes the allocation; then `address` is valid.
    2. `server_received` gets everything that comes from the server.
    3. `await refresh()` inside the loop, every `CHANNEL_REFRESH_S`.
    4. `lost` is set when the server gave the allocation up.
    5. `await close()` inside the loop frees it.

    spawn: starts a coroutine in the asyncio loop.
    quota: of the allocation, for all peers together; None when none is known. Who sends over it charges it.
    """

    kind: Literal["host", "relay"] = "relay"

    def __init__(
        self,
        port: UdpPort,
        link: Link,
        server: Address,
        *,
        username: str,
        credential: str,
        protocol: Literal["udp", "tcp", "tls"],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        call_soon: Callable[..., object],
        quota: QuotaLimit | None = None,
    ) -> None:
        self.address: Address = ("", 0)
        self.mapped: Address | None = None
        self.routes: dict[Address, Route] = {}
        self.servers: dict[Address, ServerLink] = {}
        self.protocol = protocol
        self.lost = trio.Event()
        self.dropped = 0
        self.quota = quota
        self.client = TurnClient(link, server, username, credential, self.lost.set)
        self.client.receiver = _IndicationReceiver(self)  # type: ignore[assignment]
        self._port = port
        self._link = link
        self._server = server
        self._spawn = spawn
        self._call_soon = call_soon
        self._channels: OrderedDict[Address, Channel] = OrderedDict()
        self._by_number: dict[int, Channel] = {}
        self._next_number = 0

    async def open(self) -> None:
        """Raises what aioice does: `stun.TransactionError`, `ConnectionError`."""
        self.address = await self.client.allocate()
        self.mapped = self.client.mapped_address

    # ----------------------------------------------------------------------------------------------------------- data

    def send_batch(self, datagrams: Sequence[bytes], address: Address) -> int:
        channel = self._channels.get(address)
        if channel is None or not channel.bound:
            return self._send_later(channel or self._new_channel(address), datagrams)
        channel.used = True
        number = channel.number
        pack = _CHANNEL_DATA.pack
        return self._link.send([pack(number, len(data)) + data for data in datagrams])

    def server_received(self, datagrams: list[bytes]) -> None:
        batch: list[tuple[bytes, Address]] = []
        for data in datagrams:
            if data and data[0] >= 64:
                self._channel_data(data, batch)
            else:
                self._control_message(data)
        if batch:
            self._port.dispatch(self, batch)

    def _channel_data(self, data: bytes, batch: list[tuple[bytes, Address]]) -> None:
        if len(data) < 4:
            self._port.drops["turn-malformed"] += 1
            return
        number, length = _CHANNEL_DATA.unpack_from(data)
        channel = self._by_number.get(number)
        if channel is None or length > len(data) - 4:
            self._port.drops["turn-unknown-channel" if channel is None else "turn-malformed"] += 1
            return
        channel.used = True
        batch.append((data[4 : 4 + length], channel.address))

    def _control_message(self, data: bytes) -> None:
        try:
            header = check_stun_untrusted(data)
        except ProtocolError:
            self._port.drops["turn-malformed"] += 1
            return
        if header.message_class != REQUEST:
            self._call_soon(self._give_to_client, data)

    def _give_to_client(self, data: bytes) -> None:
        self._port.guarded(self.client.datagram_received, data, self._server)

    def _send_later(self, channel: Channel, datagrams: Sequence[bytes]) -> int:
        """Bind the channel first. Its first datagrams are checks of ICE, which would otherwise wait for their repeat."""
        if channel.pending is None:
            if trio.current_time() < channel.retry_at:
                self.dropped += len(datagrams)
                return 0
            channel.pending = []
            self._spawn(self._bind(channel))
        room = PENDING_MAX - len(channel.pending)
        channel.pending += datagrams[:room]
        self.dropped += max(0, len(datagrams) - room)
        return min(len(datagrams), room)

    # -------------------------------------------------------------------------------------------------------- channels

    def _new_channel(self, address: Address) -> Channel:
        # A number stays with its address for as long as we can: the server refuses a second one for the same peer,
        # and another peer under the same number, until minutes after the binding expired (RFC 8656 section 12).
        if len(self._channels) >= CHANNELS_MAX:
            oldest = next((c for c in self._channels.values() if not c.bound), next(iter(self._channels.values())))
            self._forget(oldest)
        while self._next_number in self._by_number or not self._next_number:
            self._next_number = CHANNEL_FIRST + (self._next_number + 1) % CHANNELS_MAX
        channel = Channel(address, self._next_number)
        self._channels[address] = self._by_number[channel.number] = channel
        return channel

    def _forget(self, channel: Channel) -> None:
        del self._channels[channel.address], self._by_number[channel.number]

    async def _bind(self, channel: Channel) -> None:
        bound = await self._ask_binding(channel)
        pending, channel.pending = channel.pending or [], None
        if bound:
            self.send_batch(pending, channel.address)
        else:
            self.dropped += len(pending)

    async def _ask_binding(self, channel: Channel) -> bool:
        try:
            await self.client.channel_bind(channel.number, channel.address)
        except (stun.TransactionError, ConnectionError) as error:
            if isinstance(error, stun.TransactionTimeout) or is_mismatch(error):
                self.lost.set()  # the server was silent for half a minute, or knows nothing of us
            # A channel that was bound and is refused now still lives for some minutes: nothing better is there.
            channel.retry_at = trio.current_time() + RETRY_S
            return False
        channel.bound = True
        # What aioice lets Data indications through by: the peers that have a permission.
        self.client.peer_to_channel[channel.address] = channel.number
        return True

    async def refresh(self) -> None:
        """Bind the channels in use again, which renews their permissions; the others may expire."""
        due: list[Channel] = []
        for channel in self._channels.values():
            if channel.bound and channel.used:
                channel.used = False
                due.append(channel)
            elif channel.bound:
                channel.bound = False
                self.client.peer_to_channel.pop(channel.address, None)
        for start in range(0, len(due), REFRESH_AT_ONCE):
            if not self.lost.is_set():
                await asyncio.gather(*map(self._ask_binding, due[start : start + REFRESH_AT_ONCE]))

    async def verify(self) -> stun.TransactionError | None:
        return await self.client.verify()

    async def close(self) -> None:
        await self.client.delete()


class _IndicationReceiver:
    """What aioice hands data to that came without a channel: the first checks of a peer from a new port."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._relay._port.dispatch(self._relay, ((data, addr),))

    def connection_lost(self, error: Exception | None) -> None:
        self._relay.lost.set()
