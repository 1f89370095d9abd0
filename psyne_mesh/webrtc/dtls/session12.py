"""One DTLS 1.2 association (RFC 6347): OpenSSL shakes hands."""

from __future__ import annotations

from collections.abc import Sequence

from psyne_mesh.errors import FingerprintMismatch, LocalError, ProtocolError
from psyne_mesh.webrtc.dtls import record12
from psyne_mesh.webrtc.dtls.certificate import Certificate, Fingerprint
from psyne_mesh.webrtc.dtls.events import Closed, DtlsEvent, DtlsStats, Failed, HandshakeCompleted, State
from psyne_mesh.webrtc.dtls.flight import Flight
from psyne_mesh.webrtc.dtls.openssl import OpenSslHandshake
from psyne_mesh.webrtc.dtls.protection import CLOSE_NOTIFY, RecordProtection, openssl_records
from psyne_mesh.webrtc.dtls.records import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    HEADER_SIZE,
    MAX_CIPHERTEXT,
    Record,
    alert_name,
    holds_handshake_untrusted,
    split_untrusted,
)

MIN_MTU = 256  # below it OpenSSL will not shake hands
_MAX_EARLY_RECORDS = 16  # kept while our own handshake lags behind the peer's; later ones are dropped: SCTP repeats


class Session12:
    """A DTLS 1.2 client or server with mutual authentication by fingerprint; the verbs are those of `DtlsSession`.

    `mtu` bounds the datagrams of the handshake; a packet may have up to 2^14 bytes. With `fast_records` the records of
    AES-GCM sessions are made in `record12`, and OpenSSL's memory is given back after the handshake; without, OpenSSL
    makes them to the end, as it does those of other ciphers.
    """

    __slots__ = (
        "_cipher",
        "_context",
        "_early",
        "_events",
        "_fast_records",
        "_flight",
        "_group",
        "_handshake",
        "_handshake_s",
        "_is_client",
        "_n_dropped",
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
        self._handshake: OpenSslHandshake | None = OpenSslHandshake(self._context, is_client=is_client, mtu=mtu)
        self._flight = Flight(mtu)
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

    def send(self, packets: Sequence[bytes]) -> list[bytes]:
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
        return None if self._n_received else self._flight.deadline

    def handle_timeout(self, now: float) -> None:
        deadline = self.next_timeout()
        if deadline is None or now < deadline:
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
        kind, epoch = record.content_type, record.epoch
        if epoch == 1 and kind in (APPLICATION_DATA, ALERT):
            # The peer was done before us, and its data or goodbye has overtaken its Finished.
            if len(self._early) < _MAX_EARLY_RECORDS:
                self._early.append(record.data)
            else:
                self._n_dropped += 1
        elif (
            (epoch == 1 and kind == HANDSHAKE)  # OpenSSL keeps up to 100 until the ChangeCipherSpec is there
            or (epoch == 0 and kind == HANDSHAKE and holds_handshake_untrusted(record))
            or (epoch == 0 and kind == CHANGE_CIPHER_SPEC and len(record.data) == HEADER_SIZE + 1)
        ):
            if self._advance(record.data, now):
                self._complete(packets, now)
        else:
            if kind == ALERT and epoch == 0 and len(record.data) == HEADER_SIZE + 2:
                self._peer_alert = alert_name(record.data[-1])
            self._n_dropped += 1

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
            self._outbox += self._flight.datagrams(output, now)

    def _complete(self, packets: list[bytes], now: float) -> None:
        handshake = self._handshake
        assert handshake is not None
        self._drain(now)
        self._cipher, self._version, self._group = handshake.cipher, handshake.version, handshake.group
        self._protection = self._choose_protection(handshake)
        der = handshake.peer_certificate()
        if not any(fingerprint.matches(der) for fingerprint in self._remote_fingerprints):
            error = FingerprintMismatch("the peer's certificate is not the one that was signalled")
            self._end("failed", Failed(error))
            return
        self.state = "established"
        self._handshake = None
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
        self._early.clear()
        self._flight.finish()
        self._events.append(event)
