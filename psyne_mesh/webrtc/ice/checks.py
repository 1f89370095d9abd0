"""One STUN transaction with a peer, the protocol object that aioice runs it on, and the pings that need neither."""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import trio

from psyne_mesh.webrtc.ice.binding import binding_request, mapped_address
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.library import ice, stun
from psyne_mesh.webrtc.ice.port import Base, UdpPort
from psyne_mesh.webrtc.ice.stun_guard import (
    BINDING,
    HEARTBEAT,
    HEARTBEAT_BYTES,
    SUCCESS,
    XOR_MAPPED_ADDRESS,
    StunHeader,
    is_authentic,
)

# RFC 8445 section 14.3 starts at 500 ms and doubles, which makes one lost check cost half a second and a peer that
# starts 10 s late wait for 15. Browsers send every 50 ms while they connect; so a check of 100 bytes may.
_HEARTBEAT_HEAD: Final = struct.pack("!HH", HEARTBEAT, HEARTBEAT_BYTES)
RTO_INITIAL_S: Final = 0.1
RTO_MAX_S: Final = 1.6
TRIGGERED_MAX: Final = 8  # extra sends of one check because the peer's own check came in; ends a ping-pong
PING_LIFE_S: Final = 10.0  # an answer later than that tells nothing any more; at two a second 20 are under way at most
ANSWERS_MAX: Final = 128  # addresses whose last answer is remembered, on each base; over the pairs of one agent


class Answer(NamedTuple):
    """What the last answer to a check said: where the peer sees us, and how long it took (None when ambiguous)."""

    mapped: Address | None
    rtt_s: float | None


class Check:
    """A Binding request under way, in the place of aioice's `stun.Transaction`.

    done: called once, with the response or with the error (`stun.TransactionError`).
    """

    __slots__ = (
        "_address",
        "_deadline",
        "_done",
        "_key",
        "_protocol",
        "_request",
        "_rto_s",
        "_sends",
        "_sent_at",
        "_timer",
        "_triggered",
        "finished",
    )

    def __init__(
        self,
        protocol: CheckProtocol,
        request: stun.Message,
        address: Address,
        key: bytes | None,
        *,
        lifetime_s: float,
        done: Callable[[stun.Message | stun.TransactionError, Address], None],
    ) -> None:
        self._protocol = protocol
        self._request = request
        self._address = address
        self._key = key
        self._done = done
        self._deadline = protocol.loop.time() + lifetime_s
        self._rto_s = RTO_INITIAL_S
        self._sends = 0
        self._sent_at = 0.0
        self._triggered = 0
        self._timer: asyncio.TimerHandle | None = None
        self.finished = False

    def start(self) -> None:
        protocol, transaction_id = self._protocol, self._request.transaction_id
        protocol.transactions[transaction_id] = self
        protocol.port.expect(transaction_id, protocol)
        protocol.by_address[self._address] = self
        self._repeat()

    def trigger(self) -> None:
        """The peer's check came in from where this one went: its hole is open now, so send again at once.

        RFC 8445 section 7.3.1.4 asks for it when the pair is In-Progress.
        """
        if not self.finished and self._triggered < TRIGGERED_MAX:
            self._triggered += 1
            self._send()

    def stop(self) -> None:
        """Give up, silently."""
        self.finished = True
        if self._timer is not None:
            self._timer.cancel()
        protocol, transaction_id = self._protocol, self._request.transaction_id
        protocol.transactions.pop(transaction_id, None)
        protocol.port.forget(transaction_id)
        if protocol.by_address.get(self._address) is self:
            del protocol.by_address[self._address]

    def response_received(self, message: stun.Message, address: Address) -> None:
        # RFC 8489 section 9.1.4: an answer that the password did not sign is as good as none.
        if self.finished or (self._key is not None and not message.check_message_integrity(self._key)):
            return
        self.stop()
        if message.message_class == stun.Class.RESPONSE:
            self._protocol.agent.unpack(message)
            # Karn: the answer to a repeated request may belong to any of its sends.
            rtt_s = self._protocol.loop.time() - self._sent_at if self._sends == 1 else None
            self._protocol.remember(address, Answer(message.attributes.get("XOR-MAPPED-ADDRESS"), rtt_s))
            self._done(message, address)
        else:
            self._done(stun.TransactionFailed(message), address)

    def _send(self) -> None:
        self._sends += 1
        self._sent_at = self._protocol.loop.time()
        for _ in range(self._protocol.agent.copies(self._address)):
            self._protocol.send_stun(self._request, self._address)

    def _repeat(self) -> None:
        loop = self._protocol.loop
        left_s = self._deadline - loop.time()
        if left_s <= 0:
            self._expire()
            return
        self._send()
        self._timer = loop.call_later(min(self._rto_s, left_s), self._repeat)
        self._rto_s = min(2 * self._rto_s, RTO_MAX_S)

    def _expire(self) -> None:
        self.stop()
        self._done(stun.TransactionTimeout(), self._address)


class Packer(Protocol):
    """What a check needs of its agent, to carry DTLS."""

    def pack(self, message: stun.Message, address: Address) -> None: ...
    def unpack(self, message: stun.Message) -> None: ...
    def copies(self, address: Address) -> int: ...


