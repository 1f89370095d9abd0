"""A network in memory: sockets that obey `DatagramSocket`, and a filter that may lose, keep or readdress datagrams."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.webrtc.ice import DatagramSocket
from psyne_mesh.webrtc.ice.events import Address

Filter = Callable[[bytes, Address, Address], "Address | None"]


class FakeNet:
    """`filter(data, source, destination)` gives the source that the receiver sees, or None to lose the datagram."""

    def __init__(self) -> None:
        self.sockets: dict[Address, FakeSocket] = {}
        self.filter: Filter = lambda data, source, destination: source
        self.translate: dict[Address, Address] = {}  # outside address to inside address, as a NAT maps it
        self.log: list[tuple[bytes, Address, Address]] = []

    def socket(self, address: Address) -> FakeSocket:
        self.sockets[address] = FakeSocket(self, address)
        return self.sockets[address]

    def factory(self, *addresses: Address) -> Callable[[WebRTCConfig], Sequence[DatagramSocket]]:
        return lambda config: [self.socket(address) for address in addresses]

    def carry(self, data: bytes, source: Address, destination: Address) -> None:
        self.log.append((data, source, destination))
        seen = self.filter(data, source, destination)
        target = self.sockets.get(self.translate.get(destination, destination))
        if seen is not None and target is not None:
            target.arrive(data, seen)


class FakeSocket:
    def __init__(self, net: FakeNet, address: Address) -> None:
        self.address = address
        self._net = net
        self._inbox: deque[tuple[bytes, Address]] = deque()
        self._arrived = trio.Event()
        self.closed = False

    def arrive(self, data: bytes, source: Address) -> None:
        if not self.closed:
            self._inbox.append((data, source))
            self._arrived.set()

    def receive_batch(self) -> list[tuple[bytes, Address]]:
        batch = [self._inbox.popleft() for _ in range(min(64, len(self._inbox)))]
        if not self._inbox:
            self._arrived = trio.Event()
        return batch

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            if self.closed:
                raise trio.ClosedResourceError
            await self._arrived.wait()
            if self.closed:
                raise trio.ClosedResourceError

    def send_batch(self, datagrams: Sequence[bytes], address: Address) -> int:
        for data in datagrams:
            self._net.carry(bytes(data), self.address, address)
        return len(datagrams)

    def close(self) -> None:
        self.closed = True
        self._arrived.set()
