"""One UDP socket: batches in, batches out, and no error of the network ever raised.

On Linux a batch is one system call: UDP_GRO hands over up to 64 datagrams of one sender at once, UDP_SEGMENT takes a
run of equal datagrams. Elsewhere, and where a kernel or device refuses, it is one call a datagram.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any, Final, Protocol

import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.webrtc.ice.events import Address

BATCH_MAX: Final = 64  # datagrams per wake, so that one busy socket cannot hold up the others
LONE_MAX: Final = 8  # wakes in a row that found one datagram alone, before the look for a second is left out
LONE_LOOK: Final = 8  # of those wakes one looks again, so a burst is noticed within as many
BUFFER_BYTES: Final = 4 * 2**20  # wanted for SO_RCVBUF and SO_SNDBUF: 40 ms at 100 MB/s; the kernel may grant less

# linux/udp.h and linux/in.h, as far as Python's socket module does not name them
SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23
PMTUDISC_PROBE: Final = 3  # set DF, and believe no ICMP about the path MTU: RFC 8899 probing decides
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33

SEGMENTS_MAX: Final = 64  # UDP_MAX_SEGMENTS of the older kernels
SEGMENTED_BYTES_MAX: Final = 65_507  # the largest UDP payload over IPv4
# Every path carries segments of this size (IPv6 minimum MTU 1280), so a refusal of them is about UDP_SEGMENT itself.
SEGMENT_BYTES_SAFE: Final = 1232

_GRO_SIZE: Final = struct.Struct("=i")
_SEGMENT_SIZE: Final = struct.Struct("=H")
_CONTROL_BYTES: Final = socket.CMSG_SPACE(_GRO_SIZE.size) if hasattr(socket, "CMSG_SPACE") else 0
_NO_OFFLOAD: Final = frozenset((errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EMSGSIZE))
_RECEIVE_ERRORS_MAX: Final = 64  # errors that the network left on the socket, skipped in one wake


class DatagramSocket(Protocol):
    """What the port needs of a socket; a virtual network can stand in for the kernel."""

    @property
    def address(self) -> Address:
        """The bound address; a wildcard host (0.0.0.0 or ::) stands for all interfaces."""
        ...

    def receive_batch(self) -> list[tuple[bytes, Address]]:
        """What has arrived, at most a bounded batch; empty when nothing has. Never blocks, never raises."""
        ...

    async def wait_readable(self) -> None:
        """Wait until `receive_batch` may return something. Raises `trio.ClosedResourceError` after `close`."""
        ...

    def send_batch(self, datagrams: Sequence[bytes], address: Address) -> int:
        """Send what the kernel takes and drop the rest; the number sent. Never blocks, never raises."""
        ...

    def close(self) -> None: ...


class SocketFactory(Protocol):
    """Opens the sockets of an endpoint. A socket bound to a wildcard address stands for all interfaces."""

    def __call__(self, config: WebRTCConfig) -> Sequence[DatagramSocket]: ...


class SocketStats:
    """Counters of one socket since it was opened. `errors` counts by errno; what was not sent is in `dropped`."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "datagrams_received",
        "datagrams_sent",
        "dropped",
        "errors",
        "receive_calls",
        "send_calls",
    )

    def __init__(self) -> None:
        self.bytes_received = 0
        self.bytes_sent = 0
        self.datagrams_received = 0
        self.datagrams_sent = 0
        self.dropped = 0
        self.receive_calls = 0
        self.send_calls = 0
        self.errors: dict[int, int] = {}

    def count_error(self, error: OSError) -> None:
        number = error.errno or 0
        self.errors[number] = self.errors.get(number, 0) + 1


