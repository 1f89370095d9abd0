"""`psyne-mesh serve`: a signaling server until interrupted."""

from __future__ import annotations

import signal
import ssl
from collections.abc import Iterable
from pathlib import Path

import trio
from rich.console import Console

from psyne_mesh.errors import InvalidConfig, SignalingError
from psyne_mesh.signaling.backplane import Backplane
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.listening import raise_descriptors
from psyne_mesh.signaling.server import SignalingServer, open_server

_DESCRIPTORS = 20_000  # for the clients that the server takes, and as many again who come and go


async def run_serve(
    host: str,
    port: int,
    certificate: str | None = None,
    key: str | None = None,
    redis: str | None = None,
    public_names: Iterable[str] = (),
    origins: Iterable[str] = (),
    shows_rooms: bool = False,
    web: Path | None = None,
    regions: Iterable[str] = (),
) -> None:
    console = Console()
    config = ServerConfig(
        public_names=frozenset(public_names),
        origins=frozenset(origins),
        shows_rooms=shows_rooms,
        web=web,
        regions=dict(_region(text) for text in regions),
    )
    context = None
    if certificate or key:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(certificate or "", key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidConfig(f"the TLS certificate or key cannot be used: {error}") from error
    raise_descriptors(_DESCRIPTORS)
    try:
        async with open_server(host, port, config=config, ssl_context=context, backplane=_backplane(redis)) as server:
            _introduce(console, server)
            await _wait_for_sigterm()
            console.print("told to stop: saying goodbye")
    except OSError as error:
        raise SignalingError(f"cannot listen on {host}:{port}: {error.strerror or error}; try --port 0") from error
    except KeyboardInterrupt:
        console.print("stopped")


def _region(text: str) -> tuple[str, str]:
    region, equals, server = text.partition("=")
    if not equals:
        raise InvalidConfig(f"--region {text!r}: must be NAME=STUN, such as us-west=stun.example:3478")
    return region, server


def _introduce(console: Console, server: SignalingServer) -> None:
    console.print(f"signaling on [bold]{server.url}[/bold]   stats: {_http(server.url)}/stats   Ctrl-C stops it")
    console.print(
        f"pages: {_http(server.url)}/{'' if server.config.web is not None else 'app/'}   invitations: .../r/CODE"
    )
    if server.host not in ("127.0.0.1", "::1") and not server.config.public_names:
        console.print(
            "players must dial an IP address of this machine; for a name, or an address in front of a NAT or a proxy, "
            "add --public-name NAME"
        )


async def _wait_for_sigterm() -> None:
    """What service managers and containers say before they kill. On Windows it never comes."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            return


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
