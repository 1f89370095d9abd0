"""TCP under a game: what it does for a file transfer is wrong for us when the network changes."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Final

import trio

# struct linger: on, for 0 seconds. Windows has two 16-bit fields where the others have two ints.
_LINGER_NOT: Final = struct.pack("HH" if sys.platform == "win32" else "ii", 1, 0)


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
    """The address that the stream was opened from is no longer one of this machine: nothing will come of it any more."""
    tcp = _tcp_under(stream)
    if tcp is None:
        return False
    try:
        host, _, *scope = tcp.socket.getsockname()
        with socket.socket(tcp.socket.family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0, *scope))
    except OSError as error:
        return error.errno == errno.EADDRNOTAVAIL
    return False


def _tcp_under(stream: trio.abc.Stream) -> trio.SocketStream | None:
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream if isinstance(stream, trio.SocketStream) else None
