"""`psyne-mesh serve`: a signaling server until interrupted."""

from __future__ import annotations

import ssl

import trio
from rich.console import Console

from psyne_mesh.errors import InvalidConfig, SignalingError
from psyne_mesh.signaling.backplane import Backplane
from psyne_mesh.signaling.server import open_server


async def run_serve(host: str, port: int, certificate: str | None, key: str | None, redis: str | None) -> None:
    console = Console()
    context = None
    if certificate or key:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(certificate or "", key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidConfig(f"the TLS certificate or key cannot be used: {error}") from error
    try:
        async with open_server(host, port, ssl_context=context, backplane=_backplane(redis)) as server:
            console.print(
                f"signaling on [bold]{server.url}[/bold]   stats: {_http(server.url)}/stats   Ctrl-C stops it"
            )
            await trio.sleep_forever()
    except OSError as error:
        raise SignalingError(f"cannot listen on {host}:{port}: {error.strerror or error}; try --port 0") from error
    except KeyboardInterrupt:
        console.print("stopped")


def _backplane(redis: str | None) -> Backplane | None:
    if redis is None:
        return None
    try:
        from psyne_mesh.signaling.redis_backplane import RedisBackplane
    except ImportError as error:
        raise InvalidConfig("--redis needs the redis extra: pip install 'psyne-mesh[redis]'") from error
    return RedisBackplane(redis)


def _http(url: str) -> str:
    """The same port speaks HTTP."""
    return "http" + url.removeprefix("ws").rstrip("/")
