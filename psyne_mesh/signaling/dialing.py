"""Where a signaling server is, the way there, and how a connection to it may end. WebSocket itself is loaded by who dials."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import trio

from psyne_mesh.errors import InvalidUri
from psyne_mesh.frozen import Frozen
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.streams import open_tcp

ABNORMAL_CLOSURE = 1006  # RFC 6455 section 7.4.1: no close frame came
_DIAL_S = 3.5  # TCP repeats its SYN after 1, 3, 7, 15 s: a new attempt finds a network sooner that is back


class WebSocketClosed(Exception):
    """The connection is over. `code` and `reason` are those of the close frame, or 1006 and what broke."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason or 'closed'} (code {code})")
        self.code = code
        self.reason = reason


class WebSocketRefused(WebSocketClosed):
    """The server answered the upgrade with an HTTP status. `retry_after_s`: when it says that we may come back, if it does."""

    def __init__(self, status: int, retry_after_s: float | None) -> None:
        super().__init__(ABNORMAL_CLOSURE, f"the server answered the WebSocket request with HTTP status {status}")
        self.status = status
        self.retry_after_s = retry_after_s


class WebSocketUrl(Frozen):
    host: str
    port: int
    path: str
    secure: bool

    @classmethod
    def parse(cls, url: str) -> WebSocketUrl:
        """`ws://host[:port][/path]` or `wss://...`; `InvalidUri` for anything else."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InvalidUri(f"{url!r}: {error}") from error
        if parts.scheme not in ("ws", "wss") or not host:
            raise InvalidUri(f"{url!r}: a signaling server is ws://host[:port][/path] or wss://...")
        secure = parts.scheme == "wss"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(host, port or (443 if secure else 80), path, secure)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@uninterrupted
async def dial_tcp(url: WebSocketUrl, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    """TCP, and TLS for `wss`. `ssl_context=None`: the system's certificate authorities. Raises `InvalidUri` for a host that
    no name service can be asked for."""
    with trio.fail_after(_DIAL_S):
        try:
            tcp = await open_tcp(url.host, url.port)
        except UnicodeError as error:  # such as a label over 63 characters or none between two dots
            raise InvalidUri(f"{url.host!r} cannot be the name of a host: {error}") from error
    if not url.secure:
        return tcp
    context = ssl_context or ssl.create_default_context()
    stream = trio.SSLStream(tcp, context, server_hostname=url.host, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream
