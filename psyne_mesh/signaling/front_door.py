"""The first bytes of a connection: a WebSocket upgrade, or a plain HTTP request that gets one page and goodbye."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs
import h11
import trio

_HEAD_MAX_BYTES = 16_384  # what h11 allows as well; browsers send 1-2 KiB
_READ_BYTES = 4_096
PAGE_BYTES_PER_S_MIN = 2**15  # of a phone at the edge of its cell; a guess
_END_OF_REQUEST = re.compile(rb"\n\r?\n")  # as h11 takes it


@attrs.frozen
class Request:
    """What a guest asks for. `target` is such as "/rooms?app_id=chess"; `origin` is of the web page that asks, if one does."""

    method: str
    target: str
    wants_websocket: bool
    origin: str | None
    host: str | None = None
    if_none_match: str | None = None


@attrs.frozen
class Page:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    cache: str = "no-store"


class Replay(trio.abc.Stream):
    """A stream of which some bytes were read already: they come first, again."""

    def __init__(self, inner: trio.abc.Stream, head: bytes) -> None:
        self._inner = inner
        self._head = head
        end = _END_OF_REQUEST.search(head)
        self.request_bytes = end.end() if end is not None else len(head)  # what follows are frames already

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
    stream: trio.abc.Stream, answer: Callable[[Request], Page | None], patience: trio.CancelScope | None = None
) -> Replay | None:
    """The stream to run a WebSocket on, or None when the guest got a page or was not understood.

    `answer(request)` makes the page; None lets a WebSocket in. The caller bounds the time; its scope, if given, is extended
    for a large page, which may come as slowly as `PAGE_BYTES_PER_S_MIN`.
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
        page = Page(error.error_status_hint, b"not a request that is understood here\n", "text/plain")
        await _answer(stream, connection, page, with_body=True)
        return None
    request = _request(event)
    page_or_none = answer(request)
    if page_or_none is None and request.wants_websocket:
        return Replay(stream, read)
    page = page_or_none or Page(404, b"nothing here\n", "text/plain")
    if request.method not in ("GET", "HEAD") and page.status < 400:
        page = Page(405, b"GET is all there is\n", "text/plain")
    if patience is not None:
        patience.deadline += len(page.body) / PAGE_BYTES_PER_S_MIN
    await _answer(stream, connection, page, with_body=request.method != "HEAD")
    return None


def _request(event: h11.Request) -> Request:
    headers = dict(event.headers)  # of several alike the last: who sends two origins means the last
    origin, host, known = (headers.get(name) for name in (b"origin", b"host", b"if-none-match"))
    return Request(
        event.method.decode("ascii"),
        event.target.decode("ascii"),
        headers.get(b"upgrade", b"").lower() == b"websocket",
        *(None if value is None else value.decode("latin-1") for value in (origin, host, known)),
    )


async def _answer(stream: trio.abc.Stream, connection: h11.Connection, page: Page, *, with_body: bool) -> None:
    head = h11.Response(
        status_code=page.status,
        headers=[
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(page.body))),
            ("Cache-Control", page.cache),
            ("Connection", "close"),
            *page.headers,
        ],
    )
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    data = connection.send(head) or b""
    if with_body:
        data += connection.send(h11.Data(data=page.body)) or b""
    await stream.send_all(data)
