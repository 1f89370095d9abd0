"""One client at the server: its proof of identity, its queue, its limits, and why it went."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from psyne_mesh.errors import ProtocolError, VersionMismatch
from psyne_mesh.identity import PeerId, verify_untrusted
from psyne_mesh.limits import TokenBucket
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.limits import ServerConfig, SignalShares
from psyne_mesh.signaling.switchboard import Switchboard
from psyne_mesh.signaling.websocket import WebSocket, WebSocketClosed

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


async def prove(websocket: WebSocket, audiences: frozenset[str] | None) -> tuple[PeerId, int]:
    """Challenge the guest. The id whose key signed our nonce, and the `ref` of its hello; else `Refused`."""
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
    if audiences is not None and hello.audience not in audiences:
        raise await refusal(websocket, messages.NOT_PROVED, "this hello was meant for another server", hello.ref)
    return peer, hello.ref


async def refusal(websocket: WebSocket, code: int, reason: str, ref: int | None = None) -> Refused:
    """Says why as a message too: browsers do not show close codes to everybody."""
    await websocket.send(messages.encode(messages.Error(code=_LABELS[code], message=reason[:500], ref=ref)))
    return Refused(code, reason)


class Guest:
    """1. `await run(receive, counts)` in one task: until the connection ends or `dismiss`. 2. `push` at any time.
    3. `end` says afterwards why it went."""

    def __init__(self, peer: PeerId, websocket: WebSocket, config: ServerConfig, now: float) -> None:
        self.peer = peer
        self.end = "lost"
        self._websocket = websocket
        self._config = config
        self._bucket = TokenBucket(burst=config.burst, per_second=config.messages_per_s, now=now)
        self._queue, self._outbound = trio.open_memory_channel[tuple[str, PeerId | None]](config.outbound_messages_max)
        self._signals = SignalShares(config.outbound_messages_max, config.outbound_bytes_max)
        self._queued_bytes = 0
        self._garbage = 0
        self._scope = trio.CancelScope()
        self._dismissal: tuple[int, str] | None = None

    def push(self, message: messages.Message) -> None:
        self.push_text(messages.encode(message))

    def push_text(self, text: str, sender: PeerId | None = None) -> bool:
        """Never waits. A guest whose queue is full is dropped: it lags so far that a fresh start serves it better. A signal
        names its `sender` and drops nobody; False: it was left out."""
        if self._dismissal is not None:
            return True
        size = len(text)
        if sender is not None and not self._signals.admit(sender, size):
            return False
        try:
            if self._queued_bytes + size > self._config.outbound_bytes_max:
                raise trio.WouldBlock
            self._queue.send_nowait((text, sender))
        except trio.WouldBlock:
            if sender is None:
                self.dismiss(messages.TOO_SLOW, "you read too slowly")
                return True
            self._signals.release(sender, size)
            return False
        self._queued_bytes += size
        return True

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
        async for text, sender in self._outbound:
            self._queued_bytes -= len(text)
            if sender is not None:
                self._signals.release(sender, len(text))
            await self._websocket.send(text)

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
            cost = 1
            try:
                message = messages.decode_client_untrusted(frame)
            except VersionMismatch as error:
                raise Refused(messages.WRONG_VERSION, str(error)) from error
            except ProtocolError as error:
                counts["garbage"] += 1
                self._complain(frame, error)
            else:
                cost = Switchboard.cost(message)
                receive(self, message)
            # Whoever sends faster is read more slowly, and TCP tells it so.
            self._bucket.charge(cost, trio.current_time())
            await trio.sleep_until(self._bucket.ready_at())

    def _complain(self, frame: str | bytes, error: ProtocolError) -> None:
        self._garbage += 1
        if self._garbage > self._config.garbage_max:
            raise Refused(messages.MISBEHAVED, "too many frames that are no messages") from error
        ref = messages.ref_untrusted(frame)
        self.push(messages.Error(code="bad_message", message=str(error)[:500], ref=ref))
