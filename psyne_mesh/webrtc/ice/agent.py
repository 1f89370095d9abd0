"""One generation of ICE with one peer: aioice's checks over the bases of our port, and our own choice among pairs.

Everything here runs inside the asyncio loop. `aioice.Connection.connect()` and `gather_candidates()` are not used: the
first sleeps 20 ms between steps and drops better pairs once any has won, the second answers only when all is gathered.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter
from typing import Final, Protocol

from psyne_mesh.limits import TokenBucket
from psyne_mesh.webrtc.ice.binding import binding_answer
from psyne_mesh.webrtc.ice.candidates import COMPONENT, may_check
from psyne_mesh.webrtc.ice.checks import CheckProtocol
from psyne_mesh.webrtc.ice.embedded import put, taken
from psyne_mesh.webrtc.ice.events import Address, Embedder, IceParameters
from psyne_mesh.webrtc.ice.library import Candidate, ice, is_mdns_hostname, stun
from psyne_mesh.webrtc.ice.names import NameResolver
from psyne_mesh.webrtc.ice.port import PEER_BURST, PEER_PER_SECOND, Base, StunReceiver, UdpPort
from psyne_mesh.webrtc.ice.stun_guard import (
    DTLS_ACK,
    DTLS_DATA,
    HEADER_BYTES,
    HEARTBEAT,
    HEARTBEAT_BYTES,
    ICE_CONTROLLING,
    USE_CANDIDATE,
    StunHeader,
)

PACE_S: Final = 0.01  # Ta between first sends of checks; RFC 8445 section 14.2 wants 50 ms, and at least 5
REMOTE_CANDIDATES_MAX: Final = 64  # signalled and peer-reflexive together; the newest is refused
PAIRS_MAX: Final = 100  # RFC 8445 section 6.1.2.5; a new pair beyond that is not formed
COPIES_MAX: Final = 3  # of a check that carries DTLS: the datagrams of a server's flight with ML-KEM
CARRYING_MAX: Final = (
    4  # addresses of the peer that checks with DTLS go to; others get plain ones, and answers carry anyway
)
MDNS_MAX: Final = 8  # .local names of one peer being resolved; the newest is refused

State = ice.CandidatePair.State


class AgentOwner(Protocol):
    """Who is told what the checks found."""

    embedder: Embedder | None

    def address_seen(self, base: Base, address: Address) -> None:
        """A check of the peer came from there; it carried our password."""

    def heartbeat_received(self, number: int) -> None:
        """The peer's loop stands still, and its process lives. Came over the selected pair, with our password."""

    def address_proven(self, base: Base, address: Address) -> None:
        """The peer answered a check of ours there."""

    def pair_selected(self, agent: Agent, pair: ice.CandidatePair) -> None:
        """The agent sends over this pair from now on."""


