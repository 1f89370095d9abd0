"""Two sessions and the wire between them, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from psyne_mesh.webrtc.dtls import Certificate, DtlsEvent, DtlsSession

CLIENT, SERVER = Certificate.generate(), Certificate.generate()
LATENCY = 0.01
Filter = Callable[[str, bytes], list[tuple[float, bytes]]]  # (sender, datagram) -> what arrives, with extra seconds


def deliver_all(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
    return [(0.0, datagram)]


class Pair:
    """`client` and `server` under one clock. `run()` passes datagrams and fires timers until nothing is left to do."""

    def __init__(
        self,
        wire: Filter = deliver_all,
        *,
        client: dict[str, Any] | None = None,
        server: dict[str, Any] | None = None,
        **both: Any,
    ) -> None:
        mine: dict[str, Any] = {
            "certificate": CLIENT,
            "remote_fingerprints": [SERVER.fingerprint],
            **both,
            **(client or {}),
        }
        theirs: dict[str, Any] = {
            "certificate": SERVER,
            "remote_fingerprints": [CLIENT.fingerprint],
            **both,
            **(server or {}),
        }
        self.client = DtlsSession(is_client=True, **mine)
        self.server = DtlsSession(is_client=False, **theirs)
        self.now = 0.0
        self.wire = wire
        self.events: dict[str, list[DtlsEvent]] = {"client": [], "server": []}
        self.packets: dict[str, list[bytes]] = {"client": [], "server": []}
        self.sent: list[tuple[str, bytes]] = []
        self._flying: list[tuple[float, int, str, bytes]] = []
        self._n = 0

    def start(self) -> Pair:
        self.server.start(self.now)
        self.client.start(self.now)
        return self

    def connect(self, limit: float = 30.0) -> Pair:
        self.start().run(limit)
        assert (self.client.state, self.server.state) == ("established", "established"), self.events
        return self

    def run(self, limit: float = 30.0) -> Pair:
        end = self.now + limit
        while True:
            for name, session in self._sides():
                for datagram in session.datagrams_to_send(self.now):
                    self.put(name, datagram)
                self.events[name] += session.take_events()
            due = [at for at, *_ in self._flying] + [t for _, s in self._sides() if (t := s.next_timeout()) is not None]
            if not due or min(due) > end:
                return self
            self.now = max(self.now, min(due))
            arrived = sorted(entry for entry in self._flying if entry[0] <= self.now)
            self._flying = [entry for entry in self._flying if entry[0] > self.now]
            for _, _, to, datagram in arrived:
                self.packets[to] += getattr(self, to).receive(datagram, self.now)
            for _, session in self._sides():
                session.handle_timeout(self.now)

    def put(self, sender: str, datagram: bytes) -> None:
        self.sent.append((sender, datagram))
        for extra, arriving in self.wire(sender, datagram):
            self._n += 1
            to = "server" if sender == "client" else "client"
            self._flying.append((self.now + LATENCY + extra, self._n, to, arriving))

    def send(self, sender: str, *packets: bytes) -> None:
        for datagram in getattr(self, sender).send(packets):
            self.put(sender, datagram)

    def _sides(self) -> list[tuple[str, DtlsSession]]:
        return [("client", self.client), ("server", self.server)]


def lossy(seed: int, loss: float, jitter: float = 0.0) -> Filter:
    rng = random.Random(seed)

    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        return [] if rng.random() < loss else [(rng.random() * jitter, datagram)]

    return wire
