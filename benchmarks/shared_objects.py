"""`python -m benchmarks.shared_objects`: 100 shared objects of eight fields at 30 Hz to seven players, in CPU time.

The game's thread compares, converts and reads; the network's encodes for each player. All objects move each frame, and every
hundredth frame of an object changes something else. The receiving side is one of the seven players.
"""

from __future__ import annotations

import math
import random
import time
from typing import Any

from psyne_mesh.game.replicas import Replicas
from psyne_mesh.game.schema import Shared, quantised, smooth
from psyne_mesh.game.shared import SharedObjects
from psyne_mesh.identity import PeerId

OBJECTS, PLAYERS, FRAMES, FPS = 100, 7, 600, 60


class Ship(Shared):
    x: float = smooth(0.0)
    y: float = smooth(0.0)
    angle: float = quantised(0.0, bits=10, low=-math.pi, high=math.pi)
    speed: float = 0.0
    hp: int = 100
    score: int = 0
    alive: bool = True
    name: str = ""


class Side:
    def __init__(self, name: str) -> None:
        self.wire, self.replicas, self.game_s, self.network_s = SharedObjects(random.Random(name)), Replicas(), 0.0, 0.0

    def frame(self, now: float) -> list[tuple[PeerId, bytes]]:
        began = time.process_time()
        changes = self.replicas.changes()
        handed = time.process_time()
        for number, fields in changes:
            self.wire.update(number, fields, now)
        out = self.wire.datagrams_to_send(now)
        self.game_s += handed - began
        self.network_s += time.process_time() - handed
        return out

    def receive(self, peer: PeerId, data: bytes, now: float) -> list[Any]:
        began = time.process_time()
        self.wire.receive(peer, data, now)
        events = self.wire.take_events()
        self.network_s += time.process_time() - began
        return events

    def show(self, events: list[Any], now: float) -> None:
        began = time.process_time()
        for event in events:
            self.replicas.apply(event, event.owner)
        self.replicas.sample(now)
        for _ in self.replicas.all(Ship):
            pass
        self.game_s += time.process_time() - began


def main() -> None:
    owner, names = Side("owner"), [PeerId(f"player {number}") for number in range(PLAYERS)]
    others = {name: Side(name) for name in names}
    for name, other in others.items():
        owner.wire.peer_joined(name, 0.0)
        other.wire.peer_joined(PeerId("owner"), 0.0)
    watcher = others[names[0]]
    watcher.replicas.know(Ship)
    ships = [Ship(name=f"ship number {number}") for number in range(OBJECTS)]
    for ship in ships:
        owner.wire.add(*owner.replicas.share(ship, "owner"))
    full = sum(len(owner.wire._encoded_record(number, own, -1)) for number, own in owner.wire._own.items())
    sent_bytes = sends = 0
    for frame in range(FRAMES):
        now = 1.0 + frame / FPS
        for number, ship in enumerate(ships):
            ship.x, ship.y = 500 + 300 * math.sin(now + number), 500 + 300 * math.cos(now + number)
            if (frame + number) % 100 == 0:
                ship.hp, ship.angle = (ship.hp - 7) % 100, math.sin(now)
        if frame % 2:  # as `sync.Room` does: every other frame is due at 30 Hz
            continue
        arrived: dict[PeerId, list[Any]] = {name: [] for name in names}
        for name, data in owner.frame(now):
            sent_bytes += len(data) if frame > 60 else 0
            arrived[name] += others[name].receive(PeerId("owner"), data, now + 0.001)
        sends += PLAYERS if frame > 60 else 0
        for name, other in others.items():
            for _, data in other.frame(now + 0.002):
                owner.receive(name, data, now + 0.003)
        watcher.show(arrived[names[0]], now + 0.004)
        watcher.show([], now + 1 / FPS)
    print(f"game's thread, owner of all        {1000 * owner.game_s / FRAMES:8.3f} ms a frame")
    print(f"game's thread, who sees all        {1000 * watcher.game_s / FRAMES:8.3f} ms a frame")
    print(f"network's thread, owner of all     {1000 * owner.network_s / FRAMES:8.3f} ms a frame")
    print(f"deltas of the full state           {100 * sent_bytes / sends / full:8.1f} %")


if __name__ == "__main__":
    main()
