"""What was signed on another day, or at another founding of the room, counts for nothing; wrong clocks part nobody."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip import records as r
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.events import BroadcastReceived, PeerDiscovered, PeerLeft, PeerSuspected
from psyne_mesh.gossip.freshness import FRESH_S, RENEW_WITHIN_S, Calendar, Freshness, founded_by
from psyne_mesh.identity import PeerId
from tests.gossip.cluster import CheapIdentity, Cluster, cheap_verify, room_of
from tests.gossip.test_node_hostile import EVIL, KEY, infiltrated, keep_talking, say, told

TODAY = 1_800_000_000
YEAR = 365 * 86_400
GHOST = CheapIdentity(4000)


def of_today(size: int = 5, **options: object) -> Cluster:
    return infiltrated(size, calendar=Calendar(TODAY, told=True), **options)  # type: ignore[arg-type]


def instances(room: Cluster) -> set[int]:
    return {node._core.fresh.instance for node in room.nodes.values()}


def ghost(at: int, instance: int = 0) -> r.Record:
    return r.OwnState(epoch=1, joined_at=1).sign(KEY, GHOST, instance, at)


def seen(room: Cluster, peer: PeerId) -> bool:
    return any(event.record.peer == peer for _, _, event in room.log if isinstance(event, PeerDiscovered))


# --------------------------------------------------------------------------------------------------------- signatures

SIGNED: dict[str, Callable[[int, int], Callable[[r.RoomKey], None]]] = {
    "record": lambda instance, at: lambda room: r.verify_record_untrusted(
        r.record_untrusted(r.OwnState(epoch=7).sign(KEY, GHOST, instance, at).encoded), room, cheap_verify
    ),
    "accusation": lambda instance, at: lambda room: r.verify_accusation_untrusted(
        r.accusation_untrusted(r.accuse(KEY, GHOST, EVIL.peer_id, 1, at, r.DOWN, instance).encoded),
        room, GHOST.public_key, cheap_verify,
    ),
    "broadcast": lambda instance, at: lambda room: wire.verify_message_untrusted(
        wire.gossip_untrusted(
            wire.encode_gossip(wire.Head(0, 0), wire.sign_message(KEY, GHOST, 1, 2, 1, b"x", instance, at).body), 99
        )[1],
        room, cheap_verify,
    ),
    "keep": lambda instance, at: lambda room: wire.verify_keep_untrusted(
        wire.keep_untrusted(wire.encode_keep(0, wire.sign_keep(KEY, GHOST, 1, instance, at).body))[1], room, cheap_verify
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SIGNED)
def test_every_signature_is_bound_to_the_room(what: str) -> None:
    SIGNED[what](5, TODAY)(KEY)
    with pytest.raises(ProtocolError):
        SIGNED[what](5, TODAY)(r.RoomKey.of(b"elsewhere"))


@pytest.mark.parametrize("what", SIGNED)
@pytest.mark.parametrize("other", [(6, TODAY), (5, TODAY + 1)])
def test_every_signature_covers_the_instance_and_a_time_or_counter(
    what: str, other: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words of one, under the signature of another."""
    held = []
    monkeypatch.setattr(
        CheapIdentity, "sign", lambda self, domain, payload: held.append(payload) or b"%064d" % 0
    )  # what is signed
    for numbers in ((5, TODAY), other):
        with pytest.raises(ProtocolError):
            SIGNED[what](*numbers)(KEY)
    assert held[0] != held[1]


# -------------------------------------------------------------------------------------------------------------- dates


@pytest.mark.parametrize("age", [YEAR, FRESH_S + 20, -YEAR, -FRESH_S - 20])
@pytest.mark.parametrize("way", ["member", "server"])
def test_a_record_of_another_day_shows_nobody(age: int, way: str) -> None:
    room = of_today()
    old = ghost(TODAY + int(room.now) - age, min(instances(room)))
    if way == "member":
        say(room, told(old))
    else:
        for peer in room.ids():
            room.tell(peer, lambda node: node.learn([old], room.now))
    keep_talking(room, 5.0)
    assert not seen(room, GHOST.peer_id)
    assert EVIL.peer_id in room.nodes[room.ids()[0]]._core.links  # who passes it on may have a wrong clock: no fault


