"""Which room of a lobby a server gives to whom."""

from __future__ import annotations

import attrs
import pytest

from psyne_mesh.errors import AppVersionMismatch, RoomError, RoomFull, RoomMismatch, RoomNotFound, SignalingError
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.guesses import BURST, Guesses
from psyne_mesh.signaling.joining import JoinRequest, RoomQuery, SeekRequest
from psyne_mesh.signaling.manifest import Manifest
from psyne_mesh.signaling.placing import LOOK_S, WAITING_PER_PEER_MAX, Placing
from psyne_mesh.signaling.registry import RegistryLimits, RoomRegistry
from psyne_mesh.signaling.requests import request_into
from psyne_mesh.signaling.switchboard import Switchboard

from .worlds import player

P = [PeerId(f"{number:032x}") for number in range(200)]


class Lobby:
    """A registry, who places, and players that enter where they are placed."""

    def __init__(self) -> None:
        self.registry = RoomRegistry()
        self.placing = Placing(self.registry)
        self.now = 0.0
        self._codes = 0

    def request(self, name: str = "fps", **fields: object) -> JoinRequest:
        self._codes += 1
        code = f"{self._codes:08d}"
        version = str(fields.pop("app_version", ""))
        return JoinRequest(name, **{"max_players": 2, "manifest": Manifest(code=code, app_version=version), **fields})  # type: ignore[arg-type]

    def seek(self, peer: PeerId, *, players: int = 0, party: str = "", size: int = 1, avoid: tuple[str, ...] = (),
             ref: int = 7, **fields: object) -> None:  # fmt: skip
        join = self.request(**{**({"max_players": players} if players else {}), **fields})
        request = SeekRequest(join=join, players=players, party=party, party_size=size, avoid=avoid)
        self.placing.seek(peer, ref, request, self.now)

    def places(self) -> dict[PeerId, RoomInfo | RoomError | SignalingError]:
        return {place.peer: place.outcome for place in self.placing.take_places()}

    def place(self, peer: PeerId, *, enters: bool = True, **options: object) -> str:
        """The key of the room."""
        self.seek(peer, **options)  # type: ignore[arg-type]
        outcome = self.places()[peer]
        if not isinstance(outcome, RoomInfo):
            raise outcome
        if enters:
            self.enter(peer, outcome)
        return outcome.room

    def enter(self, peer: PeerId, info: RoomInfo) -> None:
        self.registry.join(peer, request_into(info, self.request()), self.now)

    def wait(self, seconds: float) -> dict[PeerId, RoomInfo | RoomError | SignalingError]:
        """Everybody who is placed meanwhile enters."""
        found: dict[PeerId, RoomInfo | RoomError | SignalingError] = {}
        end = self.now + seconds
        while self.now < end:
            self.now += LOOK_S
            self.placing.handle_timeout(self.now)
            for peer, outcome in self.places().items():
                found[peer] = outcome
                if isinstance(outcome, RoomInfo):
                    self.enter(peer, outcome)
        return found


def test_the_player_after_the_last_seat_gets_a_second_room() -> None:
    lobby = Lobby()
    rooms = [lobby.place(P[number]) for number in range(5)]
    assert rooms[:2] == ["//fps", "//fps"]
    assert rooms[2] == rooms[3] != rooms[4]
    assert len(set(rooms)) == 3
    assert [room.players for room in lobby.registry.list_rooms(RoomQuery(name="fps")).rooms] == [2, 2, 1]


def test_a_seat_is_held_for_who_was_placed_and_not_for_ever() -> None:
    lobby = Lobby()
    first = lobby.place(P[0])
    lobby.place(P[1], enters=False)
    assert lobby.place(P[2]) != first, "nobody gets a seat that another was promised"
    lobby.now += RegistryLimits().seat_hold_s
    assert lobby.place(P[3]) == first or lobby.place(P[3]) == first


