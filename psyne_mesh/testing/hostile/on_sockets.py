"""Guests of a signaling server on a real socket who want no good, and servers on real sockets that lie: what takes no world.

A server of yours is tested with `guests`, a program of yours with `impostor` and `turn_server`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Protocol

import attrs
import trio

from psyne_mesh.config import TurnServer
from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.identity import Identity
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.dialing import WebSocketClosed, WebSocketUrl, dial_tcp
from psyne_mesh.signaling.websocket import WebSocket, open_websocket

_TIMEOUT_S = 10.0  # of a connection: a server under attack is slow to strangers
_AGAIN_S = 0.05  # a refused guest comes again after that
_UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_EMPTY_TEXT, _EMPTY_CONTINUATION = b"\x01\x80mask", b"\x00\x80mask"
_ANSWER_BYTES = 65_536  # of a page that is read


class GuestLie(Protocol):
    """What hostile guests do to the server: `run` until it is cancelled."""

    async def run(self, guests: Guests) -> None: ...


class Guests:
    """They all come from one address. done: what came of it, by name; each lie says which names it has. heard: what the
    server said to who should not hear it."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self.url = WebSocketUrl.parse(url)
        self.rng = rng
        self.done: Counter[str] = Counter()
        self.heard: list[bytes] = []

    def stranger(self) -> Identity:
        """A key that nobody has seen."""
        return Identity.from_seed(self.rng.randbytes(32))

    async def tcp(self) -> trio.abc.Stream:
        return await dial_tcp(self.url, None)

    @asynccontextmanager
    async def websocket(self) -> AsyncIterator[WebSocket]:
        dial = partial(dial_tcp, self.url, None)
        async with open_websocket(self.url, dial, max_message_bytes=2**20, timeout_s=_TIMEOUT_S) as websocket:
            yield websocket

    @asynccontextmanager
    async def proved(self, identity: Identity) -> AsyncIterator[WebSocket]:
        """A connection that the server has welcomed. ProtocolError if it does not."""
        async with self.websocket() as websocket:
            challenge = m.decode_server_untrusted(await websocket.receive())
            if not isinstance(challenge, m.Challenge):
                raise ProtocolError("no challenge")
            await websocket.send(m.encode(hello(identity, challenge.nonce, self.url.authority)))
            if not isinstance(m.decode_server_untrusted(await websocket.receive()), m.Welcome):
                raise ProtocolError("not welcome")
            yield websocket

    async def again(self, act: Callable[[], Awaitable[None]]) -> None:
        """For ever: what the server refuses is tried once more, and counted as `refused`."""
        while True:
            try:
                await act()
            except (OSError, WebSocketClosed, ProtocolError, trio.TooSlowError, trio.BrokenResourceError,
                    trio.ClosedResourceError):  # fmt: skip
                self.done["refused"] += 1
            await trio.sleep(_AGAIN_S)


