"""Signaling servers joined by Redis channels. Needs the extra `psyne-mesh[redis]`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import coredis
import coredis.exceptions
import trio

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.nurseries import open_background_nursery, unwrapped
from psyne_mesh.signaling.backplane import BackplaneDown, BackplaneLink
from psyne_mesh.signaling.sparse_log import SparseLog

logger = logging.getLogger(__name__)

_DOWN = (coredis.exceptions.RedisError, OSError, trio.BrokenResourceError, trio.TooSlowError)
_PATIENCE_S = 2.0  # for one command; heartbeats go every second
_RETRY_S = 1.0
_INBOX_MAX = 10_000  # payloads that the server has not read; more are lost
_FAREWELL_S = 2.0  # for unsubscribing


class RedisBackplane:
    """`url` as in `redis://[user:password@]host:port/database`, `rediss://` for TLS. Servers with the same `prefix` are
    one cluster. Nothing is stored: rooms live in the servers, Redis only carries messages, and it may be restarted.
    Raises `InvalidConfig` for a URL of another form."""

    def __init__(self, url: str, *, prefix: str = "psyne-mesh") -> None:
        if not _is_redis_url(url):
            raise InvalidConfig(
                f"{_without_password(url)!r} names no Redis: redis://[user:password@]host[:port][/database], or rediss:// "
                f"for TLS"
            )
        self._url = url
        self._prefix = prefix

    @asynccontextmanager
    async def attach(self, me: str) -> AsyncIterator[BackplaneLink]:
        """Raises `BackplaneDown` when Redis does not answer now; later losses only make `publish` raise it."""
        link = _RedisLink(self._url, self._prefix, me)
        async with open_background_nursery() as nursery:
            await nursery.start(link.run)
            try:
                yield link
            finally:
                await link.leave()


@uninterrupted
class _RedisLink:
    def __init__(self, url: str, prefix: str, me: str) -> None:
        self._url = url
        self._prefix = prefix
        self._me = me
        self._client: coredis.Redis[bytes] | None = None
        self._arrived, self._inbox = trio.open_memory_channel[bytes](_INBOX_MAX)
        self._is_leaving = False
        self._listening = trio.CancelScope()
        self._log = SparseLog(logger)
        # coredis fails in its own clean-up when it is cancelled from outside, so it is not: `leave` ends it from inside.
        self._everything = trio.CancelScope()
        self._gone = trio.Event()

    async def publish(self, to: str | None, payload: bytes) -> None:
        if self._client is None:
            raise BackplaneDown("not connected to Redis at the moment")
        try:
            with trio.fail_after(_PATIENCE_S):
                await self._client.publish(self._channel(to), payload)
        except _DOWN as error:
            raise BackplaneDown(f"Redis does not answer: {error}") from error

    async def receive(self) -> bytes:
        return await self._inbox.receive()

    async def leave(self) -> None:
        self._is_leaving = True
        self._listening.cancel()
        with trio.move_on_after(_FAREWELL_S, shield=True):
            await self._gone.wait()
        self._everything.cancel()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        is_first = True

        def connected() -> None:
            nonlocal is_first
            if is_first:
                is_first = False
                task_status.started()
                self._everything.shield = True

        with self._everything:
            while not self._is_leaving:
                try:
                    await self._listen(connected)
                except Exception as error:
                    if is_first:
                        raise
                    self._log.say("lost", f"lost Redis, trying again: {error or type(error).__name__}")
                    await trio.sleep(0 if self._is_leaving else _RETRY_S)
                self._client = None
        self._gone.set()

    async def _listen(self, connected: Callable[[], None]) -> None:
        """While coredis keeps the connection, which it also renews by itself."""
        with unwrapped():
            async with coredis.Redis.from_url(self._url) as client:
                await self._check(client)
                channels = [self._channel(None), self._channel(self._me)]
                async with client.pubsub(channels=channels, ignore_subscribe_messages=True) as pubsub:
                    self._client = client
                    connected()
                    self._listening = trio.CancelScope()
                    with self._listening:
                        while not self._is_leaving:
                            message = await pubsub.get_message()
                            if message is not None and isinstance(message["data"], bytes):
                                self._put(message["data"])

    async def _check(self, client: coredis.Redis[bytes]) -> None:
        try:
            with trio.fail_after(_PATIENCE_S):
                await client.ping()
        except _DOWN as error:
            raise BackplaneDown(f"no Redis at {_without_password(self._url)}: {error}") from error

    def _channel(self, to: str | None) -> str:
        return f"{self._prefix}:all" if to is None else f"{self._prefix}:to:{to}"

    def _put(self, payload: bytes) -> None:
        try:
            self._arrived.send_nowait(payload)
        except trio.WouldBlock:
            self._log.say("slow", "a payload of the backplane was dropped: the server does not keep up")


def _is_redis_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return bool(parts.path)
        host = (parts.hostname or "").encode("idna")  # as the resolver will
        return parts.scheme in ("redis", "rediss") and bool(host) and parts.port != 0
    except ValueError:
        return False


def _without_password(url: str) -> str:
    before, _, server = url.rpartition("@")
    scheme, separator, _ = before.partition("://")
    return f"{scheme}{separator}{server}" if separator else server
