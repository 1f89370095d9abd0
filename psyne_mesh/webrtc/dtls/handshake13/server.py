"""A server's part before there are keys: which hello is answered, with what (RFC 8446 section 4.1)."""

from __future__ import annotations

from psyne_mesh.webrtc.dtls.handshake13 import groups
from psyne_mesh.webrtc.dtls.handshake13.client import hash_of_first_hello
from psyne_mesh.webrtc.dtls.handshake13.core import Handshake, Settings, ack_after, encode_ack
from psyne_mesh.webrtc.dtls.handshake13.flight import Flight, Ledger, Outgoing
from psyne_mesh.webrtc.dtls.handshake13.messages import (
    ClientHello,
    Message,
    ServerHello,
    read_client_hello_untrusted,
)
from psyne_mesh.webrtc.dtls.handshake13.reassembly import Fragment, plaintext_reassembly, split_fragments_untrusted
from psyne_mesh.webrtc.dtls.handshake13.wire import (
    DTLS_1_3,
    HELLO_RETRY_RANDOM,
    RANDOM_BYTES,
    Alert,
    MessageType,
    Refused,
)
from psyne_mesh.webrtc.dtls.record13 import ACK
from psyne_mesh.webrtc.dtls.suites13 import Suite

HELLOS_MAX = 32  # different ones answered in one session: each costs a signature, and anybody can make them up


