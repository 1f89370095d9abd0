"""One UDP port for all peers of an endpoint: who gets which datagram (RFC 7983).

The data path is here and never touches asyncio. STUN goes to aioice, after `stun_guard` has let it through; checks of
consent and their answers do not, so an idle endpoint does not wake the loop.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

import trio

from psyne_mesh.errors import ProtocolError
from psyne_mesh.interrupts import protected
from psyne_mesh.limits import TokenBucket
from psyne_mesh.webrtc.ice.collecting import Collecting
from psyne_mesh.webrtc.ice.deadlines import Deadlines
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.stun_guard import (
    REQUEST,
    StunHeader,
    asked_ufrag_untrusted,
    check_stun_untrusted,
    is_authentic,
)
from psyne_mesh.webrtc.ice.udp import BATCH_MAX, DatagramSocket

# A loop that comes back after so long, and finds a whole batch, looks at all that waits: among it are answers that somebody
# misses, and most of the rest has been replaced by what stands behind it. A second of sixteen players at 60 Hz.
BEHIND_S: Final = 0.05
REST_MAX: Final = 1024
BINDING_REQUEST: Final = b"\x00\x01"  # RFC 8489 section 5: class request, method Binding
EARLY_PER_ADDRESS_MAX: Final = 16  # datagrams that overtook the STUN check of their sender; the newest is dropped
EARLY_S: Final = 0.5  # and no longer: DTLS repeats after a second, and what a game sent before is worth nothing
EARLY_ADDRESSES_MAX: Final = 32  # senders of such datagrams; the oldest sender is dropped
CLAIMS_MAX: Final = 64  # validated addresses of one peer; the oldest unproven one is dropped
HANDOVER_MAX: Final = 512  # STUN packets on their way to aioice; the newest is dropped
STRANGERS_MAX: Final = 1024  # hosts with a bucket of their own; beyond that all new ones share one
STRANGERS_KEPT_S: Final = 60.0  # then the table starts afresh
STRANGER_BURST: Final = 500.0  # checks: a room of 64 behind one NAT arrives at once; 500/s cost 3 ms of CPU
STRANGER_PER_SECOND: Final = 500.0
# Strangers' requests that do not begin with USERNAME, of all hosts together: they cost more.
ODD_PER_SECOND: Final = 500.0
PEER_BURST: Final = 200.0  # authenticated checks of one peer: a dial sends some dozens
PEER_PER_SECOND: Final = 50.0


class Base(Protocol):
    """Where datagrams leave from and come in (RFC 8445 section 4): a UDP socket, or an allocation on a TURN server."""

    kind: Literal["host", "relay"]
    address: Address
    routes: dict[Address, Route]
    servers: dict[Address, ServerLink]

    def send_batch(self, datagrams: Sequence[bytes], address: Address) -> int: ...


class ServerLink(Protocol):
    """A TURN server reached from a base: it gets all that comes from the server's address."""

    def server_received(self, datagrams: list[bytes]) -> None: ...


class StunReceiver(Protocol):
    """What aioice calls a protocol. Called inside the asyncio loop."""

    def datagram_received(self, data: bytes, addr: Address) -> None: ...


class AnswerReceiver(Protocol):
    """Somebody who awaits the answer to a request, outside the asyncio loop."""

    def answer_received(self, data: bytes, header: StunHeader, address: Address) -> None: ...


class Listener(Protocol):
    """One ICE agent, as the port sees it: who answers for a local ufrag."""

    integrity_key: bytes
    check_limit: TokenBucket

    def receiver_on(self, base: Base) -> StunReceiver | None: ...

    def answer_consent(self, base: Base, header: StunHeader, address: Address) -> bool:
        """An authentic request came: answer it if it can change nothing. False leaves it to the receiver."""
        ...


class SocketBase:
    """A socket of the port."""

    kind: Literal["host", "relay"] = "host"
    __slots__ = ("address", "routes", "send_batch", "servers", "socket")

    def __init__(self, socket: DatagramSocket) -> None:
        self.socket = socket
        self.address = socket.address
        self.send_batch: Callable[[Sequence[bytes], Address], int] = socket.send_batch
        self.routes: dict[Address, Route] = {}
        self.servers: dict[Address, ServerLink] = {}


class Route:
    """Where the datagrams of one peer go.

    deliver: gets all datagrams of one drained batch at once.
    fault: gets what `deliver` raised; the port goes on.
    moved: told when another route takes a claimed address over (False), or gives it back (True).
    serial: two routes may claim one address when a peer connects anew from the port of its old connection; the newer
        one is alive at the peer, so it wins.
    """

    __slots__ = ("claims", "deliver", "fault", "moved", "serial")

    def __init__(
        self,
        serial: int,
        deliver: Callable[[list[bytes]], None],
        fault: Callable[[Exception], None],
        moved: Callable[[Base, Address, bool], None],
    ) -> None:
        self.serial = serial
        self.deliver = deliver
        self.fault = fault
        self.moved = moved
        self.claims: dict[tuple[Base, Address], bool] = {}  # to whether the peer proved that it is there


