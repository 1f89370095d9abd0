"""A full-mesh room end to end: join, crash, leave, rejoin."""

from __future__ import annotations

from psyne_mesh.gossip.events import BroadcastReceived, PeerLeft
from tests.gossip.cluster import room_of


def test_sixteen_who_know_one_of_them_meet_all() -> None:
    room = room_of(16)
    assert room.views_equal()
    assert len(room.links) == 120


def test_a_crash_is_known_to_all_within_three_seconds() -> None:
    room = room_of(16, seed=3)
    victim = room.ids()[5]
    room.crash(victim)
    took = room.run(10.0, until=lambda: all(victim not in node.members for node in room.nodes.values()))
    assert took <= 3.0
    assert [event.reason for _, _, event in room.events(PeerLeft)] == ["timeout"] * 15
    assert room.left_once()


def test_goodbye_is_immediate() -> None:
    room = room_of(8, seed=4)
    leaver = room.ids()[2]
    room.tell(leaver, lambda node: node.leave(room.now))
    room.run(0.1)
    assert [event.reason for _, _, event in room.events(PeerLeft)] == ["left"] * 7


def test_a_broadcast_reaches_everybody_once() -> None:
    room = room_of(8, seed=5)
    room.tell(room.ids()[0], lambda node: node.broadcast(b"hello", room.now))
    room.run(1.0)
    assert [event.payload for _, _, event in room.events(BroadcastReceived)] == [b"hello"] * 7
