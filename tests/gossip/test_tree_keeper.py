"""Who seems cut off from the tree: whom its keeper's signs do not reach."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.gossip import effects
from psyne_mesh.gossip.broadcast_wire import Keep
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.policy import PARTIAL
from psyne_mesh.gossip.tree_keeper import Duty, Signs, TreeKeeper, keeper
from psyne_mesh.identity import PeerId

ROOM = b"arena"
PEERS = [PeerId(f"{n:032x}") for n in range(1, 30)]
KEEPER = keeper(ROOM, PEERS[0], PEERS)
OWN = next(peer for peer in PEERS if peer != KEEPER)


@pytest.mark.parametrize(("signs_until", "cut_off_at_s"), [(0.0, (24, 48)), (60.0, (104, 130))], ids=["never", "lost"])
def test_who_never_had_a_sign_doubts_its_neighbours_sooner_than_who_lost_two(
    signs_until: float, cut_off_at_s: tuple[float, float]
) -> None:
    """Among liars who pass nothing on, a newcomer has no sign to miss."""
    out = Effects()
    signs = Signs()
    tree = TreeKeeper(ROOM, OWN, random.Random(1), signs, out)
    tree.follow(PARTIAL, 0.0)
    now, number = 0.0, 0
    while now < 200.0:
        now = out.timers[effects.TREE_KEEPER]
        if now < signs_until:
            number += 1
            signs.take(Keep(KEEPER, b"", 0, 0, number, b""), now)
        if Duty.CUT_OFF in tree.beat(now, PEERS, linked=True):
            break
    first, last = cut_off_at_s
    assert first <= now <= last