def hello(identity: Identity, nonce: str, audience: str) -> m.Hello:
    signature = identity.sign(m.HELLO_DOMAIN, m.hello_payload(nonce, audience))
    return m.Hello(
        ref=0, peer_id=identity.peer_id, public_key=m.to_base64(identity.public_key), signature=m.to_base64(signature),
        audience=audience,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------- what guests do


@attrs.frozen(kw_only=True)
class IdleSockets:
    """`n` connections that say nothing, opened again when the server ends them. done: `opened`."""

    n: int = 40

    async def run(self, guests: Guests) -> None:
        async def idle() -> None:
            stream = await guests.tcp()
            async with stream:
                guests.done["opened"] += 1
                while await stream.receive_some():
                    pass

        async with trio.open_nursery() as nursery:
            for _ in range(self.n):
                nursery.start_soon(guests.again, idle)


@attrs.frozen(kw_only=True)
class ManyGuests:
    """`n` keys that prove themselves, and stay. done: `welcomed`."""

    n: int = 100

    async def run(self, guests: Guests) -> None:
        async def stay() -> None:
            async with guests.proved(guests.stranger()) as websocket:
                guests.done["welcomed"] += 1
                while True:
                    await websocket.receive()

        async with trio.open_nursery() as nursery:
            for _ in range(self.n):
                nursery.start_soon(guests.again, stay)


@attrs.frozen(kw_only=True)
class RoomHoarders:
    """`keys` guests that make a room of another name again and again, and leave none. done: `rooms`."""

    keys: int = 10

    async def run(self, guests: Guests) -> None:
        async def hoard() -> None:
            async with guests.proved(guests.stranger()) as websocket:
                while True:
                    name = f"taken {guests.rng.getrandbits(40)}"
                    await websocket.send(m.encode(m.Join(ref=1, name=name, max_players=2)))
                    answer = m.decode_server_untrusted(await websocket.receive())
                    guests.done["rooms" if isinstance(answer, m.JoinedRoom) else "refused"] += 1

        async with trio.open_nursery() as nursery:
            for _ in range(self.keys):
                nursery.start_soon(guests.again, hoard)


@attrs.frozen(kw_only=True)
class ComingAndGoing:
    """One guest that enters that room and leaves it, as fast as it is let. done: `entered`."""

    room: str = "lobby"

    async def run(self, guests: Guests) -> None:
        async def flap() -> None:
            async with guests.proved(guests.stranger()) as websocket:
                while True:
                    await websocket.send(m.encode(m.Join(ref=1, name=self.room)))
                    answer = m.decode_server_untrusted(await websocket.receive())
                    if isinstance(answer, m.JoinedRoom):
                        guests.done["entered"] += 1
                        await websocket.send(m.encode(m.Leave(ref=2, room=answer.info.room)))
                    elif isinstance(answer, m.Error):
                        guests.done["refused"] += 1

        await guests.again(flap)


@attrs.frozen(kw_only=True)
class EmptyFrames:
    """A message of continuations without a byte in them, that never ends. done: `frames`, which the server's side took."""

    async def run(self, guests: Guests) -> None:
        async def say_nothing() -> None:
            stream = await guests.tcp()
            async with stream:
                await stream.send_all(_upgrade(guests, f"http://{guests.url.authority}"))
                await stream.receive_some()
                await stream.send_all(_EMPTY_TEXT)
                while True:
                    await stream.send_all(_EMPTY_CONTINUATION * 100)
                    guests.done["frames"] += 100
                    await trio.lowlevel.checkpoint()

        await guests.again(say_nothing)


@attrs.frozen(kw_only=True)
class FalseHellos:
    """Hellos whose signatures are wrong: each is to cost the server a look at it. done: `hellos`."""

    n: int = 4

    async def run(self, guests: Guests) -> None:
        async def lie() -> None:
            async with guests.websocket() as websocket:
                await websocket.receive()
                await websocket.send(m.encode(hello(guests.stranger(), "another nonce", guests.url.authority)))
                guests.done["hellos"] += 1
                while True:
                    await websocket.receive()

        async with trio.open_nursery() as nursery:
            for _ in range(self.n):
                nursery.start_soon(guests.again, lie)


@attrs.frozen(kw_only=True)
class Eavesdropper:
    """Asks for the list of rooms, and connects as a page of `origin`. done: `listed` and `upgraded`, when the server did so;
    `asked`. heard: its pages of rooms."""

    origin: str = "http://evil.example"

    async def run(self, guests: Guests) -> None:
        async def ask() -> None:
            page = f"GET /rooms HTTP/1.1\r\nHost: x\r\nOrigin: {self.origin}\r\n\r\n".encode()
            head, _, body = (await _answer(guests, page)).partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 200 "):
                guests.done["listed"] += 1
                guests.heard.append(body)
            upgraded = await _answer(guests, _upgrade(guests, self.origin), enough=12)
            guests.done["upgraded"] += upgraded.startswith(b"HTTP/1.1 101")
            guests.done["asked"] += 1

        await guests.again(ask)


def _upgrade(guests: Guests, origin: str) -> bytes:
    return _UPGRADE.format(path=guests.url.path, host=guests.url.authority, origin=origin).encode()


async def _answer(guests: Guests, request: bytes, enough: int = _ANSWER_BYTES) -> bytes:
    stream = await guests.tcp()
    async with stream:
        await stream.send_all(request)
        answer = b""
        while len(answer) < enough and (data := await stream.receive_some()):
            answer += data
    return answer


GUEST_LIES: tuple[Callable[[], GuestLie], ...] = (
    IdleSockets, ManyGuests, RoomHoarders, ComingAndGoing, EmptyFrames, FalseHellos, Eavesdropper,
)  # fmt: skip
"""One of each, at their defaults."""


@asynccontextmanager
async def guests(url: str, lie: GuestLie) -> AsyncIterator[Guests]:
    """Hostile guests of the signaling server at that URL, for as long as the block. InvalidConfig for what is no lie of
    guests, InvalidUri for what is no URL of a server."""
    if not hasattr(lie, "run"):
        raise InvalidConfig(f"lie = {lie!r}: what guests do, such as hostile.IdleSockets(n=40)")
    crowd = Guests(url, random.Random(f"hostile guests/{lie!r}"))
    async with open_background_nursery() as nursery:
        nursery.start_soon(lie.run, crowd)
        yield crowd


# -------------------------------------------------------------------------------------------------------------- servers


@attrs.define
class Impostor:
    """url: where its victims dial it. tried: whose hello it showed to the honest server; became: as whom it was welcomed."""

    url: str
    tried: list[str] = attrs.Factory(list)
    became: list[str] = attrs.Factory(list)


@asynccontextmanager
async def impostor(honest_url: str) -> AsyncIterator[Impostor]:
    """A signaling server that hands each of its guests the challenge of the honest one, and tries to be them there with the
    answer: `became` is to stay empty."""
    from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

    honest = Guests(honest_url, random.Random(0))

    async def serve(request: WebSocketRequest) -> None:
        victim = await request.accept()
        with suppress(OSError, WebSocketClosed, ProtocolError, trio.TooSlowError, ConnectionClosed):
            async with honest.websocket() as there:
                await victim.send_message(await there.receive())
                word = m.decode_client_untrusted(str(await victim.get_message()))
                if isinstance(word, m.Hello):
                    thief.tried.append(word.peer_id)
                    await there.send(m.encode(word))
                    answer = m.decode_server_untrusted(await there.receive())
                    if isinstance(answer, m.Welcome):
                        thief.became.append(answer.peer_id)

    async with open_background_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, serve, "127.0.0.1", 0, None))
        thief = Impostor(f"ws://127.0.0.1:{server.port}")
        yield thief


@asynccontextmanager
async def turn_server(answer: bytes = b"\xff\xff\xff\xff", *, then_close: bool = False) -> AsyncIterator[TurnServer]:
    """A TURN server over TCP that answers anything with these bytes, or with nothing and the end of the connection: an entry
    for `WebRTCConfig(turn_servers=...)`. Four bytes 0xff once ended the game."""

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await stream.receive_some():
                if answer:
                    await stream.send_all(answer)
                if then_close:
                    return

    async with open_background_nursery() as nursery:
        (listener, *_) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        yield TurnServer("127.0.0.1", port, username="u", credential="c", transport="tcp")
