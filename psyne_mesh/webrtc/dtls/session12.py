"""One DTLS 1.2 association (RFC 6347): OpenSSL shakes hands."""

from __future__ import annotations

from collections.abc import Sequence

from psyne_mesh.errors import FingerprintMismatch, LocalError, ProtocolError
from psyne_mesh.webrtc.dtls import gate12, record12
from psyne_mesh.webrtc.dtls.certificate import Certificate, Fingerprint
from psyne_mesh.webrtc.dtls.events import Closed, DtlsEvent, DtlsStats, Failed, HandshakeCompleted, State
from psyne_mesh.webrtc.dtls.flight import Flight
from psyne_mesh.webrtc.dtls.gate12 import Gate12
from psyne_mesh.webrtc.dtls.handshake13.messages import Message
from psyne_mesh.webrtc.dtls.handshake13.reassembly import Reassembly, split_fragments_untrusted
from psyne_mesh.webrtc.dtls.openssl import OpenSslHandshake
from psyne_mesh.webrtc.dtls.protection import CLOSE_NOTIFY, RecordProtection, openssl_records
from psyne_mesh.webrtc.dtls.record13 import plaintext_record
from psyne_mesh.webrtc.dtls.records import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    HEADER_SIZE,
    MAX_CIPHERTEXT,
    Record,
    alert_name,
    split_untrusted,
)

_ATTEMPTS_MAX = 4  # handshakes with hellos that nothing has proved yet; the oldest gives way
MIN_MTU = 256  # below it OpenSSL will not shake hands
_CHANGE = b"\1"  # RFC 5246 section 7.1: OpenSSL ends a handshake over any other value, which anybody can write
_MAX_EARLY_RECORDS = 16  # kept while our own handshake lags behind the peer's; later ones are dropped: SCTP repeats


class Attempt:
    """One handshake of OpenSSL's, and what has been said in it in plaintext. `hello`: the peer's, for a server."""

    __slots__ = ("_said", "_saying", "flight", "handshake", "hello")

    def __init__(self, handshake: OpenSslHandshake, flight: Flight, hello: Message | None) -> None:
        self.handshake = handshake
        self.flight = flight
        self.hello = hello
        self._saying = Reassembly(0)
        self._said: list[Message] = []

    def note_said(self, output: bytes) -> None:
        for record in split_untrusted(output)[0]:
            if record.content_type == HANDSHAKE and record.epoch == 0:
                for fragment in split_fragments_untrusted(record.data[HEADER_SIZE:]) or []:
                    self._saying.add(fragment)
        while (message := self._saying.take()) is not None:
            self._said.append(message)

    def has_signed(self, flight: list[Message]) -> bool:
        """Whether the peer has signed this flight, in this handshake."""
        if self.hello is None:
            hello = next((said.body for said in reversed(self._said) if said.kind == gate12.CLIENT_HELLO), b"")
            return gate12.server_has_signed(flight, hello)
        said = b"".join(gate12.whole(message, place) for place, message in enumerate(self._said))
        return gate12.client_has_signed(flight, gate12.whole(self.hello, 0) + said)