class Agent(ice.Connection):
    """ICE with one peer until a restart.

    1. `add_base(base, candidate)` for each base as it is found, before or after `start`.
    2. `add_remote(candidate)` as they trickle in.
    3. `start(remote)` when the peer's credentials are known: checks run until `close()`.
    4. The owner hears of `pair_selected`, more than once if a better pair turns up.
    5. `Pings` on the selected pair check consent; on the controlling side they also nominate. The peer's are answered by
       `answer_consent`.

    check_life_s: how long one check is repeated.
    """

    def __init__(
        self,
        port: UdpPort,
        parameters: IceParameters,
        owner: AgentOwner,
        *,
        names: NameResolver,
        controlling: bool,
        loop: asyncio.AbstractEventLoop,
        check_life_s: float,
        loopback: bool,
        now: float,
    ) -> None:
        super().__init__(
            ice_controlling=controlling, local_username=parameters.ufrag, local_password=parameters.password
        )
        self.integrity_key = parameters.password.encode()
        self.check_limit = TokenBucket(burst=PEER_BURST, per_second=PEER_PER_SECOND, now=now)
        self.selected: ice.CandidatePair | None = None
        self.refused: Counter[str] = Counter()  # remote candidates refused, by reason
        self._port = port
        self._owner = owner
        self._names = names
        self._loop = loop
        self._check_life_s = check_life_s
        self._loopback = loopback
        self._receivers: dict[Base, CheckProtocol] = {}
        self._nominations: dict[ice.CandidatePair, bytes] = {}  # the peer's last USE-CANDIDATE, by transaction id
        self._carrying: set[Address] = set()
        self._reopened = False
        self._pacer: asyncio.TimerHandle | None = None
        self._resolving: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------------------- from owner

    def receiver_on(self, base: Base) -> StunReceiver | None:
        return self._receivers.get(base)

    def add_base(self, base: Base, candidate: Candidate) -> None:
        """Check from `base` too. `candidate` stands for it in pairs: the best of those that the base serves."""
        if self._closing or base in self._receivers:
            return
        protocol = CheckProtocol(self, base, self._port, self._loop, self._check_life_s)
        protocol.local_candidate = candidate
        self._receivers[base] = protocol
        self._protocols.append(protocol)
        for remote in list(self._remote_candidates):
            self._pair_remote_candidate(remote)
        self.sort_check_list()
        self._pace()

    async def remove_base(self, base: Base) -> None:
        """The base is gone: so are its pairs."""
        protocol = self._receivers.pop(base, None)
        if protocol is None:
            return
        self._protocols.remove(protocol)
        for pair in [pair for pair in self._check_list if pair.protocol is protocol]:
            self._stop_check(pair)
            self._check_list.remove(pair)
        await protocol.close()

    def add_remote(self, candidate: Candidate) -> None:
        """Pair a candidate of the peer, or count why not."""
        if self._closing:
            return
        if candidate.component != COMPONENT or candidate.transport.lower() != "udp":
            self.refused["not-udp-component-1"] += 1
        elif len(self._remote_candidates) >= REMOTE_CANDIDATES_MAX:
            self.refused["too-many"] += 1
        elif is_mdns_hostname(candidate.host):
            self._resolve(candidate)
        elif not may_check(candidate.host, loopback=self._loopback):
            self.refused["address"] += 1
        else:
            self._add_remote_candidate(candidate, candidate.host)
            self._pace()

    def start(self, remote: IceParameters) -> None:
        """Begin the checks; those of the peer that came early are answered with checks of our own. Again, with other
        credentials: begin anew."""
        for pair in self._check_list:
            self._stop_check(pair)
        self.remote_username, self.remote_password = remote.ufrag, remote.password
        self.remote_is_lite = remote.lite
        if remote.lite and not self.ice_controlling:  # RFC 8445 section 6.1.1: whoever offers, the full side controls
            self.switch_role(ice_controlling=True)
        early = list(self._early_checks)
        self._early_checks.clear()
        self._early_checks_done = True
        for check in early:
            if self._valid_username(check[0].attributes["USERNAME"]):
                self.check_incoming(*check)
        self._pace()

    def consent_attributes(self, pair: ice.CandidatePair) -> bytes:
        """What a check of consent carries. On the controlling side it says again that this is the pair (USE-CANDIDATE):
        nominations of the first moments may have reached the peer in another order than they were made."""
        request = self.build_request(pair, nominate=False)
        if self.ice_controlling:
            request.attributes["USE-CANDIDATE"] = None
        return bytes(request)[HEADER_BYTES:]

    def answer_consent(self, base: Base, header: StunHeader, address: Address) -> bool:
        """Answer an authentic check that can change nothing, because it came over the selected pair and both sides agree
        about the roles; no need of the loop for that. False: the check is aioice's to see."""
        pair, attributes = self.selected, header.attributes
        if pair is None or self._closing or pair.state is not State.SUCCEEDED or pair.remote_addr != address:
            return False
        if pair.protocol is not self._receivers.get(base) or (ICE_CONTROLLING in attributes) == self.ice_controlling:
            return False
        if not self._valid_username(header.username.decode()):
            return False
        embedder = self._owner.embedder
        if embedder is not None and embedder.waiting():
            return False  # DTLS has something to say with the answer
        if USE_CANDIDATE in attributes and not self.ice_controlling:
            if not pair.nominated:
                return False
            self._nominations[pair] = header.transaction_id
        if len(number := attributes.get(HEARTBEAT, b"")) == HEARTBEAT_BYTES:
            self._owner.heartbeat_received(int.from_bytes(number, "big"))
            return True  # its loop stands still, so an answer would wait in front of it
        self._owner.address_seen(base, address)
        if embedder is not None and (DTLS_DATA in attributes or DTLS_ACK in attributes):
            embedder.embedded(attributes.get(DTLS_ACK), attributes.get(DTLS_DATA, b""))
        base.send_batch((binding_answer(header.transaction_id, address, self.integrity_key),), address)
        return True

    def reopen(self) -> None:
        """The selected pair has fallen silent: check all pairs again, the first to answer wins.

        From now on only a ping on the winner nominates. The peer may not have noticed the silence, and takes a
        repeated nomination for a decision: checks that nominate would lead it from pair to pair.
        """
        self.selected = None
        self._reopened = True
        self._nominations.clear()
        for pair in self._check_list:
            if pair.task is None:
                pair.state = State.WAITING
                pair.nominated = pair.remote_nominated = False
        self._pace()

    @property
    def may_improve(self) -> bool:
        """After a break the first pair to answer won, and a better one may work by now."""
        return self._reopened and self.selected is not None

    def seek_better(self) -> None:
        """Check the pairs that would be better than the selected one again."""
        if not self.may_improve or self.selected is None:
            return
        floor = self.priority(self.selected)
        for pair in self._check_list:
            if pair.task is None and pair is not self.selected and self.priority(pair) > floor:
                pair.state = State.WAITING
                pair.nominated = pair.remote_nominated = False
        self._pace()

    def settle(self, pair: ice.CandidatePair) -> None:
        """The pair that had fallen silent is alive again."""
        if self.selected is None and pair in self._check_list:
            self.selected = pair
            pair.state = State.SUCCEEDED
            pair.nominated = True

    async def close(self) -> None:
        if self._pacer is not None:
            self._pacer.cancel()
            self._pacer = None
        for task in list(self._resolving):
            task.cancel()
        for protocol in self._receivers.values():
            for check in list(protocol.transactions.values()):
                check.stop()
        self._receivers.clear()
        await super().close()

    def priority(self, pair: ice.CandidatePair) -> int:
        return ice.candidate_pair_priority(pair.local_candidate, pair.remote_candidate, self.ice_controlling)

    @property
    def pairs(self) -> list[ice.CandidatePair]:
        return self._check_list

    # ----------------------------------------------------------------------------------------------- aioice calls these

    def build_request(self, pair: ice.CandidatePair, nominate: bool) -> stun.Message:
        # Nominating with the first check saves a round trip. Once a pair is selected, only a ping on it nominates.
        return super().build_request(pair, nominate=nominate and self.selected is None and not self._reopened)

    def request_received(self, message: stun.Message, addr: Address, protocol: ice.StunProtocol) -> None:
        assert isinstance(protocol, CheckProtocol)
        if not self._closing and self._valid_username(message.attributes["USERNAME"]):
            self._owner.address_seen(protocol.base, addr)
            self.unpack(message)  # so that the answer can carry what DTLS says to it
        super().request_received(message, addr, protocol)

    def check_incoming(self, message: stun.Message, addr: Address, protocol: ice.StunProtocol) -> None:
        known = any((c._network_host, c.port) == addr for c in self._remote_candidates)
        if not known and len(self._remote_candidates) >= REMOTE_CANDIDATES_MAX:
            self.refused["too-many"] += 1
            return
        super().check_incoming(message, addr, protocol)
        assert isinstance(protocol, CheckProtocol)
        under_way = protocol.by_address.get(addr)
        if under_way is not None:
            under_way.trigger()
        if "USE-CANDIDATE" in message.attributes and not self.ice_controlling:
            self._follow(protocol, addr, message.transaction_id)

    def check_complete(self, pair: ice.CandidatePair) -> None:
        pair.task = None
        if pair.state is not State.SUCCEEDED or self._closing:
            return
        protocol = pair.protocol
        assert isinstance(protocol, CheckProtocol)
        self._owner.address_proven(protocol.base, pair.remote_addr)
        better = self.selected is None or self.priority(pair) > self.priority(self.selected)
        if better and (pair.nominated or self.ice_controlling):
            self._select(pair)

    def pack(self, message: stun.Message, address: Address) -> None:
        """Put what DTLS has to say into a check, or into the answer to one, that is about to leave."""
        embedder, remote_password = self._owner.embedder, self.remote_password
        if embedder is None or message.message_class not in (stun.Class.REQUEST, stun.Class.RESPONSE):
            return
        if message.message_class == stun.Class.REQUEST and not self._may_carry(address):
            return
        key = self.local_password if message.message_class == stun.Class.RESPONSE else remote_password
        if key is not None and (values := embedder.attributes()) is not None:
            put(message, *values)
            message.add_message_integrity(key.encode())

    def copies(self, address: Address) -> int:
        """How often a check leaves at once: it carries one datagram of a flight at a time, and a round trip later is late."""
        embedder = self._owner.embedder
        if embedder is None or not self._may_carry(address):
            return 1
        return max(1, min(embedder.waiting(), COPIES_MAX))

    def _may_carry(self, address: Address) -> bool:
        """Nobody has said yet that it wants what goes to a candidate of the peer: a kilobyte goes to few of them."""
        if address not in self._carrying and len(self._carrying) < CARRYING_MAX:
            self._carrying.add(address)
        return address in self._carrying

    def unpack(self, message: stun.Message) -> None:
        """Give DTLS what an authentic check or answer holds for it."""
        embedder = self._owner.embedder
        if embedder is not None and (values := taken(message)) is not None:
            embedder.embedded(*values)

    def data_received(self, data: bytes, component: int) -> None:
        """aioice could not parse it as STUN after all. Data never comes this way."""

    def protocol_lost(self, protocol: ice.StunProtocol) -> None:
        """Nobody waits in `recv()`."""

    def _pair_remote_candidate(self, remote_candidate: Candidate) -> None:
        known = {(pair.protocol, pair.remote_candidate) for pair in self._check_list}
        for protocol in self._protocols:
            if (protocol, remote_candidate) in known or not protocol.local_candidate.can_pair_with(remote_candidate):
                continue
            if protocol.local_candidate.type == "relay" and not _worth_relaying(protocol, remote_candidate):
                continue
            if len(self._check_list) >= PAIRS_MAX:
                self.refused["too-many-pairs"] += 1
                return
            self._check_list.append(ice.CandidatePair(protocol, remote_candidate))

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _pace(self) -> None:
        """Start the best unchecked pair now if none was started within the last Ta, else then."""
        if self._pacer is None and not self._closing and self.remote_password is not None:
            self._step()

    def _step(self) -> None:
        self._pacer = None
        if self._closing:
            return
        floor = self.priority(self.selected) if self.selected is not None else 0
        for pair in self._check_list:
            if pair.state in (State.WAITING, State.FROZEN) and pair.task is None and self.priority(pair) > floor:
                self.check_start_task(pair)
                self._pacer = self._loop.call_later(PACE_S, self._step)
                return

    def _follow(self, protocol: CheckProtocol, addr: Address, transaction_id: bytes) -> None:
        """The controlling peer nominates the pair. A first nomination counts by priority, since an aggressive peer
        nominates whatever it checks; a repeated one means it (the peer has settled), so it counts as such."""
        pair = next((p for p in self._check_list if p.protocol is protocol and p.remote_addr == addr), None)
        if pair is None:
            return
        before = self._nominations.get(pair)
        self._nominations[pair] = transaction_id
        insists = before is not None and before != transaction_id
        if insists and pair.state is State.SUCCEEDED and pair is not self.selected:
            self._select(pair)

    def _select(self, pair: ice.CandidatePair) -> None:
        self.selected = pair
        floor = self.priority(pair)
        for other in self._check_list:
            if other is not pair and self.priority(other) < floor:
                self._stop_check(other)
        self._owner.pair_selected(self, pair)

    def _stop_check(self, pair: ice.CandidatePair) -> None:
        """The pair is not wanted any more; a check of the peer can still revive it."""
        if pair.task is not None:
            pair.task.cancel()
            pair.task = None
            pair.state = State.FROZEN

    def _resolve(self, candidate: Candidate) -> None:
        if len(self._resolving) >= MDNS_MAX:
            self.refused["mdns-too-many"] += 1
            return
        task = self._loop.create_task(self._resolve_and_add(candidate))
        self._resolving.add(task)
        task.add_done_callback(self._resolving.discard)

    async def _resolve_and_add(self, candidate: Candidate) -> None:
        address = None
        with contextlib.suppress(OSError):  # no multicast here, or port 5353 is taken
            address = await self._names.resolve(candidate.host)
        if self._closing:
            return
        if address is None:
            self.refused["mdns-unresolved"] += 1
        elif len(self._remote_candidates) >= REMOTE_CANDIDATES_MAX:
            self.refused["too-many"] += 1
        elif not may_check(address, loopback=self._loopback):
            self.refused["address"] += 1
        else:
            self._add_remote_candidate(candidate, address)
        self._pace()


def _worth_relaying(protocol: ice.StunProtocol, remote: Candidate) -> bool:
    """Not to the loopback of the server, and not to the address behind a .local name, which the server would learn."""
    if is_mdns_hostname(remote.host):
        return False
    here, there = ipaddress.ip_address(protocol.local_candidate.host), ipaddress.ip_address(remote._network_host)
    return here.is_loopback or not there.is_loopback