def test_a_record_of_today_is_passed_on() -> None:
    room = of_today()
    say(room, told(ghost(TODAY + int(room.now) - FRESH_S + 60)))
    assert seen(room, GHOST.peer_id)


def test_who_is_still_there_is_found_by_an_old_list_of_the_server() -> None:
    """Signaling shows the record with which a member came, hours ago."""
    room = Cluster(1)
    room.calendar = Calendar(TODAY, told=True)
    first = room.add(0)
    listed = first.own_record
    room.run(3 * 3600.0)
    late = room.add(1)
    room.tell(late.peer_id, lambda node: node.learn([listed], room.now))
    assert late.members == (late.peer_id,)
    room.run(5.0)
    assert room.views_equal()


@pytest.mark.parametrize("age", [YEAR, FRESH_S + 20])
def test_a_broadcast_of_another_day_is_not_delivered(age: int) -> None:
    room = of_today()
    at, instance = TODAY + int(room.now), min(instances(room))
    for sequence, sent_at in ((1, at - age), (2, at)):
        message = wire.sign_message(KEY, GHOST, 1, sequence, 1, b"%d" % sequence, instance, sent_at)
        say(room, wire.encode_gossip(wire.Head(1, 0), message.body))
    room.run(5.0)
    got = {event.payload for _, _, event in room.log if isinstance(event, BroadcastReceived)}
    assert got == {b"2"}


def test_records_are_renewed_long_before_they_are_old_whatever_their_lifetime() -> None:
    room = room_of(3, config=GossipConfig(record_lifetime_s=86_400))
    before = {node.own_record.at for node in room.nodes.values()}
    room.run(RENEW_WITHIN_S)
    assert all(node.own_record.at > max(before) for node in room.nodes.values())
    room.run(3600.0)
    assert room.views_equal()
    assert not room.events(PeerLeft)


# ---------------------------------------------------------------------------------------------------------- instances


@pytest.mark.parametrize("size", [2, 6, 40])
def test_members_agree_on_the_instance(size: int) -> None:
    room = room_of(size)
    assert len(instances(room)) == 1
    assert instances(room) != {0}


def test_the_same_room_founded_again_is_another_instance() -> None:
    room = room_of(3)
    again = Cluster(0)
    again.now = 900.0
    first = again.add(0, epoch=2).peer_id
    again.add(1, epoch=2, knows=[first])
    again.run(10.0)
    assert not instances(room) & instances(again)


def words_of(instance: int, victim: r.Record) -> list[bytes]:
    """Of another founding, minutes ago: a record, an accusation by a member, a chat line, a keeper's sign."""
    message = wire.sign_message(KEY, GHOST, 1, 1, 1, b"x", instance, TODAY)
    accusation = r.accuse(KEY, EVIL, victim.peer, victim.epoch, victim.incarnation, r.DOWN, instance)
    return [
        told(ghost(TODAY, instance)),
        told(accusation),
        wire.encode_gossip(wire.Head(1, 0), message.body),
        wire.encode_keep(1, wire.sign_keep(KEY, GHOST, 1 << 60, instance, TODAY).body),
    ]


def test_words_of_another_instance_are_not_believed() -> None:
    room = of_today(config=GossipConfig(suspicion_min_s=0.1, suspicion_max_s=0.2))
    [ours] = instances(room)
    victim = room.nodes[room.ids()[2]].own_record
    for frame in words_of(ours + 1, victim):
        say(room, frame)
    keep_talking(room, 3.0)
    assert not seen(room, GHOST.peer_id)
    assert not room.events(PeerSuspected)
    assert not room.events(BroadcastReceived)
    node = room.nodes[room.ids()[0]]
    assert node._core.broadcast.signs.newest(GHOST.peer_id) is None
    for frame in words_of(ours, victim):
        say(room, frame)
    room.run(1.0)
    assert seen(room, GHOST.peer_id)
    assert room.events(PeerSuspected)
    assert len(room.events(BroadcastReceived)) == len(room.ids())
    assert node._core.broadcast.signs.newest(GHOST.peer_id) is not None


