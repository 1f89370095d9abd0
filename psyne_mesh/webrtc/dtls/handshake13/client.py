"""A client's part before there are keys: its hello, the answers to it, and a HelloRetryRequest (RFC 8446 section 4.1)."""

from __future__ import annotations

from psyne_mesh.webrtc.dtls.handshake13 import groups, signing
from psyne_mesh.webrtc.dtls.handshake13.core import Handshake, Settings
from psyne_mesh.webrtc.dtls.handshake13.flight import Flight, Ledger, Outgoing
from psyne_mesh.webrtc.dtls.handshake13.messages import (
    SRTP_AES128_CM_SHA1_80,
    ClientHello,
    Message,
    ServerHello,
    read_server_hello_untrusted,
)
from psyne_mesh.webrtc.dtls.handshake13.reassembly import plaintext_reassembly, split_fragments_untrusted
from psyne_mesh.webrtc.dtls.handshake13.wire import DTLS_1_3, RANDOM_BYTES, Alert, MessageType, Refused
from psyne_mesh.webrtc.dtls.suites13 import Suite

MESSAGE_HASH = 254  # RFC 8446 section 4.4.1
_SHARED_GROUPS = (groups.X25519_MLKEM768, groups.X25519)  # those whose shares the first hello carries, as in browsers


