"""A room that gives out rooms: whoever has its eldest seat answers as a server does, and no member is believed."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from itertools import count

import attrs
import msgspec
import pytest

from psyne_mesh.errors import ProtocolError, SignalingError, SignalingLost
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.signaling import hall_asking, hall_placer, hall_wire
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.hall import Hall
from psyne_mesh.signaling.hall_asking import PLACERS_MAX, SILENT_S, Answered
from psyne_mesh.signaling.hall_wire import Answer, Ask, Carried, News
from psyne_mesh.signaling.joining import JoinRequest, SeekRequest
from psyne_mesh.signaling.manifest import Manifest, new_code, sign
from psyne_mesh.signaling.requests import message_of, seek_message_of

LOBBY = "//fps"


def identity(number: int) -> Identity:
    return Identity.from_seed(number.to_bytes(32, "big"))


class Halls:
    """Members of one hall, whose words take a while and may be lost. Virtual time."""

    def __init__(self, players: int, *, seed: int = 1, delay_s: float = 0.1, loss: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.identities = [identity(number) for number in range(players)]
        self.ids = [one.peer_id for one in self.identities]
        self.now = 100.0
        self.delay_s, self.loss = delay_s, loss
        self.dead: set[PeerId] = set()
        self.intercept: Callable[[PeerId, PeerId, bytes], bytes | None] = lambda sender, to, word: word
        self.sent: Counter[PeerId] = Counter()
        self.answers: dict[PeerId, list[Answered]] = {peer: [] for peer in self.ids}
        self.answered_at: dict[tuple[PeerId, int], float] = {}
        self._under_way: list[tuple[float, int, PeerId, PeerId, bytes]] = []
        self._order = count()
        self.halls = {
            peer: Hall(peer, lambda: int(self.now * 1000), lambda: self.rng.getrandbits(53)) for peer in self.ids
        }
        self.set_members(self.ids)

    def set_members(self, members: list[PeerId]) -> None:
        for peer in self.ids:
            self.halls[peer].set_members(members, self.now)
            self.pump(peer)

    def join_of(self, number: int, name: str = "fps", players: int = 4, **fields: object) -> JoinRequest:
        manifest = Manifest(code=new_code(self.rng))
        request = JoinRequest(name, max_players=players, manifest=manifest, **fields)  # type: ignore[arg-type]
        return attrs.evolve(request, manifest=sign(manifest, request, self.identities[number]))

    def seek(self, number: int, players: int = 4, **fields: object) -> int:
        request = SeekRequest(join=self.join_of(number, players=players or 4), players=players, **fields)  # type: ignore[arg-type]
        return self.ask(number, lambda ref: seek_message_of(request, ref))

    def join(self, number: int, request: JoinRequest) -> int:
        return self.ask(number, lambda ref: message_of(request, ref))

    def ask(self, number: int, make: Callable[[int], m.Message]) -> int:
        peer = self.ids[number]
        asked = self.halls[peer].ask(make, self.now)
        self.pump(peer)
        return asked

    def pump(self, peer: PeerId) -> None:
        hall = self.halls[peer]
        for to, word in hall.take_outputs():
            self.sent[peer] += 1
            passed = self.intercept(peer, to, word)
            if passed is not None and peer not in self.dead and self.rng.random() >= self.loss:
                heapq.heappush(self._under_way, (self.now + self.delay_s, next(self._order), peer, to, passed))
        for answered in hall.take_answers():
            self.answers[peer].append(answered)
            self.answered_at[peer, answered.number] = self.now

    def run(self, for_s: float) -> None:
        until = self.now + for_s
        while True:
            timers = [(due, peer) for peer in self.ids if (due := self.halls[peer].next_timeout()) is not None]
            timer = min((entry for entry in timers if entry[1] not in self.dead), default=(until + 1, self.ids[0]))
            word_at = self._under_way[0][0] if self._under_way else until + 1
            if min(timer[0], word_at) > until:
                break
            if timer[0] <= word_at:
                self.now = max(self.now, timer[0])
                self.halls[timer[1]].handle_timeout(self.now)
                self.pump(timer[1])
            else:
                self.now, _, sender, to, word = heapq.heappop(self._under_way)
                if to not in self.dead:
                    self.halls[to].receive(sender, word, self.now)
                    self.pump(to)
        self.now = until

    def outcome(self, number: int) -> object:
        [answered] = self.answers[self.ids[number]]
        return answered.outcome


def rooms_of(halls: Halls) -> Counter[str]:
    placed = [answered.outcome for peer in halls.ids for answered in halls.answers[peer]]
    assert all(isinstance(outcome, m.Placed) for outcome in placed)
    return Counter(outcome.info.room for outcome in placed if isinstance(outcome, m.Placed))


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_hundred_find_their_matches_within_seconds(loss: float) -> None:
    halls = Halls(100, loss=loss)
    for number in range(100):
        halls.run(0.01)
        halls.seek(number)
    halls.run(9)
    assert list(rooms_of(halls).values()) == [4] * 25
    assert all(len(answers) == 1 for answers in halls.answers.values())


def test_the_eldest_seat_places_and_the_next_one_when_it_dies() -> None:
    halls = Halls(6)
    first, second = halls.ids[:2]
    halls.dead.add(first)
    for number in range(2, 6):
        halls.seek(number)
    halls.run(SILENT_S + 3)
    assert list(rooms_of(halls).values()) == [4]
    assert {answered.placer for peer in halls.ids[2:] for answered in halls.answers[peer]} == {second}


def test_who_waits_moves_to_the_next_one_when_the_first_is_gone() -> None:
    halls = Halls(6)
    halls.seek(2)
    halls.seek(3)
    halls.run(5)
    assert not any(halls.answers.values())
    halls.dead.add(halls.ids[0])
    halls.set_members(halls.ids[1:])
    halls.seek(4)
    halls.seek(5)
    halls.run(3)
    assert list(rooms_of(halls).values()) == [4]


def test_who_waits_without_end_is_told_nothing_and_kept() -> None:
    """Its words may be lost; as long as some come, it waits. One that says no more is taken for gone."""
    halls = Halls(8, loss=0.2)
    for number in (1, 2, 3):
        halls.seek(number)
    halls.run(60)
    assert not any(halls.answers.values())
    halls.dead.add(halls.ids[3])
    halls.run(hall_placer.UNHEARD_S + hall_placer.EXPIRE_S + 1)
    halls.seek(4)
    halls.run(5)
    assert not any(halls.answers.values()), "three are not four"
    halls.seek(5)
    halls.run(5)
    assert list(rooms_of(halls).values()) == [4]


def test_who_withdraws_is_in_no_match() -> None:
    halls = Halls(5)
    number = halls.seek(1, players=2)
    halls.run(2)
    halls.halls[halls.ids[1]].withdraw(number, LOBBY, halls.now)
    halls.pump(halls.ids[1])
    halls.run(1)
    halls.seek(2, players=2)
    halls.run(5)
    assert not any(halls.answers.values())


def test_members_of_a_room_hear_who_comes_and_who_is_gone() -> None:
    halls = Halls(4)
    request = halls.join_of(1)
    halls.join(1, request)
    halls.run(1)
    halls.join(2, attrs.evolve(request, record="two"))
    halls.run(1)
    assert isinstance(halls.outcome(2), m.JoinedRoom)
    [joined] = halls.halls[halls.ids[1]].take_news()
    assert isinstance(joined, m.MemberJoined)
    assert (joined.peer.peer_id, joined.peer.record) == (halls.ids[2], "two")
    halls.set_members([peer for peer in halls.ids if peer != halls.ids[2]])
    halls.run(1)
    [left] = halls.halls[halls.ids[1]].take_news()
    assert isinstance(left, m.MemberLeft)
    assert left.peer_id == halls.ids[2]


def test_a_long_list_comes_in_parts() -> None:
    halls = Halls(30)
    for number in range(30):
        halls.join(number, halls.join_of(number, name=f"fps {number}", metadata={"about": "x" * 1_900}))
        halls.run(0.5)
    halls.answers[halls.ids[5]].clear()
    sent = halls.sent[halls.ids[0]]
    halls.ask(5, lambda ref: m.ListRooms(ref=ref))
    halls.run(2)
    listed = halls.outcome(5)
    assert isinstance(listed, m.RoomList)
    assert {room.name for room in listed.rooms} == {f"fps {number}" for number in range(30)}
    assert halls.sent[halls.ids[0]] - sent >= 5


# --------------------------------------------------------------------------------------------------------------- liars


def test_a_room_that_nobody_signed_is_refused() -> None:
    halls = Halls(3)
    halls.join(1, JoinRequest("fps", manifest=Manifest(code="0" * 8)))
    halls.run(1)
    error = halls.outcome(1)
    assert isinstance(error, m.Error)
    assert error.code == "manifest"


def test_who_asks_too_much_is_not_heard_and_others_are() -> None:
    halls = Halls(4)
    flooder = halls.ids[1]
    for number in range(2_000):
        word = hall_wire.encode(Ask(number, m.encode(m.ListRooms(ref=number)).encode()))
        halls.halls[halls.ids[0]].receive(flooder, word, halls.now)
    halls.pump(halls.ids[0])
    assert halls.sent[halls.ids[0]] <= 20
    halls.seek(2, players=0)
    halls.run(2)
    assert isinstance(halls.outcome(2), m.Placed)


def test_a_member_that_makes_up_rooms_fills_no_table() -> None:
    halls = Halls(4)
    for _ in range(600):
        halls.run(1)
        halls.join(1, halls.join_of(1, name=f"made up {halls.now}"))
    placer = halls.halls[halls.ids[0]]._placer
    assert placer is not None
    assert placer._switchboard.stats.rooms <= 32
    asker = placer._askers[halls.ids[1]]
    assert len(asker.answers) <= hall_placer.ANSWERED_MAX
    halls.seek(2, players=0)
    halls.run(2)
    assert isinstance(halls.outcome(2), m.Placed)


def test_nobody_but_who_was_asked_answers() -> None:
    halls = Halls(4)
    number = halls.seek(1)
    forged = m.encode(m.Error(code="room_full", message="ha", ref=number)).encode()
    for word in hall_wire.parts_of(number, forged):
        halls.halls[halls.ids[1]].receive(halls.ids[3], word, halls.now)
    news = m.encode(m.MemberLeft(room=LOBBY, peer_id=halls.ids[0], reason="left")).encode()
    halls.halls[halls.ids[1]].receive(halls.ids[3], hall_wire.encode(News(news)), halls.now)
    halls.halls[halls.ids[1]].receive(PeerId("f" * 32), hall_wire.encode(News(news)), halls.now)
    halls.pump(halls.ids[1])
    assert not halls.answers[halls.ids[1]]
    assert not halls.halls[halls.ids[1]].take_news()


@pytest.mark.parametrize("frame", [b"nonsense", b'{"v":1,"type":"pong","ref":7}'])
def test_who_answers_with_nonsense_is_passed_over(frame: bytes) -> None:
    halls = Halls(6)
    liar = halls.ids[0]

    def lie(sender: PeerId, to: PeerId, word: bytes) -> bytes | None:
        said = hall_wire.decode_untrusted(word)
        return (
            hall_wire.encode(Answer(said.number, 0, 1, frame)) if sender == liar and isinstance(said, Answer) else word
        )

    halls.intercept = lie
    for number in range(2, 6):
        halls.seek(number)
    halls.run(4)
    assert list(rooms_of(halls).values()) == [4]


def test_where_nobody_answers_one_is_told_so() -> None:
    halls = Halls(8)
    halls.dead |= set(halls.ids[:7])
    halls.seek(7)
    halls.run(PLACERS_MAX * (SILENT_S + 1))
    error = halls.outcome(7)
    assert isinstance(error, SignalingLost)
    assert "try again" in str(error)


def test_of_parts_that_never_end_only_so_many_are_kept() -> None:
    halls = Halls(3)
    number = halls.seek(1)
    asking = halls.halls[halls.ids[1]]._asking
    for part in range(hall_wire.PARTS_MAX):
        for parts in (1 + part, hall_wire.PARTS_MAX):
            word = hall_wire.encode(Answer(number, part, parts, b"x"))
            halls.halls[halls.ids[1]].receive(halls.ids[0], word, halls.now)
    assert sum(len(asked.parts) for asked in asking._asked.values()) <= hall_wire.PARTS_MAX


def test_too_many_questions_at_once_are_refused() -> None:
    halls = Halls(2)
    halls.dead.add(halls.ids[0])
    for _ in range(hall_asking.ASKED_MAX + 1):
        halls.ask(1, lambda ref: m.ListRooms(ref=ref))
    [answered] = halls.answers[halls.ids[1]]
    assert isinstance(answered.outcome, SignalingError)


WORDS = [Ask(1, b"{}"), Answer(1, 0, 1, b"{}"), News(b"{}"), Carried("//r", "record", "envelope")]


@pytest.mark.parametrize("word", WORDS, ids=lambda word: type(word).__name__)
def test_words_are_read_as_they_were_written_and_cut_ones_are_refused(word: hall_wire.HallWord) -> None:
    data = hall_wire.encode(word)
    assert hall_wire.decode_untrusted(data) == word
    for end in range(len(data)):
        with pytest.raises(ProtocolError):
            hall_wire.decode_untrusted(data[:end])


@pytest.mark.parametrize(
    "wrong",
    [
        Ask(1, b"x" * (hall_wire.PART_BYTES + 1)), Ask(-1, b""), Answer(1, hall_wire.PARTS_MAX, 1, b""),
        Answer(1, 0, hall_wire.PARTS_MAX + 1, b""), Carried("//r", "r" * 2_801, ""),
        Carried("//r", "", "x" * (hall_wire.CARRIED_CHARS_MAX + 1)), Carried("", "", ""),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_no_word(wrong: hall_wire.HallWord) -> None:
    with pytest.raises(ProtocolError):
        hall_wire.decode_untrusted(msgspec.msgpack.encode(wrong))
