"""One DTLS 1.3 association (RFC 9147), all of it made here but the primitives."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from psyne_mesh.errors import FingerprintMismatch, LocalError, ProtocolError, RemoteError
from psyne_mesh.webrtc.dtls import suites13
from psyne_mesh.webrtc.dtls.certificate import Certificate, Fingerprint
from psyne_mesh.webrtc.dtls.events import Closed, DtlsEvent, DtlsStats, Failed, HandshakeCompleted, State
from psyne_mesh.webrtc.dtls.handshake13 import groups, signing
from psyne_mesh.webrtc.dtls.handshake13.after import AfterHandshake
from psyne_mesh.webrtc.dtls.handshake13.client import ClientHellos
from psyne_mesh.webrtc.dtls.handshake13.core import (
    FingerprintRefused,
    Handshake,
    Settings,
    ack_after,
    encode_ack,
    read_ack_untrusted,
)
from psyne_mesh.webrtc.dtls.handshake13.flight import MIN_RESEND_INTERVAL_S, SMALL_MTU, Ledger, timeout_for
from psyne_mesh.webrtc.dtls.handshake13.server import ServerHellos
from psyne_mesh.webrtc.dtls.handshake13.wire import Alert, Refused
from psyne_mesh.webrtc.dtls.record13 import (
    ACK,
    FORGERIES_MAX,
    HEADER_BYTES,
    MANY,
    OVERHEAD,
    UPDATE_AFTER_RECORDS,
    CutRecord,
    OpeningKeys,
    SealingKeys,
    cut_untrusted,
    next_secret,
)
from psyne_mesh.webrtc.dtls.records import ALERT, APPLICATION_DATA, HANDSHAKE, alert_name, pack
from psyne_mesh.webrtc.dtls.suites13 import Suite

MIN_MTU = 256  # as for 1.2; a fragment needs no more than 64
VERSION = "DTLSv1.3"
_MAX_EARLY_RECORDS = 16  # kept until the keys for them are there; later ones are dropped: the peer repeats them
_CANDIDATES_MAX = 4  # handshakes with hellos that nothing has proved yet; the oldest gives way
# A complaint in plaintext (an alert, a hello that cannot be used) may be anybody's. It is believed if nothing speaks against it
# for so long: ten times what an honest answer takes, and a fifth of the connect deadline.
_COMPLAINT_S = 3.0
_WARNINGS = (
    Alert.CLOSE_NOTIFY,
    Alert.USER_CANCELED,
)  # RFC 8446 section 6: all others are fatal, whatever their level says
_FATAL = 2


class Session13:
    """A DTLS 1.3 client or server with mutual authentication by fingerprint; the verbs are those of `DtlsSession`.

    Until something has come under the keys of a handshake, nothing proves who wrote the hellos. So each hello begins a
    handshake of its own beside the others, complaints wait, and whoever forges a plaintext record gets nothing for it.

    suites, allowed_groups: best first; for tests also `keys`, `sign` and `random`. rtt_s: of the path, where it is known.
    """

    __slots__ = (
        "_after", "_candidates", "_complaint", "_complaint_at", "_early", "_events", "_handshake_s", "_hellos",
        "_is_client", "_last_flight", "_ledger", "_n_dropped", "_n_received", "_n_sent", "_nudge_at", "_outbox",
        "_peer_alert", "_read", "_read_before", "_sequences", "_settings", "_started_at", "_straggler", "_suite",
        "_write", "group", "state",
    )  # fmt: skip

    def __init__(
        self,
        certificate: Certificate,
        *,
        is_client: bool,
        remote_fingerprints: Sequence[Fingerprint],
        mtu: int = 1200,
        rtt_s: float | None = None,
        suites: tuple[Suite, ...] | None = None,
        allowed_groups: tuple[int, ...] | None = None,
        keys: groups.KeyMaker | None = None,
        sign: signing.Sign = signing.sign,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if mtu < MIN_MTU:
            raise LocalError(f"mtu = {mtu}: DTLS needs at least {MIN_MTU} bytes for its handshake")
        self.state: State = "new"
        self.group: int | None = None
        self._is_client = is_client
        fingerprints = tuple(remote_fingerprints)
        self._settings = Settings(
            private_key=certificate.private_key,
            der=certificate.der,
            is_client=is_client,
            matches=lambda der: any(fingerprint.matches(der) for fingerprint in fingerprints),
            mtu=mtu,
            suites=suites or suites13.SUITES,
            groups=allowed_groups or groups.GROUPS,
            timeout_s=timeout_for(rtt_s),
            keys=keys or groups.KeyMaker(),
            sign=sign,
            random=random,
        )
        self._ledger = Ledger()
        self._hellos: ClientHellos | ServerHellos | None = None
        self._candidates: list[Handshake] = []  # the first one alone, once it has heard the peer
        self._last_flight: Handshake | None = None  # a client's, until its last flight is acknowledged
        self._straggler: tuple[bytes, float] | None = None  # a server's handshake secret, and when it last acknowledged
        self._after: AfterHandshake | None = None
        self._sequences = (0, 0)  # message_seq of the next message, theirs and ours
        self._suite: Suite | None = None
        self._read: OpeningKeys | None = None  # these two are set while established, and only then
        self._write: SealingKeys | None = None
        self._read_before: OpeningKeys | None = None  # of the epoch before
        self._early: list[CutRecord] = []
        self._outbox: list[bytes] = []
        self._events: list[DtlsEvent] = []
        self._complaint: RemoteError | None = None
        self._complaint_at = self._started_at = 0.0
        self._nudge_at: float | None = None  # when to ask for a ServerHello that is missing
        self._handshake_s: float | None = None
        self._peer_alert: str | None = None
        self._n_sent = self._n_received = self._n_dropped = 0

    @property
    def overhead(self) -> int:
        return OVERHEAD

    @property
    def stats(self) -> DtlsStats:
        return DtlsStats(
            records_sent=self._n_sent,
            records_received=self._n_received,
            records_dropped=self._n_dropped,
            flights_retransmitted=self._ledger.n_repeated,
            handshake_s=self._handshake_s,
            cipher=None if self._suite is None else self._suite.name,
            version=None if self._suite is None else VERSION,
            group=None if self.group is None else groups.NAMES[self.group],
            is_post_quantum=self.group in groups.POST_QUANTUM,
            peer_alert=self._peer_alert,
        )

    def take_older_hello(self) -> bool:
        """Whether a server has got a whole hello since the last call that does not offer 1.3."""
        hellos = self._hellos
        if not isinstance(hellos, ServerHellos) or not hellos.met_older:
            return False
        hellos.met_older = False
        return True

    @property
    def has_heard_peer(self) -> bool:
        """Under keys of 1.3, so that it is decided with whom and in which version."""
        return self.state == "established" or any(candidate.peer_has_spoken for candidate in self._candidates)

    # ------------------------------------------------------------------------------------------------------------ verbs

    def start(self, now: float) -> None:
        if self.state != "new":
            raise LocalError("start() is for a new session")
        self.state = "handshaking"
        self._started_at = now
        if self._is_client:
            hellos = self._hellos = ClientHellos(self._settings, self._ledger)
            hellos.start(now)
            self._outbox += hellos.take_datagrams()
        else:
            self._hellos = ServerHellos(self._settings, self._ledger)

    def receive(self, datagram: bytes | memoryview, now: float) -> list[bytes]:
        """The packets of this datagram. Nothing is raised for any bytes: what is not ours is dropped and counted."""
        if type(datagram) is not bytes:
            datagram = bytes(datagram)
        read = self._read
        if read is None or len(datagram) <= OVERHEAD:
            return self._receive_other(datagram, now)
        first = datagram[0]  # of one record of the present epoch, as a rule: all that a running session sees
        if first == read.first and len(datagram) - HEADER_BYTES == datagram[3] << 8 | datagram[4]:
            opened = read.open_usual(datagram)
        elif first == read.first_short:
            opened = read.open_short(datagram)
        else:
            return self._receive_other(datagram, now)
        if opened is None:
            self._forged(read)
            return []
        if opened[-1] == APPLICATION_DATA:
            self._n_received += 1
            return [opened[:-1]]
        packets: list[bytes] = []
        self._receive_opened(read, opened, packets, now)
        return packets

    def receive_many(self, datagrams: Sequence[bytes | memoryview], now: float) -> list[bytes]:
        """`receive` for each in turn; less work for those of a running session that come in order."""
        read, packets = self._read, []
        opened = read.open_many(datagrams) if read is not None and len(datagrams) >= MANY else []
        last = -1 if read is None else read.number
        for at, content in enumerate(opened, 1 - len(opened)):
            if content[-1] == APPLICATION_DATA:
                self._n_received += 1
                packets.append(content[:-1])
            elif read is not None and self.state == "established":
                read.number = last + at  # an ACK names it
                self._receive_opened(read, content, packets, now)
        for datagram in datagrams[len(opened) :]:
            packets += self.receive(datagram, now)
        return packets

    def send(self, packets: Sequence[bytes], *, spare: bool = False) -> list[bytes]:
        """One protected datagram for each packet of 1 to 2^14 bytes. After the end of the session there is nobody to
        send to, and the list is empty. Raises `LocalError` before the handshake is complete. spare: as `DtlsSession`."""
        write = self._write
        if write is None:
            if self.state in ("closed", "failed"):
                return []
            raise LocalError("the DTLS handshake is not complete")
        datagrams = write.seal_short(packets) if spare else write.seal(packets)
        self._n_sent += len(datagrams)
        if len(datagrams) < len(packets):
            self._end("failed", Failed(ProtocolError("nothing more can be sent on this DTLS session")), None)
        return datagrams

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Flights of the handshake, their repetitions, ACKs and alerts."""
        write = self._write
        if write is not None and write.number >= UPDATE_AFTER_RECORDS and not self._after_handshake.is_updating:
            self.update_keys(now)
        datagrams, self._outbox = self._outbox, []
        return datagrams

    def joined(self, handshake: list[bytes], sealed: list[bytes]) -> list[bytes]:
        """What `datagrams_to_send` and `send` gave, in as few datagrams: the first data beside the last flight, or beside the
        ACK for it, is lost with it or not at all."""
        mtu = self._settings.mtu
        return pack([*handshake, *sealed], min(mtu, SMALL_MTU) if self._ledger.is_path_small else mtu)

    def next_timeout(self) -> float | None:
        if self._last_flight is not None:
            return self._last_flight.next_timeout()
        if self.state == "established":
            return None if self._after is None else self._after.deadline
        if self.state != "handshaking":
            return None
        deadlines = [candidate.next_timeout() for candidate in self._candidates]
        deadlines.append(self._nudge_at)
        if self._hellos is not None:
            deadlines.append(self._hellos.next_timeout())
        if self._complaint is not None:
            deadlines.append(self._complaint_at)
        return min((at for at in deadlines if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        if self._after is not None:
            self._after.handle_timeout(now)
            self._outbox += self._after.take_datagrams()
        if self._last_flight is not None:
            self._last_flight.handle_timeout(now)
            self._outbox += self._last_flight.take_datagrams()
        if self.state != "handshaking":
            return
        if self._complaint is not None and now >= self._complaint_at:
            self._fail(self._complaint)
            return
        if self._nudge_at is not None and now >= self._nudge_at:
            # RFC 9147 section 7.1: an empty ACK, by who has got nothing that it could name
            self._nudge_at = None
            self._outbox.append(self._ledger.seal(ACK, encode_ack([]))[0])
        if self._hellos is not None:
            self._hellos.handle_timeout(now)
            self._outbox += self._hellos.take_datagrams()
        for candidate in self._candidates:
            candidate.handle_timeout(now)
            self._outbox += candidate.take_datagrams()

    def take_events(self) -> list[DtlsEvent]:
        events, self._events = self._events, []
        return events

    def close(self, now: float) -> None:
        """Ends the session; an established one says close_notify. Does nothing the second time."""
        if self.state not in ("closed", "failed"):
            self._end("closed", Closed(by_peer=False), Alert.CLOSE_NOTIFY)

    def update_keys(self, now: float, *, ask: bool = False) -> None:
        """New keys for what we send, once the peer has acknowledged; `ask`: for what it sends, too. Happens by itself long
        before the old ones are worn out (RFC 9147 section 8)."""
        if self._write is None:
            raise LocalError("the DTLS handshake is not complete")
        after = self._after_handshake
        after.update_keys(self._write, now, ask=ask)
        self._outbox += after.take_datagrams()

    # ------------------------------------------------------------------------------------------------------- handshaking

    def _receive_other(self, datagram: bytes, now: float) -> list[bytes]:
        if len(datagram) > SMALL_MTU:
            self._ledger.has_heard_large = True
        if self.state == "new" and not self._is_client:
            self.start(now)  # the peer was quicker
        records, whole = cut_untrusted(datagram)
        self._n_dropped += not whole
        packets: list[bytes] = []
        for record in records:
            if self.state == "established":
                self._receive_established(record, packets, now)
            elif self.state != "handshaking":
                self._n_dropped += 1
            elif record.content_type:
                self._receive_plaintext(record, packets, now)
            else:
                self._receive_protected(record, packets, now)
        return packets

    def _receive_plaintext(self, record: CutRecord, packets: list[bytes], now: float) -> None:
        kind, content, hellos = record.content_type, record.data, self._hellos
        if hellos is None:
            self._n_dropped += 1  # RFC 9147 section 4.5.2: once there are keys, plaintext is nobody's
        elif kind == HANDSHAKE:
            try:
                handshake = hellos.receive(content, record.number, now)
            except Refused as refused:
                self.complain(refused, now)
                handshake = None
            self._outbox += hellos.take_datagrams()
            for candidate in self._candidates:
                self._outbox += candidate.take_datagrams()
            if handshake is not None:
                self._begin(handshake, packets, now)
        elif kind == ACK:
            self._receive_plaintext_ack(content, hellos, now)
        elif kind == ALERT and len(content) == 2 and content[1] not in _WARNINGS:
            self._peer_alert = alert_name(content[1])
            self.complain(ProtocolError(f"the peer ended the DTLS handshake: {self._peer_alert}"), now)
        else:
            self._n_dropped += 1

    def _receive_plaintext_ack(self, content: bytes, hellos: ClientHellos | ServerHellos, now: float) -> None:
        try:
            numbers = read_ack_untrusted(content)
        except Refused:
            self._n_dropped += 1
            return
        if isinstance(hellos, ClientHellos):
            hellos.receive_ack(numbers, now)
            self._outbox += hellos.take_datagrams()
        else:  # RFC 9147 section 7.1: the client has got nothing that it could open, so only its emptiness says something
            for candidate in self._candidates if not numbers else ():
                candidate.resend(now)
                self._outbox += candidate.take_datagrams()

    def _begin(self, handshake: Handshake, packets: list[bytes], now: float) -> None:
        self._candidates = [*self._candidates[-(_CANDIDATES_MAX - 1) :], handshake]
        self._nudge_at = None
        self._outbox += handshake.take_datagrams()
        early, self._early = self._early, []
        for record in early:
            if self.state == "established":
                self._receive_established(record, packets, now)
            elif self.state == "handshaking":
                self._receive_protected(record, packets, now)

    def _receive_protected(self, record: CutRecord, packets: list[bytes], now: float) -> None:
        if record.low_epoch == 2:
            for candidate in self._candidates:
                opened = candidate.opening.open(record.data, record.body_at)
                if opened is not None:
                    self._receive_in_handshake(candidate, opened, packets, now)
                    return
        # RFC 9147 section 4.2.1: it has overtaken what leads to its keys
        if record.low_epoch < 2 or len(self._early) >= _MAX_EARLY_RECORDS:
            self._n_dropped += 1
            return
        self._early.append(record)
        if self._is_client and not self._candidates and self._nudge_at is None:
            self._nudge_at = now + ack_after(self._settings.timeout_s)
        if record.low_epoch == 3:
            for candidate in self._candidates:  # the peer is through: what is missing of its last flight was lost
                candidate.expect_rest(now)

    def _receive_in_handshake(self, candidate: Handshake, opened: bytes, packets: list[bytes], now: float) -> None:
        kind, content = _typed(opened)
        number = candidate.opening.number
        if kind == ALERT:
            self._receive_alert(content)
            return
        try:
            if kind == HANDSHAKE:
                candidate.receive(content, number, now)
            elif kind == ACK:
                candidate.receive_ack(read_ack_untrusted(content), now)
            else:
                self._n_dropped += 1
        except Refused as refused:
            self._candidates = [candidate]
            self._fail(refused)
            return
        self._outbox += candidate.take_datagrams()
        if candidate.peer_has_spoken and self._hellos is not None:
            self._candidates = [candidate]
            self._hellos = self._complaint = self._nudge_at = None
        if candidate.done:
            self._complete(candidate, packets, now)

    def _complete(self, handshake: Handshake, packets: list[bytes], now: float) -> None:
        self.state = "established"
        self.group = handshake.group
        self._suite = handshake.suite
        self._read, self._write = handshake.opening3, handshake.sealing3
        self._sequences = handshake.their_sequence, handshake.next_sequence
        self._candidates = []
        if self._is_client:
            self._last_flight = handshake
        else:
            self._straggler = handshake.opening.secret, now
        self._handshake_s = now - self._started_at
        group = groups.NAMES[handshake.group]
        is_post_quantum = handshake.group in groups.POST_QUANTUM
        is_small = self._ledger.is_path_small
        self._events.append(HandshakeCompleted(handshake.suite.name, VERSION, group, is_post_quantum, is_small))
        early, self._early = self._early, []
        for record in early:
            if self.state == "established":
                self._receive_established(record, packets, now)

    def complain(self, error: RemoteError, now: float) -> None:
        """Somebody says in plaintext that this cannot succeed. The first one counts, and so does when it came."""
        self._n_dropped += 1
        if self._complaint is None:
            self._complaint, self._complaint_at = error, now + _COMPLAINT_S

    # ------------------------------------------------------------------------------------------------------- established

    def _receive_established(self, record: CutRecord, packets: list[bytes], now: float) -> None:
        if record.content_type:
            self._n_dropped += 1  # plaintext alerts and ACKs among them: anybody can write one
            return
        for keys in (self._read, self._read_before):
            if keys is not None and keys.epoch & 3 == record.low_epoch:
                opened = keys.open(record.data, record.body_at)
                if opened is None:
                    self._forged(keys)
                else:
                    self._receive_opened(keys, opened, packets, now)
                return
        if record.low_epoch == 2 and self._last_flight is not None:
            self._receive_repeated_flight(self._last_flight, record, now)
        elif record.low_epoch == 2 and self._straggler is not None:
            self._receive_straggler(record, now)
        else:
            self._n_dropped += 1

    def _receive_repeated_flight(self, handshake: Handshake, record: CutRecord, now: float) -> None:
        """The server's: it repeats what we have, for it has not got our last flight; or acknowledges parts of that."""
        opened = handshake.opening.open(record.data, record.body_at)
        if opened is None:
            self._n_dropped += 1
            return
        kind, content = _typed(opened)
        try:
            if kind == HANDSHAKE:
                handshake.receive(content, handshake.opening.number, now)
            elif kind == ACK and handshake.receive_ack(read_ack_untrusted(content), now):
                self._last_flight = None
            elif kind == ALERT:
                self._receive_alert(content)
        except Refused as refused:
            self._fail(refused)
            return
        self._outbox += handshake.take_datagrams()

    def _receive_straggler(self, record: CutRecord, now: float) -> None:
        """The client's last flight once more, as our ACK was lost: RFC 9147 section 5.8.1 has it acknowledged again. Its keys
        are made anew, for they are seldom needed; so no more often than this, or forged records would cost work."""
        assert self._straggler is not None
        assert self._suite is not None
        assert self._write is not None
        secret, acknowledged_at = self._straggler
        if now - acknowledged_at < MIN_RESEND_INTERVAL_S:
            return
        self._straggler = secret, now
        keys = OpeningKeys(self._suite, secret, 2)
        opened = keys.open(record.data, record.body_at)
        if opened is None or _typed(opened)[0] != HANDSHAKE:
            self._n_dropped += 1
            return
        self._outbox.append(self._write.seal_one(ACK, encode_ack([(2, keys.number)])))

    def _receive_opened(self, keys: OpeningKeys, opened: bytes, packets: list[bytes], now: float) -> None:
        kind, content = _typed(opened)
        if kind == APPLICATION_DATA:
            if content:
                self._n_received += 1
                packets.append(content)
            return
        try:
            if kind == HANDSHAKE:
                self._receive_after_handshake(keys, content, now)
            elif kind == ACK:
                self._receive_ack(read_ack_untrusted(content), now)
            elif kind == ALERT:
                self._receive_alert(content)
            else:
                raise Refused(Alert.UNEXPECTED_MESSAGE, f"a record of type {kind}")
        except Refused as refused:
            self._fail(refused)

    def _receive_ack(self, numbers: list[tuple[int, int]], now: float) -> None:
        if self._last_flight is not None:
            if self._last_flight.receive_ack(numbers, now):
                self._last_flight = None
            else:
                self._outbox += self._last_flight.take_datagrams()
        if self._after is not None and self._after.acknowledge(numbers):
            assert self._suite is not None
            assert self._write is not None
            self._write = SealingKeys(self._suite, next_secret(self._suite, self._write.secret), self._write.epoch + 1)
            if self._after.peer_asks:
                self.update_keys(now)

    def _receive_after_handshake(self, keys: OpeningKeys, content: bytes, now: float) -> None:
        after, suite = self._after_handshake, self._suite
        assert suite is not None
        assert self._write is not None
        if after.receive(content, (keys.epoch, keys.number), self._write):
            if keys is not self._read:
                raise Refused(Alert.UNEXPECTED_MESSAGE, "a KeyUpdate under keys that were given up")
            self._read_before = keys
            self._read = OpeningKeys(suite, next_secret(suite, keys.secret), keys.epoch + 1)
            if after.peer_asks:
                after.update_keys(self._write, now)
        self._outbox += after.take_datagrams()

    @property
    def _after_handshake(self) -> AfterHandshake:
        if self._after is None:
            theirs, ours = self._sequences
            self._after = AfterHandshake(
                their_sequence=theirs,
                our_sequence=ours,
                mtu=self._settings.mtu,
                timeout_s=self._settings.timeout_s,
                ledger=self._ledger,
            )
        return self._after

    def _forged(self, keys: OpeningKeys) -> None:
        self._n_dropped += 1
        if keys.n_forged >= FORGERIES_MAX:
            self._fail(ProtocolError("so many records were forged that the keys must not be used any more"))

    # ------------------------------------------------------------------------------------------------------------ ending

    def _receive_alert(self, content: bytes) -> None:
        """An authentic one."""
        if len(content) != 2 or content[1] == Alert.USER_CANCELED:
            self._n_dropped += 1  # RFC 8446 section 6.1: a close_notify follows
        elif content[1] == Alert.CLOSE_NOTIFY:
            self._end("closed", Closed(by_peer=True), Alert.CLOSE_NOTIFY)
        else:
            where = "session" if self.state == "established" else "handshake"
            error = ProtocolError(f"the peer ended the DTLS {where}: {alert_name(content[1])}")
            self._end("failed", Failed(error), None)

    def _fail(self, error: RemoteError) -> None:
        alert = error.alert if isinstance(error, Refused) else None
        said = FingerprintMismatch(str(error)) if isinstance(error, FingerprintRefused) else error
        self._end("failed", Failed(said), alert)

    def _end(self, state: State, event: DtlsEvent, alert: Alert | None) -> None:
        if alert is not None:
            content = bytes((1 if alert == Alert.CLOSE_NOTIFY else _FATAL, alert))
            if self._write is not None:
                self._outbox.append(self._write.seal_one(ALERT, content))
            elif self._candidates:
                self._outbox += [candidate.sealing.seal_one(ALERT, content) for candidate in self._candidates[-1:]]
            elif self.state == "handshaking":
                self._outbox.append(self._ledger.seal(ALERT, content)[0])
        self.state = state
        self._read = self._read_before = self._write = None
        self._hellos = self._last_flight = self._straggler = self._after = None
        self._candidates = []
        self._early.clear()
        self._events.append(event)


def _typed(opened: bytes) -> tuple[int, bytes]:
    """The type and the content without its padding; type 0 for one that has none (RFC 8446 section 5.4)."""
    if opened[-1] == 0:
        opened = opened.rstrip(b"\0")
    return (opened[-1], opened[:-1]) if opened else (0, b"")
