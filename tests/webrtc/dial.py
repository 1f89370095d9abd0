"""Two peers of two endpoints on loopback, connected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.webrtc.data_channel import DataChannel
from psyne_mesh.webrtc.endpoint import Endpoint, open_endpoint
from psyne_mesh.webrtc.ice import SocketFactory
from psyne_mesh.webrtc.peer import PeerConnection

LOOPBACK = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)


async def introduce(offerer: PeerConnection, answerer: PeerConnection) -> None:
    """Signaling in the same process, until both sides are connected."""
    await offerer.set_answer(await answerer.create_answer(await offerer.create_offer()))
    await offerer.wait_connected()
    await answerer.wait_connected()


@asynccontextmanager
async def two_peers(
    config: WebRTCConfig = LOOPBACK, *, sockets: SocketFactory | None = None
) -> AsyncIterator[tuple[PeerConnection, PeerConnection]]:
    """An offerer and an answerer on endpoints of their own, strangers yet."""
    async with (
        open_endpoint(config, sockets=sockets) as one,
        open_endpoint(config, sockets=sockets) as two,
        one.open_peer(offerer=True) as offerer,
        two.open_peer(offerer=False) as answerer,
    ):
        yield offerer, answerer


class Call(NamedTuple):
    """`ours` was opened by `offerer`, and `theirs` is the answerer's end of it."""

    offerer: PeerConnection
    answerer: PeerConnection
    ours: DataChannel
    theirs: DataChannel


@asynccontextmanager
async def open_call(one: Endpoint, two: Endpoint, channel: Any = None) -> AsyncIterator[Call]:
    async with one.open_peer(offerer=True, name="two") as offerer, two.open_peer(offerer=False) as answerer:
        ours = offerer.create_channel(channel)
        await introduce(offerer, answerer)
        theirs = await anext(answerer.incoming_channels)
        yield Call(offerer, answerer, ours, theirs)


@asynccontextmanager
async def dialled(config: WebRTCConfig = LOOPBACK, channel: Any = None) -> AsyncIterator[Call]:
    async with open_endpoint(config) as one, open_endpoint(config) as two, open_call(one, two, channel) as call:
        yield call


async def echo(channel: DataChannel) -> None:
    async for message in channel:
        await channel.send(message)


@asynccontextmanager
async def background(*tasks: Any) -> AsyncIterator[None]:
    """Runs `(function, *arguments)` while the block lasts."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        for function, *arguments in tasks:
            nursery.start_soon(function, *arguments)
        yield
        nursery.cancel_scope.cancel()