class UdpSocket:
    """A real, non-blocking UDP socket.

    raw: a bound socket, which this object owns from now on.
    offload: try UDP_GRO and UDP_SEGMENT. What the platform refuses is switched off silently; `gro` and `gso` tell.
    """

    __slots__ = ("_buffer", "_control", "_lone", "_raw", "_view", "address", "gro", "gso", "stats")

    def __init__(self, raw: socket.socket, *, offload: bool = True) -> None:
        self._raw = raw
        raw.setblocking(False)
        host, number = raw.getsockname()[:2]
        self.address: Address = (host, number)
        self.stats = SocketStats()
        self._buffer = bytearray(65_536)
        self._view = memoryview(self._buffer)
        self._control: dict[int, list[tuple[int, int, bytes]]] = {}
        self._lone = 0  # wakes in a row that found one datagram
        _enlarge_buffers(raw)
        _forbid_fragmentation(raw)
        linux = sys.platform == "linux" and offload
        self.gro = linux and _set_option(raw, SOL_UDP, UDP_GRO, 1)
        # Setting 0 changes nothing and tells whether the kernel knows the option (4.18).
        self.gso = linux and _set_option(raw, SOL_UDP, UDP_SEGMENT, 0)

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self._raw)

    def receive_batch(self) -> list[tuple[bytes, Address]]:
        """Until nothing is left; but where datagrams come one by one, as in an idle or a chatting mesh, the call that would
        say so is mostly left out. What it would have found wakes us again."""
        batch: list[tuple[bytes, Address]] = []
        stats = self.stats
        errors = 0
        most = 1 if self._lone >= LONE_MAX and self._lone % LONE_LOOK else BATCH_MAX
        receive = self._receive_coalesced if self.gro else self._receive_one
        while len(batch) < most and errors < _RECEIVE_ERRORS_MAX:
            try:
                size = receive(batch)
            except BlockingIOError:
                break
            except OSError as error:
                # Windows reports an ICMP "port unreachable" as WSAECONNRESET here; other systems have their own.
                # None of them says anything about the next datagram.
                stats.count_error(error)
                errors += 1
                continue
            stats.receive_calls += 1
            stats.bytes_received += size
        stats.datagrams_received += len(batch)
        self._lone = self._lone + 1 if len(batch) == 1 else 0
        return batch

    def _receive_one(self, batch: list[tuple[bytes, Address]]) -> int:
        size, address = self._raw.recvfrom_into(self._buffer)
        batch.append((self._view[:size].tobytes(), address if len(address) == 2 else address[:2]))
        return size

    def _receive_coalesced(self, batch: list[tuple[bytes, Address]]) -> int:
        """One call, one or more datagrams: more only when the kernel says in a control message how long each is."""
        size, control, _, address = self._raw.recvmsg_into((self._buffer,), _CONTROL_BYTES)
        if len(address) != 2:
            address = address[:2]
        if control:
            segment = _GRO_SIZE.unpack_from(control[0][2])[0]
            if 0 < segment < size:
                data = self._view[:size].tobytes()
                batch += [(data[start : start + segment], address) for start in range(0, size, segment)]
                return size
        batch.append((self._view[:size].tobytes(), address))
        return size

    def send_batch(self, datagrams: Sequence[bytes], address: Address) -> int:
        count = len(datagrams)
        if count == 1:
            return self._send_one(datagrams[0], address)
        sent = start = 0
        while start < count:
            end = equal_size_run(datagrams, start) if self.gso else start + 1
            if end - start == 1:
                sent += self._send_one(datagrams[start], address)
            else:
                sent += self._send_run(datagrams[start:end], address)
            start = end
        return sent

    def _send_one(self, datagram: bytes, address: Address) -> int:
        stats = self.stats
        try:
            size = self._raw.sendto(datagram, address)
        except OSError as error:
            # A full buffer, no route, a refused port, a datagram over the MTU: with UDP all of them mean "lost".
            stats.count_error(error)
            stats.dropped += 1
            return 0
        stats.send_calls += 1
        stats.datagrams_sent += 1
        stats.bytes_sent += size
        return 1

    def _send_run(self, run: Sequence[bytes], address: Address) -> int:
        stats = self.stats
        size = len(run[0])
        try:
            total = self._raw.sendmsg(run, self._segment_control(size), 0, address)
        except OSError as error:
            stats.count_error(error)
            if error.errno not in _NO_OFFLOAD:
                stats.dropped += len(run)
                return 0
            # EIO: the device cannot checksum segments. The others may only say that these segments are too long.
            if error.errno == errno.EIO or size <= SEGMENT_BYTES_SAFE:
                self.gso = False
            return sum(self._send_one(datagram, address) for datagram in run)
        stats.send_calls += 1
        stats.datagrams_sent += len(run)
        stats.bytes_sent += total
        return len(run)

    def _segment_control(self, size: int) -> list[tuple[int, int, bytes]]:
        control = self._control.get(size)
        if control is None:
            if len(self._control) >= 256:  # sizes are the application's; start over rather than grow
                self._control.clear()
            control = self._control[size] = [(SOL_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(size))]
        return control

    def close(self) -> None:
        if self._raw.fileno() != -1:
            trio.lowlevel.notify_closing(self._raw)
            self._raw.close()


