"""Transports with everything that they said written down: pairs on loopback sockets, worlds on a network in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.webrtc.ice import (
    GatheringComplete,
    IceEvent,
    IceGateway,
    IceTransport,
    LocalCandidate,
    PathSelected,
    open_gateway,
)
from psyne_mesh.webrtc.ice.events import Address
from tests.ice.fake_net import FakeNet

E = TypeVar("E", bound=IceEvent)
LIMIT_S = 10.0  # a test that waits longer has failed
LOOPBACK = WebRTCConfig(bind_host="127.0.0.1", connection_timeout_s=5.0)
A, B = ("192.0.2.1", 1001), ("192.0.2.2", 1002)
OUTSIDE_A = ("198.51.100.1", 2001)
DATA = b"\x17 data"
IN_MEMORY = WebRTCConfig(connection_timeout_s=15.0)


class Side:
    """One end: its transport, what it received, and what happened, with a way to wait for either."""

    def __init__(
        self, gateway: IceGateway, *, controlling: bool, config: WebRTCConfig | None = None, gives_up: bool = True
    ) -> None:
        self.received: list[bytes] = []
        self.events: list[IceEvent] = []
        self._changed = trio.Event()
        self.trickle: Callable[[str | None], None] | None = None
        self.transport = IceTransport(
            gateway,
            controlling=controlling,
            config=config or gateway.config,
            deliver=self._deliver,
            on_event=self._on_event,
            gives_up=gives_up,
        )

    def _deliver(self, datagrams: list[bytes]) -> None:
        self.received += datagrams
        self._change()

    def _on_event(self, event: IceEvent) -> None:
        self.events.append(event)
        if self.trickle is not None:
            if isinstance(event, LocalCandidate):
                self.trickle(event.text)
            elif isinstance(event, GatheringComplete):
                self.trickle(None)
        self._change()

    def _change(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(LIMIT_S):
            while not condition():
                self._changed = trio.Event()
                with trio.move_on_after(0.01):  # some things (a round trip measured) change without an event
                    await self._changed.wait()

    def all(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def event(self, kind: type[E], count: int = 1) -> E:
        await self.until(lambda: len(self.all(kind)) >= count)
        return self.all(kind)[count - 1]

    @property
    def candidates(self) -> list[str]:
        return [event.text for event in self.all(LocalCandidate)]


def introduce(a: Side, b: Side) -> None:
    """What signaling does: each side hears the other's credentials and candidates, also those found later."""
    for one, other in ((a, b), (b, a)):
        for text in one.candidates:
            other.transport.add_remote_candidate(text)
        one.trickle = other.transport.add_remote_candidate
        other.transport.set_remote(one.transport.local)


async def selected(*sides: Side) -> None:
    for side in sides:
        await side.event(PathSelected)


@asynccontextmanager
async def open_pair(
    config: WebRTCConfig = LOOPBACK, other_config: WebRTCConfig | None = None, *, connect: bool = True
) -> AsyncGenerator[tuple[Side, Side], None]:
    """Two transports on two gateways; connected unless told otherwise."""
    async with (
        open_gateway(config) as left,
        open_gateway(other_config or config) as right,
        trio.open_nursery() as nursery,
    ):
        a, b = Side(left, controlling=True), Side(right, controlling=False)
        await nursery.start(a.transport.run)
        await nursery.start(b.transport.run)
        if connect:
            introduce(a, b)
            await selected(a, b)
        yield a, b
        a.transport.close()
        b.transport.close()


async def exchange(a: Side, b: Side) -> None:
    for one, other in ((a, b), (b, a)):
        before = len(other.received)
        one.transport.send([DATA, DATA])
        await other.until(lambda other=other, before=before: other.received[before:] == [DATA, DATA])  # type: ignore[misc]


class World:
    """Gateways and sides on a network in memory, in virtual time."""

    def __init__(self, net: FakeNet, nursery: trio.Nursery) -> None:
        self.net = net
        self._nursery = nursery

    async def gateway(self, *addresses: Address, config: WebRTCConfig = IN_MEMORY) -> IceGateway:
        async def hold(task_status: trio.TaskStatus[IceGateway]) -> None:
            async with open_gateway(config, sockets=self.net.factory(*addresses)) as gateway:
                task_status.started(gateway)
                await trio.sleep_forever()

        gateway: IceGateway = await self._nursery.start(hold)
        return gateway

    async def side(self, *addresses: Address, controlling: bool, config: WebRTCConfig = IN_MEMORY) -> Side:
        side = Side(await self.gateway(*addresses, config=config), controlling=controlling)
        await self._nursery.start(side.transport.run)
        return side