def test_another_skill_region_or_version_is_another_room() -> None:
    lobby = Lobby()
    here = lobby.place(P[0], skill_range=(1, 2), region="eu", max_players=9)
    others = [
        lobby.place(P[1], skill_range=(3, 4), region="eu", max_players=9),
        lobby.place(P[2], skill_range=(1, 2), region="us", max_players=9),
        lobby.place(P[3], skill_range=(1, 2), region="eu", app_version="2", max_players=9),
    ]
    assert here not in others
    assert len(set(others)) == 3
    assert lobby.place(P[4], skill_range=(2, 3), region="eu", max_players=9) == here
    for error, fields in (
        (RoomMismatch, {"skill_range": (8, 9), "region": "eu"}),
        (AppVersionMismatch, {"skill_range": (1, 2), "region": "eu", "app_version": "3"}),
        (RoomNotFound, {"region": "asia"}),
    ):
        with pytest.raises(error):
            lobby.place(P[9], create="never", **fields)


def test_versions_that_differ_are_both_named_as_they_travel() -> None:
    lobby = Lobby()
    lobby.place(P[0], app_version="1.2")
    with pytest.raises(AppVersionMismatch) as told:
        lobby.place(P[1], app_version="1.3", create="never")
    travelled = m.exception_of(m.refusal_of(told.value, 1))
    assert isinstance(travelled, AppVersionMismatch)
    assert (travelled.ours, travelled.theirs) == ("1.3", "1.2")
    assert "1.2" in str(travelled)
    assert "1.3" in str(travelled)


def test_the_fullest_room_is_filled_first() -> None:
    lobby = Lobby()
    one = lobby.place(P[0], max_players=3)
    two = lobby.place(P[1], max_players=3, avoid=(one,))
    lobby.place(P[2], max_players=3, avoid=(one,))
    assert lobby.place(P[3]) == two
    assert lobby.place(P[4]) == one


def test_a_player_that_comes_back_gets_its_own_room() -> None:
    lobby = Lobby()
    rooms = [lobby.place(P[number]) for number in range(4)]
    lobby.registry.depart(P[1], "lost", lobby.now)
    lobby.registry.depart(P[3], "lost", lobby.now)
    assert (lobby.place(P[3]), lobby.place(P[1])) == (rooms[3], rooms[1])


def test_full_is_said_where_no_new_room_is_wanted() -> None:
    lobby = Lobby()
    lobby.place(P[0])
    lobby.place(P[1])
    with pytest.raises(RoomFull, match="create_room"):
        lobby.place(P[2], create="never")


def test_private_rooms_are_given_to_nobody_and_are_in_no_list() -> None:
    lobby = Lobby()
    host, hidden = player(1), Manifest(code="K7QM3FHT", visible=False)
    registry = lobby.registry
    registry.join(host.peer_id, JoinRequest("fps", instance="K7QM3FHT", manifest=hidden), 0)
    assert lobby.place(P[0]) == "//fps"
    assert [room.room for room in registry.list_rooms().rooms] == ["//fps"]
    assert [room.room for room in registry.list_rooms(RoomQuery(code="K7QM3FHT")).rooms] == ["//fps#K7QM3FHT"]
    assert registry.list_rooms(RoomQuery(code="AAAAAAAA")).rooms == ()
    registry.leave(host.peer_id, "//fps#K7QM3FHT", 1)
    registry.expire(100)
    assert registry.list_rooms(RoomQuery(code="K7QM3FHT")).rooms == ()


def test_a_hundred_who_come_at_once_are_in_full_rooms() -> None:
    lobby = Lobby()
    for number in range(100):
        lobby.seek(P[number], players=4, name="quick")
        lobby.now += 0.01
    found = lobby.wait(2)
    rooms = [info.room for info in found.values() if isinstance(info, RoomInfo)]
    assert len(rooms) == 100
    assert {rooms.count(room) for room in rooms} == {4}
    assert lobby.placing.next_timeout() is None, "nothing is looked at while nobody waits"


def test_who_withdraws_or_goes_is_not_waited_for() -> None:
    lobby = Lobby()
    for number in range(4):
        lobby.seek(P[number], players=4)
    lobby.placing.withdraw(P[0], 7)
    lobby.placing.depart(P[1])
    lobby.placing.withdraw(P[2], 8)
    assert lobby.wait(40) == {}
    assert [lobby.placing.is_waiting(P[number]) for number in range(4)] == [False, False, True, True]
    lobby.seek(P[4], players=4)
    lobby.seek(P[5], players=4)
    assert len(lobby.wait(2)) == 4


