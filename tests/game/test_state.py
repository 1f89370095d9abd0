"""Replicated maps: all hold the same in the end, whatever is lost, and only the host of the newest term writes the room's."""

from __future__ import annotations

import heapq
import random
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import MessageTooLarge, ProtocolError
from psyne_mesh.game import state_wire
from psyne_mesh.game.state import KINDS, LEFT_MAX, Changed, States
from psyne_mesh.game.state_map import COPY_BYTES_MAX, GONE_MAX, STATE_BYTES_MAX, Copy, Log, size_of
from psyne_mesh.game.state_wire import NOWHERE, At, Have, Part, Stand, StateWord
from psyne_mesh.identity import PeerId


def peer(number: int) -> PeerId:
    return PeerId(f"{number:032x}")


class Party:
    """Players whose words travel in virtual time, as bytes; some are lost, as those that others carry may be."""

    def __init__(self, count: int, seed: int = 0, loss: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.loss = loss
        self.now = 100.0
        self.host: dict[PeerId, tuple[PeerId | None, int]] = {}
        self.players: dict[PeerId, States] = {}
        self.events: dict[PeerId, list[Changed]] = {}
        self.cut: set[PeerId] = set()
        self.bytes = 0
        self._under_way: list[tuple[float, int, PeerId, PeerId, bytes]] = []
        self._sent = 0
        self._last: dict[tuple[PeerId, PeerId], float] = {}
        for number in range(count):
            self.join(peer(number))

    def join(self, who: PeerId, stay: int = 1) -> States:
        self.host.setdefault(who, (None, 0))
        states = States(who, stay, lambda player, term, who=who: self.host[who] == (player, term))
        self.events.setdefault(who, [])
        for other, theirs in self.players.items():
            theirs.peer_joined(who, self.now)
            states.peer_joined(other, self.now)
        self.players[who] = states
        return states

    def leave(self, who: PeerId) -> None:
        del self.players[who]
        for theirs in self.players.values():
            theirs.peer_left(who)

    def elect(self, host: PeerId, term: int) -> None:
        for who in self.players:
            if who not in self.cut:
                self.host[who] = host, term
                self.players[who].host_changed(term, host, self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.005
            while self._under_way and self._under_way[0][0] <= self.now:
                _, _, source, target, data = heapq.heappop(self._under_way)
                if target in self.players and source in self.players and not {source, target} & self.cut:
                    self.players[target].receive(source, state_wire.decode_untrusted(data), self.now)
            for who, states in self.players.items():
                if states.next_timeout() <= self.now:
                    states.handle_timeout(self.now)
                for target, word in states.take_outputs():
                    for other in [target] if target is not None else [each for each in self.players if each != who]:
                        self._send(who, other, state_wire.encode(word))
                self.events[who] += states.take_events()

    def _send(self, source: PeerId, target: PeerId, data: bytes) -> None:
        self.bytes += len(data)
        if self.rng.random() < self.loss or {source, target} & self.cut:
            return
        self._sent += 1
        came = self._last[source, target] = max(
            self._last.get((source, target), 0.0), self.now + self.rng.uniform(0.01, 0.06)
        )
        heapq.heappush(self._under_way, (came, self._sent, source, target, data))

    def same(self) -> bool:
        rooms = {tuple(sorted(states.hosted.items())) for states in self.players.values()}
        own = [
            dict(reader.of(who)) == dict(writer.own.values)
            for who, writer in self.players.items()
            for reader in self.players.values()
        ]
        return len(rooms) == 1 and all(own)


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_all_hold_the_same_and_who_comes_later_does_too(loss: float) -> None:
    for seed in range(5):
        party = Party(4, seed, loss)
        dice = random.Random(seed)
        ada = peer(0)
        party.elect(ada, 1)
        for _ in range(60):
            who = peer(dice.randrange(4))
            value = None if dice.random() < 0.2 else dice.randbytes(dice.randrange(1, 3000))
            with suppress(MessageTooLarge):
                party.players[who].write(f"key {dice.randrange(12)}", value, party.now)
                party.players[ada].write_room(f"={dice.randrange(12)}", value, 1, party.now)
            party.run(dice.choice([0.0, 0.01, 0.1]))
        party.join(peer(9))
        party.host[peer(9)] = ada, 1
        party.players[peer(9)].host_changed(1, ada, party.now)
        party.run(1 if not loss else 40)
        assert party.same()
        assert party.players[ada].hosted


def test_nothing_is_sent_while_nothing_is_written() -> None:
    party = Party(6)
    party.elect(peer(0), 1)
    party.run(60)
    party.elect(peer(1), 2)
    party.run(60)
    assert party.bytes == 0


def test_many_writes_in_one_moment_go_out_as_one() -> None:
    party = Party(3)
    for number in range(100):
        party.players[peer(0)].write("x", b"%d" % number, party.now)
    party.run(0.5)
    assert [event.value for event in party.events[peer(1)]] == [b"99"]
    assert party.bytes < 2 * 100


def test_a_new_host_goes_on_from_its_copy_and_all_agree_with_it() -> None:
    for seed in range(20):
        party = Party(5, seed, loss=0.1)
        party.elect(peer(0), 1)
        for number in range(20):
            party.players[peer(0)].write_room(f"={number}", b"v%d" % number, 1, party.now)
            party.run(0.02)
        party.run(3)
        party.leave(peer(0))
        party.elect(peer(2), 2)
        party.players[peer(2)].write_room("=new", b"2", 2, party.now)
        party.run(30)
        assert party.same()
        assert party.players[peer(4)].hosted["=new"] == b"2"
        assert len(party.players[peer(4)].hosted) >= 18  # words that others carry are lost here


def test_what_a_killed_host_wrote_a_quarter_of_a_second_ago_is_with_all() -> None:
    for seed in range(20):
        party = Party(4, seed)
        party.elect(peer(0), 1)
        party.players[peer(0)].write_room("=round", b"7", 1, party.now)
        party.run(0.25)
        party.leave(peer(0))
        assert all(states.hosted == {"=round": b"7"} for states in party.players.values())
        party.elect(peer(3), 2)
        before = party.bytes
        party.run(30)
        assert party.same()
        assert party.bytes - before < 1000  # equal copies take the new term and nothing more


def test_old_terms_and_others_are_refused_and_nobody_writes_in_another_s_map() -> None:
    party = Party(3)
    ada, bob, eve = map(peer, range(3))
    party.elect(ada, 1)
    party.players[ada].write_room("=a", b"1", 1, party.now)
    party.run(1)
    party.elect(bob, 2)
    party.run(1)
    reader = party.players[eve]
    for word in (
        Part(b"", 1, 9, None, 0, 1, [("=a", b"old term")]),
        Part(b"", 1, 2, Stand(1, 1, ada.raw), 0, 1, [("=a", b"old term")]),
        Part(b"", 2, 9, None, 0, 1, [("=a", b"not the host")]),
        At(b"", 2, 99),
    ):
        reader.receive(ada, word, party.now)
    assert reader.hosted == {"=a": b"1"}
    assert reader.take_outputs() == []
    assert reader.refused == 2
    with pytest.raises(ProtocolError):
        reader.receive(ada, Part(bob.raw, 1, 1, None, 0, 1, [("x", b"1")]), party.now)
    reader.receive(peer(77), Part(peer(77).raw, 1, 1, None, 0, 1, [("x", b"1")]), party.now)
    assert dict(reader.of(bob)) == dict(reader.of(peer(77))) == {}


def test_who_was_cut_off_takes_the_newer_term_when_it_is_back() -> None:
    party = Party(4)
    party.elect(peer(0), 1)
    party.players[peer(0)].write_room("=a", b"1", 1, party.now)
    party.run(1)
    party.cut = {peer(0)}
    party.players[peer(0)].write_room("=a", b"lost", 1, party.now)
    party.elect(peer(1), 2)
    party.players[peer(1)].write_room("=b", b"2", 2, party.now)
    party.run(5)
    party.cut = set()
    party.host[peer(0)] = peer(1), 2
    party.players[peer(0)].host_changed(2, peer(1), party.now)
    party.run(5)
    assert party.same()
    assert party.players[peer(0)].hosted == {"=a": b"1", "=b": b"2"}


def test_an_older_stay_of_the_same_player_does_not_count() -> None:
    party = Party(2)
    ada, bob = peer(0), peer(1)
    party.players[ada].write("x", b"old", party.now)
    party.run(0.2)
    party.leave(ada)
    new = party.join(ada, stay=2)
    new.write("x", b"new", party.now)
    party.run(0.2)
    reader = party.players[bob]
    reader.receive(ada, Part(ada.raw, 1, 9, None, 0, 1, [("x", b"late")]), party.now)
    assert reader.of(ada) == {"x": b"new"}


def test_limits_are_told_and_change_nothing() -> None:
    states = States(peer(0), 1, lambda player, term: True)
    with pytest.raises(MessageTooLarge):
        states.write("x", bytes(state_wire.VALUE_BYTES_MAX + 1), 0.0)
    with pytest.raises(MessageTooLarge):
        states.write("", b"", 0.0)
    with pytest.raises(MessageTooLarge):
        for number in range(99):
            states.write(f"{number}", bytes(8000), 0.0)
    assert sum(map(len, states.own.values.values())) == STATE_BYTES_MAX // 8001 * 8000
    with pytest.raises(MessageTooLarge):
        for number in range(99):
            states.write_room(f"!{number}", bytes(8000), 1, 0.0)
    assert len(states.hosted) == KINDS["!"] // 8002
    copy = Copy()
    pieces = [
        Part(b"", 1, 1, None, number, 60, [(f"{number} {each}", bytes(8000)) for each in range(3)])
        for number in range(60)
    ]
    with pytest.raises(ProtocolError):
        for part in pieces:
            copy.take(part, b"w")
    assert copy.stand == NOWHERE
    assert COPY_BYTES_MAX < 60 * 3 * 8000


def test_who_asks_for_everything_all_the_time_gets_four_copies_and_then_one_each_eight_seconds() -> None:
    states = States(peer(0), 1, lambda player, term: True)
    for number in range(8):
        states.write(f"{number}", bytes(8000), 0.0)
    states.peer_joined(peer(1), 0.0)
    states.take_outputs()
    whole = sum(len(state_wire.encode(part)) for part in states.own.parts(NOWHERE))
    looked_up, parts = 0, states.own.parts

    def counted(after: Stand) -> list[Part]:
        nonlocal looked_up
        looked_up += 1
        return parts(after)

    states.own.parts = counted  # type: ignore[method-assign]
    for number in range(1000):
        states.receive(peer(1), Have(peer(0).raw, NOWHERE), number / 100)
    sent = sum(len(state_wire.encode(word)) for _, word in states.take_outputs())
    assert sent <= 4 * COPY_BYTES_MAX + 10 * COPY_BYTES_MAX / 8 + whole
    assert looked_up <= sent / whole + 1  # a question that gets no answer costs nothing
    for number in range(1000):
        states.receive(peer(1), Have(peer(0).raw, states.own.stand), 100 + number / 100)
    assert looked_up <= 1200  # nor does one to which there is nothing to say


def test_a_small_change_of_a_large_map_costs_no_look_at_all_of_it() -> None:
    """The rest is one copy of a dict; sizes were summed up anew for each word of forty bytes once."""
    writer = b"w" * 16
    copies = [Copy(), Copy()]
    for copy, size in zip(copies, (10, 1000), strict=True):
        entries: list[tuple[str, bytes | None]] = [(f"{number}", b"x") for number in range(size)]
        copy.take(Part(writer, 1, 1, None, 0, 1, entries), writer)
    steps = []
    for copy in copies:
        count = 0

        def called(frame: FrameType, event: str, argument: Any) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        part = Part(writer, 1, 2, copy.stand, 0, 1, [("1", b"y")])
        sys.setprofile(called)
        try:
            copy.take(part, writer)
        finally:
            sys.setprofile(None)
        steps.append(count)
    assert steps[0] == steps[1]
    for sequence in range(3, 200):  # whatever is put, replaced and taken away, the size is that of what is there
        value = bytes(sequence) if sequence % 3 else None
        copies[0].take(Part(writer, 1, sequence, copies[0].stand, 0, 1, [(f"{sequence % 20}é", value)]), writer)
        assert copies[0]._size == size_of(copies[0].values)


def test_players_who_left_are_remembered_within_bounds() -> None:
    states = States(peer(0), 1, lambda player, term: True)
    for number in range(1, LEFT_MAX + 50):
        states.peer_joined(peer(number), 0.0)
        states.receive(peer(number), Part(peer(number).raw, 1, 1, None, 0, 1, [("k", b"v")]), 0.0)
        states.peer_left(peer(number))
    assert len(states._left) == LEFT_MAX


@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=700), st.integers(0, 700))
def test_a_copy_that_stopped_anywhere_is_brought_up_to_date(writes: list[tuple[int, bool]], stop: int) -> None:
    log, copy = Log(b"", b"w", 3), Copy()
    for number, (key, is_gone) in enumerate(writes):
        if number == stop:
            for part in log.parts(copy.stand):
                assert copy.take(part, b"w") is not None
        log.write(f"{key}", None if is_gone else b"%d" % number)
    for part in log.parts(copy.stand):
        assert copy.take(part, b"w") is not None
    assert dict(copy.values) == dict(log.values)
    assert copy.stand == log.stand or not writes
    assert len(log._gone) <= GONE_MAX


