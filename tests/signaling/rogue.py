"""A signaling server without a port that knows the words and answers what it likes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import trio
from msgspec.structs import replace
from trio.testing import lockstep_stream_pair

from psyne_mesh.identity import Identity
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.client import SignalingClient, connect_signaling
from psyne_mesh.signaling.dialing import WebSocketClosed
from psyne_mesh.signaling.websocket import WebSocket, accept_websocket

from .worlds import player

DEAF = object()  # no answer to this, and nothing is read any more, but a word now and then keeps the connection


def welcome_in(join: m.Join, **changes: object) -> m.JoinedRoom:
    """What an honest server says to who comes first; `changes` are to the room."""
    info = m.Room(
        room=f"{join.app_id}/{join.region}/{join.name}", name=join.name, app_id=join.app_id, region=join.region,
        players=1, max_players=join.max_players, skill_range=join.skill_range, state="waiting", metadata=join.metadata,
        instance=join.instance, manifest=join.manifest,
    )  # fmt: skip
    return m.JoinedRoom(ref=join.ref, info=replace(info, **changes), peers=[], created=True, index=0)


def placed_in(seek: m.Seek) -> m.Placed:
    """What an honest server says to who seeks a room where nobody is."""
    return m.Placed(ref=seek.ref, info=replace(welcome_in(seek.join).info, players=0))


class Rogue:
    """`answer(question)` gives the message to answer with, DEAF, or None for silence. `asked` are all questions."""

    def __init__(self, nursery: trio.Nursery, answer: Callable[[m.ClientMessage], object]) -> None:
        self.answer = answer
        self.asked: list[m.ClientMessage] = []
        self._nursery = nursery
        self._connection = trio.CancelScope()

    def cut(self) -> None:
        self._connection.cancel()

    def connect(self, number: int) -> AbstractAsyncContextManager[SignalingClient]:
        return self.connect_as(player(number))

    def connect_as(self, identity: Identity) -> AbstractAsyncContextManager[SignalingClient]:
        return connect_signaling("ws://rogue", identity, rng=random.Random(1), dial=self._dial)

    async def _dial(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = lockstep_stream_pair()  # they hold nothing: what is not read is not sent
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self._connection = trio.CancelScope()
        with self._connection, suppress(WebSocketClosed):
            async with accept_websocket(stream, max_message_bytes=2**20, timeout_s=10) as websocket:
                await websocket.send(m.encode(m.Challenge(nonce="bm9uY2U=")))
                hello = m.decode_client_untrusted(await websocket.receive())
                assert isinstance(hello, m.Hello)
                await websocket.send(m.encode(m.Welcome(ref=hello.ref, peer_id=hello.peer_id, keepalive_s=10)))
                while True:
                    await self._converse(websocket)

    async def _converse(self, websocket: WebSocket) -> None:
        question = m.decode_client_untrusted(await websocket.receive())
        if isinstance(question, m.Ping):
            await websocket.send(m.encode(m.Pong(ref=question.ref)))
            return
        self.asked.append(question)
        answer = self.answer(question)
        while answer is DEAF:
            await trio.sleep(5)
            await websocket.send(m.encode(m.Pong(ref=0)))
        if isinstance(answer, m.Message):
            await websocket.send(m.encode(answer))


@asynccontextmanager
async def open_rogue(answer: Callable[[m.ClientMessage], object]) -> AsyncIterator[Rogue]:
    async with open_background_nursery() as nursery:
        yield Rogue(nursery, answer)