def test_a_seat_of_a_match_to_which_nobody_came_goes_to_who_waits() -> None:
    lobby = Lobby()
    for number in range(4):
        lobby.seek(P[number], players=4)
    lobby.now += 1
    lobby.placing.handle_timeout(lobby.now)
    placed = lobby.places()
    for peer in P[:3]:
        outcome = placed[peer]
        assert isinstance(outcome, RoomInfo)
        lobby.enter(peer, outcome)
    lobby.seek(P[4], players=4)
    found = lobby.wait(RegistryLimits().seat_hold_s + 1)
    outcome = found[P[4]]
    assert isinstance(outcome, RoomInfo)
    assert outcome.room == next(info.room for info in placed.values() if isinstance(info, RoomInfo))


def test_friends_enter_one_room_together() -> None:
    lobby = Lobby()
    lobby.place(P[0], max_players=4)
    lobby.place(P[1])
    lobby.place(P[2])
    for number in (3, 4):
        assert lobby.wait(1) == {}
        lobby.seek(P[number], max_players=4, party="friends", size=2)
    found = list(lobby.wait(1).values())
    assert len({info.room for info in found if isinstance(info, RoomInfo)}) == 1
    assert len(found) == 2


def test_waiting_has_bounds() -> None:
    lobby = Lobby()
    for number in range(WAITING_PER_PEER_MAX + 1):
        lobby.seek(P[0], players=4, name=f"lobby {number}", ref=number)
    assert [type(outcome) for outcome in lobby.places().values()] == [SignalingError]
    lobby.placing.depart(P[0])
    for _ in range(3):
        lobby.seek(P[0], players=2)
    assert lobby.wait(30) == {}, "who asks three times is no three players"
    lobby.seek(P[0], players=2, name="another lobby")
    lobby.placing.depart(P[0])
    assert lobby.wait(1) == {}
    assert not lobby.placing.is_waiting(P[0])


def test_guesses_at_a_door_are_rationed_by_key() -> None:
    guesses = Guesses()
    for _ in range(int(BURST)):
        assert guesses.wait_s(P[0], 0.0) == 0
        guesses.note(P[0], 0.0)
    assert guesses.wait_s(P[0], 0.0) > 0
    assert guesses.wait_s(P[1], 0.0) == 0
    assert guesses.wait_s(P[0], 11.0) == 0


def test_a_crowd_of_wrong_passwords_locks_nobody_else_out() -> None:
    from psyne_mesh.signaling.locks import password_keys

    from .test_manifest import signed

    keys = password_keys("swordfish", bytes(16))
    board = Switchboard(RegistryLimits())
    room = signed(manifest=Manifest(code="K7QM3FHT", policy="password", lock=keys.lock))
    request = attrs.evolve(room, instance="K7QM3FHT", door=keys.door)

    def join(peer: PeerId, door: str) -> list[m.Message]:
        fields = {**attrs.asdict(request, recurse=False), "door": door}
        board.receive(peer, m.Join(ref=1, **fields), 0.0, "one address")
        return [delivery.message for delivery in board.take_outputs() if peer in delivery.peers]

    assert isinstance(join(player(1).peer_id, keys.door)[0], m.JoinedRoom)
    codes = [answer.code for _ in range(20) for answer in join(P[0], "AAAA") if isinstance(answer, m.Error)]
    assert codes == ["wrong_password"] * int(BURST) + ["limit"] * (20 - int(BURST))
    answer = join(P[0], keys.door)[0]
    assert isinstance(answer, m.Error), "who guesses too often waits, even with the right one"
    assert isinstance(join(P[1], keys.door)[0], m.JoinedRoom), "from the same address"
    for number in range(10_000):
        assert isinstance(join(P[2 + number % 20], "AAAA")[0], m.Error)
    for friend in P[30:44]:
        assert isinstance(join(friend, keys.door)[0], m.JoinedRoom)
    assert not any("swordfish" in str(delivery) or keys.door in str(delivery) for delivery in board.take_outputs())
