"""The signaling server: rooms and relaying on one port, for WebSockets and for a look with a browser.

It is not trusted by the players: offers are signed end to end, so all it can do is to refuse service.
"""

from __future__ import annotations

import logging
import math
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import parse_qs, urlsplit

import attrs
import msgspec
import trio

from psyne_mesh.blocks import async_block
from psyne_mesh.errors import CannotListen
from psyne_mesh.identity import PeerId
from psyne_mesh.in_trio import check_in_trio
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.limits import TokenBucket
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.audience import ANY, check_public_name, is_meant, split_authority
from psyne_mesh.signaling.backplane import Backplane
from psyne_mesh.signaling.cluster import ClusterSwitchboard, Dismissal
from psyne_mesh.signaling.cluster_member import ClusterMember
from psyne_mesh.signaling.convert import room_of
from psyne_mesh.signaling.dialing import WebSocketClosed
from psyne_mesh.signaling.doors import Doors, Entry, Standing, address_of
from psyne_mesh.signaling.front_door import Page, Request, receive_guest
from psyne_mesh.signaling.guest import Guest, Refused, prove, refusal
from psyne_mesh.signaling.joining import RoomQuery
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.listening import accept_forever, descriptors, listen
from psyne_mesh.signaling.metered import Metered
from psyne_mesh.signaling.server_stats import ServerStats, Tally
from psyne_mesh.signaling.site import Site
from psyne_mesh.signaling.sparse_log import SparseLog
from psyne_mesh.signaling.switchboard import Switchboard
from psyne_mesh.signaling.websocket import WebSocket, accept_websocket

DEFAULT_PORT = 8080  # psyne's own

_HOUSEKEEPING_S = 5.0
_TURNED_AWAY_S = 1.0  # for who is told to come back: its request, our answer
_FULL = "this server has as many guests as it can serve"
_HANGUPS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, WebSocketClosed)
_REASONS = {  # what others are told; every other end is "dropped"
    "left": "left",
    "lost": "lost",
    "closing": "lost",
    "timeout": "timeout",
    "superseded": "superseded",
}
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")  # pages that a developer serves to himself
logger = logging.getLogger(__name__)


@async_block(without_trio="psyne_mesh.sync.open_server")
async def open_server(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    config: ServerConfig | None = None,
    ssl_context: ssl.SSLContext | None = None,
    backplane: Backplane | None = None,
) -> AsyncIterator[SignalingServer]:
    """A server for as long as the block; port 0 takes any free one. Raises `CannotListen` if it cannot, and
    `InvalidConfig` if `host` is no name of a host.

    Clients must have dialled an address of this machine or one of `config.public_names`. With `ssl_context` (made for
    the server's side) it speaks `wss` and `https`. Leaving the block says goodbye to every client, within
    `config.grace_s`. With a `backplane` all servers on it are one: players meet wherever they connect; the goodbye to the
    others takes a second more at most. Raises `BackplaneDown` if it cannot be attached.
    """
    check_in_trio()
    server = SignalingServer(config or ServerConfig(), ssl_context, backplane)
    async with open_background_nursery() as nursery:
        await nursery.start(server._run, host, port)
        try:
            yield server
        finally:
            await server.stop()