class Session12:
    """A DTLS 1.2 client or server with mutual authentication by fingerprint; the verbs are those of `DtlsSession`.

    `mtu` bounds the datagrams of the handshake; a packet may have up to 2^14 bytes. With `fast_records` the records of
    AES-GCM sessions are made in `record12`, and OpenSSL's memory is given back after the handshake; without, OpenSSL
    makes them to the end, as it does those of other ciphers.
    """

    __slots__ = (
        "_attempts",
        "_cipher",
        "_context",
        "_early",
        "_events",
        "_fast_records",
        "_flight",
        "_gate",
        "_group",
        "_handshake",
        "_handshake_s",
        "_held",
        "_hopeless",
        "_is_client",
        "_mtu",
        "_n_dropped",
        "_n_fed",
        "_n_received",
        "_n_sent",
        "_outbox",
        "_peer_alert",
        "_protection",
        "_remote_fingerprints",
        "_started_at",
        "_version",
        "state",
    )

    def __init__(
        self,
        certificate: Certificate,
        *,
        is_client: bool,
        remote_fingerprints: Sequence[Fingerprint],
        mtu: int = 1200,
        fast_records: bool = True,
    ) -> None:
        if mtu < MIN_MTU:
            raise LocalError(f"mtu = {mtu}: DTLS needs at least {MIN_MTU} bytes for its handshake")
        self.state: State = "new"
        self._context = certificate.context
        self._is_client = is_client
        self._remote_fingerprints = tuple(remote_fingerprints)
        self._fast_records = fast_records
        self._mtu = mtu
        self._flight = Flight(mtu)
        self._handshake: OpenSslHandshake | None = None
        self._attempts: list[Attempt] = []  # until one of them is through; a client has one
        if is_client:
            self._handshake = OpenSslHandshake(self._context, is_client=True, mtu=mtu)
            self._attempts = [Attempt(self._handshake, self._flight, None)]
        self._gate = Gate12(is_client=is_client)
        self._held: list[bytes] = []  # ChangeCipherSpec and Finished that have overtaken their flight
        self._hopeless: ProtocolError | None = None
        self._n_fed = 0
        self._protection: RecordProtection | None = None  # set while established, and only then
        self._early: list[bytes] = []
        self._outbox: list[bytes] = []
        self._events: list[DtlsEvent] = []
        self._started_at = 0.0
        self._handshake_s: float | None = None
        self._cipher: str | None = None
        self._version: str | None = None
        self._group: str | None = None
        self._peer_alert: str | None = None
        self._n_sent = self._n_received = self._n_dropped = 0

    @property
    def overhead(self) -> int:
        """Bytes that protection adds to a packet; before the handshake is complete, the most that it may add."""
        return self._protection.overhead if self._protection is not None else record12.OVERHEAD

    @property
    def stats(self) -> DtlsStats:
        return DtlsStats(
            records_sent=self._n_sent,
            records_received=self._n_received,
            records_dropped=self._n_dropped,
            flights_retransmitted=self._flight.n_retransmitted,
            handshake_s=self._handshake_s,
            cipher=self._cipher,
            version=self._version,
            group=self._group,
            is_post_quantum=False,  # the groups that resist a quantum computer are for 1.3 only
            peer_alert=self._peer_alert,
        )

    def start(self, now: float) -> None:
        if self.state != "new":
            raise LocalError("start() is for a new session")
        self.state = "handshaking"
        self._started_at = now
        if self._is_client:
            self._advance(None, now)
            self._drain(now)

    def receive(self, datagram: bytes | memoryview, now: float) -> list[bytes]:
        """The packets of this datagram. Nothing is raised for any bytes: what is not ours is dropped and counted."""
        if type(datagram) is not bytes:
            datagram = bytes(datagram)
        protection = self._protection
        if (
            protection is not None
            and len(datagram) > HEADER_SIZE
            and datagram[0] == APPLICATION_DATA
            and len(datagram) - HEADER_SIZE == datagram[11] << 8 | datagram[12] <= MAX_CIPHERTEXT
        ):  # one record of data: all that a running session sees
            plaintext = protection.open(datagram)
            if plaintext:
                self._n_received += 1
                return [plaintext]
            self._n_dropped += 1
            return []
        return self._receive_other(datagram, now)

    def receive_many(self, datagrams: Sequence[bytes | memoryview], now: float) -> list[bytes]:
        """`receive` for each in turn."""
        return [packet for datagram in datagrams for packet in self.receive(datagram, now)]

    def send(self, packets: Sequence[bytes], *, spare: bool = False) -> list[bytes]:
        """One protected datagram for each packet of 1 to 2^14 bytes. After the end of the session there is nobody to
        send to, and the list is empty. Raises `LocalError` before the handshake is complete."""
        protection = self._protection
        if protection is None:
            if self.state in ("closed", "failed"):
                return []
            raise LocalError("the DTLS handshake is not complete")
        datagrams = protection.seal(packets)
        self._n_sent += len(datagrams)
        if len(datagrams) < len(packets):
            self._end("failed", Failed(ProtocolError("nothing more can be sent on this DTLS session")))
        return datagrams

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Flights of the handshake, their retransmissions, and alerts."""
        datagrams, self._outbox = self._outbox, []
        return datagrams

    def joined(self, handshake: list[bytes], sealed: list[bytes]) -> list[bytes]:
        """What `datagrams_to_send` and `send` gave, for the wire."""
        return handshake + sealed

    def next_timeout(self) -> float | None:
        # A server that has data of the client knows that its last flight was received.
        deadline = None if self._n_received else self._flight.deadline
        doubt = self._gate.deadline if self.state == "handshaking" else None
        if doubt is None or deadline is None:
            return deadline if doubt is None else doubt
        return min(deadline, doubt)

    def handle_timeout(self, now: float) -> None:
        deadline = self.next_timeout()
        if deadline is None or now < deadline:
            return
        if self.state == "handshaking" and self._gate.deadline is not None and now >= self._gate.deadline:
            self._give_up_doubt(now)
            return
        if self._handshake is None:
            self._outbox += self._flight.retransmit(now)
            return
        # OpenSSL's own repetition is the better one, once its clock agrees: it encrypts the Finished under a new number.
        # A server that is done, and whose last flight we never got, drops the old bytes as a replay.
        try:
            self._handshake.repeat_flight()
        except ProtocolError as error:
            self._end("failed", Failed(error))
            return
        output = self._handshake.drain()
        self._outbox += self._flight.datagrams(output, now) if output else self._flight.retransmit(now)

    def take_events(self) -> list[DtlsEvent]:
        events, self._events = self._events, []
        return events

    def close(self, now: float) -> None:
        """Ends the session; an established one says close_notify. Does nothing the second time."""
        if self.state not in ("closed", "failed"):
            self._end("closed", Closed(by_peer=False))

    # ------------------------------------------------------------------------------------------------------ receiving

    def _receive_other(self, datagram: bytes, now: float) -> list[bytes]:
        if self.state == "new" and not self._is_client:
            self.start(now)  # the peer was quicker
        records, whole = split_untrusted(datagram)
        self._n_dropped += not whole
        packets: list[bytes] = []
        for record in records:
            if self.state == "established":
                self._receive_established(record, packets, now)
            elif self.state == "handshaking":
                self._receive_handshaking(record, packets, now)
            else:
                self._n_dropped += 1
        if self.state == "handshaking":
            self._drain(now)
        return packets

    def _receive_established(self, record: Record, packets: list[bytes], now: float) -> None:
        protection = self._protection
        assert protection is not None
        if record.content_type in (HANDSHAKE, CHANGE_CIPHER_SPEC) and record.epoch <= 1:
            # RFC 6347 section 4.2.4: who sent the last flight repeats it when the other side repeats its own. It is not
            # opened first: whoever forges one gets 75 bytes, and at most every 50 ms. A client that sends data has it.
            if not self._is_client and not self._n_received:
                self._outbox += self._flight.resend(now)
        elif record.epoch == 1 and record.content_type == APPLICATION_DATA:
            plaintext = protection.open(record.data)
            if plaintext:
                self._n_received += 1
                packets.append(plaintext)
            else:
                self._n_dropped += 1
        elif record.epoch == 1 and record.content_type == ALERT:
            alert = protection.open_alert(record.data)
            if alert == CLOSE_NOTIFY:
                self._end("closed", Closed(by_peer=True))
            elif alert is not None:
                self._end("failed", Failed(ProtocolError(f"the peer ended the DTLS session: {alert}")))
        else:  # plaintext alerts among them: anybody can write one
            self._n_dropped += 1

    def _receive_handshaking(self, record: Record, packets: list[bytes], now: float) -> None:
        kind, epoch, gate = record.content_type, record.epoch, self._gate
        if epoch == 1 and kind in (APPLICATION_DATA, ALERT):
            # The peer was done before us, and its data or goodbye has overtaken its Finished.
            if len(self._early) < _MAX_EARLY_RECORDS:
                self._early.append(record.data)
            else:
                self._n_dropped += 1
        elif epoch == 0 and kind == HANDSHAKE:
            self._receive_message(record, packets, now)
        elif (epoch == 1 and kind == HANDSHAKE) or (
            epoch == 0 and kind == CHANGE_CIPHER_SPEC and record.data[HEADER_SIZE:] == _CHANGE
        ):  # OpenSSL keeps up to 100 of epoch 1 until the ChangeCipherSpec is there
            if gate.is_fed:
                self._feed([record.data], packets, now)
            elif len(self._held) < _MAX_EARLY_RECORDS:
                self._held.append(record.data)
        else:
            if kind == ALERT and epoch == 0 and len(record.data) == HEADER_SIZE + 2:
                self._peer_alert = alert_name(record.data[-1])
            self._n_dropped += 1

    def _receive_message(self, record: Record, packets: list[bytes], now: float) -> None:
        """In plaintext, where anybody may write: OpenSSL gets what has a signature of the peer."""
        gate, fragments = self._gate, split_fragments_untrusted(record.data[HEADER_SIZE:])
        if fragments is None:
            self._n_dropped += 1
            return
        if gate.is_fed:  # the peer repeats itself
            self._outbox += self._flight.resend(now)
            return
        for fragment in fragments:
            message = gate.add(fragment)
            if message is not None and message.kind == gate12.CLIENT_HELLO:
                self._answer_hello(message, now)
        for attempt in reversed(self._attempts):
            flight = gate.signed_flight(attempt.has_signed, self._matches, now)
            if flight is not None:
                self._handshake, self._flight = attempt.handshake, attempt.flight
                self._feed_flight(flight, packets, now)
                return
        if self._is_client and gate.deadline is None and gate.cookie_request() is not None:
            gate.deadline = now + gate12.COOKIE_DOUBT_S

    def _answer_hello(self, hello: Message, now: float) -> None:
        """Each hello by a handshake of its own, the newest few of them: nothing proves which is the peer's."""
        for attempt in self._attempts:
            if attempt.hello == hello:
                self._outbox += attempt.flight.resend(now)
                return
        attempt = Attempt(OpenSslHandshake(self._context, is_client=False, mtu=self._mtu), Flight(self._mtu), hello)
        self._handshake, self._flight = attempt.handshake, attempt.flight
        self._attempts = [*self._attempts[-(_ATTEMPTS_MAX - 1) :], attempt]
        try:
            attempt.handshake.advance(self._plaintext(gate12.whole(hello, 0)))
        except ProtocolError as error:
            # Perhaps not the peer's. Its alert goes out, and what it says is told when there is no other
            self._outbox += attempt.flight.datagrams(attempt.handshake.drain(), now)
            self._attempts.remove(attempt)
            self._hopeless = self._hopeless or error
            if self._gate.deadline is None:
                self._gate.deadline = now + gate12.DOUBT_S
        else:
            self._drain(now)

    def _give_up_doubt(self, now: float) -> None:
        """No reading of the flight has a signature, or there is only a request for a cookie: OpenSSL shall say what it is."""
        gate = self._gate
        gate.deadline = None
        flight, packets = gate.newest_flight(), list[bytes]()
        if flight is not None:
            self._feed_flight(flight, packets, now)
        elif self._is_client and (request := gate.cookie_request()) is not None:
            gate.base = 1
            self._feed([self._plaintext(gate12.whole(request, 0))], packets, now)
        elif self._hopeless is not None and not self._attempts:
            self._end("failed", Failed(self._hopeless))
        self._drain(now)

    def _feed_flight(self, flight: list[Message], packets: list[bytes], now: float) -> None:
        gate = self._gate
        gate.is_fed, gate.deadline = True, None
        first = gate.base if self._is_client else 1
        held, self._held = self._held, []
        records = [self._plaintext(gate12.whole(message, place)) for place, message in enumerate(flight, first)]
        self._feed(records + held, packets, now)

    def _feed(self, records: list[bytes], packets: list[bytes], now: float) -> None:
        for data in records:
            if self.state == "handshaking" and self._advance(data, now):
                self._complete(packets, now)

    def _plaintext(self, content: bytes) -> bytes:
        """Under numbers of our own: what the peer's were matters to nobody in epoch 0."""
        number, self._n_fed = self._n_fed, self._n_fed + 1
        return plaintext_record(HANDSHAKE, number, content)

    def _matches(self, der: bytes) -> bool:
        return any(fingerprint.matches(der) for fingerprint in self._remote_fingerprints)

    # ------------------------------------------------------------------------------------------------------ handshake

    def _advance(self, record: bytes | None, now: float) -> bool:
        assert self._handshake is not None
        try:
            return self._handshake.advance(record)
        except ProtocolError as error:
            self._drain(now)
            self._end("failed", Failed(error))
            return False

    def _drain(self, now: float) -> None:
        output = self._handshake.drain() if self._handshake is not None else b""
        if output:
            if self._attempts:
                next(attempt for attempt in self._attempts if attempt.handshake is self._handshake).note_said(output)
            self._outbox += self._flight.datagrams(output, now)

    def _complete(self, packets: list[bytes], now: float) -> None:
        handshake = self._handshake
        assert handshake is not None
        self._drain(now)
        self._cipher, self._version, self._group = handshake.cipher, handshake.version, handshake.group
        self._protection = self._choose_protection(handshake)
        der = handshake.peer_certificate()
        if not self._matches(der):
            error = FingerprintMismatch("the peer's certificate is not the one that was signalled")
            self._end("failed", Failed(error))
            return
        self.state = "established"
        self._handshake = None
        self._attempts = []
        if self._is_client:
            self._flight.finish()
        else:
            self._flight.linger()
        self._handshake_s = now - self._started_at
        self._events.append(HandshakeCompleted(self._cipher, self._version, self._group))
        early, self._early = self._early, []
        for data in early:
            packets += self.receive(data, now)

    def _choose_protection(self, handshake: OpenSslHandshake) -> RecordProtection:
        connection, flight = handshake.connection, self._flight
        if self._fast_records:
            ours = record12.take_over(connection, is_client=self._is_client, last_sealed=flight.last_sealed)
            if ours is not None:
                return ours
        return openssl_records(connection, record12.OVERHEAD if "GCM" in handshake.cipher else 29, self._context.buffer)

    def _end(self, state: State, event: DtlsEvent) -> None:
        """RFC 5246 section 7.2.1: both a close and the answer to one are a close_notify."""
        if self._protection is not None:
            goodbye = self._protection.close_notify()
            if goodbye:
                self._outbox.append(goodbye)
        self.state = state
        self._protection = None
        self._handshake = None
        self._attempts = []
        self._early.clear()
        self._held.clear()
        self._flight.finish()
        self._events.append(event)