class ClientHellos:
    """One hello, and after a HelloRetryRequest a second beside it: nothing proves who sent either answer.

    1. `start(now)`.
    2. `receive(content, number, now)` with each plaintext handshake record: each new ServerHello begins a `Handshake`, which is
       returned. `Refused` for an answer that is none; the hello stands, as somebody else may have made it up.
    3. After each call: send `take_datagrams()`. `handle_timeout(now)` at `next_timeout()`. Over once a handshake has heard
       the peer under its keys.
    """

    __slots__ = (
        "_exchanges",
        "_first",
        "_hello",
        "_ledger",
        "_message",
        "_out",
        "_reassembly",
        "_received",
        "_retried",
        "_retry",
        "_seen",
        "_sequence",
        "_settings",
        "flight",
    )

    def __init__(self, settings: Settings, ledger: Ledger, first: tuple[bytes, ServerHello] | None = None) -> None:
        """first: for the second hello, the transcript before it and the request for it."""
        self._settings = settings
        self._ledger = ledger
        self._first = first
        self._sequence = 0 if first is None else 1
        self._retry: ClientHellos | None = None
        self._retried: Message | None = None
        self._exchanges: dict[int, groups.Exchange] = {}
        self._hello: ClientHello  # these two from `start` on
        self._message: Message
        self._reassembly = plaintext_reassembly(self._sequence)
        self._received: list[int] = []  # numbers of the records with the answer that is being collected
        self._seen: list[Message] = []  # answers that have begun a handshake
        self.flight = Flight(settings.mtu, ledger, settings.timeout_s)
        self._out: list[bytes] = []

    def start(self, now: float) -> None:
        settings = self._settings
        shared = tuple(group for group in settings.groups if group in _SHARED_GROUPS) or settings.groups[:1]
        self._exchanges = groups.begin(shared, settings.keys)
        self._say(
            ClientHello(
                random=settings.random(RANDOM_BYTES),
                suites=tuple(suite.number for suite in settings.suites),
                versions=(DTLS_1_3,),
                groups=settings.groups,
                shares=tuple((group, exchange.share) for group, exchange in self._exchanges.items()),
                signature_algorithms=signing.ALGORITHMS,
                srtp_profiles=(SRTP_AES128_CM_SHA1_80,),
            ),
            now,
        )

    def receive(self, content: bytes, number: int, now: float) -> Handshake | None:
        fragments = split_fragments_untrusted(content)
        if fragments is None:
            raise Refused(Alert.DECODE_ERROR, "a handshake record that holds no whole fragments")
        if self._retry is not None and fragments[0].sequence > self._sequence:
            return self._retry.receive(content, number, now)
        for fragment in fragments:
            if fragment.kind == MessageType.SERVER_HELLO and self._reassembly.add(fragment):
                self._received = [*self._received[-8:], number]
        message = self._reassembly.take()
        if message is None:
            return None
        self._reassembly = plaintext_reassembly(self._sequence)
        numbers, self._received = self._received, []
        if message in self._seen or message == self._retried:
            return None
        answer = read_server_hello_untrusted(message.body)
        if answer.is_retry:
            self._begin_again(message, answer, now)
            return None
        handshake = self._begin(message, answer)
        self._seen = [*self._seen[-3:], message]
        handshake.note_hello(numbers, now)
        return handshake

    def receive_ack(self, numbers: list[tuple[int, int]], now: float) -> None:
        """In plaintext, so only a hint what to send again at once; at its deadline all of the hello goes again."""
        for hellos in (self, self._retry):
            if hellos is not None and not hellos.flight.acknowledge(numbers):
                self._out += hellos.flight.resend(now)

    def next_timeout(self) -> float | None:
        deadlines = [hellos.flight.deadline for hellos in (self, self._retry) if hellos is not None]
        return min((at for at in deadlines if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        for hellos in (self, self._retry):
            if hellos is not None and hellos.flight.deadline is not None and now >= hellos.flight.deadline:
                self._out += hellos.flight.retransmit(now)

    def take_datagrams(self) -> list[bytes]:
        datagrams, self._out = self._out, []
        if self._retry is not None:
            datagrams += self._retry.take_datagrams()
        return datagrams

    # ---------------------------------------------------------------------------------------------------------- answers

    def _say(self, hello: ClientHello, now: float) -> None:
        self._hello, self._message = hello, Message(MessageType.CLIENT_HELLO, hello.encode())
        self._out += self.flight.start([Outgoing(None, self._message, self._sequence)], now)

    def _begin(self, message: Message, answer: ServerHello) -> Handshake:
        """RFC 8446 section 4.1.3."""
        suite = self._suite_of(answer)
        exchange = self._exchanges.get(answer.group)
        if exchange is None:
            raise Refused(Alert.ILLEGAL_PARAMETER, "the peer chose a group for which it got no share")
        if self._first is not None and answer.suite != self._first[1].suite:
            raise Refused(Alert.ILLEGAL_PARAMETER, "the peer changed the suite after its HelloRetryRequest")
        before = b"" if self._first is None else self._first[0]
        return Handshake(
            self._settings,
            suite,
            answer.group,
            hellos=before + self._message.transcript + message.transcript,
            shared_secret=exchange.finish(answer.share),
            their_sequence=self._sequence + 1,
            our_sequence=self._sequence + 1,
            ledger=self._ledger,
        )

    def _begin_again(self, message: Message, answer: ServerHello, now: float) -> None:
        """RFC 8446 section 4.1.4: another share, a cookie, or both; never twice."""
        if self._first is not None:
            raise Refused(Alert.UNEXPECTED_MESSAGE, "a second HelloRetryRequest")
        suite = self._suite_of(answer)
        if answer.group in self._exchanges or (answer.group and answer.group not in self._settings.groups):
            raise Refused(
                Alert.ILLEGAL_PARAMETER, "a HelloRetryRequest for a group that was not offered, or that it has"
            )
        if not answer.group and not answer.cookie:
            raise Refused(Alert.ILLEGAL_PARAMETER, "a HelloRetryRequest that asks for nothing")
        before = hash_of_first_hello(suite, self._message) + message.transcript
        retry = ClientHellos(self._settings, self._ledger, (before, answer))
        retry._exchanges = groups.begin((answer.group,), self._settings.keys) if answer.group else self._exchanges
        shares = tuple((group, exchange.share) for group, exchange in retry._exchanges.items())
        retry._say(self._hello._replace(shares=shares, cookie=answer.cookie), now)
        self._retry, self._retried = retry, message

    def _suite_of(self, answer: ServerHello) -> Suite:
        for suite in self._settings.suites:
            if suite.number == answer.suite:
                return suite
        raise Refused(Alert.ILLEGAL_PARAMETER, "the peer chose a suite that was not offered")


def hash_of_first_hello(suite: Suite, hello: Message) -> bytes:
    """What stands for it in the transcript after a HelloRetryRequest."""
    return Message(MESSAGE_HASH, suite.digest(hello.transcript)).transcript
