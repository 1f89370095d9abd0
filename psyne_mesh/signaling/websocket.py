"""The only file that knows trio-websocket: text frames over any Trio stream, and one exception for every way to end.

trio-websocket raises four kinds of exceptions of its own, lets wsproto's and `UnicodeError` through for some hostile
bytes, and waits for ever when the other side closes during the opening handshake. Here its reader runs in a task of
ours, and whatever ends that task becomes the `WebSocketClosed` that the next `receive` or `send` raises.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio_websocket
import wsproto.utilities

from psyne_mesh.interrupts import TheirNursery, uninterrupted
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.signaling.dialing import ABNORMAL_CLOSURE, WebSocketClosed, WebSocketRefused, WebSocketUrl
from psyne_mesh.streams import forget_unsent, has_lost_its_address

_LIBRARY_ERRORS = (wsproto.utilities.ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError)
_WITHOUT_REASON = {ABNORMAL_CLOSURE: "the connection broke", 1000: "the other side closed", 1001: "the other side left"}
_CLOSE_GRACE_S = 1.0  # for the other side's close frame; it tells us nothing, so we do not wait long


@uninterrupted
class WebSocket:
    """An open connection. One task receives, one task sends."""

    def __init__(self, connection: trio_websocket.WebSocketConnection, pump: _Pump) -> None:
        self._connection = connection
        self._pump = pump

    async def receive(self) -> str | bytes:
        """The next whole message. Cancelling loses none. Raises `WebSocketClosed`."""
        try:
            return await self._connection.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise self._pump.closed(error) from error

    async def send(self, text: str) -> None:
        """Returns when the bytes are with the operating system. Cancelling it breaks the connection."""
        try:
            await self._connection.send_message(text)
        except trio_websocket.ConnectionClosed as error:
            raise self._pump.closed(error) from error
        except _LIBRARY_ERRORS as error:
            raise WebSocketClosed(ABNORMAL_CLOSURE, str(error)) from error

    @property
    def has_lost_its_address(self) -> bool:
        """This machine has moved to another network since the connection was opened: it is dead, whatever TCP says."""
        return has_lost_its_address(self._pump.stream)

    def forget_unsent(self) -> None:
        """What was sent and has not arrived yet must not arrive after the end of this connection either."""
        forget_unsent(self._pump.stream)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, wait a moment for the answer, and close the stream in any case. After a cancelled `send` nothing is
        said: it would be read as the rest of that frame."""
        if self._pump.is_mid_frame:
            await trio.aclose_forcefully(self._pump.stream)
            return
        with trio.move_on_after(_CLOSE_GRACE_S):
            try:
                await self._connection.aclose(code, reason[:120])  # RFC 6455 section 5.5: 125 bytes with the code
            except _LIBRARY_ERRORS:
                return


@asynccontextmanager
@uninterrupted
async def accept_websocket(
    stream: trio.abc.Stream, *, max_message_bytes: int, timeout_s: float
) -> AsyncIterator[WebSocket]:
    """The server's side of an upgrade request that waits in `stream`. Raises `WebSocketClosed` if it is no good one,
    `trio.TooSlowError` if it is never whole."""

    async def handshake(nursery: Any, watched: trio.abc.Stream) -> trio_websocket.WebSocketConnection:
        request = await trio_websocket.wrap_server_stream(nursery, watched, max_message_size=max_message_bytes)
        return await request.accept()

    async with _run(stream, handshake, trio.current_time() + timeout_s) as websocket:
        yield websocket