@pytest.mark.parametrize("size", [3, 12])
def test_two_foundings_that_meet_become_one(size: int) -> None:
    """Signaling was dead; each half found itself by a seed of its own."""
    room = Cluster(3, GossipConfig(full_mesh_max=8, full_mesh_hysteresis=2))
    seeds = [room.add(side * 100).peer_id for side in (0, 1)]
    for index in range(1, size):
        for side in (0, 1):
            room.add(side * 100 + index, knows=[seeds[side]])
    room.run(20.0)
    assert len(instances(room)) == 2
    lower = min(instances(room))
    room.log.clear()
    room.tell(seeds[0], lambda node: node.learn([room.nodes[seeds[1]].own_record], room.now))
    room.run(30.0, until=lambda: room.views_equal() and len(instances(room)) == 1)
    assert room.views_equal()
    assert instances(room) == {lower}
    assert not room.events(PeerLeft)
    room.log.clear()
    for peer in seeds:
        room.say(peer, b"all together")
    room.run(5.0)
    assert len(room.events(BroadcastReceived)) == 2 * (2 * size - 1)


def test_nobody_makes_a_room_sign_for_ever() -> None:
    """Each lower instance costs everybody a record."""
    fresh = Freshness(Calendar(), 0.0)
    taken = sum(fresh.adopt(10_000 - number, 0.0) for number in range(1000))
    assert taken <= 8
    assert sum(fresh.adopt(8_000 - number, number * 0.1) for number in range(600)) <= 4


def test_a_room_is_founded_by_its_elder() -> None:
    elder = r.OwnState(epoch=1, joined_at=1).sign(KEY, GHOST)
    younger = r.OwnState(epoch=9, joined_at=9).sign(KEY, EVIL)
    other = r.OwnState(epoch=10, joined_at=10).sign(KEY, CheapIdentity(1))
    assert founded_by(elder, younger) == founded_by(younger, elder) == founded_by(other, elder)
    again = r.OwnState(epoch=2, joined_at=2).sign(KEY, GHOST)
    assert founded_by(again, younger) != founded_by(elder, younger)


# ------------------------------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize("skew", [-YEAR, -500, 500, YEAR])
@pytest.mark.parametrize("wrong", ["the newcomer", "the first", "each"])
def test_without_a_server_s_time_wrong_clocks_part_nobody(skew: int, wrong: str) -> None:
    room = Cluster(2, GossipConfig(full_mesh_max=4, full_mesh_hysteresis=1))
    seed: list[PeerId] = []
    for index in range(8):
        off = wrong == "each" or (index == 7 if wrong == "the newcomer" else index == 0)
        room.calendar = Calendar(TODAY + (skew * (index + 1) // 8 if wrong == "each" else skew if off else 0))
        seed = seed or [room.add(0).peer_id] if index == 0 else seed
        if index:
            room.add(index, knows=seed)
        room.run(3.0)
    room.run(900.0)
    assert room.views_equal()
    assert not room.events(PeerLeft)
    times = {node._core.fresh.seconds(room.now) for node in room.nodes.values()}
    assert max(times) - min(times) <= 60
    room.log.clear()
    for peer in room.ids():
        room.say(peer, b"good morning")
    room.run(5.0)
    assert len(room.events(BroadcastReceived)) == 8 * 7


def test_who_was_told_the_time_does_not_go_by_a_neighbour_s() -> None:
    fresh = Freshness(Calendar(TODAY, told=True), 0.0)
    assert not fresh.meet(TODAY - YEAR, 0.0)
    assert fresh.seconds(0.0) == TODAY
