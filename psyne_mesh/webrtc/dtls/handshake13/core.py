"""One handshake with one hello of the peer, from its ServerHello to the Finished of both (RFC 8446 section 4.4)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import attrs

from psyne_mesh.webrtc.dtls.handshake13 import signing
from psyne_mesh.webrtc.dtls.handshake13.flight import (
    INITIAL_TIMEOUT_S,
    Flight,
    Ledger,
    Outgoing,
)
from psyne_mesh.webrtc.dtls.handshake13.groups import KeyMaker
from psyne_mesh.webrtc.dtls.handshake13.messages import (
    CertificateMessage,
    CertificateRequest,
    CertificateVerify,
    Message,
    check_encrypted_extensions_untrusted,
    encode_encrypted_extensions,
    read_certificate_request_untrusted,
    read_certificate_untrusted,
    read_certificate_verify_untrusted,
)
from psyne_mesh.webrtc.dtls.handshake13.reassembly import Reassembly, split_fragments_untrusted
from psyne_mesh.webrtc.dtls.handshake13.schedule import KeySchedule
from psyne_mesh.webrtc.dtls.handshake13.wire import Alert, MessageType, Reader, Refused, vector
from psyne_mesh.webrtc.dtls.record13 import ACK, OpeningKeys, SealingKeys
from psyne_mesh.webrtc.dtls.suites13 import Suite

HANDSHAKE_EPOCH, APPLICATION_EPOCH = 2, 3
ACK_AFTER_MAX_S = 0.012  # what reordering, and a process at 60 Hz, may hold back of one burst; a guess
_TO_ACK_MAX = 64  # record numbers in one ACK; a flight of ours has at most 20 records


class FingerprintRefused(Refused):
    """The certificate is not the one that was signalled."""


@attrs.frozen(kw_only=True)
class Settings:
    """What all handshakes of one session share.

    matches: does a DER certificate have one of the signalled fingerprints? suites, groups: ours, best first.
    timeout_s: until the first repetition of a flight. keys, sign: others only in tests.
    """

    private_key: signing.PrivateKey
    der: bytes
    is_client: bool
    matches: Callable[[bytes], bool]
    mtu: int = 1200
    suites: tuple[Suite, ...]
    groups: tuple[int, ...]
    timeout_s: float = INITIAL_TIMEOUT_S
    keys: KeyMaker = attrs.field(factory=KeyMaker)
    sign: signing.Sign = signing.sign
    random: Callable[[int], bytes]


# ------------------------------------------------------------------------------------- what is waited for, with its data


class WaitEncryptedExtensions(NamedTuple):
    """A client that has the ServerHello."""


class WaitCertificateRequest(NamedTuple):
    """A client again: a server that asks for no certificate cannot know whom it speaks to, and is refused."""


class WaitCertificate(NamedTuple):
    """`request`: the server's for the client's certificate; a server waits with its own answered by nothing yet."""

    request: CertificateRequest


class WaitCertificateVerify(NamedTuple):
    request: CertificateRequest
    der: bytes  # has a fingerprint that was signalled


class WaitFinished(NamedTuple):
    request: CertificateRequest


class Done(NamedTuple):
    """The peer has proved itself, and what epoch 3 needs is there."""


Waiting: TypeAlias = (
    WaitEncryptedExtensions | WaitCertificateRequest | WaitCertificate | WaitCertificateVerify | WaitFinished | Done
)


class Handshake:
    """Everything after the hellos, in either role.

    1. Made by `client` or `server` when both hellos are known: `transcript` holds them.
    2. `receive(content, number, now)` with each handshake record that `opening` opened. `Refused` ends it; `done` tells
       that it is through: then `opening3` and `sealing3` take over.
    3. After each call: send `take_datagrams()`. `handle_timeout(now)` at `next_timeout()`.
    4. `receive_ack(numbers, now)`; a client's last flight is outstanding until it says true.
    """

    __slots__ = (
        "_ack_deadline",
        "_ledger",
        "_out",
        "_reassembly",
        "_schedule",
        "_settings",
        "_to_ack",
        "_transcript",
        "_waiting",
        "flight",
        "group",
        "next_sequence",
        "opening",
        "opening3",
        "peer_has_spoken",
        "sealing",
        "sealing3",
        "suite",
    )

    def __init__(
        self,
        settings: Settings,
        suite: Suite,
        group: int,
        *,
        hellos: bytes,
        shared_secret: bytes,
        their_sequence: int,
        our_sequence: int,
        ledger: Ledger,
    ) -> None:
        """hellos: the transcript up to the ServerHello. their_sequence, our_sequence: message_seq of the next message."""
        self._settings = settings
        self._ledger = ledger
        self.suite = suite
        self.group = group
        self._transcript = suite.transcript()
        self._transcript.update(hellos)
        self._schedule = KeySchedule(suite, shared_secret, self._transcript.digest())
        ours, theirs = self._handshake_secrets
        self.sealing = SealingKeys(suite, ours, HANDSHAKE_EPOCH)
        self.opening = OpeningKeys(suite, theirs, HANDSHAKE_EPOCH)
        self.sealing3: SealingKeys | None = None
        self.opening3: OpeningKeys | None = None
        self.next_sequence = our_sequence
        self.flight = Flight(settings.mtu, ledger, settings.timeout_s)
        self.peer_has_spoken = False  # under the handshake's keys
        self._waiting: Waiting = WaitEncryptedExtensions() if settings.is_client else WaitCertificate(_OUR_REQUEST)
        self._reassembly = Reassembly(their_sequence)
        self._to_ack: list[tuple[int, int]] = []
        self._ack_deadline: float | None = None
        self._out: list[bytes] = []

    @property
    def _handshake_secrets(self) -> tuple[bytes, bytes]:
        """Ours, theirs."""
        schedule = self._schedule
        if self._settings.is_client:
            return schedule.client_handshake, schedule.server_handshake
        return schedule.server_handshake, schedule.client_handshake

    @property
    def done(self) -> bool:
        return type(self._waiting) is Done

    @property
    def their_sequence(self) -> int:
        return self._reassembly.sequence

    # ---------------------------------------------------------------------------------------------------------- driving

    def receive(self, content: bytes, number: int, now: float) -> None:
        """The content of a handshake record of epoch 2."""
        self.peer_has_spoken = True
        fragments = split_fragments_untrusted(content)
        if fragments is None:
            raise Refused(Alert.DECODE_ERROR, "a handshake record that holds no whole fragments")
        fresh = False
        for fragment in fragments:
            fresh = (fragment.sequence >= self._reassembly.sequence and self._reassembly.add(fragment)) or fresh
        self._note_received(HANDSHAKE_EPOCH, number)
        if fresh and not self._settings.is_client:
            self.flight.finish()  # RFC 9147 section 7: the peer's next flight acknowledges ours
        while not self.done and (message := self._reassembly.take()) is not None:
            self._step(message, now)
        if self.done:
            self._ack_deadline = None
            if self._settings.is_client:
                if not fresh:  # the peer repeats itself: it has not got our last flight
                    self._out += self.flight.resend(now)
            else:
                self.acknowledge()
        elif fresh:
            self.expect_rest(now)
        else:
            self._out += self.flight.resend(now)

    def note_hello(self, numbers: list[int], now: float) -> None:
        """A client has the ServerHello, in records of epoch 0 with these numbers."""
        for number in numbers:
            self._note_received(0, number)
        self.expect_rest(now)

    def expect_rest(self, now: float) -> None:
        """RFC 9147 section 7.1: part of a flight is there. Should the rest be lost, an ACK asks for it."""
        if self._ack_deadline is None:
            self._ack_deadline = now + ack_after(self._settings.timeout_s)

    def resend(self, now: float) -> None:
        """The peer repeats itself."""
        self._out += self.flight.resend(now)

    def receive_ack(self, numbers: list[tuple[int, int]], now: float) -> bool:
        """Whether all of our flight has been acknowledged. Of a flight in part: the rest goes again at once (RFC 9147
        section 5.8.1)."""
        self.peer_has_spoken = True
        if self.flight.acknowledge(numbers):
            return True
        self._out += self.flight.resend(now, is_authentic=True)
        return False

    def acknowledge(self) -> None:
        """RFC 9147 section 7: what has come of the peer's flight. A server that is through says so in epoch 3."""
        keys = self.sealing3 if self.done and self.sealing3 is not None else self.sealing
        self._out.append(keys.seal_one(ACK, encode_ack(self._to_ack)))
        self._ack_deadline = None

    def next_timeout(self) -> float | None:
        deadlines = [at for at in (self.flight.deadline, self._ack_deadline) if at is not None]
        return min(deadlines, default=None)

    def handle_timeout(self, now: float) -> None:
        if self._ack_deadline is not None and now >= self._ack_deadline:
            self.acknowledge()
        if self.flight.deadline is not None and now >= self.flight.deadline:
            self._out += self.flight.retransmit(now)

    def take_datagrams(self) -> list[bytes]:
        datagrams, self._out = self._out, []
        return datagrams

    # --------------------------------------------------------------------------------------------------------- stepping

    def _step(self, message: Message, now: float) -> None:
        step = _STEPS.get((type(self._waiting), message.kind))
        if step is None:
            raise Refused(Alert.UNEXPECTED_MESSAGE, f"a message of type {message.kind} came out of turn")
        self._waiting = step(self, self._waiting, message, now)

    def heard(self, message: Message) -> None:
        self._transcript.update(message.transcript)

    def say(self, kind: MessageType, body: bytes, keys: SealingKeys | None) -> Outgoing:
        """A message of ours, in the transcript and numbered."""
        message = Message(kind, body)
        self._transcript.update(message.transcript)
        sequence, self.next_sequence = self.next_sequence, self.next_sequence + 1
        return Outgoing(keys, message, sequence)

    def start_server_flight(
        self, hello: Outgoing, srtp_profiles: tuple[int, ...], algorithms: tuple[int, ...], now: float
    ) -> None:
        """RFC 8446 figure 1: {EncryptedExtensions} {CertificateRequest} {Certificate} {CertificateVerify} {Finished}."""
        keys = self.sealing
        flight = [
            hello,
            self.say(MessageType.ENCRYPTED_EXTENSIONS, encode_encrypted_extensions(srtp_profiles), keys),
            self.say(MessageType.CERTIFICATE_REQUEST, _OUR_REQUEST_BODY, keys),
            *self._authentication(CertificateRequest(b"", algorithms)),
        ]
        self._enter_epoch_3()
        self._out += self.flight.start(flight, now)

    def _authentication(self, request: CertificateRequest) -> list[Outgoing]:
        """RFC 8446 section 4.4: {Certificate} {CertificateVerify} {Finished}."""
        settings, keys = self._settings, self.sealing
        algorithm = signing.choose_algorithm(settings.private_key, request.signature_algorithms)
        ours = CertificateMessage(request.context, settings.der)
        certificate = self.say(MessageType.CERTIFICATE, ours.encode(), keys)
        content = signing.signed_content(self._transcript.digest(), by_client=settings.is_client)
        signature = settings.sign(settings.private_key, content, algorithm)
        verify = self.say(MessageType.CERTIFICATE_VERIFY, CertificateVerify(algorithm, signature).encode(), keys)
        verify_data = self._schedule.verify_data(self._handshake_secrets[0], self._transcript.digest())
        return [certificate, verify, self.say(MessageType.FINISHED, verify_data, keys)]

    def _enter_epoch_3(self) -> None:
        """The transcript has the server's Finished."""
        client, server = self._schedule.application(self._transcript.digest())
        ours, theirs = (client, server) if self._settings.is_client else (server, client)
        self.sealing3 = SealingKeys(self.suite, ours, APPLICATION_EPOCH)
        self.opening3 = OpeningKeys(self.suite, theirs, APPLICATION_EPOCH)

    def _note_received(self, epoch: int, number: int) -> None:
        if len(self._to_ack) < _TO_ACK_MAX:
            self._to_ack.append((epoch, number))

    # ------------------------------------------------------------------------------------------------------------ steps

    def _encrypted_extensions(self, waiting: WaitEncryptedExtensions, message: Message, now: float) -> Waiting:
        check_encrypted_extensions_untrusted(message.body)
        self.heard(message)
        return WaitCertificateRequest()

    def _certificate_request(self, waiting: WaitCertificateRequest, message: Message, now: float) -> Waiting:
        request = read_certificate_request_untrusted(message.body)
        signing.choose_algorithm(self._settings.private_key, request.signature_algorithms)
        self.heard(message)
        return WaitCertificate(request)

    def _certificate(self, waiting: WaitCertificate, message: Message, now: float) -> Waiting:
        certificate = read_certificate_untrusted(message.body)
        if certificate.context:
            raise Refused(Alert.ILLEGAL_PARAMETER, "a certificate for a request that was not made")
        if not self._settings.matches(certificate.der):
            raise FingerprintRefused(Alert.BAD_CERTIFICATE, "the peer's certificate is not the one that was signalled")
        self.heard(message)
        return WaitCertificateVerify(waiting.request, certificate.der)

    def _certificate_verify(self, waiting: WaitCertificateVerify, message: Message, now: float) -> Waiting:
        verify = read_certificate_verify_untrusted(message.body)
        content = signing.signed_content(self._transcript.digest(), by_client=not self._settings.is_client)
        signing.verify_untrusted(waiting.der, content, verify.algorithm, verify.signature)
        self.heard(message)
        return WaitFinished(waiting.request)

    def _finished(self, waiting: WaitFinished, message: Message, now: float) -> Waiting:
        expected = self._schedule.verify_data(self._handshake_secrets[1], self._transcript.digest())
        if not hmac.compare_digest(message.body, expected):
            raise Refused(Alert.DECRYPT_ERROR, "the peer's Finished is not of this handshake")
        self.heard(message)
        if self._settings.is_client:
            self._enter_epoch_3()
            self.flight = Flight(self._settings.mtu, self._ledger, self._settings.timeout_s)
            self._out += self.flight.start(self._authentication(waiting.request), now)
        else:
            self.flight.finish()
        return Done()


