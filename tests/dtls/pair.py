"""Two sessions and the wire between them, in virtual time; and a plain OpenSSL peer."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from psyne_mesh.webrtc.dtls import Certificate, DtlsEvent
from psyne_mesh.webrtc.dtls.records import split_untrusted
from psyne_mesh.webrtc.dtls.session12 import Session12

CLIENT, SERVER = Certificate.generate(), Certificate.generate()
LATENCY = 0.01
WAYS = ("public", "short", "fast")  # the three ways to protect records
Wire = Callable[[str, bytes], list[tuple[float, bytes]]]  # (sender, datagram) -> what arrives, each with extra seconds


def deliver_all(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
    return [(0.0, datagram)]


def lossy(seed: int, loss: float, jitter: float = 0.0) -> Wire:
    rng = random.Random(seed)

    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        return [] if rng.random() < loss else [(rng.random() * jitter, datagram)]

    return wire


def losing(*lost: int) -> Wire:
    """Loses the datagrams with these numbers, counted over both directions from 0."""
    count = iter(range(1_000_000))
    return lambda sender, datagram: [] if next(count) in lost else [(0.0, datagram)]


def certificate_for(way: str) -> Certificate:
    certificate = Certificate.generate()
    if way == "public":
        certificate.context.buffer = None
    return certificate


class Pair:
    """`client` and `server` under one clock. `run()` passes datagrams and fires timers until nothing is left to do."""

    def __init__(
        self,
        wire: Wire = deliver_all,
        *,
        way: str = "short",
        client: dict[str, Any] | None = None,
        server: dict[str, Any] | None = None,
        **both: Any,
    ) -> None:
        ours, theirs = (CLIENT, SERVER) if way != "public" else (certificate_for(way), certificate_for(way))
        if self.make is Pair.make:
            both.setdefault("fast_records", way == "fast")
        for_client = {"certificate": ours, "remote_fingerprints": [theirs.fingerprint], **both, **(client or {})}
        for_server = {"certificate": theirs, "remote_fingerprints": [ours.fingerprint], **both, **(server or {})}
        self.client = self.make(is_client=True, **for_client)
        self.server = self.make(is_client=False, **for_server)
        self.now = 0.0
        self.wire = wire
        self.events: dict[str, list[DtlsEvent]] = {"client": [], "server": []}
        self.packets: dict[str, list[bytes]] = {"client": [], "server": []}
        self.sent: list[tuple[str, bytes]] = []
        self._flying: list[tuple[float, int, str, bytes]] = []

    make: Callable[..., Any] = staticmethod(Session12)

    def side(self, name: str) -> Any:
        return self.client if name == "client" else self.server

    def connect(self, limit: float = 30.0) -> Pair:
        self.server.start(self.now)
        self.client.start(self.now)
        self.run(limit, until_established=True)
        assert (self.client.state, self.server.state) == ("established", "established"), self.events
        return self

    def run(self, limit: float = 30.0, *, until_established: bool = False) -> Pair:
        end = self.now + limit
        while True:
            self.flush()
            if until_established and self.client.state == self.server.state == "established":
                return self
            due = [at for at, *_ in self._flying]
            due += [at for at in (self.client.next_timeout(), self.server.next_timeout()) if at is not None]
            if not due or min(due) > end:
                return self
            self.now = max(self.now, min(due))
            arrived = sorted(entry for entry in self._flying if entry[0] <= self.now)
            self._flying = [entry for entry in self._flying if entry[0] > self.now]
            for _, _, to, datagram in arrived:
                self.packets[to] += self.side(to).receive(datagram, self.now)
            for session in (self.client, self.server):
                session.handle_timeout(self.now)

    def flush(self) -> None:
        for name in ("client", "server"):
            for datagram in self.side(name).datagrams_to_send(self.now):
                self.put(name, datagram)
            self.events[name] += self.side(name).take_events()

    def put(self, sender: str, datagram: bytes) -> None:
        self.sent.append((sender, datagram))
        to = "server" if sender == "client" else "client"
        for extra, arriving in self.wire(sender, datagram):
            self._flying.append((self.now + LATENCY + extra, len(self._flying) + len(self.sent), to, arriving))

    def send(self, sender: str, *packets: bytes) -> None:
        for datagram in self.side(sender).send(packets):
            self.put(sender, datagram)


class PlainPeer:
    """The other end by pyOpenSSL alone, with contexts that ours would never make."""

    def __init__(
        self, certificate: Certificate | None, *, is_client: bool, ciphers: str = "ECDHE+AESGCM", mtu: int = 1200
    ) -> None:
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_cipher_list(ciphers.encode())
        context.set_options(SSL.OP_NO_QUERY_MTU)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        if certificate is not None:
            context.use_certificate(certificate.certificate)
            context.use_privatekey(certificate.private_key)
        self.connection = SSL.Connection(context, None)
        self.connection.set_ciphertext_mtu(mtu)
        self.error: str | None = None
        self.last_sealed: bytes | None = None
        if is_client:
            self.connection.set_connect_state()
        else:
            self.connection.set_accept_state()

    def exchange(self, session: Session12, now: float = 0.0) -> list[bytes]:
        """Passes datagrams both ways until both fall silent; returns the packets that the session gave up."""
        packets: list[bytes] = []
        for _ in range(20):
            self.shake()
            output = self.read_output()
            if output:
                packets += session.receive(output, now)
            datagrams = session.datagrams_to_send(now)
            for datagram in datagrams:
                self.connection.bio_write(datagram)
                self.shake()
            if not output and not datagrams:
                break
        return packets

    def shake(self) -> None:
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.error = self.error or str(error)

    def read_output(self) -> bytes:
        try:
            output = self.connection.bio_read(65536)
        except SSL.WantReadError:
            return b""
        for record in split_untrusted(output)[0]:
            if record.epoch == 1:
                self.last_sealed = record.data
        return output

    def receive(self, datagram: bytes) -> bytes | None:
        self.connection.bio_write(datagram)
        try:
            return self.connection.recv(65536)
        except SSL.WantReadError:
            return None

    def send(self, packet: bytes) -> bytes:
        self.connection.send(packet)
        return self.connection.bio_read(65536)