class UdpPort:
    """The sockets of one endpoint, and the tables that tell whose a datagram is.

    1. `run()` in a nursery drains every socket until it is closed.
    2. `listen(ufrag, listener)` routes STUN requests for that ufrag; `expect(transaction_id, receiver)` its answers, and
       `expect_here(...)` those that shall not go through the loop.
    3. `claim(route, base, address, proven=...)` after an authenticated check sends the data of that address to `route`.
    4. `release(route)` and `unlisten(ufrag)` when the peer is gone.

    deadlines: what the peers of this port have to do when; `run` keeps them.
    call_soon: runs a function inside the asyncio loop soon.
    fault: told of a bug of ours or of aioice that a datagram set off; the port has survived it.
    """

    def __init__(
        self,
        sockets: Sequence[DatagramSocket],
        *,
        call_soon: Callable[..., object],
        fault: Callable[[Exception], None],
        clock: Callable[[], float],
    ) -> None:
        self.bases = [SocketBase(socket) for socket in sockets]
        self.drops: Counter[str] = Counter()  # datagrams dropped, by reason
        self.deadlines = Deadlines()
        self._call_soon = call_soon
        self._fault = fault
        self._clock = clock
        self._listeners: dict[bytes, Listener] = {}
        self._expected: dict[bytes, StunReceiver] = {}
        self._expected_here: dict[bytes, AnswerReceiver] = {}
        self._claimants: dict[tuple[Base, Address], list[Route]] = {}
        self._early: dict[tuple[Base, Address], tuple[float, list[bytes]]] = {}  # and since when
        self._handover: deque[tuple[StunReceiver, bytes, Address]] = deque()
        self._handing_over = False
        self._strangers: dict[str, TokenBucket] = {}
        self._strangers_since = clock()
        self._crowd = self._stranger_bucket()
        self._odd = TokenBucket(burst=ODD_PER_SECOND, per_second=ODD_PER_SECOND, now=clock())
        self._serial = 0

    async def run(self) -> None:
        async with trio.open_nursery() as timing:
            timing.start_soon(self.deadlines.run)
            async with trio.open_nursery() as draining:
                for base in self.bases:
                    draining.start_soon(protected, self._drain, base)
            timing.cancel_scope.cancel()

    async def _drain(self, base: SocketBase) -> None:
        socket, collecting = base.socket, Collecting()
        has_waited = False
        looked = self._clock()
        while True:
            # Who has waited for several looks before it sleeps again: that saves a pass of the scheduler
            batch = self._read(socket, whole=True) if has_waited else []
            if not batch:
                try:
                    await socket.wait_readable()
                except trio.ClosedResourceError:
                    return
                batch = self._read(socket, whole=False)
            came = self._clock()
            if len(batch) >= BATCH_MAX and came - looked > BEHIND_S:
                while len(batch) < REST_MAX and (more := self._read(socket, whole=True)):
                    batch += more
            looked = came
            try:
                self.dispatch(base, batch)
            except Exception as error:  # noqa: BLE001 - a datagram must never end the port of all the other peers
                self._fault(error)
                has_waited = False
                continue
            wait_s = collecting.note(batch, self._clock())
            has_waited = wait_s > 0.0
            if has_waited:
                await trio.sleep(wait_s)

    def _read(self, socket: DatagramSocket, *, whole: bool) -> list[tuple[bytes, Address]]:
        """What has come. whole: all of it, though one look at a socket may leave some."""
        batch: list[tuple[bytes, Address]] = []
        try:
            batch = more = socket.receive_batch()
            while whole and more and len(batch) < BATCH_MAX:
                more = socket.receive_batch()
                batch += more
        except Exception as error:  # noqa: BLE001 - as above
            self._fault(error)
        return batch

    # ------------------------------------------------------------------------------------------------------- incoming

    def dispatch(self, base: Base, batch: Sequence[tuple[bytes, Address]]) -> None:
        """Route one drained batch that came in on `base`: data first, so that no flood of STUN stands before it."""
        routes, listeners = base.routes, self._listeners
        if len(batch) == 1:  # one datagram of a peer, as most wake-ups of a game find
            data, address = batch[0]
            route = routes.get(address)
            if route is not None and data and 20 <= data[0] <= 63:
                self._deliver(route, [data])
                return
        groups: dict[Route, list[bytes]] = {}
        relayed: dict[ServerLink, list[bytes]] = {}
        stun: list[tuple[bytes, Address]] = []
        forged = 0
        last: Address | None = None
        route = None
        for datagram in batch:
            data, address = datagram
            first = data[0] if data else 255
            if 20 <= first <= 63:
                if address is not last:
                    last, route = address, routes.get(address)
                if route is None:
                    self._keep_early(base, address, data)
                elif route in groups:
                    groups[route].append(data)
                else:
                    groups[route] = [data]
            elif first <= 3:
                # Who does not know a ufrag of ours knows no peer of ours: most forgeries end here, at 0.3 us each.
                # RFC 8489 section 9.1.3 wants an answer 401. Silence gives a forged source nothing to reflect.
                if data[:2] == BINDING_REQUEST:
                    ufrag = asked_ufrag_untrusted(data)
                    if ufrag is not None and ufrag not in listeners:
                        forged += 1
                        continue
                stun.append(datagram)
            elif 64 <= first <= 79 and address in base.servers:
                relayed.setdefault(base.servers[address], []).append(data)
            else:
                self.drops["not-ice-not-dtls" if data else "empty"] += 1
        for target, datagrams in groups.items():
            self._deliver(target, datagrams)
        for server, channel_data in relayed.items():
            server.server_received(channel_data)
        for data, address in stun:
            self._stun(base, data, address)
        if forged:
            self.drops["stun-unknown-ufrag"] += forged

    def _deliver(self, route: Route, datagrams: list[bytes]) -> None:
        try:
            route.deliver(datagrams)
        except Exception as error:  # noqa: BLE001 - the peer owns it; the other peers of this batch get theirs
            route.fault(error)

    def _keep_early(self, base: Base, address: Address, data: bytes) -> None:
        """A ClientHello may stand in the same batch as the check that lets it in, and must not wait for its repeat."""
        now = self._clock()
        since, early = self._early.get((base, address), (-math.inf, []))
        if now - since > EARLY_S:
            self.drops["unknown-address"] += len(early)
            self._early.pop((base, address), None)
            if len(self._early) >= EARLY_ADDRESSES_MAX:
                oldest = next(iter(self._early))
                self.drops["unknown-address"] += len(self._early.pop(oldest)[1])
            self._early[base, address] = now, [data]
        elif len(early) < EARLY_PER_ADDRESS_MAX:
            early.append(data)
        else:
            self.drops["unknown-address"] += 1

    def _stun(self, base: Base, data: bytes, address: Address) -> None:
        if not data[0] & 0x01 and len(data) >= 20 and not data[1] & 0x10:
            if address in base.routes or self._stranger_may(data, address[0]):
                self._stun_request(base, data, address)
            else:
                self.drops["stun-flood"] += 1
            return
        receiver, receiver_here = self._expected.get(data[8:20]), self._expected_here.get(data[8:20])
        if receiver is None and receiver_here is None:
            self._stun_from_server(base, data, address)
            return
        header = self._checked(data)
        if header is None:
            return
        if receiver is not None:
            self._hand_over(receiver, data, address)
        elif receiver_here is not None and header.message_class != REQUEST:
            receiver_here.answer_received(data, header, address)

    def _stun_request(self, base: Base, data: bytes, address: Address) -> None:
        header = self._checked(data)
        if header is None:
            return
        listener = self._listeners.get(header.local_ufrag)
        receiver = listener.receiver_on(base) if listener is not None else None
        if listener is None or receiver is None:
            self.drops["stun-unknown-ufrag"] += 1
        elif not is_authentic(data, header, listener.integrity_key):
            self.drops["stun-unauthenticated"] += 1
        elif not listener.check_limit.allow(self._clock()):
            self.drops["stun-peer-flood"] += 1
        elif not listener.answer_consent(base, header, address):
            self._hand_over(receiver, data, address)

    def _checked(self, data: bytes) -> StunHeader | None:
        try:
            return check_stun_untrusted(data)
        except ProtocolError:
            self.drops["stun-malformed"] += 1
            return None

    def _stun_from_server(self, base: Base, data: bytes, address: Address) -> None:
        server = base.servers.get(address)
        if server is not None:
            server.server_received([data])
        elif len(data) >= 20 and data[1] & 0x10 and not data[0] & 0x01:
            self.drops["stun-indication"] += 1  # a keepalive (RFC 8445 section 11): its work is done by arriving
        else:
            self.drops["stun-unexpected"] += 1

    def _stranger_may(self, data: bytes, host: str) -> bool:
        now = self._clock()
        if asked_ufrag_untrusted(data) is None and not self._odd.allow(now):
            return False
        if now - self._strangers_since > STRANGERS_KEPT_S:
            self._strangers.clear()
            self._strangers_since = now
        bucket = self._strangers.get(host)
        if bucket is None:
            if len(self._strangers) >= STRANGERS_MAX:
                bucket = self._crowd
            else:
                bucket = self._strangers[host] = self._stranger_bucket()
        return bucket.allow(now)

    def _stranger_bucket(self) -> TokenBucket:
        return TokenBucket(burst=STRANGER_BURST, per_second=STRANGER_PER_SECOND, now=self._clock())

    # --------------------------------------------------------------------------------------------- across to asyncio

    def _hand_over(self, receiver: StunReceiver, data: bytes, address: Address) -> None:
        if len(self._handover) >= HANDOVER_MAX:
            self.drops["stun-queue-full"] += 1
            return
        self._handover.append((receiver, data, address))
        if not self._handing_over:
            self._handing_over = True
            self._call_soon(self._receive_stun)

    def _receive_stun(self) -> None:
        self._handing_over = False
        while self._handover:
            receiver, data, address = self._handover.popleft()
            self.guarded(receiver.datagram_received, data, address)

    def guarded(self, receive: Callable[[bytes, Address], None], data: bytes, address: Address) -> None:
        """Let aioice have a STUN message, and outlive what it lets out: that would end the loop of all peers."""
        try:
            receive(data, address)
        except Exception as error:  # noqa: BLE001 - told to the owner of the port
            self.drops["stun-choked"] += 1
            self._fault(error)

    # --------------------------------------------------------------------------------------------------------- tables

    def listen(self, ufrag: str, listener: Listener) -> None:
        self._listeners[ufrag.encode()] = listener

    def unlisten(self, ufrag: str) -> None:
        self._listeners.pop(ufrag.encode(), None)

    def expect(self, transaction_id: bytes, receiver: StunReceiver) -> None:
        self._expected[transaction_id] = receiver

    def expect_here(self, transaction_id: bytes, receiver: AnswerReceiver) -> None:
        self._expected_here[transaction_id] = receiver

    def forget(self, transaction_id: bytes) -> None:
        self._expected.pop(transaction_id, None)
        self._expected_here.pop(transaction_id, None)

    def open_route(
        self,
        deliver: Callable[[list[bytes]], None],
        fault: Callable[[Exception], None],
        moved: Callable[[Base, Address, bool], None] = lambda *_: None,
    ) -> Route:
        self._serial += 1
        return Route(self._serial, deliver, fault, moved)

    def claim(self, route: Route, base: Base, address: Address, *, proven: bool) -> None:
        """Send data of `address` to `route`: the peer passed an authenticated check.

        proven: the peer answered a check of ours there. A mere request may carry a forged source, so it gets an
        address only while nobody else has it.
        """
        key = (base, address)
        known = route.claims.get(key)
        if known or (known is False and not proven):
            return
        claimants = self._claimants.setdefault(key, [])
        if claimants and not proven and route not in claimants:
            return
        if len(route.claims) >= CLAIMS_MAX and key not in route.claims:
            self._drop_claim(route, next((k for k, sure in route.claims.items() if not sure), next(iter(route.claims))))
        route.claims[key] = proven
        if route not in claimants:
            claimants.append(route)
        self._elect(key, claimants)
        since, early = self._early.pop(key, (0.0, []))
        if early and self._clock() - since <= EARLY_S:
            self._deliver(base.routes[address], early)
        elif early:
            self.drops["unknown-address"] += len(early)

    def _elect(self, key: tuple[Base, Address], claimants: list[Route]) -> None:
        base, address = key
        before = base.routes.get(address)
        base.routes[address] = after = max(claimants, key=lambda route: (route.claims[key], route.serial))
        if before is not None and before is not after:
            if key in before.claims:
                before.moved(base, address, False)
            after.moved(base, address, True)

    def _drop_claim(self, route: Route, key: tuple[Base, Address]) -> None:
        del route.claims[key]
        claimants = self._claimants[key]
        claimants.remove(route)
        if claimants:
            self._elect(key, claimants)
        else:
            del self._claimants[key], key[0].routes[key[1]]

    def release(self, route: Route) -> None:
        for key in list(route.claims):
            self._drop_claim(route, key)

    def remove_base(self, base: Base) -> None:
        """Forget a TURN allocation that is gone, with all claims on it."""
        for key in [key for key in self._claimants if key[0] is base]:
            for route in list(self._claimants[key]):
                self._drop_claim(route, key)

    def table_sizes(self) -> dict[str, Any]:
        """For tests of leaks: what the tables hold at the moment."""
        return {
            "listeners": len(self._listeners),
            "expected": len(self._expected) + len(self._expected_here),
            "deadlines": len(self.deadlines),
            "claims": len(self._claimants),
            "routes": sum(len(base.routes) for base in self.bases),
        }
