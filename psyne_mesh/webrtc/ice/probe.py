"""What this machine's network can do for a game: addresses, servers, NATs, sockets. Asked once, for `psyne-mesh doctor`."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable
from typing import Final, Literal

import attrs
import trio

from psyne_mesh.config import StunServer, TurnServer, WebRTCConfig
from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.streams import open_tcp
from psyne_mesh.webrtc.ice.behaviour import REFUSALS, NatBehaviour, find_behaviour
from psyne_mesh.webrtc.ice.candidates import Found
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.gateway import WILDCARDS, open_gateway
from psyne_mesh.webrtc.ice.inquiry import Answer, inquire, open_inquiry_port
from psyne_mesh.webrtc.ice.interfaces import Interface, host_addresses, list_interfaces
from psyne_mesh.webrtc.ice.port import Base, SocketBase, UdpPort
from psyne_mesh.webrtc.ice.stun_client import family_of, resolve
from psyne_mesh.webrtc.ice.udp import BUFFER_BYTES, SocketFactory, UdpSocket

NAME_S: Final = 3.0  # for the resolver

TlsContext = Callable[[], ssl.SSLContext]


@attrs.frozen(kw_only=True)
class ServerReport:
    """One STUN or TURN server.

    took_ms: a STUN round trip; for TURN from the first packet to the allocation. mapped: our addresses as it sees them.
    relay: what it allocated. udp: whether a Binding answer came over UDP (None: it was not asked over UDP).
    problem: why it is of no use, None when it works.
    """

    uri: str
    kind: Literal["stun", "turn"]
    transport: Literal["udp", "tcp", "tls"]
    took_ms: float | None = None
    mapped: tuple[Address, ...] = ()
    relay: Address | None = None
    udp: bool | None = None
    problem: str | None = None


@attrs.frozen(kw_only=True)
class SocketReport:
    """What the kernel gave one UDP socket. Buffers in bytes; `gro` and `gso` are UDP_GRO and UDP_SEGMENT of Linux."""

    receive_buffer: int
    send_buffer: int
    wanted_buffer: int
    gro: bool
    gso: bool


@attrs.frozen(kw_only=True)
class NetworkReport:
    """interfaces: every address of this machine by interface. host_candidates: those that peers are told.

    udp: whether any UDP answer came from a server; None when none could be asked. ipv4, ipv6: the NATs before us, None for
    a family in which no server answered.
    """

    interfaces: tuple[Interface, ...]
    host_candidates: tuple[str, ...]
    servers: tuple[ServerReport, ...]
    udp: bool | None
    ipv4: NatBehaviour | None
    ipv6: NatBehaviour | None
    socket: SocketReport


async def probe_network(
    config: WebRTCConfig,
    *,
    sockets: SocketFactory | None = None,
    interfaces: Callable[[], list[Interface]] = list_interfaces,
    tls: TlsContext = ssl.create_default_context,
) -> NetworkReport:
    """Ask all servers of `config` at the same time, then those that answered about the NATs: 1 to 10 s in all.

    Raises `InvalidConfig` when no socket can be opened as configured; everything else is in the report.
    """
    own = interfaces()
    survey = _Survey(config, sockets)
    relays: list[ServerReport] = [
        ServerReport(uri=uri_of(s), kind="turn", transport=s.transport) for s in config.turn_servers
    ]

    async def ask_relay(number: int, server: TurnServer) -> None:
        relays[number] = await _probe_turn(server, config, sockets, tls)

    async with open_inquiry_port(config, sockets) as port, trio.open_nursery() as nursery:
        for number, server in enumerate(config.turn_servers):
            nursery.start_soon(ask_relay, number, server)
        await survey.ask_all(port)
        await survey.find_behaviours(port)
    turn = [
        attrs.evolve(report, udp=survey.answered(_stun_of(server))) if report.transport == "udp" else report
        for report, server in zip(relays, config.turn_servers)
    ]
    bound = config.bind_host
    return NetworkReport(
        interfaces=tuple(own),
        host_candidates=tuple(host_addresses(own, config)) if bound in (None, *WILDCARDS) else (str(bound),),
        servers=(*(survey.report(server) for server in config.stun_servers), *turn),
        udp=survey.udp,
        ipv4=survey.behaviours.get(socket.AF_INET),
        ipv6=survey.behaviours.get(socket.AF_INET6),
        socket=inspect_socket(),
    )


def uri_of(server: StunServer | TurnServer) -> str:
    host = f"[{server.host}]" if ":" in server.host else server.host
    if isinstance(server, StunServer):
        return f"stun:{host}:{server.port}"
    scheme, transport = ("turns", "tcp") if server.transport == "tls" else ("turn", server.transport)
    return f"{scheme}:{host}:{server.port}?transport={transport}"


def inspect_socket() -> SocketReport:
    """Open a socket as an endpoint does, and look at it. Raises `InvalidConfig` when UDP cannot be had at all."""
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        raw.bind(("", 0))
    except OSError as error:
        raise InvalidConfig(f"cannot open a UDP socket: {error}") from error
    one = UdpSocket(raw)
    share = 2 if sys.platform == "linux" else 1  # socket(7): Linux tells the double, for its own bookkeeping
    report = SocketReport(
        receive_buffer=raw.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // share,
        send_buffer=raw.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // share,
        wanted_buffer=BUFFER_BYTES,
        gro=one.gro,
        gso=one.gso,
    )
    one.close()
    return report


# ------------------------------------------------------------------------------------------------------------ over STUN


class _Survey:
    """What the servers answer to Binding requests, by server; TURN servers over UDP are STUN servers, too.

    1. `ask_all(port)`; 2. `find_behaviours(port)`; 3. `report(server)`, `answers`, `behaviours`.
    """

    def __init__(self, config: WebRTCConfig, sockets: SocketFactory | None) -> None:
        self._config = config
        self._sockets = sockets
        relays = [_stun_of(server) for server in config.turn_servers if server.transport == "udp"]
        self._servers = list(dict.fromkeys((*config.stun_servers, *relays)))
        self.answers: dict[StunServer, list[tuple[SocketBase, Answer]]] = {server: [] for server in self._servers}
        self.behaviours: dict[int, NatBehaviour] = {}
        self._problems: dict[StunServer, str] = {}
        self._asked: set[StunServer] = set()  # those with an address to ask
        self._refused = False  # one answered, with a refusal

    @property
    def udp(self) -> bool | None:
        """Whether UDP carries there and back; None when nothing shows it, as a name that nobody knows does not."""
        return bool(self._refused or any(self.answers.values())) if self._asked else None

    def answered(self, server: StunServer) -> bool:
        return bool(self.answers[server])

    async def ask_all(self, port: UdpPort) -> None:
        async with trio.open_nursery() as nursery:
            for server in self._servers:
                nursery.start_soon(self._ask_one, port, server)

    async def _ask_one(self, port: UdpPort, server: StunServer) -> None:
        places: list[tuple[SocketBase, Address]] = []
        with trio.move_on_after(NAME_S):
            for base in port.bases:
                address = await resolve(server.host, server.port, family_of(base.address[0]))
                places += [(base, address)] if address is not None else []
        if not places:
            self._problems[server] = "its name is not known to the resolver, or has no address of our families"
            return
        self._asked.add(server)
        self._problems[server] = "no answer over UDP"
        async with trio.open_nursery() as nursery:
            for base, address in places:
                nursery.start_soon(self._ask_from, port, base, address, server)

    async def _ask_from(self, port: UdpPort, base: SocketBase, address: Address, server: StunServer) -> None:
        try:
            answer = await inquire(port, base, address)
        except REFUSALS as error:
            self._problems[server] = str(error)
            self._refused = self._refused or isinstance(error, ProtocolError)
            return
        if answer is not None:
            self.answers[server].append((base, answer))

    async def find_behaviours(self, port: UdpPort) -> None:
        async with trio.open_nursery() as nursery:
            for family in (socket.AF_INET, socket.AF_INET6):
                nursery.start_soon(self._find_behaviour, port, family)

    async def _find_behaviour(self, port: UdpPort, family: int) -> None:
        for base in port.bases:
            here = [answer for found in self.answers.values() for b, answer in found if b is base]
            if here and family_of(base.address[0]) == family and family not in self.behaviours:
                found = await find_behaviour(port, base, here, self._config, self._sockets)
                self.behaviours[family] = found

    def report(self, server: StunServer) -> ServerReport:
        answers = [answer for _, answer in self.answers[server]]
        return ServerReport(
            uri=uri_of(server),
            kind="stun",
            transport="udp",
            took_ms=_ms(min(answer.rtt_s for answer in answers)) if answers else None,
            mapped=tuple(answer.mapped for answer in answers),
            udp=bool(answers),
            problem=None if answers else self._problems[server],
        )


def _stun_of(server: TurnServer) -> StunServer:
    return StunServer(server.host, server.port)


# ------------------------------------------------------------------------------------------------------------ over TURN


async def _probe_turn(
    server: TurnServer, config: WebRTCConfig, sockets: SocketFactory | None, tls: TlsContext
) -> ServerReport:
    report = ServerReport(uri=uri_of(server), kind="turn", transport=server.transport)
    if server.transport != "udp":
        problem = await _stream_problem(server, config.ice_gathering_timeout_s, tls)
        if problem is not None:
            return attrs.evolve(report, problem=problem)
    alone = attrs.evolve(config, stun_servers=(), turn_servers=(server,), port_range=None)
    began = trio.current_time()
    async with open_gateway(alone, sockets=sockets, tls=tls) as gateway:
        watch = _Watch()
        gateway.subscribe(watch)
        if not gateway.gathered:
            await watch.over.wait()
        if watch.relay is not None:
            mapped = tuple(found.address for found, _ in gateway.found if found.kind == "srflx")
            took_ms = _ms(watch.relay_at - began)
            return attrs.evolve(report, took_ms=took_ms, mapped=mapped, relay=watch.relay.address)
        problem = next(iter(gateway.problems.values()), "no answer")
    return attrs.evolve(report, problem=problem)


class _Watch:
    """A `Subscriber` that waits for the relay, or for the end of gathering."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.relay: Found | None = None
        self.relay_at = 0.0

    def candidate_found(self, found: Found, base: Base) -> None:
        if found.kind == "relay":
            self.relay = found
            self.relay_at = trio.current_time()

    def gathering_completed(self) -> None:
        self.over.set()

    def base_lost(self, base: Base) -> None:
        pass


async def _stream_problem(server: TurnServer, patience_s: float, tls: TlsContext) -> str | None:
    """Connect once without asking for anything, since TCP and TLS say why they fail, and TURN over them cannot."""
    with trio.move_on_after(patience_s):
        try:
            stream: trio.abc.Stream = await open_tcp(server.host, server.port)
        except (OSError, UnicodeError) as error:  # Trio takes fewer names than a resolver may
            return f"TCP: {_innermost(error)}"
        try:
            if server.transport == "tls":
                secure = trio.SSLStream(stream, tls(), server_hostname=server.host, https_compatible=True)
                await secure.do_handshake()
        except trio.BrokenResourceError as error:
            return f"TLS: {_innermost(error)}"
        finally:
            await trio.aclose_forcefully(stream)
        return None
    return f"TCP: no answer within {patience_s:g} s"


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)
