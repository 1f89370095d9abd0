"""What one endpoint has towards the network: its sockets, the asyncio loop for aioice, and the candidates gathered."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, Protocol, TypeVar, cast

import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.interrupts import protected, uninterrupted
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.webrtc.ice.candidates import Found
from psyne_mesh.webrtc.ice.events import Address, CandidateKind, Path
from psyne_mesh.webrtc.ice.gather import ReflexiveSource, RelaySource, Source
from psyne_mesh.webrtc.ice.interfaces import (
    Interface,
    host_addresses,
    lasting_addresses,
    list_interfaces,
    watch_addresses,
)
from psyne_mesh.webrtc.ice.loop import open_loop
from psyne_mesh.webrtc.ice.names import NameResolver
from psyne_mesh.webrtc.ice.port import Base, UdpPort
from psyne_mesh.webrtc.ice.rate_limit import QuotaLimit
from psyne_mesh.webrtc.ice.turn import Relay
from psyne_mesh.webrtc.ice.udp import DatagramSocket, SocketFactory, open_udp_socket

T = TypeVar("T")

WILDCARDS = ("0.0.0.0", "::")
LOOPBACK_PREFERENCE = 256  # and below: every other address comes first


class Subscriber(Protocol):
    """A transport that wants to hear of candidates."""

    def candidate_found(self, found: Found, base: Base) -> None: ...

    def gathering_completed(self) -> None: ...

    def base_lost(self, base: Base) -> None: ...


@uninterrupted
class IceGateway:
    """Shared by all peers of an endpoint; made by `open_gateway`.

    found: local candidates with their bases, the same for every peer.
    gathered: nothing more will be found for now.
    problems: what is wrong with a STUN or TURN server, by its URI.
    on_network_change: called when this machine got or lost an address, with True when one is gone. The gateway has looked
        for candidates again by itself; what stands needs an ICE restart to use them.
    refused: TURN servers that answered and refused, and why, by URI; on_refused is called with both, once for each cause.
    faults, last_fault: bugs that a datagram set off in aioice or here, by type of exception; the gateway survived them.
    """

    def __init__(
        self,
        config: WebRTCConfig,
        sockets: Sequence[DatagramSocket],
        loop: asyncio.AbstractEventLoop,
        interfaces: Callable[[], list[Interface]],
    ) -> None:
        self.config = config
        self.loop = loop
        self.names = NameResolver()
        self.found: list[tuple[Found, Base]] = []
        self.gathered = False
        self.faults: Counter[str] = Counter()
        self.last_fault: Exception | None = None
        self.problems: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.on_refused: list[Callable[[str, str], None]] = []
        self._refusal_codes: dict[str, int] = {}
        self.on_network_change: list[Callable[[bool], None]] = []
        self.port = UdpPort(sockets, call_soon=loop.call_soon, fault=self._fault, clock=trio.current_time)
        self._interfaces = interfaces
        self._subscribers: list[Subscriber] = []
        self._hosts: set[Address] = set()
        self._relays: dict[Base, Relay] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sources: list[Source] = []
        self._again = trio.Event()
        self._look_at_interfaces()

    async def run_in_loop(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Run an asyncio coroutine function in the loop and wait for it."""
        result = await cast(Any, self.loop).run_aio_coroutine(function(*args))
        return cast(T, result)

    async def close_in_loop(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The same for a `close`, which has nothing left to do when the loop has ended first."""
        if not self.loop.is_closed():
            with suppress(asyncio.CancelledError):
                await self.run_in_loop(close)

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)

    def regather(self) -> None:
        """Look at the interfaces again and ask the servers again: a restart usually has its reason in a change of
        network. `gathered` is false until they have answered."""
        self._look_at_interfaces()
        if self.gathered:
            self._ask_again()

    async def watch(self) -> None:
        """Sockets of all interfaces follow this machine from network to network; others stay where they were bound."""
        if any(base.address[0] in WILDCARDS for base in self.port.bases):
            await watch_addresses(lambda: lasting_addresses(self._interfaces(), self.config), self._network_changed)

    def _network_changed(self, gone: bool) -> None:
        self._look_at_interfaces()
        self._ask_again()  # a question that is under way went out of the old network
        for tell in list(self.on_network_change):
            tell(gone)

    def _ask_again(self) -> None:
        self.gathered = False
        for source in self._sources:
            source.settled.set()  # whoever waits for the old answer looks again
            source.again()
        self._again.set()

    def _look_at_interfaces(self) -> None:
        known = {found.address for found, _ in self.found if found.kind == "host"}
        hosts = self._host_candidates()
        self._hosts = {found.address for found, _ in hosts}
        for found, base in hosts:
            if found.address not in known:
                self._add(found, base)
        self.found = [item for item in self.found if item[0].kind != "host" or item[0].address in self._hosts]

    def identify(self, base: Base, mapped: Address | None) -> tuple[Address, CandidateKind]:
        """What a peer sees of us on `base`: the address, and how we learnt of it."""
        if base.kind == "relay":
            return base.address, "relay"
        if mapped is None:
            mapped = next((found.address for found, b in self.found if b is base), base.address)
        if mapped in self._hosts:
            return mapped, "host"
        return mapped, "srflx" if any(found.address == mapped for found, _ in self.found) else "prflx"

    def relay_protocol(self, base: Base) -> Literal["udp", "tcp", "tls"] | None:
        relay = self._relays.get(base)
        return None if relay is None else relay.protocol

    def quota_of(self, path: Path) -> QuotaLimit | None:
        """What the relay on `path` allows: ours to all peers reached over it together, the peer's to each who sends there.
        The peer's is taken for one of those configured here, as players of one game have the same."""
        if path.local_kind == "relay":
            return next((relay.quota for relay in self._relays.values() if relay.address == path.local), None)
        quotas = [server.max_bytes_per_s for server in self.config.turn_servers if server.max_bytes_per_s is not None]
        if path.remote_kind == "relay" and quotas:
            return QuotaLimit(min(quotas), trio.current_time())
        return None

    async def gather(self, tls: Callable[[], ssl.SSLContext]) -> None:
        """Ask all servers at the same time, and keep what they gave for as long as the endpoint is open.

        A dead server costs nobody time: host candidates are out already, and the end of gathering waits for it no
        longer than `ice_gathering_timeout_s`.
        """
        config = self.config
        sources = self._sources
        if not config.relay_only:
            pairs = [(base, server) for server in config.stun_servers for base in self.port.bases]
            sources += [ReflexiveSource(self, base, server, rank) for rank, (base, server) in enumerate(pairs)]
        sources += [RelaySource(self, server, rank, tls) for rank, server in enumerate(config.turn_servers)]
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(source.run)
            while True:
                with trio.move_on_after(config.ice_gathering_timeout_s):
                    for source in sources:
                        await source.settled.wait()
                if self._again.is_set():  # meanwhile the network changed
                    self._again = trio.Event()
                    continue
                self.gathered = True
                for subscriber in list(self._subscribers):
                    subscriber.gathering_completed()
                await self._again.wait()
                self._again = trio.Event()

    def replace(self, previous: Found | None, found: Found, base: Base) -> None:
        """An address that a server saw; it takes the place of what the same server saw before."""
        self.found = [item for item in self.found if previous is None or item[0] != previous]
        if all(found.address != known.address for known, _ in self.found):
            self._add(found, base)

    def note_refusal(self, server: str, code: int, reason: str) -> None:
        """It answered: a wrong credential or a full server is for a human to mend, as silence is not."""
        self.problems[server] = self.refused[server] = reason
        if self._refusal_codes.get(server) != code:
            self._refusal_codes[server] = code
            for tell in list(self.on_refused):
                tell(server, reason)

    def clear_problem(self, server: str) -> None:
        """It serves us now."""
        self.problems.pop(server, None)
        self.refused.pop(server, None)
        self._refusal_codes.pop(server, None)

    def add_relay(self, found: Found, relay: Relay) -> None:
        self._relays[relay] = relay
        self._add(found, relay)

    def drop_base(self, base: Base) -> None:
        """A relay is gone: no new peer hears of it, and paths over it end."""
        if self._relays.pop(base, None) is None:
            return
        self.found = [item for item in self.found if item[1] is not base]
        for subscriber in list(self._subscribers):
            subscriber.base_lost(base)
        self.port.remove_base(base)

    def spawn_in_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)

    def _add(self, found: Found, base: Base) -> None:
        self.found.append((found, base))
        for subscriber in list(self._subscribers):
            subscriber.candidate_found(found, base)

    def _host_candidates(self) -> list[tuple[Found, Base]]:
        offered = host_addresses(self._interfaces(), self.config)
        found: list[tuple[Found, Base]] = []
        for base in self.port.bases:
            host, number = base.address
            hosts = [h for h in offered if (":" in h) == (":" in host)] if host in WILDCARDS else [host]
            found += [(Found("host", (h, number), (h, number), _preference(h, offered)), base) for h in hosts]
        return sorted(found, key=lambda item: -item[0].preference)

    def _fault(self, error: Exception) -> None:
        self.faults[type(error).__name__] += 1
        self.last_fault = error

    def loop_fault(self, loop: object, context: dict[str, Any]) -> None:
        """In the place of trio-asyncio's handler, which ends the loop and with it every peer."""
        error = context.get("exception")
        self._fault(error if isinstance(error, Exception) else RuntimeError(str(context.get("message"))))