@uninterrupted
async def serve(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    config: ServerConfig | None = None,
    ssl_context: ssl.SSLContext | None = None,
    backplane: Backplane | None = None,
    task_status: trio.TaskStatus[SignalingServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A server until cancelled, then the goodbyes. `await nursery.start(serve, host, port)` gives the running server."""
    async with open_server(host, port, config=config, ssl_context=ssl_context, backplane=backplane) as server:
        task_status.started(server)
        await trio.sleep_forever()


@uninterrupted
class SignalingServer:
    """Made by `open_server`: `url`, `host`, `port` and `stats` to look at, `kill` to see what happens without it."""

    def __init__(
        self, config: ServerConfig, ssl_context: ssl.SSLContext | None = None, backplane: Backplane | None = None
    ) -> None:
        self.config = config
        self.host = ""
        self.port = 0
        self._ssl_context = ssl_context
        self._backplane = backplane
        self._site = Site(config.web)
        self.wall_ms = _wall_ms  # told to clients, whose clocks may be wrong
        self._public_names = frozenset(map(check_public_name, config.public_names))
        self._switchboard = Switchboard(config.registry, config.churn, lambda now: self.wall_ms())
        self._cluster = ClusterSwitchboard(secrets.token_hex(8), self._switchboard) if backplane else None
        self._member: ClusterMember | None = None
        self._guests: dict[PeerId, Guest] = {}
        self._doors: Doors | None = None
        self._entries: dict[Entry, trio.CancelScope] = {}
        self._log = SparseLog(logger)
        self._tally = Tally()
        self._listening = trio.CancelScope()
        self._everything = trio.CancelScope()
        self._matching = trio.CancelScope()
        self._all_gone = trio.Event()

    @property
    def _desk(self) -> Switchboard | ClusterSwitchboard:
        return self._cluster or self._switchboard

    @property
    def url(self) -> str:
        """Where clients of this machine connect: `ws://host:port`."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        authority = f"[{host}]" if ":" in host else host
        return f"{'ws' if self._ssl_context is None else 'wss'}://{authority}:{self.port}"

    @property
    def stats(self) -> ServerStats:
        return self._tally.stats(len(self._guests), self._switchboard, self._cluster, self._member)

    async def _run(self, host: str, port: int, *, task_status: trio.TaskStatus[None]) -> None:
        """Listen and serve until `stop` or `kill`: whoever starts this calls one of them, cancelled or not."""
        with self._everything:
            async with self._in_cluster():
                try:
                    listeners = await listen(host, port)
                except OSError as error:
                    reason = error.strerror or error
                    raise CannotListen(
                        f"cannot listen on {host}:{port}: {reason}; port=0 takes any free one"
                    ) from error
                self.host, self.port = host, listeners[0].socket.getsockname()[1]
                self._public_names |= _own_names(host, self.port)
                self._tally.started_at = trio.current_time()
                task_status.started()
                self._everything.shield = True  # goodbyes are said when the block is cancelled, too
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.tend)
                    with self._listening:
                        async with trio.open_nursery() as accepting:
                            for listener in listeners:
                                accepting.start_soon(accept_forever, listener, self.handle, nursery, self._log)

    @asynccontextmanager
    async def _in_cluster(self) -> AsyncIterator[None]:
        if self._backplane is None or self._cluster is None:
            yield
            return
        async with self._backplane.attach(self._cluster.me) as link, open_background_nursery() as nursery:
            self._member = ClusterMember(self._cluster, link, self._deliver)
            await nursery.start(self._member.run)
            yield

    async def stop(self) -> None:
        """No new guests, a goodbye to those who are here, within `grace_s`, then to the other servers, and the end."""
        self._listening.cancel()
        self._all_gone = trio.Event()
        with trio.move_on_after(self.config.grace_s, shield=True):
            for guest in list(self._guests.values()):
                guest.dismiss(messages.GOING_AWAY, "the server is shutting down")
            if self._guests:
                await self._all_gone.wait()
        if self._member is not None:
            await self._member.leave()
        self._everything.cancel()

    def kill(self) -> None:
        """End at once, as a crash would: no goodbyes. For tests of what happens then."""
        self._everything.cancel()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """One connection, from the first byte to the last. Never raises: a bad guest disturbs nobody else."""
        self._tally.counts["connections"] += 1
        now = trio.current_time()
        self._doors = self._doors or Doors(self.config.doors, descriptors(), now)
        entry = self._doors.knock(_address_of(stream), now)
        for evicted in self._doors.take_evicted():
            self._tally.counts["slammed"] += 1
            self._entries[evicted].cancel()
        self._entries[entry] = trio.CancelScope()
        try:
            with self._entries[entry]:
                await self._receive(stream, entry)
        except _HANGUPS as error:
            logger.debug("a connection from %s ended: %s", entry.address, error)
        except Exception as error:  # noqa: BLE001 - told and counted; it must not end the other connections
            self._tally.counts["internal_errors"] += 1
            self._log.say("error", f"a connection from {entry.address} ended by an error of ours", error, logging.ERROR)
        finally:
            self._doors.left(entry)
            del self._entries[entry]
            await trio.aclose_forcefully(stream)

    async def _receive(self, stream: trio.abc.Stream, entry: Entry) -> None:
        if entry.standing is Standing.SLAMMED:
            self._tally.counts["slammed"] += 1
            return
        if entry.standing is Standing.TURNED_AWAY:
            self._tally.counts["turned_away"] += 1
        timeout_s = _TURNED_AWAY_S if entry.standing is Standing.TURNED_AWAY else self.config.hello_timeout_s
        local = _local_address(stream)
        with trio.fail_after(timeout_s):
            if self._ssl_context is not None:
                tls = trio.SSLStream(stream, self._ssl_context, server_side=True, https_compatible=True)
                await tls.do_handshake()
                stream = tls
        with trio.fail_after(timeout_s) as patience:
            upgraded = await receive_guest(stream, partial(self._answer, entry), patience)
        if upgraded is None:
            await stream.aclose()
            return
        limit = messages.MAX_FRAME_BYTES
        meter = TokenBucket(burst=self.config.burst, per_second=self.config.messages_per_s, now=trio.current_time())
        metered = Metered(upgraded, meter, entry.reading, skip=upgraded.request_bytes)
        async with accept_websocket(metered, max_message_bytes=limit, timeout_s=timeout_s) as websocket:
            await self._welcome(websocket, entry, meter, local)

    async def _welcome(
        self, websocket: WebSocket, entry: Entry, meter: TokenBucket, local: tuple[str, int] | None
    ) -> None:
        assert self._doors is not None
        try:
            with trio.fail_after(self.config.hello_timeout_s):
                peer, ref = await prove(websocket, lambda audience: is_meant(audience, self._public_names, local))
                if not self._doors.proved(entry, trio.current_time(), replaces=peer in self._guests):
                    raise await refusal(websocket, messages.FULL, _FULL, ref)  # others proved themselves faster
        except Refused as refused:
            self._tally.ends[refused.label] += 1
            await websocket.close(refused.code, str(refused))
            return
        self._tally.counts["hellos"] += 1
        guest = Guest(peer, websocket, self.config, entry.address, meter)
        self._seat(guest)
        guest.push(
            messages.Welcome(
                ref=ref, peer_id=peer, keepalive_s=self.config.keepalive_s, time_ms=self.wall_ms(),
                messages_per_s=self.config.messages_per_s, burst=self.config.burst, regions=dict(self.config.regions),
            )
        )  # fmt: skip
        try:
            await guest.run(self._receive_message, self._tally.counts)
        finally:
            self._unseat(guest)

    def _seat(self, guest: Guest) -> None:
        """The newest connection of an identity wins: after a crash the old one may look alive for a long time."""
        old = self._guests.get(guest.peer)
        if old is not None:
            old.dismiss(messages.SUPERSEDED, "the same identity connected anew")
            self._depart(guest.peer, "superseded")
        self._guests[guest.peer] = guest
        self._desk.arrive(guest.peer, trio.current_time())
        self._deliver()

    def _unseat(self, guest: Guest) -> None:
        self._tally.ends[guest.end] += 1
        if self._guests.get(guest.peer) is guest:
            del self._guests[guest.peer]
            self._depart(guest.peer, guest.end)
        if not self._guests:
            self._all_gone.set()

    def _depart(self, peer: PeerId, end: str) -> None:
        reason = _REASONS.get(end, "dropped")
        self._desk.depart(peer, reason, trio.current_time())
        self._deliver()

    def _receive_message(self, guest: Guest, message: messages.ClientMessage) -> None:
        if self._guests.get(guest.peer) is guest:  # else superseded a moment ago, and no longer speaking for the peer
            self._desk.receive(guest.peer, message, trio.current_time(), guest.address)
            self._deliver()

    def _deliver(self) -> None:
        for delivery in self._desk.take_outputs():
            message = delivery.message
            text = ""
            for peer in delivery.peers:
                guest = self._guests.get(peer)
                if guest is None:
                    continue
                if isinstance(message, messages.SignalFrom):
                    text = text or messages.encode(message)
                    if not guest.push_of_others(text, PeerId(message.sender)):
                        self._tally.counts["signals_dropped"] += 1
                elif isinstance(message, messages.MemberJoined | messages.MemberLeft):
                    text = text or messages.encode(message)
                    if not guest.push_of_others(text, None):
                        self._tally.counts["news_dropped"] += 1
                else:
                    guest.push(message)
                    guest.charge(delivery.cost)
        if self._cluster is not None and self._member is not None:
            for dismissal in self._cluster.take_dismissals():
                self._dismiss(dismissal)
            self._member.flush()
        self._rearm()

    def _dismiss(self, dismissal: Dismissal) -> None:
        guest = self._guests.get(dismissal.peer)
        if guest is None:
            return
        if dismissal.superseded:
            guest.dismiss(messages.SUPERSEDED, "the same identity connected anew")
        else:
            guest.dismiss(messages.GOING_AWAY, "your room is kept by another server now; come back")

    def _rearm(self) -> None:
        due = self._desk.next_timeout()
        self._matching.deadline = math.inf if due is None else due

    async def place_waiting(self) -> None:
        """Who waits for others to play with is looked at in one task, which sleeps while nobody waits."""
        while True:
            with trio.CancelScope() as self._matching:
                self._rearm()
                await trio.sleep_forever()
            self._desk.handle_timeout(trio.current_time())
            self._deliver()

    async def tend(self) -> None:
        """Its own work beside its guests', until cancelled: for who brings the streams to `handle` instead of a socket."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.place_waiting)
            while True:
                await trio.sleep(_HOUSEKEEPING_S)
                self._switchboard.expire(trio.current_time())

    def _answer(self, entry: Entry, request: Request) -> Page | None:
        """The page for it, or None: a WebSocket that may come in."""
        path, _, query = request.target.partition("?")
        if path == "/healthz" and not request.wants_websocket:  # a server that is full is in good health
            return Page(200, b"ok\n", "text/plain")
        if entry.standing is not Standing.WAITING:
            headers = (("Retry-After", str(entry.retry_after_s)),)
            return Page(503, entry.reason.encode() + b"\n", "text/plain", headers)
        welcome = request.origin is None or self._is_welcome(request.origin)
        if request.wants_websocket:
            return None if welcome else Page(403, b"this server is not for web pages from there\n", "text/plain")
        page = Page(404, b"/healthz, /stats, pages at /app/, and WebSockets at any path\n", "text/plain")
        if path == "/stats":
            page = Page(200, msgspec.json.encode(attrs.asdict(self.stats)))
        elif path == "/rooms" and self.config.shows_rooms:
            page = self._rooms_page(query)
        elif (file := self._site.page(request)) is not None:
            return file
        if request.origin is not None and welcome:
            page = attrs.evolve(page, headers=(("Access-Control-Allow-Origin", request.origin), ("Vary", "Origin")))
        return page

    def _is_welcome(self, origin: str) -> bool:
        """Browsers say which page connects. One of an allowed origin, of our own public names, or of this machine."""
        if {origin, ANY} & self.config.origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        host, _ = split_authority(parts.netloc)
        if parts.scheme not in ("http", "https") or not host:
            return False
        return is_meant(parts.netloc, self._public_names - {ANY}, None) or host in _THIS_MACHINE

    def _rooms_page(self, query: str) -> Page:
        """`?app_id=` and `?region=` narrow it. Who is in a room is told only to its members."""
        try:
            asked = {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}
        except ValueError:
            return Page(400, b"not a query\n", "text/plain")
        listing = self._switchboard.registry.list_rooms(
            RoomQuery(app_id=asked.get("app_id"), region=asked.get("region"))
        )
        rooms = [room_of(info) for info in listing.rooms]
        return Page(200, msgspec.json.encode({"rooms": rooms, "truncated": listing.truncated}))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _own_names(host: str, port: int) -> frozenset[str]:
    """What this machine calls itself, and what we were told to listen on. A name that is none is no danger: it is what
    players dialled that is compared."""
    machine = socket.gethostname()
    return frozenset(f"{name.lower()}:{port}" for name in (machine, f"{machine}.local", host))


def _local_address(stream: trio.abc.Stream) -> tuple[str, int] | None:
    if isinstance(stream, trio.SocketStream):
        try:
            host, port = stream.socket.getsockname()[:2]
        except OSError:
            return None
        return str(host), int(port)
    return None


def _address_of(stream: trio.abc.Stream) -> str:
    if isinstance(stream, trio.SocketStream):
        try:
            return address_of(str(stream.socket.getpeername()[0]))
        except OSError:  # gone already
            return ""
    return ""
