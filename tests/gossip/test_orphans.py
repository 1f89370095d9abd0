"""Who dies together with all its neighbours is missed by those who look after it."""

from __future__ import annotations

import math

from psyne_mesh.gossip import effects
from psyne_mesh.gossip.effects import DialWanted, Effects, OrphanSilent
from psyne_mesh.gossip.events import PeerLeft
from psyne_mesh.gossip.orphans import Orphans
from psyne_mesh.gossip.records import RoomKey
from psyne_mesh.identity import PeerId
from tests.gossip.test_node_partial_mesh import crowd

ROOM = RoomKey.of(b"room").raw
PEERS = [PeerId(f"{index:032x}") for index in range(20)]


def watch_of(own: PeerId, alive: list[PeerId]) -> list[PeerId]:
    out = Effects()
    orphans = Orphans(ROOM, own, out)
    for _ in range(5):
        orphans.lost(10.0)
    orphans.handle_timeout(out.timers[effects.ORPHANS], alive, {})
    return [wish.peer for wish in out.wishes if isinstance(wish, DialWanted)]


def test_each_member_has_three_who_look_after_it() -> None:
    watched = [peer for own in PEERS for peer in watch_of(own, [peer for peer in PEERS if peer != own])]
    assert sorted(watched) == sorted([*PEERS, *PEERS, *PEERS])


def test_few_losses_or_losses_far_apart_make_nobody_look() -> None:
    out = Effects()
    orphans = Orphans(ROOM, PEERS[0], out)
    for second in range(0, 40, 2):
        orphans.lost(float(second))
    assert out.timers[effects.ORPHANS] == math.inf


def test_who_answers_a_dial_is_no_orphan_and_who_does_not_is_called_silent() -> None:
    out = Effects()
    orphans = Orphans(ROOM, PEERS[0], out)
    for _ in range(5):
        orphans.lost(10.0)
    orphans.handle_timeout(out.timers[effects.ORPHANS], PEERS[1:], {})
    here, there, silent = [wish.peer for wish in out.wishes if isinstance(wish, DialWanted)]
    orphans.linked(here)
    orphans.linked(there)
    orphans.handle_timeout(out.timers[effects.ORPHANS], PEERS[1:], {})
    assert out.facts == [OrphanSilent(silent)]
    assert out.timers[effects.ORPHANS] == math.inf


def test_nobody_is_dialled_whom_a_link_watches() -> None:
    out = Effects()
    orphans = Orphans(ROOM, PEERS[0], out)
    for _ in range(5):
        orphans.lost(10.0)
    orphans.handle_timeout(out.timers[effects.ORPHANS], PEERS[1:], PEERS[1:])
    assert out.wishes == []


def test_a_member_that_dies_with_all_its_neighbours_is_missed_within_fifteen_seconds() -> None:
    room = crowd(40, seed=4)
    victim = room.ids()[7]
    near = {peer for link in room.links if victim in link for peer in link}
    for peer in near:
        room.crash(peer)
    room.log.clear()
    room.run(15.0)
    for peer in room.nodes:
        assert near == {event.peer for _, observer, event in room.events(PeerLeft) if observer == peer}  # type: ignore[attr-defined]
