"""The first bytes of a connection: a WebSocket upgrade, or a plain HTTP request that gets one page and goodbye."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import h11
import trio

_HEAD_MAX_BYTES = 16_384  # what h11 allows as well; browsers send 1-2 KiB
_READ_BYTES = 4_096


@attrs.frozen
class Page:
    status: int
    body: bytes
    content_type: str = "application/json"


class Replay(trio.abc.Stream):
    """A stream of which some bytes were read already: they come first, again."""

    def __init__(self, inner: trio.abc.Stream, head: bytes) -> None:
        self._inner = inner
        self._head = head

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._head:
            return await self._inner.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        end = len(self._head) if max_bytes is None else max_bytes
        data, self._head = self._head[:end], self._head[end:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def receive_guest(
    stream: trio.abc.Stream, page: Callable[[str], Page], refusal: str | None = None
) -> trio.abc.Stream | None:
    """The stream to run a WebSocket on, or None when the guest wanted a page (it has it) or was not understood.

    `page(target)` makes the page for a request target such as "/rooms?app_id=chess". With a `refusal` every request is
    answered by it, with status 503. The caller bounds the time.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_MAX_BYTES)
    read = b""
    try:
        while not isinstance(event := connection.next_event(), h11.Request):
            if event is not h11.NEED_DATA:
                return None
            data = bytes(await stream.receive_some(_READ_BYTES))
            read += data
            connection.receive_data(data)
    except h11.RemoteProtocolError as error:
        answer = Page(error.error_status_hint, b"not a request that is understood here\n", "text/plain")
        await _answer(stream, connection, answer, with_body=True)
        return None
    if _wants_websocket(event) and refusal is None:
        return Replay(stream, read)
    if refusal is not None:
        answer = Page(503, refusal.encode() + b"\n", "text/plain")
    elif event.method not in (b"GET", b"HEAD"):
        answer = Page(405, b"GET is all there is\n", "text/plain")
    else:
        answer = page(event.target.decode("ascii"))
    await _answer(stream, connection, answer, with_body=event.method != b"HEAD")
    return None


def _wants_websocket(request: h11.Request) -> bool:
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in request.headers)


async def _answer(stream: trio.abc.Stream, connection: h11.Connection, page: Page, *, with_body: bool) -> None:
    head = h11.Response(
        status_code=page.status,
        headers=[
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(page.body))),
            ("Access-Control-Allow-Origin", "*"),  # nothing here depends on who asks: a game's web page may show it
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ],
    )
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    data = connection.send(head) or b""
    if with_body:
        data += connection.send(h11.Data(data=page.body)) or b""
    await stream.send_all(data)
