"""Dice that nobody loads, moves that nobody sees early, and the name of who will not show its hand."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from psyne_mesh.errors import InvalidConfig, ProtocolError, UnserialisableMessage
from psyne_mesh.game.commitments import (
    Commit,
    Commitments,
    CommitmentWord,
    MovesRevealed,
    Reveal,
    Roll,
    Rolled,
    RoundFailed,
    list_of,
    witness,
)
from psyne_mesh.identity import PeerId

ADA, BOB, CID = (PeerId(f"{number:032x}") for number in (1, 2, 3))
ROOM = b"r" * 16


class Table:
    """Players who hear each other in a random order, each sender's words in order. mute: what is not passed on."""

    def __init__(self, seed: int, *players: PeerId) -> None:
        self.dice = random.Random(seed)
        self.players = {player: Commitments(player, ROOM, self.dice.randbytes) for player in players}
        self.mute: Any = lambda sender, word: False
        self.events: dict[PeerId, list[Any]] = {player: [] for player in players}
        self.waiting: dict[tuple[PeerId, PeerId], list[CommitmentWord]] = {}

    def run(self, now: float = 0.0) -> None:
        while True:
            for sender, core in self.players.items():
                for word in core.take_words():
                    for target in self.players:
                        if target != sender and not self.mute(sender, word):
                            self.waiting.setdefault((sender, target), []).append(word)
                self.events[sender] += core.take_events()
            ways = [way for way, words in self.waiting.items() if words]
            if not ways:
                return
            sender, target = self.dice.choice(ways)
            self.players[target].receive(sender, self.waiting[sender, target].pop(0), now)

    def time(self, now: float) -> None:
        for core in self.players.values():
            core.handle_timeout(now)
        self.run(now)


def test_a_die_comes_out_the_same_for_all_and_evenly() -> None:
    counts: Counter[int] = Counter()
    for seed in range(300):
        table = Table(seed, ADA, BOB, CID)
        rolled = table.players[BOB].roll(6, [ADA, CID], 0.0)
        table.run()
        assert rolled.is_done
        assert rolled.value is not None
        assert all(table.events[player] == [Rolled(BOB, 6, rolled.value)] for player in table.players)
        counts[rolled.value] += 1
    assert set(counts) == set(range(1, 7))
    assert max(counts.values()) < 80


def test_moves_are_open_when_all_are_made_and_not_before() -> None:
    table = Table(1, ADA, BOB, CID)
    first = table.players[ADA].move("round 1", "rock", [BOB, CID], 0.0)
    second = table.players[BOB].move("round 1", "paper", [ADA, CID], 0.0)
    table.run()
    assert not first.is_done
    assert b"rock" not in msgspec.msgpack.encode(next(iter(table.players[BOB]._open.values())).commits[ADA])
    third = table.players[CID].move("round 1", {"throw": 3}, [ADA, BOB], 1.0)
    table.run(1.0)
    moves = {ADA: "rock", BOB: "paper", CID: {"throw": 3}}
    assert first.moves == second.moves == third.moves == moves
    assert table.events[CID] == [MovesRevealed("round 1", moves)]


def test_who_does_not_reveal_is_named_by_everybody() -> None:
    table = Table(2, ADA, BOB, CID)
    table.mute = lambda sender, word: sender == CID and isinstance(word, Reveal)
    rolled = table.players[ADA].roll(20, [BOB, CID], 0.0)
    table.run()
    table.time(4.9)
    assert not rolled.is_done
    table.time(5.1)
    assert rolled.is_done
    assert rolled.value is None
    assert rolled.refused == {CID: "does not reveal"}
    assert table.events[ADA] == table.events[BOB] == [RoundFailed("", {CID: "does not reveal"})]


def test_who_does_not_commit_or_leaves_is_named() -> None:
    table = Table(3, ADA, BOB, CID)
    table.mute = lambda sender, word: sender == CID
    table.players[ADA].roll(2, [BOB, CID], 0.0)
    table.run()
    table.time(5.1)
    assert table.events[BOB] == [RoundFailed("", {CID: "does not commit"})]
    table.players[ADA].move("m", 1, [BOB, CID], 6.0)
    table.run(6.0)
    table.players[ADA].left(CID, 7.0)
    table.run(7.0)
    assert table.events[ADA][-1] == RoundFailed("m", {CID: "left"})


