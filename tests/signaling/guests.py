"""Guests of a server on a real socket who say what they like, byte for byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from psyne_mesh.identity import Identity
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.dialing import WebSocketClosed, WebSocketUrl, dial_tcp
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.server import SignalingServer, open_server
from psyne_mesh.signaling.websocket import WebSocket, open_websocket

from .worlds import player

NAME = "test.example"  # of a calm server; a hello names it unless it says otherwise


@asynccontextmanager
async def raw_websocket(url: str) -> AsyncIterator[WebSocket]:
    address = WebSocketUrl.parse(url)
    async with open_websocket(
        address, partial(dial_tcp, address, None), max_message_bytes=2**20, timeout_s=5
    ) as websocket:
        yield websocket


async def said(websocket: WebSocket) -> m.ServerMessage:
    with trio.fail_after(5):
        return m.decode_server_untrusted(await websocket.receive())


async def closed(websocket: WebSocket) -> WebSocketClosed:
    """Why it ends, after whatever is still said."""
    with trio.fail_after(5):
        while True:
            try:
                await websocket.receive()
            except WebSocketClosed as end:
                return end


def hello(identity: Identity, nonce: str, **changes: object) -> m.Hello:
    audience = str(changes.pop("audience", NAME))
    fields: dict[str, object] = {
        "ref": 0,
        "peer_id": identity.peer_id,
        "public_key": m.to_base64(identity.public_key),
        "signature": m.to_base64(identity.sign(m.HELLO_DOMAIN, m.hello_payload(nonce, audience))),
        "audience": audience,
    }
    return m.Hello(**{**fields, **changes})  # type: ignore[arg-type]


@asynccontextmanager
async def raw_guest(url: str, number: int) -> AsyncIterator[WebSocket]:
    """A guest who has said hello and may now say anything."""
    async with raw_websocket(url) as websocket:
        challenge = await said(websocket)
        assert isinstance(challenge, m.Challenge)
        audience = WebSocketUrl.parse(url).authority
        await websocket.send(m.encode(hello(player(number), challenge.nonce, audience=audience)))
        assert isinstance(await said(websocket), m.Welcome)
        yield websocket


@asynccontextmanager
async def calm_server(config: ServerConfig | None = None) -> AsyncIterator[SignalingServer]:
    """A server that meets no exception of its own, whatever the guests do."""
    config = config or ServerConfig()
    config = attrs.evolve(config, public_names=config.public_names | {NAME})
    async with open_server(port=0, config=config) as server:
        yield server
        assert server.stats.internal_errors == 0


async def http(server: SignalingServer, request: bytes) -> tuple[bytes, bytes]:
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        await stream.send_all(request)
        answer = b""
        with trio.fail_after(5):
            while data := await stream.receive_some():
                answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body
