"""Who is in which room, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from psyne_mesh.errors import ProtocolError, RoomExists, RoomFull, RoomMismatch, RoomNotFound, SignalingError
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling.events import Joined, SkillRange, room_key, split_room_key_untrusted
from psyne_mesh.signaling.joining import CreatePolicy, JoinRequest, RoomQuery
from psyne_mesh.signaling.registry import RegistryLimits, RoomRegistry

A, B, C = (PeerId(digit * 32) for digit in "abc")
P = [PeerId(f"{number:032x}") for number in range(40)]
LOBBY = room_key("lobby")


def enter(registry: RoomRegistry, peer: PeerId, now: float = 0.0, **request: object) -> Joined:
    return registry.join(peer, JoinRequest(**{"name": "lobby", **request}), now).joined  # type: ignore[arg-type]


def names(joined: Joined) -> list[str]:
    return [peer.peer_id[0] for peer in joined.peers]


def test_the_first_creates_and_later_ones_meet_those_before_in_order() -> None:
    registry = RoomRegistry()
    first = registry.join(A, JoinRequest(name="lobby", record="ra"), 0)
    second = registry.join(B, JoinRequest(name="lobby", record="rb"), 1)
    third = registry.join(C, JoinRequest(name="lobby"), 2)
    assert (first.joined.created, second.joined.created) == (True, False)
    assert (first.notify, second.notify, third.notify) == ((), (A,), (A, B))
    assert [(p.peer_id, p.record, p.index) for p in third.joined.peers] == [(A, "ra", 0), (B, "rb", 1)]
    assert third.joined.index == 2
    assert (first.joined.info.state, second.joined.info.state) == ("waiting", "active")


@pytest.mark.parametrize(
    ("create", "exists", "expected"),
    [
        ("or", False, None),
        ("or", True, None),
        ("only", False, None),
        ("only", True, RoomExists),
        ("never", False, RoomNotFound),
        ("never", True, None),
    ],
)
def test_create_policies(create: CreatePolicy, exists: bool, expected: type[Exception] | None) -> None:
    registry = RoomRegistry()
    if exists:
        enter(registry, A)
    if expected is None:
        assert enter(registry, B, create=create).created is not exists
        return
    with pytest.raises(expected):
        enter(registry, B, create=create)
    assert not registry.is_member(B, LOBBY)
    assert registry.stats.joins_refused == 1


@pytest.mark.parametrize(
    ("room", "joiner", "welcome"),
    [
        (None, None, True),
        (None, (1, 2), True),
        ((1200, 1400), None, True),
        ((1200, 1400), (1200, 1400), True),
        ((1200, 1400), (1400, 1600), True),
        ((1200, 1400), (1000, 1200), True),
        ((1200, 1400), (1300, 1300), True),
        ((1200, 1400), (1000, 2000), True),
        ((1200, 1400), (1401, 1600), False),
        ((1200, 1400), (0, 1199.9), False),
    ],
)
def test_skill_bands_must_overlap(room: SkillRange | None, joiner: SkillRange | None, welcome: bool) -> None:
    registry = RoomRegistry()
    enter(registry, A, skill_range=room)
    if welcome:
        assert enter(registry, B, skill_range=joiner).info.skill_range == room
    else:
        with pytest.raises(RoomMismatch):
            enter(registry, B, skill_range=joiner)


def test_the_creator_sets_the_size_and_the_metadata() -> None:
    registry = RoomRegistry()
    enter(registry, A, max_players=2, metadata={"map": "dust"})
    joined = enter(registry, B, max_players=99, metadata={"map": "moon"})
    assert (joined.info.max_players, joined.info.metadata) == (2, {"map": "dust"})
    with pytest.raises(RoomFull):
        enter(registry, C)
    registry.leave(B, LOBBY, 1)
    enter(registry, C, 1)


def test_application_region_and_name_keep_rooms_apart() -> None:
    registry = RoomRegistry()
    enter(registry, A)
    others: list[dict[str, Any]] = [{"name": "other"}, {"app_id": "chess"}, {"region": "eu"}, {"app_id": "eu"}]
    for other in others:
        assert enter(registry, B, **other).created
    assert registry.stats.rooms == 5


@pytest.mark.parametrize(("reason", "keeps_seat"), [("left", False), ("lost", True), ("timeout", True)])
def test_who_did_not_say_goodbye_keeps_the_seat_for_a_while(reason: str, keeps_seat: bool) -> None:
    registry = RoomRegistry(RegistryLimits(seat_hold_s=10))
    enter(registry, A, max_players=2)
    enter(registry, B)
    if reason == "left":
        registry.leave(B, LOBBY, 5)
    else:
        (departure,) = registry.depart(B, reason, 5)
        assert (departure.room, departure.peer_id, departure.reason, departure.notify) == (LOBBY, B, reason, (A,))
    if keeps_seat:
        with pytest.raises(RoomFull):
            enter(registry, C, 14.9)
        back = registry.join(B, JoinRequest(name="lobby"), 14.9)
        assert (back.rejoined, back.notify, back.joined.index) == (True, (A,), 2)
        registry.depart(B, reason, 15)
        assert names(enter(registry, C, 25)) == ["a"]
    else:
        enter(registry, C, 5)


def test_the_lost_are_in_no_list() -> None:
    registry = RoomRegistry()
    for peer in (A, B):
        enter(registry, peer)
    registry.depart(A, "lost", 1)
    assert names(enter(registry, C, 1)) == ["b"]
    assert registry.list_rooms().rooms[0].players == 2


def test_joining_again_refreshes_the_record_and_tells_nobody() -> None:
    registry = RoomRegistry()
    enter(registry, A, record="old")
    enter(registry, B)
    again = registry.join(A, JoinRequest(name="lobby", record="new", create="only"), 1)
    assert (again.notify, again.rejoined, again.joined.created, names(again.joined)) == ((), False, False, ["b"])
    assert [(p.record, p.index) for p in enter(registry, C).peers] == [("new", 0), ("", 1)]


def test_an_empty_room_is_found_as_it_was_until_its_time_is_over() -> None:
    registry = RoomRegistry(RegistryLimits(empty_ttl_s=60))
    enter(registry, A, max_players=3, skill_range=(1, 2))
    registry.leave(A, LOBBY, 10)
    assert registry.list_rooms().rooms == ()
    assert registry.next_timeout() == 70
    registry.expire(69)
    assert enter(registry, B, 69, create="never").info.max_players == 3
    assert registry.next_timeout() is None
    registry.leave(B, LOBBY, 100)
    registry.expire(160)
    assert registry.stats.rooms == 0
    assert registry.stats.rooms_expired == 1
    with pytest.raises(RoomNotFound):
        enter(registry, B, 160, create="never")


@pytest.mark.parametrize("request_", [{"create": "only"}, {"skill_range": (8, 9)}])
def test_an_empty_room_hinders_nobody(request_: dict[str, Any]) -> None:
    registry = RoomRegistry()
    enter(registry, A, max_players=3, skill_range=(1, 2))
    registry.leave(A, LOBBY, 10)
    joined = enter(registry, B, 11, max_players=5, **request_)
    assert (joined.created, joined.info.max_players) == (True, 5)


def test_an_empty_room_with_a_held_seat_is_not_taken_over() -> None:
    registry = RoomRegistry(RegistryLimits(seat_hold_s=10))
    enter(registry, A)
    registry.depart(A, "lost", 0)
    assert registry.next_timeout() == 10
    with pytest.raises(RoomExists):
        enter(registry, B, 9, create="only")
    assert enter(registry, B, 10, create="only").created


def test_leaving_twice_or_from_nowhere_is_no_departure() -> None:
    registry = RoomRegistry()
    enter(registry, A)
    assert registry.leave(A, LOBBY, 0) is not None
    assert registry.leave(A, LOBBY, 0) is None
    assert registry.leave(B, "//nowhere", 0) is None
    assert registry.depart(B, "lost", 0) == []


def test_departing_leaves_every_room_in_the_order_of_joining() -> None:
    registry = RoomRegistry()
    for name in ("one", "two", "three"):
        enter(registry, A, name=name)
    assert [d.room for d in registry.depart(A, "lost", 0)] == ["//one", "//two", "//three"]
    assert registry.stats.members == 0


def test_limits_refuse_and_evict_nobody() -> None:
    registry = RoomRegistry(RegistryLimits(rooms_max=2, rooms_per_peer_max=1, players_per_room_max=2))
    assert enter(registry, A, max_players=100).info.max_players == 2
    with pytest.raises(SignalingError, match="1 rooms at a time"):
        enter(registry, A, name="two")
    enter(registry, B, name="two")
    with pytest.raises(SignalingError, match="no more than 2 rooms"):
        enter(registry, C, name="three")
    assert registry.is_member(A, LOBBY)
    assert registry.is_member(B, "//two")
    assert registry.stats.joins_refused == 2


def test_lists_are_filtered_and_cut() -> None:
    registry = RoomRegistry(RegistryLimits(listed_max=3))
    enter(registry, A, name="full", max_players=1)
    enter(registry, A, name="skilled", skill_range=(5, 6))
    enter(registry, A, name="eu", region="eu")
    enter(registry, A, name="chess", app_id="chess")

    def found(**wanted: object) -> list[str]:
        return [info.name for info in registry.list_rooms(RoomQuery(**{"app_id": None, **wanted})).rooms]  # type: ignore[arg-type]

    assert found() == ["full", "skilled", "eu"]
    assert registry.list_rooms().truncated
    assert found(app_id="") == ["full", "skilled", "eu"]
    assert not registry.list_rooms(RoomQuery(app_id="")).truncated
    assert found(app_id="", region="") == ["full", "skilled"]
    assert found(app_id="chess") == ["chess"]
    assert found(app_id="", skill_range=(1, 2)) == ["full", "eu"]
    assert found(app_id="", only_open=True) == ["skilled", "eu"]
    assert found(app_id="", limit=1) == ["full"]
    assert found(app_id="go") == []


def test_room_keys_are_read_back() -> None:
    assert split_room_key_untrusted(room_key("a/b", app_id="x", region="y")) == ("x", "y", "a/b")
    for text in ("", "a", "a/b", "a/b/", "//"):
        with pytest.raises(ProtocolError):
            split_room_key_untrusted(text)


def test_in_a_large_room_a_sample_is_listed_and_told() -> None:
    registry = RoomRegistry(RegistryLimits(told_max=8))
    peers = [PeerId(f"{number:032x}") for number in range(100)]
    for peer in peers:
        arrival = registry.join(peer, JoinRequest(name="lobby", max_players=1000), 0)
        assert arrival.notify == tuple(member.peer_id for member in arrival.joined.peers)
    assert [member.index for member in arrival.joined.peers] == [0, 23, 47, 71, 95, 96, 97, 98]
    assert arrival.joined.info.players == 100
    departure = registry.leave(peers[50], LOBBY, 1)
    assert departure is not None
    assert len(departure.notify) == len(set(departure.notify)) == 8


def test_a_key_and_an_address_have_their_share_of_the_rooms_and_no_more() -> None:
    limits = RegistryLimits(
        rooms_max=200, rooms_per_peer_max=1_000, rooms_created_per_peer_max=8, rooms_created_per_address_max=10
    )
    registry, refused = RoomRegistry(limits), 0
    for number in range(625):
        try:
            registry.join(P[number % 25], JoinRequest(name=f"{number}"), 0, address="evil")
        except SignalingError:
            refused += 1
    assert (registry.stats.rooms, refused) == (10, 615)
    for number in range(8):
        registry.join(P[30], JoinRequest(name=f"honest {number}"), 0, address=f"{number}")
    with pytest.raises(SignalingError, match="you have made the 8 rooms"):
        registry.join(P[30], JoinRequest(name="one more"), 0, address="elsewhere")


def test_the_oldest_empty_room_gives_way() -> None:
    registry = RoomRegistry(RegistryLimits(rooms_max=3, rooms_created_per_address_max=2))
    for name, address in (("a", "x"), ("b", "x"), ("c", "y")):
        registry.join(P[0], JoinRequest(name=name), 0, address=address)
        registry.leave(P[0], f"//{name}", 1)
    registry.join(P[1], JoinRequest(name="b"), 2, address="x")  # in use again
    registry.join(P[1], JoinRequest(name="d"), 2, address="x")  # of its own, a
    assert registry.join(P[2], JoinRequest(name="c", create="never"), 2).joined.created is False
    with pytest.raises(RoomNotFound):
        registry.join(P[2], JoinRequest(name="a", create="never"), 2)
    with pytest.raises(SignalingError, match="no more than 3"):
        registry.join(P[3], JoinRequest(name="e"), 2, address="z")
    registry.leave(P[2], "//c", 3)
    registry.join(P[3], JoinRequest(name="e"), 3, address="z")
    registry.leave(P[1], "//d", 4, reason="lost")
    with pytest.raises(SignalingError, match="address"):  # its player has a claim on d
        registry.join(P[4], JoinRequest(name="f"), 5, address="x")
    registry.join(P[4], JoinRequest(name="f"), 15, address="x")


def test_ten_keys_keep_nobody_from_making_rooms() -> None:
    """Each makes rooms as fast as it likes and leaves them at once."""
    registry = RoomRegistry(RegistryLimits(rooms_max=100, rooms_created_per_address_max=5))
    for number in range(2_000):
        registry.join(P[number % 10], JoinRequest(name=f"{number}"), number / 100, address="evil")
        registry.leave(P[number % 10], f"//{number}", number / 100)
        assert registry.stats.rooms <= 5
    assert registry.join(P[20], JoinRequest(name="mine"), 20.0, address="honest").joined.created


def test_rooms_of_pairs_are_in_no_list() -> None:
    registry = RoomRegistry()
    registry.join(P[0], JoinRequest(name="pair:alice bob"), 0)
    registry.join(P[0], JoinRequest(name="open"), 0)
    assert [room.name for room in registry.list_rooms().rooms] == ["open"]