class ServerHellos:
    """The hellos that come, each answered beside the others: nothing proves which of them is the peer's.

    1. `receive(content, number, now)` with each plaintext handshake record: each new ClientHello begins a `Handshake`, which is
       returned; one that comes again makes its handshake repeat its flight. `Refused` for one that cannot be answered.
    2. After each call: send `take_datagrams()`. `handle_timeout(now)` at `next_timeout()`.

    met_older: a whole hello has come that does not offer 1.3; the owner takes the mark away.
    """

    __slots__ = (
        "_ack_deadline",
        "_answered",
        "_ledger",
        "_n_hellos",
        "_out",
        "_reassembly",
        "_received",
        "_retry",
        "_retry_reassembly",
        "_settings",
        "met_older",
    )

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._reassembly = plaintext_reassembly(0)
        self._retry_reassembly = plaintext_reassembly(1)
        self._retry: _Retry | None = None
        self._answered: list[tuple[Message, Handshake]] = []
        self._n_hellos = 0
        self._received: list[tuple[int, int]] = []  # records with parts of the hello that is being collected
        self._ack_deadline: float | None = None
        self._out: list[bytes] = []
        self.met_older = False

    def receive(self, content: bytes, number: int, now: float) -> Handshake | None:
        fragments = split_fragments_untrusted(content)
        if fragments is None:
            raise Refused(Alert.DECODE_ERROR, "a handshake record that holds no whole fragments")
        message = self._collect(fragments, number)
        if message is None:
            if self._received and self._ack_deadline is None:
                self._ack_deadline = now + ack_after(self._settings.timeout_s)
            return None
        self._received, self._ack_deadline = [], None
        for known, handshake in self._answered:
            if known == message:
                handshake.resend(now)
                return None
        if self._retry is not None and message == self._retry.hello:
            self._out += self._retry.flight.resend(now)
            return None
        if self._n_hellos >= HELLOS_MAX:
            return None
        return self._answer(message, fragments[0].sequence, now)

    def next_timeout(self) -> float | None:
        return self._ack_deadline

    def handle_timeout(self, now: float) -> None:
        """RFC 9147 section 7.1: the rest of a hello may be lost."""
        if self._ack_deadline is not None and now >= self._ack_deadline:
            self._ack_deadline = None
            self._out.append(self._ledger.seal(ACK, encode_ack(self._received))[0])

    def take_datagrams(self) -> list[bytes]:
        datagrams, self._out = self._out, []
        return datagrams

    def _collect(self, fragments: list[Fragment], number: int) -> Message | None:
        second = fragments[0].sequence == 1 and self._retry is not None
        reassembly = self._retry_reassembly if second else self._reassembly
        for fragment in fragments:
            if fragment.kind == MessageType.CLIENT_HELLO and reassembly.add(fragment):
                self._received = [*self._received[-8:], (0, number)]
        message = reassembly.take()
        if message is not None:  # the next one at this place is collected anew
            if second:
                self._retry_reassembly = plaintext_reassembly(1)
            else:
                self._reassembly = plaintext_reassembly(0)
        return message

    def _answer(self, message: Message, sequence: int, now: float) -> Handshake | None:
        hello = read_client_hello_untrusted(message.body)
        if DTLS_1_3 not in hello.versions:
            self.met_older = True
            return None
        self._n_hellos += 1
        suite = self._choose_suite(hello)
        shares = dict(hello.shares)
        group = next((group for group in self._settings.groups if group in shares), None)
        retry = self._retry if sequence else None
        if retry is not None:
            retry.check(hello)
        if group is None:
            if retry is not None:
                raise Refused(Alert.ILLEGAL_PARAMETER, "a second hello without the share that was asked for")
            self._ask_again(message, hello, suite, now)
            return None
        share, secret = groups.answer(group, shares[group], self._settings.keys)
        answer = ServerHello(self._settings.random(RANDOM_BYTES), suite.number, group, share)
        ours = Message(MessageType.SERVER_HELLO, answer.encode())
        handshake = Handshake(
            self._settings,
            suite,
            group,
            hellos=(retry.transcript if retry is not None else b"") + message.transcript + ours.transcript,
            shared_secret=secret,
            their_sequence=sequence + 1,
            our_sequence=sequence + 1,
            ledger=self._ledger,
        )
        handshake.start_server_flight(
            Outgoing(None, ours, sequence), hello.srtp_profiles, hello.signature_algorithms, now
        )
        self._answered = [*self._answered[-3:], (message, handshake)]
        return handshake

    def _choose_suite(self, hello: ClientHello) -> Suite:
        for suite in self._settings.suites:
            if suite.number in hello.suites:
                return suite
        raise Refused(Alert.HANDSHAKE_FAILURE, "the peer offers no cipher suite of ours")

    def _ask_again(self, message: Message, hello: ClientHello, suite: Suite, now: float) -> None:
        """HelloRetryRequest (RFC 8446 section 4.1.4), without a cookie: ICE has proved the address."""
        group = next((group for group in self._settings.groups if group in hello.groups), None)
        if group is None:
            raise Refused(Alert.HANDSHAKE_FAILURE, "the peer offers no group of ours")
        request = Message(MessageType.SERVER_HELLO, ServerHello(HELLO_RETRY_RANDOM, suite.number, group).encode())
        self._retry = _Retry(self._settings, self._ledger, message, hello, suite, group, request)
        self._out += self._retry.flight.start([Outgoing(None, request, 0)], now)


class _Retry:
    """A HelloRetryRequest of ours, and the hello that it answers. Sent again when that comes again, never by a timer."""

    __slots__ = ("_first", "_group", "flight", "hello", "transcript")

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        hello: Message,
        first: ClientHello,
        suite: Suite,
        group: int,
        request: Message,
    ) -> None:
        self.hello = hello
        self._first = first
        self._group = group
        self.transcript = hash_of_first_hello(suite, hello) + request.transcript
        self.flight = Flight(settings.mtu, ledger, settings.timeout_s)

    def check(self, second: ClientHello) -> None:
        """RFC 8446 section 4.1.2: only the key share may differ, and be the one that was asked for."""
        same = second.random == self._first.random and second.suites == self._first.suites
        if not same or [group for group, _ in second.shares] != [self._group]:
            raise Refused(Alert.ILLEGAL_PARAMETER, "a second hello that is not the first with another key share")
