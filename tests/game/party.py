"""Players who exchange shared objects over a link that loses, doubles, delays and reorders, in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from psyne_mesh.game.replicas import Refused, Replicas
from psyne_mesh.game.schema import Shared
from psyne_mesh.game.shared import SharedObjects
from psyne_mesh.identity import PeerId


class Player:
    """The two cores as a room drives them."""

    def __init__(self, name: str, seed: int, hz: float = 30.0) -> None:
        self.id = PeerId(name)
        self.wire = SharedObjects(random.Random(f"{seed}/{name}"), hz)
        self.host = "", 0  # as this player knows it, with its term
        self.replicas = Replicas(lambda player, term: (player, term) == self.host)
        self.refused: list[Refused] = []
        self.events: list[Any] = []
        self.bytes_sent = 0

    def share(self, shared: Shared, term: int = 0) -> Shared:
        self.wire.add(*self.replicas.share(shared, self.id, term))
        return shared

    def knows_host(self, host: str, term: int) -> None:
        self.host = host, term
        if host == self.id:
            for taken in self.replicas.take_over(term, self.id):
                self.wire.add(*taken)

    def unshare(self, shared: Shared) -> None:
        self.wire.remove(self.replicas.unshare(shared))

    def frame(self, now: float) -> list[tuple[PeerId, bytes]]:
        for number, fields in self.replicas.changes():
            self.wire.update(number, fields, now)
        self.wire.handle_timeout(now)
        out = self.wire.datagrams_to_send(now)
        self.bytes_sent += sum(len(data) for _, data in out)
        self.take()
        return out

    def receive(self, peer: PeerId, data: bytes, now: float) -> None:
        self.wire.receive(peer, data, now)
        self.take()

    def take(self) -> None:
        for event in self.wire.take_events():
            self.replicas.apply(event, event.owner)
        news = self.replicas.take_events()
        self.events += news
        self.refused += [each for each in news if isinstance(each, Refused)]

    def sees(self, kind: type[Shared], now: float) -> list[tuple[Any, ...]]:
        """What others own, as plain values."""
        self.replicas.sample(now)
        return sorted(
            tuple(getattr(each, name) for name in each.__struct_fields__)
            for each in self.replicas.all(kind)
            if not each.is_mine
        )


class Party:
    """1. `Party(names, ...)`. 2. `run(seconds, each_frame)`; the frames of all come at `fps`."""

    def __init__(
        self, names: str, seed: int = 0, *, hz: float = 30.0, fps: float = 60.0, loss: float = 0.0, double: float = 0.0,
        delay: Callable[[random.Random], float] = lambda rng: 0.02,
    ) -> None:  # fmt: skip
        self.rng = random.Random(seed)
        self.players = {name: Player(name, seed, hz) for name in names}
        self.now = 100.0
        self.loss, self.double, self.delay = loss, double, delay
        self.fps = fps
        self.cut = False
        self._sent = 0
        self._under_way: list[tuple[float, int, PeerId, PeerId, bytes]] = []
        for one in names:
            for other in names:
                if one != other:
                    self.players[one].wire.peer_joined(PeerId(other), self.now)

    def run(self, seconds: float, each_frame: Callable[[float], None] = lambda now: None) -> None:
        for _ in range(round(seconds * self.fps)):
            self.now += 1 / self.fps
            while self._under_way and self._under_way[0][0] <= self.now:
                came, _, source, target, data = heapq.heappop(self._under_way)
                self.players[target].receive(source, data, came)
            each_frame(self.now)
            for player in self.players.values():
                for target, data in player.frame(self.now):
                    self._send(player.id, target, data)

    def _send(self, source: PeerId, target: PeerId, data: bytes) -> None:
        if self.cut or self.rng.random() < self.loss:
            return
        for _ in range(2 if self.rng.random() < self.double else 1):
            self._sent += 1
            heapq.heappush(
                self._under_way, (self.now + max(0.0, self.delay(self.rng)), self._sent, source, target, data)
            )
