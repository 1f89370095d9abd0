"""One client at the server: its proof of identity, its queue, its limits, and why it went."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable

import attrs
import trio

from psyne_mesh.errors import ProtocolError, VersionMismatch
from psyne_mesh.identity import PeerId, verify_untrusted
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.limits import TokenBucket
from psyne_mesh.names import plain
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.dialing import WebSocketClosed
from psyne_mesh.signaling.limits import QueueShares, ServerConfig
from psyne_mesh.signaling.switchboard import Switchboard
from psyne_mesh.signaling.websocket import WebSocket

_LABELS = {
    messages.GOING_AWAY: "closing",
    messages.SUPERSEDED: "superseded",
    messages.TOO_SLOW: "slow",
    messages.TIMED_OUT: "timeout",
    messages.MISBEHAVED: "misbehaved",
    messages.WRONG_VERSION: "version",
    messages.NOT_PROVED: "not_proved",
    messages.FULL: "full",
}
_ENDS = {
    messages.GOODBYE: "left",
    messages.GOING_AWAY: "left",  # what a browser tab says that is closed
    messages.TOO_BIG: "misbehaved",  # our own side found the message too long
}


class Refused(Exception):
    """This guest is not let in, or has to leave."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code

    @property
    def label(self) -> str:
        return _LABELS[self.code]


async def prove(websocket: WebSocket, is_meant: Callable[[str], bool]) -> tuple[PeerId, int]:
    """Challenge the guest. The id whose key signed our nonce, and the `ref` of its hello; else `Refused`. `is_meant`:
    whether an audience is this server."""
    nonce = messages.to_base64(secrets.token_bytes(32))
    await websocket.send(messages.encode(messages.Challenge(nonce=nonce)))
    frame = await websocket.receive()
    try:
        hello = messages.decode_client_untrusted(frame)
    except VersionMismatch as error:
        raise await refusal(websocket, messages.WRONG_VERSION, str(error)) from error
    except ProtocolError as error:
        raise await refusal(websocket, messages.MISBEHAVED, str(error)) from error
    if not isinstance(hello, messages.Hello):
        raise await refusal(websocket, messages.NOT_PROVED, "say hello first")
    if not is_meant(hello.audience):
        audience = plain(hello.audience)[:100]
        raise await refusal(
            websocket, messages.NOT_PROVED,
            f"this hello was meant for {audience!r}, which this server does not know as its own name: if it is one, "
            f"start the server with --public-name {audience}", hello.ref,
        )  # fmt: skip
    try:
        peer = verify_untrusted(
            messages.from_base64_untrusted(hello.public_key),
            messages.HELLO_DOMAIN,
            messages.hello_payload(nonce, hello.audience),
            messages.from_base64_untrusted(hello.signature),
        )
    except ProtocolError as error:
        raise await refusal(websocket, messages.NOT_PROVED, str(error), hello.ref) from error
    if peer != hello.peer_id:
        raise await refusal(websocket, messages.NOT_PROVED, "this peer id belongs to another key", hello.ref)
    return peer, hello.ref


async def refusal(websocket: WebSocket, code: int, reason: str, ref: int | None = None) -> Refused:
    """Says why as a message too: browsers do not show close codes to everybody."""
    await websocket.send(messages.encode(messages.Error(code=_LABELS[code], message=reason[:500], ref=ref)))
    return Refused(code, reason)


@attrs.frozen
class _Waiting:
    """For the guest. `is_share`: of the share of others; a signal of `sender`, or news."""

    text: str
    sender: PeerId | None = None
    is_share: bool = False


