"""A pair of transports on real loopback sockets, with everything that they said written down."""

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

E = TypeVar("E", bound=IceEvent)
LIMIT_S = 10.0  # a test that waits longer has failed
LOOPBACK = WebRTCConfig(bind_host="127.0.0.1", connection_timeout_s=5.0)


class Side:
    """One end: its transport, what it received, and what happened, with a way to wait for either."""

    def __init__(self, gateway: IceGateway, *, controlling: bool, config: WebRTCConfig | None = None) -> None:
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