class CheckProtocol(ice.StunProtocol):
    """aioice's protocol on one base of the shared port."""

    def __init__(
        self, agent: Packer, base: Base, port: UdpPort, loop: asyncio.AbstractEventLoop, check_life_s: float
    ) -> None:
        super().__init__(agent)  # type: ignore[arg-type]  # an `ice.Connection`, and more
        self.agent = agent
        self.base = base
        self.port = port
        self.loop = loop
        self.check_life_s = check_life_s
        self.transactions: dict[bytes, Any] = {}
        self.by_address: dict[Address, Check] = {}  # the newest check under way to that address
        self.answers: dict[Address, Answer] = {}
        self.connection_made(BaseTransport(self))  # type: ignore[arg-type]

    def send_stun(self, message: stun.Message, addr: Address) -> None:
        self.agent.pack(message, addr)
        super().send_stun(message, addr)

    async def request(
        self,
        request: stun.Message,
        addr: Address,
        integrity_key: bytes | None = None,
        retransmissions: int | None = None,
    ) -> tuple[stun.Message, Address]:
        outcome: asyncio.Future[tuple[stun.Message, Address]] = self.loop.create_future()

        def done(result: stun.Message | stun.TransactionError, address: Address) -> None:
            if outcome.done():
                return
            if isinstance(result, stun.TransactionError):
                outcome.set_exception(result)
            else:
                outcome.set_result((result, address))

        if integrity_key is not None:
            request.add_message_integrity(integrity_key)
        check = Check(self, request, addr, integrity_key, lifetime_s=self.check_life_s, done=done)
        check.start()
        try:
            return await outcome
        finally:
            check.stop()

    def remember(self, address: Address, answer: Answer) -> None:
        previous = self.answers.get(address)
        if previous is None and len(self.answers) >= ANSWERS_MAX:
            del self.answers[next(iter(self.answers))]
        if answer.rtt_s is None and previous is not None:
            answer = Answer(answer.mapped, previous.rtt_s)
        self.answers[address] = answer


class BaseTransport:
    """What aioice sees of a base: as much of an asyncio datagram transport as it uses."""

    __slots__ = ("_closing", "_protocol", "_send_batch")

    def __init__(self, protocol: CheckProtocol) -> None:
        self._protocol = protocol
        self._send_batch: Callable[[Sequence[bytes], Address], int] = protocol.base.send_batch
        self._closing = False

    def sendto(self, data: bytes, addr: Address) -> None:
        self._send_batch((data,), addr)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """The socket stays open for the other peers; only aioice has to believe that it is gone."""
        if not self._closing:
            self._closing = True
            self._protocol.loop.call_soon(self._protocol.connection_lost, None)


class Pinger(Protocol):
    """What `Pings` needs of its agent."""

    ice_controlling: bool

    def consent_attributes(self, pair: ice.CandidatePair) -> bytes: ...


class Pings:
    """Checks of consent on one pair: each is sent once, and its answer is read in the call of the port that received it,
    outside the asyncio loop.

    1. `send(now)`; 2. the callback is called for each authentic answer; 3. `close()`.

    key: the password of the peer.
    """

    __slots__ = (
        "_address",
        "_agent",
        "_answered",
        "_attributes",
        "_controlling",
        "_key",
        "_pair",
        "_protocol",
        "_sent",
    )

    def __init__(
        self, agent: Pinger, pair: ice.CandidatePair, key: bytes, answered: Callable[[float, float], None]
    ) -> None:
        assert isinstance(pair.protocol, CheckProtocol)
        self._agent = agent
        self._pair = pair
        self._protocol = pair.protocol
        self._address: Address = pair.remote_addr
        self._key = key
        self._answered = answered
        self._controlling = agent.ice_controlling
        self._attributes = agent.consent_attributes(pair)
        self._sent: dict[bytes, float] = {}

    def send(self, now: float) -> None:
        for old in [one for one, at in self._sent.items() if now - at > PING_LIFE_S]:
            self._forget(old)
        if self._controlling != self._agent.ice_controlling:  # a conflict of roles was settled
            self._controlling = self._agent.ice_controlling
            self._attributes = self._agent.consent_attributes(self._pair)
        transaction_id = secrets.token_bytes(12)
        self._sent[transaction_id] = now
        self._protocol.port.expect_here(transaction_id, self)
        request = binding_request(transaction_id, self._attributes, self._key)
        self._protocol.base.send_batch((request,), self._address)

    def heartbeat(self, number: int) -> None:
        """Tell the peer that this process lives though its loop stands still: the one thing here that another thread may call.
        It touches no state, and through a socket of our own only: a relay's tables are the loop's."""
        base = self._protocol.base
        if base.kind == "host":
            attributes = _HEARTBEAT_HEAD + number.to_bytes(HEARTBEAT_BYTES, "big") + self._attributes
            base.send_batch((binding_request(secrets.token_bytes(12), attributes, self._key),), self._address)

    def answer_received(self, data: bytes, header: StunHeader, address: Address) -> None:
        # RFC 8489 section 9.1.4: an answer that the password did not sign is as good as none. RFC 7675 section 5.1: one
        # from elsewhere says nothing of this pair.
        if address != self._address or header.method != BINDING or not is_authentic(data, header, self._key):
            return
        transaction_id = header.transaction_id
        sent_at = self._sent[transaction_id]
        self._forget(transaction_id)
        if header.message_class == SUCCESS:
            now = trio.current_time()
            told = header.attributes.get(XOR_MAPPED_ADDRESS)
            mapped = None if told is None else mapped_address(told, transaction_id)
            self._protocol.remember(address, Answer(mapped, now - sent_at))
            self._answered(now, now - sent_at)

    def close(self) -> None:
        for transaction_id in list(self._sent):
            self._forget(transaction_id)

    def _forget(self, transaction_id: bytes) -> None:
        del self._sent[transaction_id]
        self._protocol.port.forget(transaction_id)
