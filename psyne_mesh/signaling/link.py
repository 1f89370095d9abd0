"""One WebSocket connection of a signaling client, from dial to loss: frames and silence. Rooms are the client's affair."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from psyne_mesh.errors import (
    ProtocolError,
    SignalingBusy,
    SignalingError,
    SignalingLost,
    SignalingUnreachable,
    WouldBlock,
)
from psyne_mesh.frozen import Frozen
from psyne_mesh.identity import Identity
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.dialing import WebSocketClosed, WebSocketRefused, WebSocketUrl

if TYPE_CHECKING:
    from psyne_mesh.signaling.websocket import WebSocket

Dial = Callable[[], Awaitable[trio.abc.Stream]]
Deliver = Callable[[messages.ServerMessage], None]

_GARBAGE_MAX = 100  # frames of one connection that we do not understand; a newer server may send a few


class SignalingConfig(Frozen, kw_only=True):
    """How patient a client is. All times in seconds."""

    connect_timeout_s: float = 10.0  # dial, TLS and WebSocket; and again as long for the hello
    request_timeout_s: float = 10.0  # from the question to the answer
    backoff_first_s: float = 0.25  # doubles with each failure...
    backoff_max_s: float = 15.0  # ...up to this; the actual wait is between half of it and all of it
    backoff_needed_s: float = 1.0  # the same while somebody needs the connection: see `SignalingTransport.doubt`
    retry_after_max_s: float = 60.0  # a busy server is believed up to this
    silence_factor: float = 3.0  # keepalive intervals without a word before the server counts as gone
    doubt_s: float = 1.0  # for a word of the server when something hints that it is gone
    outbound_max: int = 512  # messages to the server; more raise WouldBlock
    inbox_max: int = 4_096  # events for the mesh; more count as a loss (see Inbox)


class Superseded(SignalingLost):
    """The same identity connected from elsewhere, and the newest connection wins. This client does not come back."""


@asynccontextmanager
@uninterrupted
async def open_link(
    address: WebSocketUrl, dial: Dial, identity: Identity, config: SignalingConfig
) -> AsyncIterator[Link]:
    """Dial and prove who we are. Raises `SignalingUnreachable`, of it `SignalingBusy`, `VersionMismatch`, `SignalingError`
    (refused)."""
    from psyne_mesh.signaling.websocket import (
        open_websocket,  # an eighth of all imports, and only for who dials a server
    )

    is_open = False
    try:
        async with open_websocket(
            address,
            dial,
            max_message_bytes=messages.MAX_SERVER_FRAME_BYTES,
            timeout_s=config.connect_timeout_s,
        ) as websocket:
            with trio.fail_after(config.connect_timeout_s):
                welcome = await _hello(websocket, identity, address.authority)
            is_open = True
            yield Link(websocket, welcome, config)
    except (OSError, trio.BrokenResourceError, trio.TooSlowError, WebSocketClosed, ProtocolError) as error:
        if is_open:  # out of the block, and not ours to name
            raise
        raise _unreachable(address, error) from error


@uninterrupted
class Link:
    """1. `push(text)` at any time. 2. `await converse(deliver)` in one task, until it raises `SignalingLost`.
    3. `finish()` instead: sends what was pushed, closes, and `converse` returns."""

    def __init__(self, websocket: WebSocket, welcome: messages.Welcome, config: SignalingConfig) -> None:
        self.welcome = welcome
        keepalive_s = welcome.keepalive_s
        self._websocket = websocket
        self._keepalive_s = keepalive_s
        self._doubt_s = config.doubt_s
        self._outbound_max = config.outbound_max
        self._silence_s = keepalive_s * config.silence_factor
        self._queue, self._outbound = trio.open_memory_channel[str](config.outbound_max)
        self._heard_at = trio.current_time()
        self._doubted = trio.Event()
        self._is_finishing = False
        self._garbage = 0

    def push(self, text: str) -> None:
        """Raises `WouldBlock` when the queue is full."""
        try:
            self._queue.send_nowait(text)
        except trio.WouldBlock:
            raise WouldBlock("the queue to the signaling server is full") from None
        except trio.ClosedResourceError:
            raise SignalingLost("the connection to the signaling server is being closed") from None

    def doubt(self) -> None:
        """The server must say something within `doubt_s`, else it counts as gone."""
        self._doubted.set()

    def finish(self) -> None:
        self._is_finishing = True
        self._queue.close()

    async def converse(self, deliver: Deliver, *alongside: Callable[[], Awaitable[None]]) -> None:
        """`deliver` is called for each message, in order. A `SignalingLost` from it or from a job that runs `alongside`
        ends the connection; an `alongside` that returns does not."""
        causes: list[Exception] = []

        async def until_loss(job: Callable[[], Awaitable[None]]) -> None:
            try:
                await job()
            except (WebSocketClosed, SignalingLost) as error:
                causes.append(error)
                nursery.cancel_scope.cancel()

        with unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_loss, self._send_all)
                nursery.start_soon(until_loss, self._keep_alive)
                nursery.start_soon(until_loss, partial(self._receive_all, deliver))
                for job in alongside:
                    nursery.start_soon(until_loss, job)
        if not self._is_finishing:
            self._websocket.forget_unsent()
            raise _lost(causes[0]) from causes[0]

    async def _send_all(self) -> None:
        async for text in self._outbound:
            await self._websocket.send(text)
        await self._websocket.close(messages.GOODBYE, "bye")

    async def _receive_all(self, deliver: Deliver) -> None:
        while True:
            frame = await self._websocket.receive()
            self._heard_at = trio.current_time()
            try:
                deliver(messages.decode_server_untrusted(frame))
            except (ProtocolError, SignalingError) as error:
                if isinstance(error, SignalingLost):
                    raise
                self._garbage += 1
                if self._garbage > _GARBAGE_MAX:
                    raise SignalingLost(f"the server's words make no sense: {error}") from error

    async def _keep_alive(self) -> None:
        ref = 0
        while not self._is_finishing:
            with trio.move_on_after(self._keepalive_s):
                await self._doubted.wait()
            if self._doubted.is_set() and self._websocket.has_lost_its_address:
                raise SignalingLost("this machine has left the network of the connection")
            silence_s = trio.current_time() - self._heard_at
            if silence_s > self._silence_s:
                raise SignalingLost(f"the server said nothing for {silence_s:.1f} s")
            ref += 1
            waiting = self._queue.statistics().current_buffer_used  # words under way are as good as a ping
            if not self._is_finishing and (waiting == 0 or (self._doubted.is_set() and waiting < self._outbound_max)):
                self.push(messages.encode(messages.Ping(ref=ref)))
            if self._doubted.is_set():
                await self._dispel_doubt()

    async def _dispel_doubt(self) -> None:
        """A ping is under way. TCP would repeat it for many minutes to an address that is not ours any more."""
        asked_at = trio.current_time()
        await trio.sleep(self._doubt_s)
        if self._heard_at < asked_at and not self._is_finishing:
            raise SignalingLost(f"the server did not answer within {self._doubt_s:g} s")
        self._doubted = trio.Event()


async def _hello(websocket: WebSocket, identity: Identity, audience: str) -> messages.Welcome:
    challenge = messages.decode_server_untrusted(await websocket.receive())
    if not isinstance(challenge, messages.Challenge):
        raise ProtocolError("a signaling server speaks first, with a challenge")
    proof = identity.sign(messages.HELLO_DOMAIN, messages.hello_payload(challenge.nonce, audience))
    hello = messages.Hello(
        ref=0,
        peer_id=identity.peer_id,
        public_key=messages.to_base64(identity.public_key),
        signature=messages.to_base64(proof),
        audience=audience,
    )
    await websocket.send(messages.encode(hello))
    answer = messages.decode_server_untrusted(await websocket.receive())
    if isinstance(answer, messages.Error):
        raise SignalingError(f"the signaling server refused us: {answer.message}")
    if not isinstance(answer, messages.Welcome) or answer.peer_id != identity.peer_id:
        raise ProtocolError("a signaling server answers a hello with a welcome")
    return answer


def _lost(error: Exception) -> SignalingLost:
    if isinstance(error, SignalingLost):
        return error
    if isinstance(error, WebSocketClosed) and error.code == messages.SUPERSEDED:
        return Superseded("the same identity connected to the signaling server from elsewhere")
    return SignalingLost(f"the connection to the signaling server ended: {error}")


def _unreachable(address: WebSocketUrl, error: Exception) -> SignalingUnreachable:
    url = f"{'wss' if address.secure else 'ws'}://{address.authority}{address.path}"
    if isinstance(error, WebSocketRefused) and error.status == 503 and error.retry_after_s is not None:
        wait_s = error.retry_after_s
        text = f"the signaling server at {url} is busy (HTTP status 503) and asks us to come back in {wait_s:g} s"
        return SignalingBusy(text, wait_s)
    cause, advice = _diagnosis(error)
    return SignalingUnreachable(f"no signaling server at {url}: {cause}. {advice}")


def _diagnosis(error: Exception) -> tuple[str, str]:
    if isinstance(error, trio.TooSlowError):
        return "no answer in time", "Is a firewall in between, or something else listening on that port?"
    if isinstance(error, trio.BrokenResourceError) and isinstance(error.__cause__, ssl.SSLError):
        return (
            f"TLS failed: {error.__cause__}",
            "Is it ws:// instead of wss://, or is the certificate not trusted here?",
        )
    if isinstance(error, WebSocketClosed | ProtocolError | trio.BrokenResourceError):
        return str(
            error
        ) or "the connection broke", "Something answers there, but not as a psyne-mesh signaling server."
    return str(error), "Is it running (`psyne-mesh serve`), and are host and port right?"
