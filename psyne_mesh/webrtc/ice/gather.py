"""Candidates that servers give us: one long-lived source for each server, none of which another waits for."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from psyne_mesh.config import StunServer, TurnServer
from psyne_mesh.errors import ProtocolError
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.streams import forget_unsent, open_tcp
from psyne_mesh.webrtc.ice.candidates import Found
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.library import stun
from psyne_mesh.webrtc.ice.port import SocketBase
from psyne_mesh.webrtc.ice.rate_limit import QuotaLimit
from psyne_mesh.webrtc.ice.stun_client import ask_mapped_address, family_of, resolve, source_towards
from psyne_mesh.webrtc.ice.turn import CHANNEL_REFRESH_S, LIFETIME_S, Relay, is_mismatch
from psyne_mesh.webrtc.ice.turn_link import Link, StreamLink, UdpLink

if TYPE_CHECKING:
    from psyne_mesh.webrtc.ice.gateway import IceGateway

KEEPALIVE_S: Final = 20.0  # NATs forget a UDP mapping after 30 s at the earliest (RFC 4787 REQ-5 asks for 2 minutes)
ANSWER_S: Final = 2.0  # for a keepalive
SILENT_MAX: Final = 3  # keepalives without answer before a TURN server counts as dead
SOON_S: Final = 0.2  # before an allocation that was lost is made anew; doubles while they do not last
LASTING_S: Final = 10.0  # an allocation that stood for so long was no accident: a guess, half of `KEEPALIVE_S`
CONNECT_S: Final = 3.5  # TCP repeats its SYN after 1, 3, 7, 15 s: a new attempt finds a network sooner that is back
RETRY_INITIAL_S: Final = 2.0  # after a server failed; doubles
RETRY_MAX_S: Final = 60.0
UNAUTHORIZED: Final = 401  # RFC 8489 section 14.8
_REFUSALS: Final = {  # RFC 8656 section 19, and what its owner can do
    486: "a quota is used up: of allocations (user-quota, total-quota of coturn) or of bandwidth (bps-capacity)",
    508: "it has no port left (min-port to max-port of coturn)",
}
RELEASE_S: Final = 0.5  # the longest that freeing an allocation may hold up the end of the endpoint
PREFERENCE_STEP: Final = {"udp": 65_535, "tcp": 40_000, "tls": 20_000}  # among relays: the fewer layers the better

ServerErrors = (OSError, ConnectionError, ProtocolError, stun.TransactionError, trio.BrokenResourceError)


@uninterrupted
class Source:
    """What one server gives.

    settled: it has given what it can for now, or failed. `again()` makes it look once more: the network has changed.
    """

    def __init__(self, gateway: IceGateway) -> None:
        self.settled = trio.Event()
        self._gateway = gateway
        self._again = trio.Event()

    def again(self) -> None:
        self.settled = trio.Event()
        self._again.set()

    async def pause(self, seconds: float) -> bool:
        """Sleep; True when `again` ended it early."""
        with trio.move_on_after(seconds):
            await self._again.wait()
            self._again = trio.Event()
            return True
        return False

    async def run(self) -> None:
        raise NotImplementedError


@uninterrupted
class ReflexiveSource(Source):
    """Our address as one STUN server sees it, kept fresh: a later peer gets it without asking."""

    def __init__(self, gateway: IceGateway, base: SocketBase, server: StunServer, rank: int) -> None:
        super().__init__(gateway)
        self._base = base
        self._server = server
        self._preference = 65_535 - rank
        self._found: Found | None = None

    async def run(self) -> None:
        name = f"stun:{self._server.host}:{self._server.port}"
        while True:
            mapped: Address | None = None
            with trio.move_on_after(self._gateway.config.ice_gathering_timeout_s):
                mapped = await self._ask(name)
            if mapped is None:
                self._gateway.problems.setdefault(name, "no answer")
            self.settled.set()
            await self.pause(KEEPALIVE_S)

    async def _ask(self, name: str) -> Address | None:
        base = self._base
        server = await resolve(self._server.host, self._server.port, family_of(base.address[0]))
        if server is None:
            self._gateway.problems[name] = "its name has no address of this family"
            return None
        try:
            mapped = await ask_mapped_address(self._gateway.port, base, server)
        except ProtocolError as error:
            self._gateway.problems[name] = str(error)
            return None
        self._gateway.problems.pop(name, None)
        if self._found is None or self._found.address != mapped:
            previous = self._found
            here = source_towards(base.address, server)
            self._found = Found("srflx", mapped, here, self._preference, server=self._server.host)
            self._gateway.replace(previous, self._found, base)
        return mapped


@uninterrupted
class RelaySource(Source):
    """An allocation on one TURN server, made anew when it is lost."""

    def __init__(self, gateway: IceGateway, server: TurnServer, rank: int, tls: Callable[[], ssl.SSLContext]) -> None:
        super().__init__(gateway)
        self._server = server
        self._preference = PREFERENCE_STEP[server.transport] - 2 * rank
        self._tls = tls
        self._renewed_at = 0.0  # the allocation, as of the server's last word
        scheme = "turns" if server.transport == "tls" else "turn"
        self._name = f"{scheme}:{server.host}:{server.port}?transport={server.transport}"

    async def run(self) -> None:
        pause_s, soon_s = RETRY_INITIAL_S, SOON_S
        while True:
            began = trio.current_time()
            try:
                if await (self._over_udp() if self._server.transport == "udp" else self._over_stream()):
                    pause_s = RETRY_INITIAL_S
                    soon_s = SOON_S if trio.current_time() - began > LASTING_S else soon_s
                    await self.pause(soon_s)
                    soon_s = min(2 * soon_s, RETRY_MAX_S)
                    continue
            except ServerErrors as error:
                self._note(error)
            self.settled.set()
            await self.pause(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _note(self, error: Exception) -> None:
        reason = _explain(error, self._server)
        if isinstance(error, stun.TransactionFailed):
            self._gateway.note_refusal(self._name, error.response.attributes["ERROR-CODE"][0], reason)
        else:
            self._gateway.problems[self._name] = reason

    async def _over_udp(self) -> bool:
        for base in self._gateway.port.bases:
            server = await resolve(self._server.host, self._server.port, family_of(base.address[0]))
            if server is not None and server not in base.servers:
                return await self._serve(UdpLink(base, server), server, base)
        raise ProtocolError("its name has no address of our families, or it is listed twice")

    async def _over_stream(self) -> bool:
        host, port = self._server.host, self._server.port
        stream: trio.abc.Stream | None = None
        with trio.move_on_after(CONNECT_S):
            try:
                stream = await open_tcp(host, port)
            except UnicodeError as error:  # see `resolve`
                raise ProtocolError(f"its name is no host name: {error}") from error
        if stream is None:
            raise ProtocolError("no answer")
        if self._server.transport == "tls":
            stream = trio.SSLStream(stream, self._tls(), server_hostname=host, https_compatible=True)
        try:
            return await self._serve(StreamLink(stream), (host, port), None)
        finally:
            forget_unsent(stream)
            await trio.aclose_forcefully(stream)

    async def _serve(self, link: Link, server: Address, base: SocketBase | None) -> bool:
        """Allocate, offer the relay, and keep it until it is lost. True when it was there at all."""
        gateway = self._gateway
        most = self._server.max_bytes_per_s
        relay = Relay(
            gateway.port,
            link,
            server,
            username=self._server.username,
            credential=self._server.credential,
            protocol=self._server.transport,
            spawn=gateway.spawn_in_loop,
            call_soon=gateway.loop.call_soon,
            quota=None if most is None else QuotaLimit(most, trio.current_time()),
        )
        carrying = trio.CancelScope(shield=True)  # the stream outlives a cancellation until the allocation is freed
        patience = trio.move_on_after(gateway.config.ice_gathering_timeout_s)
        silence = ProtocolError("no answer")
        problem: Exception | None = silence
        async with open_background_nursery() as nursery:
            if base is not None:
                base.servers[server] = relay
            elif isinstance(link, StreamLink):
                nursery.start_soon(self._carry, link, relay, patience, carrying)
            try:
                with patience:
                    problem = await self._allocate(relay)
                if problem is None:
                    self._offer(relay, base)
                    nursery.start_soon(self._keep, relay)
                    await relay.lost.wait()
            finally:
                try:
                    await self._release(relay, base, server)
                finally:
                    ended = link.ended if isinstance(link, StreamLink) else ""
                    carrying.cancel()
        if problem is not None:
            raise ProtocolError(ended) if ended and problem is silence else problem
        return True

    async def _allocate(self, relay: Relay) -> Exception | None:
        try:
            await self._gateway.run_in_loop(relay.open)
        except ServerErrors as error:
            return error
        return None

    async def _carry(
        self, link: StreamLink, relay: Relay, patience: trio.CancelScope, carrying: trio.CancelScope
    ) -> None:
        with carrying:
            await link.run(relay.server_received)
            self._gateway.problems[self._name] = link.ended
        relay.lost.set()
        patience.cancel()

    def _offer(self, relay: Relay, base: SocketBase | None) -> None:
        gateway = self._gateway
        gateway.clear_problem(self._name)
        mapped = relay.mapped or relay.address
        gateway.add_relay(Found("relay", relay.address, mapped, self._preference, server=self._name), relay)
        if base is not None and relay.mapped is not None and not gateway.config.relay_only:
            here = source_towards(base.address, relay.client.server)
            gateway.replace(None, Found("srflx", relay.mapped, here, self._preference - 1, server=self._name), base)
        self.settled.set()

    async def _keep(self, relay: Relay) -> None:
        """Keep the allocation, the way to the server, and the channels bound; notice when it is dead or has begun anew."""
        self._renewed_at = trio.current_time()
        refresh_at = self._renewed_at + CHANNEL_REFRESH_S
        silent = 0
        while not relay.lost.is_set():
            asked = await self.pause(KEEPALIVE_S)
            silent = 0 if await self._is_alive(relay) else silent + 1
            if silent >= (1 if asked else SILENT_MAX):
                self._gateway.problems[self._name] = "it does not answer any more"
                relay.lost.set()
            if trio.current_time() >= self._renewed_at + LIFETIME_S:
                relay.lost.set()  # refused all along
            if relay.lost.is_set():
                return
            self.settled.set()
            if trio.current_time() >= refresh_at:
                refresh_at += CHANNEL_REFRESH_S
                await self._gateway.run_in_loop(relay.refresh)

    async def _is_alive(self, relay: Relay) -> bool:
        """Whether the server answers. It knows an allocation by where it comes from (RFC 8656 section 3.2): if ours has
        moved, or the server has begun anew, the allocation is lost. Refused otherwise, it lasts until its time is up."""
        with trio.move_on_after(ANSWER_S):
            error = await self._gateway.run_in_loop(relay.verify)
            if isinstance(error, stun.TransactionTimeout):
                return False
            if error is None:
                self._renewed_at = trio.current_time()
                self._gateway.clear_problem(self._name)
            elif is_mismatch(error):
                relay.lost.set()
            else:
                self._note(error)
            return True
        return False

    async def _release(self, relay: Relay, base: SocketBase | None, server: Address) -> None:
        self._gateway.drop_base(relay)
        with trio.move_on_after(RELEASE_S, shield=True):
            if relay.address[0] and not relay.lost.is_set():
                await self._gateway.close_in_loop(relay.close)
        if base is not None and base.servers.get(server) is relay:
            del base.servers[server]


def _explain(error: Exception, server: TurnServer) -> str:
    """What a user can do something about, in words of the configuration."""
    if not isinstance(error, stun.TransactionFailed):
        return str(error) or type(error).__name__
    code, words = error.response.attributes["ERROR-CODE"]
    words = words.rstrip("\0 ")  # coturn pads some
    if code in _REFUSALS:
        return f"it refuses an allocation: {_REFUSALS[code]} ({code} {words})"
    if code != UNAUTHORIZED:
        return f"it refuses an allocation: {code} {words}".strip()
    if not server.username:
        return "it wants a user name and a credential, and none are configured"
    # Time-limited credentials (draft-uberti-behave-turn-rest): the user name begins with the Unix time of their end.
    expires = server.username.partition(":")[0]
    if expires.isascii() and expires.isdigit() and len(expires) <= 12 and int(expires) <= time.time():
        return f"its time-limited credential has expired ({int(time.time()) - int(expires)} s ago): ask for a new one"
    return f"it refuses the user name {server.username!r} or its credential ({code} {words})"
