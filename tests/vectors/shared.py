"""Shared objects: what one player says to another that acknowledges, and what the other then sees."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from examples.arena.world import Ship
from psyne_mesh.game.schema import schema_of
from psyne_mesh.game.shared import Announced, Removed, SharedObjects, Updated
from psyne_mesh.identity import PeerId
from tests.vectors.shape import document

ADA, BOB = PeerId("a" * 32), PeerId("b" * 32)


def stories() -> Iterator[dict[str, Any]]:
    for seed in range(4):
        rng = random.Random(seed)
        ada, bob = SharedObjects(random.Random(seed)), SharedObjects(random.Random(seed + 100))
        ada.peer_joined(BOB, 0.0)
        bob.peer_joined(ADA, 0.0)
        schema, ship = schema_of(Ship), Ship()
        values = list(schema.values_of(ship))
        ada.add(2, schema, [schema.wire_of(number, value) for number, value in enumerate(values)])
        seen: dict[str, Any] = {}
        steps, now = [], 0.0
        for _ in range(24):
            now += 0.05
            changed = rng.sample(range(len(values)), rng.randrange(4))
            for field in changed:
                values[field] = _another(rng, values[field])
            ada.update(2, [(field, schema.wire_of(field, values[field])) for field in changed], now)
            for _, message in ada.datagrams_to_send(now):
                if rng.random() < 0.2:
                    steps.append({"bytes": message, "lost": True})
                    continue
                bob.receive(ADA, message, now)
                for event in bob.take_events():
                    assert isinstance(event, Updated | Announced | Removed)
                    if isinstance(event, Updated):
                        seen |= {
                            schema.fields[field].name: schema.fields[field].from_wire(wire)
                            for field, wire in event.values.items()
                        }
                steps.append({"bytes": message, "values": dict(seen)})
            for _, message in bob.datagrams_to_send(now + 0.01):
                ada.receive(BOB, message, now + 0.01)
        yield {"steps": steps}


def _another(rng: random.Random, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return rng.randrange(-5, 1000) if isinstance(value, int) else rng.uniform(-3.0, 3.0)


def files() -> dict[str, str]:
    return {
        "shared": document(
            "Ship of examples/arena/world.py; `values`: as seen after the message.", stories=list(stories())
        )
    }