@asynccontextmanager
@uninterrupted
async def open_gateway(
    config: WebRTCConfig,
    *,
    sockets: SocketFactory | None = None,
    interfaces: Callable[[], list[Interface]] = list_interfaces,
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
) -> AsyncGenerator[IceGateway, None]:
    """Open the UDP ports and the loop, gather in the background, and close everything at the end.

    tls: makes the context for TURN servers over TLS; by default they need a certificate that the system trusts.

    Raises `InvalidConfig` when the sockets cannot be opened as configured.
    """
    opened = (sockets or open_sockets)(config)
    try:
        with unwrapped():
            async with open_loop() as loop:
                gateway = IceGateway(config, opened, loop, interfaces)
                loop.set_exception_handler(gateway.loop_fault)
                async with trio.open_nursery() as draining:
                    draining.start_soon(protected, gateway.port.run)
                    # Inside the other, so that the answers to the last requests of this one still come in.
                    async with trio.open_nursery() as gathering:
                        gathering.start_soon(gateway.gather, tls)
                        gathering.start_soon(gateway.watch)
                        try:
                            yield gateway
                        finally:
                            with trio.CancelScope(shield=True):  # a moment: there is nothing to wait for outside
                                await gateway.close_in_loop(gateway.names.close)
                        gathering.cancel_scope.cancel()
                    draining.cancel_scope.cancel()
    finally:
        for one in opened:
            one.close()


def open_sockets(config: WebRTCConfig) -> list[DatagramSocket]:
    """One real socket for each address family in use, on the same port number when that is free.

    With `interfaces` it is one for each of their addresses instead: a socket of all interfaces would send over whichever
    the routes choose.
    """
    hosts = [*config.use_ipv4 * WILDCARDS[:1], *config.use_ipv6 * WILDCARDS[1:]]
    if config.bind_host:
        hosts = [config.bind_host]
    elif config.interfaces is not None:
        hosts = host_addresses(list_interfaces(), config)
    opened: list[DatagramSocket] = []
    problem = "no address family"
    for host in hosts:
        port = opened[0].address[1] if opened else 0
        try:
            opened.append(open_udp_socket(host, config.port_range, port=port))
        except (InvalidConfig, OSError) as error:  # a machine without IPv6, say: the other family is enough
            problem = str(error)
    if not opened:
        raise InvalidConfig(f"cannot open a UDP socket: {problem}")
    return opened


def _preference(host: str, offered: list[str]) -> int:
    rank = offered.index(host) if host in offered else 0
    if host == "::1" or host.startswith("127."):
        return LOOPBACK_PREFERENCE - rank
    return 65_535 - rank