@uninterrupted
class Guest:
    """1. `await run(receive, counts)` in one task: until the connection ends or `dismiss`. 2. `push` and
    `push_of_others` at any time. 3. `end` says afterwards why it went."""

    def __init__(
        self, peer: PeerId, websocket: WebSocket, config: ServerConfig, address: str, meter: TokenBucket
    ) -> None:
        """meter: that bounds how fast the connection is read; what a message costs beyond its frame is charged to it."""
        self.peer = peer
        self.address = address
        self.end = "lost"
        self._websocket = websocket
        self._config = config
        self._meter = meter
        self._queue, self._outbound = trio.open_memory_channel[_Waiting](config.outbound_messages_max)
        self._shares = QueueShares(config.outbound_messages_max, config.outbound_bytes_max)
        self._queued_bytes = 0
        self._garbage = 0
        self._scope = trio.CancelScope()
        self._dismissal: tuple[int, str] | None = None

    def push(self, message: messages.Message) -> None:
        """An answer to this guest. Never waits. One whose queue is full is dropped: it does not read what it asks for, and
        a fresh start serves it better."""
        if not self._put(_Waiting(messages.encode(message))):
            self.dismiss(messages.TOO_SLOW, "you read too slowly")

    def push_of_others(self, text: str, sender: PeerId | None) -> bool:
        """A signal of `sender`, or news, with None. Never waits, and drops nobody; False: it was left out."""
        if self._dismissal is not None:
            return True
        if not self._shares.admit(sender, len(text)):
            return False
        if not self._put(_Waiting(text, sender, is_share=True)):
            self._shares.release(sender, len(text))
            return False
        return True

    def _put(self, waiting: _Waiting) -> bool:
        if self._dismissal is not None:
            return True
        if self._queued_bytes + len(waiting.text) > self._config.outbound_bytes_max:
            return False
        try:
            self._queue.send_nowait(waiting)
        except trio.WouldBlock:
            return False
        self._queued_bytes += len(waiting.text)
        return True

    def charge(self, tokens: int) -> None:
        """It is read so much later."""
        if tokens:
            self._meter.charge(tokens, trio.current_time())

    def dismiss(self, code: int, reason: str) -> None:
        """The first reason stands."""
        if self._dismissal is None:
            self._dismissal = (code, reason)
            self._scope.cancel()

    async def run(self, receive: Callable[[Guest, messages.ClientMessage], None], counts: Counter[str]) -> None:
        async def until_end(job: Callable[[], Awaitable[None]]) -> None:
            try:
                await job()
            except WebSocketClosed as closed:
                self.end = _ENDS.get(closed.code, "lost")
                self._scope.cancel()
            except Refused as refusal:
                self.dismiss(refusal.code, str(refusal))

        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_end, self._send_all)
                nursery.start_soon(until_end, lambda: self._receive_all(receive, counts))
        if self._dismissal is not None:
            code, reason = self._dismissal
            self.end = _LABELS[code]
            await self._websocket.close(code, reason)

    async def _send_all(self) -> None:
        async for waiting in self._outbound:
            self._queued_bytes -= len(waiting.text)
            if waiting.is_share:
                self._shares.release(waiting.sender, len(waiting.text))
            await self._websocket.send(waiting.text)

    async def _receive_all(
        self, receive: Callable[[Guest, messages.ClientMessage], None], counts: Counter[str]
    ) -> None:
        silence_s = self._config.keepalive_s * self._config.silence_factor
        while True:
            with trio.move_on_after(silence_s) as patience:
                frame = await self._websocket.receive()
            if patience.cancelled_caught:
                raise Refused(messages.TIMED_OUT, f"you said nothing for {silence_s:g} s")
            counts["messages"] += 1
            try:
                message = messages.decode_client_untrusted(frame)
            except VersionMismatch as error:
                raise Refused(messages.WRONG_VERSION, str(error)) from error
            except ProtocolError as error:
                counts["garbage"] += 1
                self._complain(frame, error)
            else:
                self._meter.charge(Switchboard.cost(message) - 1, trio.current_time())
                receive(self, message)

    def _complain(self, frame: str | bytes, error: ProtocolError) -> None:
        self._garbage += 1
        if self._garbage > self._config.garbage_max:
            raise Refused(messages.MISBEHAVED, "too many frames that are no messages") from error
        ref = messages.ref_untrusted(frame)
        self.push(messages.Error(code="bad_message", message=str(error)[:500], ref=ref))
