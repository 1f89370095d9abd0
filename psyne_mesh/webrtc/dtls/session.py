"""One DTLS association over whatever carries datagrams, as RFC 8261 and RFC 8827 use it under SCTP: in which version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from psyne_mesh.errors import LocalError
from psyne_mesh.webrtc.dtls import record12
from psyne_mesh.webrtc.dtls.certificate import Certificate, Fingerprint
from psyne_mesh.webrtc.dtls.events import DtlsEvent, DtlsStats, Failed, State
from psyne_mesh.webrtc.dtls.session12 import Session12
from psyne_mesh.webrtc.dtls.session13 import Session13

Version: TypeAlias = Literal["1.3", "1.2"]

_KEPT_DATAGRAMS_MAX = 8  # with parts of a first hello, for OpenSSL should it be one of 1.2; a browser's has two parts


class DtlsSession:
    """A DTLS client or server with mutual authentication by fingerprint.

    1. `start(now)` on both sides; only the client has something to say then.
    2. `receive(datagram, now)` for each datagram of the peer; it returns the packets that were in it. None comes up
       before the peer's certificate has matched.
    3. After every call: send `datagrams_to_send(now)`, look at `take_events()`, and call `handle_timeout(now)` at
       `next_timeout()`. How long a handshake may take in all is for the owner to say.
    4. After `HandshakeCompleted`: `send(packets)` gives one datagram for each packet, `overhead` bytes longer.
    5. `close(now)` says goodbye.

    versions: those that may be spoken. A server lets the peer's hello decide. A client speaks the highest of them and no
        other: a hello that offered both could be answered in 1.2, and OpenSSL takes over no hello that it did not write. So
        whoever is client knows beforehand what the peer takes.
    mtu: bounds the datagrams of the handshake; a packet may have up to 2^14 bytes. mtu_13: of 1.3, which finds out by itself
        when the path carries less.
    fast_records: of 1.2, see `Session12`. rtt_s: of the path, for the timers of 1.3; None where it is not known.
    """

    __slots__ = ("_kept", "_last_words", "_make_older", "_older", "_session")

    def __init__(
        self,
        certificate: Certificate,
        *,
        is_client: bool,
        remote_fingerprints: Sequence[Fingerprint],
        versions: Sequence[Version] = ("1.3", "1.2"),
        mtu: int = 1200,
        mtu_13: int = 1200,
        fast_records: bool = True,
        rtt_s: float | None = None,
    ) -> None:
        if not versions:
            raise LocalError("a DTLS session needs a version that it may speak")

        def make_older() -> Session12:
            return Session12(
                certificate,
                is_client=is_client,
                remote_fingerprints=remote_fingerprints,
                mtu=mtu,
                fast_records=fast_records,
            )

        # While a server waits for a hello that decides: how to make the session of 1.2, and that, once a hello asked for it
        self._make_older: Callable[[], Session12] | None = None
        self._older: Session12 | None = None
        self._kept: list[bytes] = []
        self._last_words: list[bytes] = []  # of sessions of 1.2 that failed
        self._session: Session12 | Session13
        if "1.3" not in versions:
            self._session = make_older()
            return
        self._session = Session13(
            certificate, is_client=is_client, remote_fingerprints=remote_fingerprints, mtu=max(mtu, mtu_13), rtt_s=rtt_s
        )
        if "1.2" in versions and not is_client:
            self._make_older = make_older

    @property
    def state(self) -> State:
        return self._session.state

    @property
    def overhead(self) -> int:
        """Bytes that protection adds to a packet; before the handshake is complete, the most that it may add."""
        return record12.OVERHEAD if self._make_older is not None else self._session.overhead

    @property
    def stats(self) -> DtlsStats:
        return self._session.stats

    @property
    def settled(self) -> Session12 | Session13:
        """The session of the version that was agreed on, with the same verbs: whoever drives it from `HandshakeCompleted` on
        saves a call for each datagram."""
        return self._session

    def start(self, now: float) -> None:
        self._session.start(now)

    def receive(self, datagram: bytes | memoryview, now: float) -> list[bytes]:
        """The packets of this datagram. Nothing is raised for any bytes: what is not ours is dropped and counted."""
        if self._make_older is not None:
            return self._receive_undecided(bytes(datagram), now)
        return self._session.receive(datagram, now)

    def receive_many(self, datagrams: Sequence[bytes | memoryview], now: float) -> list[bytes]:
        """`receive` for each in turn; less work once the session runs."""
        if self._make_older is not None:
            return [packet for datagram in datagrams for packet in self.receive(datagram, now)]
        return self._session.receive_many(datagrams, now)

    def send(self, packets: Sequence[bytes], *, spare: bool = False) -> list[bytes]:
        """One protected datagram for each packet of 1 to 2^14 bytes. After the end of the session there is nobody to
        send to, and the list is empty. Raises `LocalError` before the handshake is complete.

        spare: newer ones will take the place of these. In 1.3 `newest_spare_untrusted` knows their datagrams unopened;
            nothing may stand behind them there.
        """
        return self._session.send(packets, spare=spare)

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Flights of the handshake, their repetitions, and alerts."""
        datagrams = self._session.datagrams_to_send(now)
        if self._make_older is None and not self._last_words:
            return datagrams
        words, self._last_words = self._last_words, []
        return datagrams + words + (self._older.datagrams_to_send(now) if self._older is not None else [])

    def joined(self, handshake: list[bytes], sealed: list[bytes]) -> list[bytes]:
        """What `datagrams_to_send` and `send` gave, for the wire."""
        return self._session.joined(handshake, sealed)

    def next_timeout(self) -> float | None:
        deadline = self._session.next_timeout()
        if self._older is None:
            return deadline
        older = self._older.next_timeout()
        if older is None or deadline is None:
            return deadline if older is None else older
        return min(deadline, older)

    def handle_timeout(self, now: float) -> None:
        self._session.handle_timeout(now)
        if self._older is not None:
            self._older.handle_timeout(now)
        if self._make_older is not None:
            self._settle(now)

    def take_events(self) -> list[DtlsEvent]:
        return self._session.take_events() if self._make_older is None else []

    def close(self, now: float) -> None:
        """Ends the session; an established one says close_notify. Does nothing the second time."""
        self._make_older = self._older = None
        self._session.close(now)

    # --------------------------------------------------------------------------------------------- which version it will be

    def _receive_undecided(self, datagram: bytes, now: float) -> list[bytes]:
        """Nothing proves who wrote a hello. So one of 1.2 begins a session beside the one of 1.3, and what comes is given to
        both, until one of the two has heard the peer under its keys."""
        newer = self._session
        assert isinstance(newer, Session13)
        assert self._make_older is not None
        packets = newer.receive(datagram, now)
        if self._older is not None:
            packets += self._older.receive(datagram, now)
        else:
            self._kept = [*self._kept[-(_KEPT_DATAGRAMS_MAX - 1) :], datagram]
        if newer.take_older_hello() and self._older is None:
            self._older = self._make_older()
            kept, self._kept = self._kept, []
            for again in kept:
                packets += self._older.receive(again, now)
        self._settle(now)
        return packets

    def _settle(self, now: float) -> None:
        newer, older = self._session, self._older
        assert isinstance(newer, Session13)
        if older is not None and older.state == "failed":
            # Of that one handshake, which anybody may have begun; so there is time for another
            for event in older.take_events():
                if isinstance(event, Failed):
                    newer.complain(event.error, now)
            self._last_words += older.datagrams_to_send(now)
            older = self._older = None
        if older is not None and older.state in ("established", "closed"):
            self._session = older
        elif not newer.has_heard_peer and newer.state == "handshaking":
            return
        self._make_older = self._older = None
        self._kept = []


Session: TypeAlias = DtlsSession | Session12 | Session13