@asynccontextmanager
@uninterrupted
async def open_websocket(
    url: WebSocketUrl,
    dial: Callable[[], Awaitable[trio.abc.Stream]],
    *,
    max_message_bytes: int,
    timeout_s: float,
) -> AsyncIterator[WebSocket]:
    """The client's side, with `dial` to open the stream. Raises what `dial` raises (`OSError`, trio's stream errors),
    `WebSocketClosed` for a refused or broken handshake, `trio.TooSlowError` after `timeout_s` for both together."""
    deadline = trio.current_time() + timeout_s
    with trio.fail_at(deadline):
        stream = await dial()

    async def handshake(nursery: Any, watched: trio.abc.Stream) -> trio_websocket.WebSocketConnection:
        return await trio_websocket.wrap_client_stream(
            nursery,
            watched,  # type: ignore[arg-type]  # declared for sockets, uses nothing but trio.abc.Stream
            url.authority,
            url.path,
            max_message_size=max_message_bytes,
        )

    async with _run(stream, handshake, deadline) as websocket:
        yield websocket


# ------------------------------------------------------------------------------------------------------------- helpers

_Handshake = Callable[[Any, trio.abc.Stream], Awaitable[trio_websocket.WebSocketConnection]]


@asynccontextmanager
@uninterrupted
async def _run(stream: trio.abc.Stream, handshake: _Handshake, deadline: float) -> AsyncIterator[WebSocket]:
    """The stream is closed at the end in every case."""
    pump = _Pump(stream, handshake)
    try:
        async with open_background_nursery() as nursery:
            with trio.fail_at(deadline):
                connection = await nursery.start(pump.run)
            yield WebSocket(connection, pump)
    finally:
        await trio.aclose_forcefully(stream)


@uninterrupted
class _Pump:
    """The task that owns the library's reader, so that nothing the library raises reaches anybody else."""

    def __init__(self, stream: trio.abc.Stream, handshake: _Handshake) -> None:
        self.stream = stream
        self._stream = _Watched(stream)
        self._handshake = handshake
        self._failure: Exception | None = None

    @property
    def is_mid_frame(self) -> bool:
        return self._stream.is_mid_frame

    async def run(self, task_status: trio.TaskStatus[trio_websocket.WebSocketConnection]) -> None:
        is_open = False
        try:
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as opening:
                    self._stream.on_end = opening.cancel
                    connection = await self._handshake(TheirNursery(nursery), self._stream)
                self._stream.on_end = None
                if opening.cancelled_caught:
                    raise trio.BrokenResourceError("closed during the opening handshake")
                is_open = True
                task_status.started(connection)
        except Exception as error:
            if not is_open:
                raise _refused(error) or WebSocketClosed(ABNORMAL_CLOSURE, _describe(error)) from error
            self._failure = error  # whoever receives or sends next hears of it

    def closed(self, error: trio_websocket.ConnectionClosed) -> WebSocketClosed:
        if error.reason is not None and self._failure is None:
            text = error.reason.reason or _WITHOUT_REASON.get(error.reason.code, error.reason.name)
            return WebSocketClosed(error.reason.code, text)
        return WebSocketClosed(ABNORMAL_CLOSURE, _describe(self._failure or error))


class _Watched(trio.abc.Stream):
    """A stream that calls `on_end` when nothing more will come out of it."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self.on_end: Callable[[], None] | None = None
        self.is_mid_frame = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""
        try:
            data = await self._inner.receive_some(max_bytes)
        finally:
            if not data:
                self._end()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # so far nothing went out: a close frame may still follow
        self.is_mid_frame = True
        await self._inner.send_all(data)
        self.is_mid_frame = False

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._end()
        await self._inner.aclose()

    def _end(self) -> None:
        if self.on_end is not None:
            self.on_end()


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _refused(error: BaseException) -> WebSocketRefused | None:
    """The refusal behind what the library raised, if it is one."""
    error = _innermost(error)
    if not isinstance(error, trio_websocket.ConnectionRejected):
        return None
    told = dict(error.headers).get(b"retry-after", b"")
    seconds = (
        float(told) if told.isdigit() and len(told) <= 6 else None
    )  # or a date, which nobody sends who counts in seconds
    return WebSocketRefused(error.status_code, seconds)


def _describe(error: BaseException) -> str:
    """The innermost useful text of what the library raised."""
    error = _innermost(error)
    if isinstance(error, trio_websocket.ConnectionClosed):
        return "the connection broke"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