@given(st.binary(max_size=300))
def test_nothing_but_a_protocol_error_leaves_the_parser(data: bytes) -> None:
    with suppress(ProtocolError):
        state_wire.decode_untrusted(data)
    with pytest.raises(ProtocolError):
        state_wire.decode_untrusted("text")


_stands = st.builds(Stand, st.integers(0, 4), st.integers(0, 4), st.sampled_from([b"", peer(0).raw, peer(1).raw]))
_owners = st.sampled_from([b"", peer(0).raw, peer(1).raw])
_entries = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, b"1", b"2"])), max_size=3)
_words = st.one_of(
    st.builds(Part, _owners, st.integers(0, 4), st.integers(0, 4), st.none() | _stands, st.integers(0, 2),
              st.integers(3, 4), _entries),
    st.builds(At, _owners, st.integers(0, 4), st.integers(0, 4)),
    st.builds(Have, _owners, _stands),
)  # fmt: skip


@given(st.lists(_words, max_size=40))
def test_any_words_of_a_member_change_its_own_map_only(words: list[StateWord]) -> None:
    states = States(peer(0), 1, lambda player, term: False)
    states.peer_joined(peer(1), 0.0)
    states.write("mine", b"1", 0.0)
    for number, word in enumerate(words):
        with suppress(ProtocolError):
            states.receive(peer(1), word, float(number))
        states.handle_timeout(float(number))
        states.take_outputs()
    assert states.own.values == {"mine": b"1"}
    assert not states.hosted
