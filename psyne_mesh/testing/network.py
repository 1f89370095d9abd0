"""A network in memory with everything that goes wrong in real ones: what users put under their rooms in tests.

It carries datagrams between hosts in Trio time, so under `trio.testing.MockClock(autojump_threshold=0)` minutes pass in
milliseconds. All dice of the network come from one seed; for those of Trio and of the system
see `seeded_scheduling` and `seeded_randomness`.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import attrs
import trio

from psyne_mesh.config import StunServer, WebRTCConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.webrtc.ice import DatagramSocket
from psyne_mesh.webrtc.ice.library import stun

Address = tuple[str, int]
NatKind = Literal["none", "full-cone", "address", "port", "symmetric"]

BATCH_MAX = 64  # as the real sockets hand over
HOSTS_MAX = 250  # one public address each, of a /24
INBOX_MAX = 4096  # datagrams a host's socket holds, about what 4 MiB of kernel buffer do; then new ones are lost
DATAGRAM_BYTES_MIN = 548  # UDP payload of the smallest packet that every IPv4 host takes (RFC 791 section 3.1)
STUN_ADDRESS: Address = ("203.0.113.1", 3478)  # TEST-NET-3 of RFC 5737
STUN_OTHER_ADDRESS: Address = ("203.0.113.2", 3479)  # the server's second address and port (RFC 5780 section 6)
_STUN_OTHER_HOST = {STUN_ADDRESS[0]: STUN_OTHER_ADDRESS[0], STUN_OTHER_ADDRESS[0]: STUN_ADDRESS[0]}
_STUN_OTHER_PORT = {STUN_ADDRESS[1]: STUN_OTHER_ADDRESS[1], STUN_OTHER_ADDRESS[1]: STUN_ADDRESS[1]}
_PUBLIC = "198.51.100."  # TEST-NET-2
_PRIVATE = "10.0."


def _within(high: float, unit: str) -> Any:
    def check(quality: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
            raise InvalidConfig(f"Quality.{attribute.name} = {value!r}: must lie in [0, {high:g}], {unit}")

    return check


_SECONDS = _within(3600, "in seconds")  # a guess: no path is an hour long, many a one was given in milliseconds
_SHARE = _within(1, "a probability: 0.3 is 30 %")


def _bytes_per_s(quality: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise InvalidConfig(
            f"Quality.bytes_per_s = {value!r}: must be more than 0, in bytes a second, or None for no limit"
        )


def _bytes_max(quality: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < DATAGRAM_BYTES_MIN):
        raise InvalidConfig(
            f"Quality.{attribute.name} = {value!r}: must be {DATAGRAM_BYTES_MIN} at least, in bytes of UDP payload, or None"
        )


@attrs.frozen(kw_only=True)
class Quality:
    """One direction of a path. Times in seconds, probabilities from 0 to 1; the defaults are a home network.

    jitter_s: each datagram takes up to so much longer. reorder: so many are overtaken by those behind them.
    bytes_per_s: None is without limit; a slower path queues for `queue_s` and then loses.
    datagram_bytes_max: larger ones are lost without a word, as on a path with a small MTU behind a firewall without ICMP.
    """

    latency_s: float = attrs.field(default=0.01, validator=_SECONDS)
    jitter_s: float = attrs.field(default=0.0, validator=_SECONDS)
    loss: float = attrs.field(default=0.0, validator=_SHARE)
    duplicate: float = attrs.field(default=0.0, validator=_SHARE)
    reorder: float = attrs.field(default=0.0, validator=_SHARE)
    bytes_per_s: float | None = attrs.field(default=None, validator=_bytes_per_s)
    queue_s: float = attrs.field(default=0.5, validator=_SECONDS)
    datagram_bytes_max: int | None = attrs.field(default=None, validator=_bytes_max)


def check_nat(nat: object) -> None:
    if nat not in get_args(NatKind):
        raise InvalidConfig(f"nat = {nat!r}: must be one of {', '.join(get_args(NatKind))}")


def _check_quality(quality: object) -> None:
    if not isinstance(quality, Quality):
        raise InvalidConfig(f"quality = {quality!r}: must be a Quality, such as Quality(loss=0.3)")


class VirtualNetwork:
    """1. `async with open_network(seed=1) as net`; 2. `net.host("ada")` for each player; 3. give `host.sockets` and
    `host.config` to `join_game_room`; 4. change `quality`, `partition`, `crash`, `pause` while they play.

    A path's quality is the one set for the pair, else `net.quality`.
    """

    def __init__(self, seed: int = 0, quality: Quality | None = None) -> None:
        self.quality = Quality() if quality is None else quality
        self.sent = self.delivered = self.lost = 0
        self._rng = random.Random(seed)
        self._hosts: dict[str, VirtualHost] = {}
        self._outside: dict[str, VirtualHost] = {}  # by public address, the dead ones too
        self._pairs: dict[tuple[str, str], Quality] = {}
        self._cuts: list[frozenset[tuple[str, str]]] = []
        self._without_signaling: list[frozenset[str]] = []
        self._busy_until: dict[tuple[str, str], float] = {}
        self._due: list[tuple[float, int, Address, Address, bytes]] = []
        self._number = 0
        self._wake = trio.Event()

    @property
    def quality(self) -> Quality:
        """Of every path without one of its own. Raises `InvalidConfig` for anything but a `Quality`."""
        return self._quality

    @quality.setter
    def quality(self, quality: Quality) -> None:
        _check_quality(quality)
        self._quality = quality

    def host(self, name: str, *, nat: NatKind = "none") -> VirtualHost:
        """A new machine, with an address of its own; the name may be that of one which crashed. Behind a NAT its candidates
        are found through the network's own STUN server."""
        check_nat(nat)
        if name in self._hosts and not self._hosts[name].is_dead:
            raise InvalidConfig(f"there is a host {name!r} already")
        number = len(self._outside) + 1
        if number > HOSTS_MAX:
            raise InvalidConfig(f"a virtual network has at most {HOSTS_MAX} hosts, the crashed ones included")
        host = self._hosts[name] = VirtualHost(self, name, f"{_PUBLIC}{number}", f"{_PRIVATE}{number}.2", nat)
        self._outside[host.public] = host
        return host

    def named(self, name: str) -> VirtualHost:
        """Who has that name now."""
        if name not in self._hosts:
            hosts = ", ".join(sorted(self._hosts)) or "none yet"
            raise InvalidConfig(f"there is no host {name!r}: join it first; hosts: {hosts}")
        return self._hosts[name]

    def set_quality(self, one: str, other: str, quality: Quality, *, both_ways: bool = True) -> None:
        """The path from `one` to `other` has a quality of its own."""
        _check_quality(quality)
        for pair in ((one, other), (other, one)) if both_ways else ((one, other),):
            self._check(*pair)
            self._pairs[pair] = quality

    @contextmanager
    def partition(self, *groups: Iterable[str], signaling: bool | Iterable[str] = True) -> Iterator[None]:
        """Nothing passes between the groups while the block lasts; who is in no group talks to all. Partitions may
        overlap and nest.

        signaling: who in the groups still reaches the signaling server, which bridges partitions: all (True), nobody
        (False), or those with these names, such as one of the groups.
        """
        parts = [list(group) for group in groups]
        pairs = [
            (a, b) for i, one in enumerate(parts) for j, other in enumerate(parts) if i != j for a in one for b in other
        ]
        everybody = {name for part in parts for name in part}
        reaching = (everybody if signaling else set()) if isinstance(signaling, bool) else set(signaling)
        self._check(*reaching)
        with self.cut(*pairs), self.cut_signaling(*everybody - reaching):
            yield

    @contextmanager
    def cut(self, *pairs: tuple[str, str]) -> Iterator[None]:
        """Nothing passes from the first to the second of each pair while the block lasts: one-way faults."""
        for pair in pairs:
            self._check(*pair)
        cut = frozenset(pairs)
        self._cuts.append(cut)
        try:
            yield
        finally:
            self._cuts.remove(cut)

    @contextmanager
    def cut_signaling(self, *names: str) -> Iterator[None]:
        """These hosts do not reach the signaling server while the block lasts, and it not them; see `VirtualHost`."""
        self._check(*names)
        cut = frozenset(names)
        self._without_signaling.append(cut)
        self._notify(cut)
        try:
            yield
        finally:
            self._without_signaling.remove(cut)
            self._notify(cut)

    def reaches_signaling(self, name: str) -> bool:
        return not any(name in cut for cut in self._without_signaling)

    def _notify(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            self._hosts[name].tell_watchers()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carries the datagrams; owned by `open_network`."""
        task_status.started()
        while True:
            now = trio.current_time()
            while self._due and self._due[0][0] <= now:
                _, _, source, destination, data = heapq.heappop(self._due)
                self._arrive(data, source, destination)
            self._wake = trio.Event()
            with trio.move_on_at(self._due[0][0] if self._due else math.inf):
                await self._wake.wait()

    # ------------------------------------------------------------------------------------------------------- carrying

    def carry(self, sender: VirtualHost, data: bytes, source: Address, destination: Address) -> None:
        """Called by a socket: decides the fate of one datagram."""
        self.sent += 1
        if destination[0] in _STUN_OTHER_HOST and destination[1] in _STUN_OTHER_PORT:
            self._answer_stun(data, source, destination)
            return
        receiver = self._outside.get(destination[0])
        if receiver is None or any((sender.name, receiver.name) in cut for cut in self._cuts):
            self.lost += 1
            return
        quality = self._pairs.get((sender.name, receiver.name), self._quality)
        rng = self._rng
        too_large = quality.datagram_bytes_max is not None and len(data) > quality.datagram_bytes_max
        if rng.random() < quality.loss or too_large:
            self.lost += 1
            return
        delay = self._queueing(sender, receiver, quality, len(data))
        if delay is None:
            self.lost += 1
            return
        delay += quality.latency_s + rng.random() * quality.jitter_s + sender.slowness_s + receiver.slowness_s
        if rng.random() < quality.reorder:
            delay += max(quality.latency_s, 0.001) * (0.5 + rng.random())
        self._schedule(delay, source, destination, data)
        if rng.random() < quality.duplicate:
            self._schedule(delay + rng.random() * max(quality.latency_s, 0.001), source, destination, data)

    def _queueing(self, sender: VirtualHost, receiver: VirtualHost, quality: Quality, size: int) -> float | None:
        if quality.bytes_per_s is None:
            return 0.0
        pair, now = (sender.name, receiver.name), trio.current_time()
        begins = max(now, self._busy_until.get(pair, now))
        if begins - now > quality.queue_s:
            return None
        self._busy_until[pair] = begins + size / quality.bytes_per_s
        return self._busy_until[pair] - now

    def _schedule(self, delay: float, source: Address, destination: Address, data: bytes) -> None:
        self._number += 1
        heapq.heappush(self._due, (trio.current_time() + delay, self._number, source, destination, data))
        self._wake.set()

    def _arrive(self, data: bytes, source: Address, destination: Address) -> None:
        host = self._outside.get(destination[0])
        if host is not None and host.arrive(data, source, destination):
            self.delivered += 1
        else:
            self.lost += 1

    def _answer_stun(self, data: bytes, source: Address, asked: Address) -> None:
        try:
            request = stun.parse_message(data)
        except ValueError:
            return
        other = (_STUN_OTHER_HOST[asked[0]], _STUN_OTHER_PORT[asked[1]])
        change = request.attributes.get("CHANGE-REQUEST", 0)
        answering = (other[0] if change & 0x04 else asked[0], other[1] if change & 0x02 else asked[1])
        answer = stun.Message(
            message_method=request.message_method,
            message_class=stun.Class.RESPONSE,
            transaction_id=request.transaction_id,
        )
        answer.attributes["XOR-MAPPED-ADDRESS"] = source
        answer.attributes["OTHER-ADDRESS"] = other
        self._schedule(self.quality.latency_s, answering, source, bytes(answer))

    def _check(self, *names: str) -> None:
        for name in names:
            self.named(name)


HEADERS_BYTES = 28  # IPv4 20 (RFC 791 section 3.1), UDP 8 (RFC 768)


class VirtualHost:
    """One machine on the network, perhaps behind a NAT of its own. Made by `VirtualNetwork.host`.

    A `World` carries its signaling, too: each way as late as the network's default latency and the host's slowness say. While
    the host does not reach the server everything waits; after 30 s, or a second after a peer was missed, the client counts
    the connection as lost and the server after 30 s, and it connects anew when it can: what real ones do.

    bytes_sent: what it uploaded so far, with IP and UDP headers (28 bytes a datagram); what is lost on the way is counted.
    """

    def __init__(self, network: VirtualNetwork, name: str, public: str, private: str, nat: NatKind) -> None:
        self.name = name
        self.public = public
        self.nat = nat
        self.bytes_sent = 0
        self.slowness_s = 0.0  # a slow machine: everything from and to it takes so much longer
        self._network = network
        self._inside = public if nat == "none" else private
        self._sockets: dict[int, VirtualSocket] = {}
        self._outer_ports: dict[tuple[Address, Address | None], int] = {}
        self._mapped: dict[int, Address] = {}  # outside port to inside address
        self._permitted: dict[int, set[Address]] = {}
        self._next_port = 40_000
        self.is_dead = False
        self._held: deque[tuple[bytes, Address, Address]] | None = None
        self._pauses = 0
        self._watchers: list[Callable[[], None]] = []

    @property
    def config(self) -> WebRTCConfig:
        """For `join_game_room`: IPv4 only, and the network's STUN server for those behind a NAT."""
        stun_servers = () if self.nat == "none" else (StunServer(*STUN_ADDRESS),)
        return WebRTCConfig(bind_host=self._inside, use_ipv6=False, include_loopback=False, stun_servers=stun_servers)

    def sockets(self, config: WebRTCConfig) -> Sequence[DatagramSocket]:
        """A `SocketFactory`, for `join_game_room(sockets=host.sockets)`."""
        self._next_port += 1
        socket = self._sockets[self._next_port] = VirtualSocket(self, (self._inside, self._next_port))
        return [socket]

    def crash(self) -> None:
        """The machine is gone without a word; it does not come back, but another may take its name."""
        self.is_dead = True
        self.tell_watchers()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """The machine's network stands still while the block lasts (a lid closed, a long garbage collection), the way to
        the signaling server included; what came meanwhile arrives afterwards. Pauses may overlap."""
        if self._held is None:
            self._held = deque(maxlen=INBOX_MAX)
        self._pauses += 1
        self.tell_watchers()
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses:
                self._go_on()

    def _go_on(self) -> None:
        held, self._held = self._held or (), None
        self.tell_watchers()
        for data, source, destination in held:
            self.arrive(data, source, destination)

    def rebind(self) -> None:
        """The NAT forgets: the next packets go out from other ports, and old ones no longer reach us."""
        self._outer_ports.clear()
        self._mapped.clear()
        self._permitted.clear()

    # ----------------------------------------------------------------------------------------- for the signaling client

    @property
    def reaches_signaling(self) -> bool:
        return not self.is_dead and self._held is None and self._network.reaches_signaling(self.name)

    @property
    def signaling_latency_s(self) -> float:
        return self._network.quality.latency_s + self.slowness_s

    @contextmanager
    def watched(self, callback: Callable[[], None]) -> Iterator[None]:
        """`callback()` whenever `reaches_signaling` may have changed."""
        self._watchers.append(callback)
        try:
            yield
        finally:
            self._watchers.remove(callback)

    def tell_watchers(self) -> None:
        for callback in list(self._watchers):
            callback()

    # -------------------------------------------------------------------------------------------------- for the sockets

    def send(self, data: bytes, source: Address, destination: Address) -> None:
        if not self.is_dead and self._held is None:
            self.bytes_sent += len(data) + HEADERS_BYTES
            self._network.carry(self, data, self._outer(source, destination), destination)

    def _outer(self, source: Address, destination: Address) -> Address:
        if self.nat == "none":
            return source
        key = (source, destination if self.nat == "symmetric" else None)
        port = self._outer_ports.get(key)
        if port is None:
            self._next_port += 1
            port = self._outer_ports[key] = self._next_port
            self._mapped[port] = source
        self._permitted.setdefault(port, set()).add(destination)
        return self.public, port

    def arrive(self, data: bytes, source: Address, destination: Address) -> bool:
        if self.is_dead:
            return False
        if self._held is not None:
            self._held.append((data, source, destination))
            return True
        inside = destination if self.nat == "none" else self._admitted(source, destination[1])
        socket = None if inside is None else self._sockets.get(inside[1])
        return socket is not None and socket.put(data, source)

    def _admitted(self, source: Address, port: int) -> Address | None:
        permitted = self._permitted.get(port, set())
        if self.nat in ("port", "symmetric") and source not in permitted:
            return None
        if self.nat == "address" and source[0] not in {host for host, _ in permitted}:
            return None
        return self._mapped.get(port)


class VirtualSocket:
    """A `DatagramSocket` on a virtual host."""

    def __init__(self, host: VirtualHost, address: Address) -> None:
        self.address = address
        self._host = host
        self._inbox: deque[tuple[bytes, Address]] = deque()
        self._readable = trio.Event()
        self._closed = False

    def put(self, data: bytes, source: Address) -> bool:
        if self._closed or len(self._inbox) >= INBOX_MAX:
            return False
        self._inbox.append((data, source))
        self._readable.set()
        return True

    def receive_batch(self) -> list[tuple[bytes, Address]]:
        batch = [self._inbox.popleft() for _ in range(min(BATCH_MAX, len(self._inbox)))]
        if not self._inbox and not self._closed:
            self._readable = trio.Event()
        return batch

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            if self._closed:
                raise trio.ClosedResourceError
            await self._readable.wait()

    def send_batch(self, datagrams: Sequence[bytes], address: Address) -> int:
        for data in datagrams:
            self._host.send(bytes(data), self.address, (address[0], address[1]))
        return len(datagrams)

    def close(self) -> None:
        self._closed = True
        self._readable.set()