def test_a_commitment_cannot_be_mirrored_moved_or_changed() -> None:
    """A mirrored commitment cancels a coin that is drawn by exclusive or; here it opens nothing."""
    for cheat in ("mirror", "change", "other round"):
        table = Table(4, ADA, BOB)
        ada, bob = table.players[ADA], table.players[BOB]
        rolled = ada.roll(2, [BOB], 0.0)
        roll, commit = ada.take_words()
        assert isinstance(roll, Roll)
        assert isinstance(commit, Commit)
        bob.receive(ADA, roll, 0.0)
        (honest,) = bob.take_words()
        assert isinstance(honest, Commit)
        lie = commit if cheat == "mirror" else honest
        ada.receive(BOB, lie, 0.0)
        (reveal,) = ada.take_words()
        assert isinstance(reveal, Reveal)
        if cheat == "change":
            ada.receive(BOB, Reveal(roll.round, bytes(32), b""), 0.0)
        elif cheat == "mirror":
            ada.receive(BOB, reveal, 0.0)
        else:
            with pytest.raises(ProtocolError):
                ada.receive(BOB, Reveal(b"r other", reveal.secret, b""), 0.0)
            continue
        assert rolled.refused == {BOB: "revealed something else"}


def test_a_second_commitment_and_another_list_of_players_are_found() -> None:
    table = Table(5, ADA, BOB)
    ada = table.players[ADA]
    made = ada.move("r", 1, [BOB], 0.0)
    ada.receive(BOB, Commit(b"mr", list_of((ADA, BOB, CID)), bytes(32)), 0.0)
    assert made.refused == {BOB: "plays with other players"}
    ada.receive(BOB, Commit(b"ms", list_of((ADA, BOB)), bytes(32)), 0.0)
    with pytest.raises(ProtocolError, match="second"):
        ada.receive(BOB, Commit(b"ms", list_of((ADA, BOB)), b"1" * 32), 0.0)


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", b"\xa1\xff", b"\x81\x80\x01", b"\x91" * 1024, b"\xc7\x0c\xff" + b"\xff" * 12]
)
def test_who_commits_to_what_nobody_can_read_is_named_and_ends_nothing(value: bytes) -> None:
    table = Table(9, ADA, BOB)
    bob = table.players[BOB]
    round_ = table.players[ADA].move("m", 1, [BOB], 0.0)
    bob._join(b"mm", (ADA, BOB), 0, BOB, value, 0.0)
    table.run()
    assert round_.refused == {BOB: "revealed what cannot be read"}
    assert table.events[ADA] == [RoundFailed("m", {BOB: "revealed what cannot be read"})]


def test_what_nobody_plays_takes_no_memory() -> None:
    ada = Table(6, ADA, BOB).players[ADA]
    for number in range(1000):
        for word in (
            Commit(b"m%d" % number, bytes(32), bytes(32)),
            Roll(b"r%015d" % number, 6, sorted([ADA.raw, BOB.raw])),
            Roll(b"r%015d" % number, 6, [BOB.raw, ADA.raw]),
            Reveal(b"r%015d" % number, bytes(32), b""),
        ):
            with contextlib.suppress(ProtocolError):
                ada.receive(BOB, word, 0.0)
    assert len(ada._open) <= 32
    ada.handle_timeout(100.0)
    assert ada._open == {}


def test_what_cannot_be_rolled_or_moved_is_told() -> None:
    ada = Table(7, ADA, BOB).players[ADA]
    for sides in (1, 0, -3, 2.5, "6", True, 1 << 60):
        with pytest.raises(InvalidConfig, match="sides"):
            ada.roll(sides, [BOB], 0.0)  # type: ignore[arg-type]
    for label in ("", "x" * 65, 5):
        with pytest.raises(InvalidConfig, match="label"):
            ada.move(label, 1, [BOB], 0.0)  # type: ignore[arg-type]
    for move in (object(), b"x" * 2000):
        with pytest.raises(UnserialisableMessage):
            ada.move("r", move, [BOB], 0.0)
    ada.move("r", 1, [BOB], 0.0)
    with pytest.raises(InvalidConfig, match="label of its own"):
        ada.move("r", 2, [BOB], 0.0)
    with pytest.raises(InvalidConfig, match="at most 64"):
        ada.move("s", 2, [PeerId(f"{number:032x}") for number in range(65)], 0.0)


def test_the_witness_is_drawn_by_lot_and_is_none_of_those_concerned() -> None:
    members = [PeerId(f"{number:032x}") for number in range(8)]
    drawn = Counter(witness(ROOM, 5, tick, members, besides=members[:2]) for tick in range(3000))
    assert set(drawn) == set(members[2:])
    assert min(drawn.values()) > 400
    assert witness(ROOM, 5, 9, reversed(members)) == witness(ROOM, 5, 9, members)
    assert witness(ROOM, 5, 9, members[:2], besides=members) is None
