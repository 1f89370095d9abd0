"""TCP under a game: what it does for a file transfer is wrong for us when the network changes."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Any, Final

import trio

from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.nurseries import unwrapped

# struct linger: on, for 0 seconds. Windows has two 16-bit fields where the others have two ints.
_LINGER_NOT: Final = struct.pack("HH" if sys.platform == "win32" else "ii", 1, 0)


# What every path carries (RFC 9293 section 3.7.1). Where a tunnel drops larger packets and ICMP is blocked, TCP stalls: no
# system looks for such black holes by default. Seven per cent of overhead, on rungs that are the last resort.
_SEGMENT_BYTES: Final = {socket.AF_INET: 536, socket.AF_INET6: 1220}
_NEXT_ADDRESS_S: Final = 0.25  # before the next address of a name is tried beside the last (RFC 8305 section 5)


@uninterrupted
async def open_tcp(host: str, port: int) -> trio.SocketStream:
    """`trio.open_tcp_stream`, with segments both ways that pass wherever IP does. Raises `OSError`, and `UnicodeError` for what
    is no host name."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    winners: list[trio.socket.SocketType] = []
    errors: list[OSError] = []

    async def attempt(family: int, address: tuple[Any, ...], failed: trio.Event) -> None:
        one = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            _limit_segments(one, family)
            await one.connect(address)
            winners.append(one)
            attempts.cancel_scope.cancel()
        except OSError as error:
            errors.append(error)
        finally:
            if one not in winners:
                one.close()
            failed.set()

    with unwrapped():
        async with trio.open_nursery() as attempts:
            for family, _, _, _, address in found:
                failed = trio.Event()
                attempts.start_soon(attempt, family, address, failed)
                with trio.move_on_after(_NEXT_ADDRESS_S):
                    await failed.wait()
    if not winners:
        raise OSError(f"no address of {host!r} could be reached: {errors[0]}") from errors[0]
    for other in winners[1:]:
        other.close()
    return trio.SocketStream(winners[0])


def _limit_segments(one: trio.socket.SocketType, family: int) -> None:
    """Before connecting: the peer is told, too."""
    try:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES[socket.AddressFamily(family)])
    except (OSError, AttributeError):  # Windows knows no such option
        return


def forget_unsent(stream: trio.abc.Stream) -> None:
    """Before closing a stream that has stalled: else the kernel goes on repeating for minutes what it holds, and it arrives
    after the break."""
    tcp = _tcp_under(stream)
    if tcp is not None:
        try:
            tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        except OSError:
            return  # it is closed


def has_lost_its_address(stream: trio.abc.Stream) -> bool:
    """The address that the stream was opened from is no longer one of this machine, or no longer the one that leads to its
    peer (a tunnel has taken the route): nothing will come of it any more."""
    tcp = _tcp_under(stream)
    if tcp is None:
        return False
    try:
        host, _, *scope = tcp.socket.getsockname()
        with socket.socket(tcp.socket.family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0, *scope))
        with socket.socket(tcp.socket.family, socket.SOCK_DGRAM) as probe:
            probe.connect(tcp.socket.getpeername())  # sends nothing
            return bool(probe.getsockname()[0] != host)
    except OSError as error:
        return error.errno == errno.EADDRNOTAVAIL


def _tcp_under(stream: trio.abc.Stream) -> trio.SocketStream | None:
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream if isinstance(stream, trio.SocketStream) else None