def ack_after(timeout_s: float) -> float:
    """How long part of a flight waits for the rest before it is acknowledged. RFC 9147 section 7.1 proposes a quarter of the
    time until the peer repeats itself; a flight is one burst, so on a long path the rest comes sooner or not at all."""
    return min(timeout_s / 4, ACK_AFTER_MAX_S)


def encode_ack(numbers: list[tuple[int, int]]) -> bytes:
    """RFC 9147 section 7: in ascending order."""
    return vector(2, b"".join(epoch.to_bytes(8, "big") + n.to_bytes(8, "big") for epoch, n in sorted(numbers)))


def read_ack_untrusted(content: bytes) -> list[tuple[int, int]]:
    reader = Reader(content)
    entries = Reader(reader.vector(2))
    reader.end()
    numbers = []
    while entries.has_more:
        numbers.append((entries.number(8), entries.number(8)))
    return numbers


_OUR_REQUEST = CertificateRequest(b"", signing.ALGORITHMS)
_OUR_REQUEST_BODY = _OUR_REQUEST.encode()
_Step: TypeAlias = Callable[..., Waiting]
# What each state takes; anything else is unexpected_message (RFC 8446 sections 4 and 6.2)
_STEPS: dict[tuple[type, int], _Step] = {
    (WaitEncryptedExtensions, MessageType.ENCRYPTED_EXTENSIONS): Handshake._encrypted_extensions,  # 4.3.1
    (WaitCertificateRequest, MessageType.CERTIFICATE_REQUEST): Handshake._certificate_request,  # 4.3.2
    (WaitCertificate, MessageType.CERTIFICATE): Handshake._certificate,  # 4.4.2
    (WaitCertificateVerify, MessageType.CERTIFICATE_VERIFY): Handshake._certificate_verify,  # 4.4.3
    (WaitFinished, MessageType.FINISHED): Handshake._finished,  # 4.4.4
}
