"""A TURN server on the network in memory: it keeps every clock of RFC 8656, and time is virtual."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
import trio
from aioice import stun

from psyne_mesh.config import TurnServer
from psyne_mesh.webrtc.ice.events import Address
from tests.ice.fake_net import FakeNet
from tests.ice.servers import CREDENTIAL, KEY, REALM, USER

SERVER: Address = ("203.0.113.1", 3478)
PERMISSION_S = 300.0  # section 9
CHANNEL_S = 600.0  # section 12
ALLOCATION_S = 600  # section 3.2
NONCE_S = 600.0  # coturn's
DELAY_S = 0.03


@attrs.define
class Allocation:
    """What one client has; everything with the time of its end."""

    client: Address
    relay: Address
    ends_at: float
    permissions: dict[str, float] = attrs.Factory(dict)
    channels: dict[int, tuple[Address, float]] = attrs.Factory(dict)
    passed: Counter[tuple[str, int]] = attrs.Factory(Counter)  # bytes by direction and second


def _time_in(nonce: bytes) -> float:
    """When we made it; long ago for one that is not of ours."""
    try:
        return float(nonce)
    except ValueError:
        return -NONCE_S


class RelaySocket:
    """What `FakeNet` hands datagrams for a relayed address to."""

    def __init__(self, server: TurnOnNet, allocation: Allocation) -> None:
        self._server, self._allocation = server, allocation

    def arrive(self, data: bytes, source: Address) -> None:
        self._server.from_peer(self._allocation, data, source)


class TurnOnNet:
    """1. `run()` in a nursery carries what it sends, `DELAY_S` late. 2. Clients configure `entry()`.

    lose: requests for which it is true are not answered. restart: forgets everything, as a process does that begins anew.
    quota: bytes a second of an allocation, each way; what is above is dropped until the second is over, as coturn does.
    key: of the one user; a new one refuses those who came with the old.
    requests, refused, dropped: authenticated requests by method, refusals by code, data by reason.
    """

    def __init__(self, net: FakeNet) -> None:
        self.allocations: dict[Address, Allocation] = {}
        self.requests: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.dropped: Counter[str] = Counter()
        self.lose: Callable[[str], bool] = lambda method: False
        self.quota: int | None = None
        self.key = KEY
        self._net = net
        self._next_port = 50_000
        self._send, self._due = trio.open_memory_channel[tuple[float, bytes, Address, Address]](100_000)
        net.sockets[SERVER] = self  # type: ignore[assignment]

    def entry(self, **changes: Any) -> TurnServer:
        return attrs.evolve(TurnServer(*SERVER, username=USER, credential=CREDENTIAL), **changes)

    async def run(self) -> None:
        async for due, data, source, destination in self._due:
            await trio.sleep_until(due)
            self._net.carry(data, source, destination)

    def restart(self) -> None:
        for allocation in self.allocations.values():
            del self._net.sockets[allocation.relay]
        self.allocations.clear()

    # ------------------------------------------------------------------------------------------------------- datagrams

    def arrive(self, data: bytes, source: Address) -> None:
        allocation = self._allocation_of(source)
        if data[0] >= 64:
            self._channel_data(allocation, data)
            return
        message = stun.parse_message(data)
        if message.message_class != stun.Class.REQUEST or self.lose(message.message_method.name):
            return
        if message.message_method == stun.Method.BINDING:
            self._answer(message, source, {"XOR-MAPPED-ADDRESS": source}, signed=False)
            return
        now = trio.current_time()
        attributes = message.attributes
        if "MESSAGE-INTEGRITY" not in attributes or not message.check_message_integrity(self.key):
            self._refuse(message, source, 401)
        elif now - _time_in(attributes["NONCE"]) >= NONCE_S:
            self._refuse(message, source, 438)
        else:
            self.requests[message.message_method.name] += 1
            if message.message_method == stun.Method.ALLOCATE:
                self._allocate(message, source, allocation)
            elif allocation is None:
                self._refuse(message, source, 437)
            elif message.message_method == stun.Method.REFRESH:
                self._refresh(message, allocation)
            else:
                self._bind(message, allocation)

    def from_peer(self, allocation: Allocation, data: bytes, source: Address) -> None:
        now = trio.current_time()
        if self._allocation_of(allocation.client) is not allocation:
            self.dropped["no allocation"] += 1
        elif allocation.permissions.get(source[0], 0.0) <= now:
            self.dropped["no permission"] += 1
        elif self._passes(allocation, "in", len(data)):
            bound = (n for n, (peer, ends_at) in allocation.channels.items() if peer == source and ends_at > now)
            number = next(bound, None)
            if number is not None:
                self._carry(number.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data, SERVER, allocation.client)
                return
            attributes = {"XOR-PEER-ADDRESS": source, "DATA": data}
            indication = stun.Message(stun.Method.DATA, stun.Class.INDICATION, attributes=attributes)
            self._carry(bytes(indication), SERVER, allocation.client)

    def _channel_data(self, allocation: Allocation | None, data: bytes) -> None:
        peer, ends_at = ("", 0), 0.0
        if allocation is not None:
            peer, ends_at = allocation.channels.get(int.from_bytes(data[:2], "big"), (peer, ends_at))
        now = trio.current_time()
        if allocation is None or ends_at <= now:
            self.dropped["no channel"] += 1
        elif allocation.permissions.get(peer[0], 0.0) <= now:
            self.dropped["no permission"] += 1
        elif self._passes(allocation, "out", len(data)):
            self._carry(data[4 : 4 + int.from_bytes(data[2:4], "big")], allocation.relay, peer)

    def _passes(self, allocation: Allocation, way: str, n_bytes: int) -> bool:
        second = (way, int(trio.current_time()))
        if self.quota is not None and allocation.passed[second] + n_bytes > self.quota:
            self.dropped["quota"] += 1
            return False
        allocation.passed[second] += n_bytes
        return True

    def _carry(self, data: bytes, source: Address, destination: Address) -> None:
        self._send.send_nowait((trio.current_time() + DELAY_S, data, source, destination))

    # -------------------------------------------------------------------------------------------------------- requests

    def _allocation_of(self, client: Address) -> Allocation | None:
        allocation = self.allocations.get(client)
        if allocation is not None and allocation.ends_at <= trio.current_time():
            self._free(allocation)
            return None
        return allocation

    def _free(self, allocation: Allocation) -> None:
        del self.allocations[allocation.client], self._net.sockets[allocation.relay]

    def _allocate(self, message: stun.Message, source: Address, standing: Allocation | None) -> None:
        if standing is not None:
            self._refuse(message, source, 437)
            return
        self._next_port += 1
        relay = (SERVER[0], self._next_port)
        allocation = self.allocations[source] = Allocation(source, relay, trio.current_time() + ALLOCATION_S)
        self._net.sockets[relay] = RelaySocket(self, allocation)  # type: ignore[assignment]
        granted = {"LIFETIME": ALLOCATION_S, "XOR-MAPPED-ADDRESS": source, "XOR-RELAYED-ADDRESS": relay}
        self._answer(message, source, granted)

    def _refresh(self, message: stun.Message, allocation: Allocation) -> None:
        lifetime = min(ALLOCATION_S, message.attributes["LIFETIME"])
        allocation.ends_at = trio.current_time() + lifetime
        if not lifetime:
            self._free(allocation)
        self._answer(message, allocation.client, {"LIFETIME": lifetime})

    def _bind(self, message: stun.Message, allocation: Allocation) -> None:
        number, peer = message.attributes["CHANNEL-NUMBER"], message.attributes["XOR-PEER-ADDRESS"]
        now = trio.current_time()
        live = {n: address for n, (address, ends_at) in allocation.channels.items() if ends_at > now}
        if live.get(number, peer) != peer or any(address == peer and n != number for n, address in live.items()):
            self._refuse(message, allocation.client, 400)
            return
        allocation.channels[number] = (peer, now + CHANNEL_S)
        allocation.permissions[peer[0]] = now + PERMISSION_S
        self._answer(message, allocation.client, {})

    def _refuse(self, message: stun.Message, source: Address, code: int) -> None:
        self.refused[code] += 1
        challenge = {"REALM": REALM, "NONCE": str(trio.current_time()).encode()} if code in (401, 438) else {}
        attributes = {"ERROR-CODE": (code, "as told"), **challenge}
        self._answer(message, source, attributes, signed=code not in (401, 438))

    def _answer(self, request: stun.Message, to: Address, attributes: dict[str, Any], *, signed: bool = True) -> None:
        kind = stun.Class.ERROR if "ERROR-CODE" in attributes else stun.Class.RESPONSE
        answer = stun.Message(request.message_method, kind, request.transaction_id, attributes)
        if signed:
            answer.add_message_integrity(self.key)
        self._carry(bytes(answer), SERVER, to)