def equal_size_run(datagrams: Sequence[bytes], start: int) -> int:
    """Where the run that UDP_SEGMENT can take in one call ends: equal sizes, only the last may be shorter."""
    size = len(datagrams[start])
    if size == 0:
        return start + 1
    limit = min(len(datagrams), start + SEGMENTS_MAX, start + SEGMENTED_BYTES_MAX // size)
    end = start + 1
    while end < limit:
        length = len(datagrams[end])
        if length != size:
            return end + 1 if 0 < length < size else end
        end += 1
    return end


def open_udp_socket(
    host: str, port_range: tuple[int, int] | None = None, *, port: int = 0, offload: bool = True
) -> UdpSocket:
    """Bind `host` (a numeric address) to `port` if that is free, else to the first free port of `port_range`, else any.

    Raises `InvalidConfig` when the address is not ours or every port of the range is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    raw = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has its own socket
        _bind(raw, host, port, port_range)
        return UdpSocket(raw, offload=offload)
    except BaseException:
        raw.close()
        raise


def _bind(raw: socket.socket, host: str, port: int, port_range: tuple[int, int] | None) -> None:
    low, high = port_range or (0, 0)
    error: OSError | None = None
    for number in (*((port,) if port else ()), *range(low, high + 1)):
        try:
            raw.bind((host, number))
            return
        except OSError as refusal:
            error = refusal
            if refusal.errno not in (errno.EADDRINUSE, errno.EACCES):
                break
    where = f"a port in {low}-{high}" if port_range else "a UDP port"
    raise InvalidConfig(f"cannot bind {where} on {host}: {error}") from error


def _enlarge_buffers(raw: socket.socket) -> None:
    for option, forced in ((socket.SO_RCVBUF, SO_RCVBUFFORCE), (socket.SO_SNDBUF, SO_SNDBUFFORCE)):
        _set_option(raw, socket.SOL_SOCKET, option, BUFFER_BYTES)
        if sys.platform == "linux" and raw.getsockopt(socket.SOL_SOCKET, option) < BUFFER_BYTES:
            _set_option(raw, socket.SOL_SOCKET, forced, BUFFER_BYTES)  # needs CAP_NET_ADMIN


def _forbid_fragmentation(raw: socket.socket) -> None:
    """Set DF, so that path MTU discovery learns the truth instead of having its probes fragmented."""
    if sys.platform == "linux":
        _set_option(raw, socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        if raw.family == socket.AF_INET6:
            _set_option(raw, socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
    elif sys.platform == "win32":
        _set_option(raw, socket.IPPROTO_IP, 14, 1)  # IP_DONTFRAGMENT of ws2ipdef.h
    elif sys.platform == "darwin":
        _set_option(raw, socket.IPPROTO_IP, 28, 1)  # IP_DONTFRAG of netinet/in.h


def _set_option(raw: Any, level: int, option: int, value: int) -> bool:
    try:
        raw.setsockopt(level, option, value)
    except OSError:
        return False
    return True
