"""The listening sockets of a server, and how many descriptors it has for them."""

from __future__ import annotations

import errno
import math
import sys
from collections.abc import Awaitable, Callable

import trio

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.signaling.sparse_log import SparseLog

_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_REST_S = 0.1  # then some connection has ended, perhaps


async def listen(host: str, port: int) -> list[trio.SocketListener]:
    """On every address of `host`; port 0 takes one free port on the first."""
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except UnicodeError as error:  # such as a label over 63 characters or none between two dots
        raise InvalidConfig(f"cannot listen on {host!r}, which cannot be the name of a host: {error}") from error
    if port == 0:  # a name with several addresses would get as many ports
        for spare in listeners[1:]:
            await spare.aclose()
        del listeners[1:]
    return listeners


@uninterrupted
async def accept_forever(
    listener: trio.SocketListener,
    handle: Callable[[trio.SocketStream], Awaitable[None]],
    nursery: trio.Nursery,
    log: SparseLog,
) -> None:
    """One task of `nursery` for each connection."""
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                log.say("accept", f"no connection can be accepted at the moment: {error}")
                await trio.sleep(_REST_S)
            else:
                nursery.start_soon(handle, stream)


def descriptors() -> float:
    """How many files and sockets this process may have open."""
    if sys.platform == "win32":
        return math.inf  # sockets are no files there, and have no such limit
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def raise_descriptors(wanted: int) -> None:
    """As many as `wanted`, or as this process may allow itself. For a program that is a server and nothing else."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
