"""Dice that nobody can load, and moves that all make at once: first everybody commits, then everybody reveals.

A commitment is bound to the room, the round, the list of players and the one who commits, so that nobody can repeat
another's. Who has committed and does not reveal is named: it has seen what would come out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Annotated, Any

import msgspec

from psyne_mesh.errors import InvalidConfig, ProtocolError, UnserialisableMessage
from psyne_mesh.identity import PeerId
from psyne_mesh.words import read_untrusted

SECRET_BYTES = 32
VALUE_BYTES_MAX = 1024
SIDES_MAX = 1 << 53
LABEL_BYTES_MAX = 64
PLAYERS_MAX = 64
ROUNDS_MAX = 256
"""Open at once, of all players; of one player that we have not joined ROUNDS_OF_ONE_MAX."""
ROUNDS_OF_ONE_MAX = 16
COMMIT_S = 5.0
"""A roll is answered by the library, so who has not committed by then does not want to, or is gone."""
REVEAL_S = 5.0
"""One retransmission after another and a stall of the machine: then silence is a refusal."""
MOVE_S = 60.0
"""A player's own move, which somebody has to think about."""
_DOMAIN = b"psyne-commitment"

_Raw = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Round = Annotated[bytes, msgspec.Meta(min_length=1, max_length=LABEL_BYTES_MAX + 1)]
_Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Players = Annotated[list[_Raw], msgspec.Meta(max_length=PLAYERS_MAX)]


class Roll(msgspec.Struct, frozen=True, array_like=True, tag="roll"):
    """The sender wants a die with so many sides rolled by these players."""

    round: _Round
    sides: Annotated[int, msgspec.Meta(ge=2, le=SIDES_MAX)]
    players: _Players


class Commit(msgspec.Struct, frozen=True, array_like=True, tag="commit"):
    """The sender's commitment, in a round of these players (`list_of`)."""

    round: _Round
    players: _Hash
    digest: _Hash


class Reveal(msgspec.Struct, frozen=True, array_like=True, tag="reveal"):
    round: _Round
    secret: _Hash
    value: Annotated[bytes, msgspec.Meta(max_length=VALUE_BYTES_MAX)]


CommitmentWord = Roll | Commit | Reveal
_values: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Any)


class Rolled(msgspec.Struct, frozen=True):
    """A roll of `by` came out: 1 to `sides`. Everybody named in it has the same value."""

    by: PeerId
    sides: int
    value: int


class MovesRevealed(msgspec.Struct, frozen=True):
    """All moves of a round are open: what each player said."""

    label: str
    moves: dict[PeerId, Any]


class RoundFailed(msgspec.Struct, frozen=True):
    """Nothing came of a roll or a round of moves (`label`, "" of a roll). `refused` has for each player to blame why:
    "does not reveal", "revealed something else", "revealed what cannot be read", "does not commit", "left", "plays with other
    players"."""

    label: str
    refused: dict[PeerId, str]


CommitmentEvent = Rolled | MovesRevealed | RoundFailed


class Round:
    """What `roll` and `secret_move` return. `is_done` once it is over; then `value` has what a roll came to, `moves`
    what each player said, and if it failed both are None and `refused` has who is to blame, and why.
    """

    def __init__(self, key: bytes, players: tuple[PeerId, ...], sides: int, by: PeerId) -> None:
        self.key, self.players, self.sides, self.by = key, players, sides, by
        self.value: int | None = None
        self.moves: dict[PeerId, Any] | None = None
        self.refused: dict[PeerId, str] = {}
        self.is_done = False

    @property
    def label(self) -> str:
        return self.key[1:].decode("utf-8", "replace") if self.key[:1] == b"m" else ""


class _Open:
    """A round that is not over. `round` is None until we take part in it."""

    def __init__(self, now: float) -> None:
        self.round: Round | None = None
        self.secret = self.value = b""
        self.commits: dict[PeerId, Commit] = {}
        self.reveals: dict[PeerId, Reveal] = {}
        self.deadline = now + MOVE_S
        self.has_revealed = False


class Commitments:
    """1. `roll(sides, players, now)` and `move(label, value, players, now)` give a `Round`. 2. `receive(sender, word, now)`
    for each word; ProtocolError when it is none of this. 3. `left(peer, now)` when a player is gone, `handle_timeout(now)`
    now and then. 4. After each of these `take_words()`, for everybody, and `take_events()`.
    """

    def __init__(self, me: PeerId, room: bytes, random_bytes: Callable[[int], bytes]) -> None:
        """`random_bytes` must be what nobody can foresee: the operating system's."""
        self._me, self._room, self._random = me, room, random_bytes
        self._open: dict[bytes, _Open] = {}
        self._over: dict[bytes, None] = {}
        self._words: list[CommitmentWord] = []
        self._events: list[CommitmentEvent] = []

    def roll(self, sides: int, players: Iterable[PeerId], now: float) -> Round:
        if not isinstance(sides, int) or isinstance(sides, bool) or not 2 <= sides <= SIDES_MAX:
            raise InvalidConfig(f"roll({sides!r}): a die has 2 to {SIDES_MAX} sides")
        key = b"r" + self._random(16)
        named = self._players(players)
        self._words.append(Roll(key, sides, [peer.raw for peer in named]))
        return self._join(key, named, sides, self._me, b"", now)

    def move(self, label: str, value: Any, players: Iterable[PeerId], now: float, timeout: float = MOVE_S) -> Round:
        raw = label.encode() if isinstance(label, str) else b""
        if not 1 <= len(raw) <= LABEL_BYTES_MAX:
            raise InvalidConfig(f"a round's label has 1 to {LABEL_BYTES_MAX} bytes of UTF-8, not {label!r}")
        try:
            packed = msgspec.msgpack.encode(value)
        except Exception as error:  # of a value of the game's own
            raise UnserialisableMessage(f"a secret move is numbers, text, bytes, lists and dicts: {error}") from error
        if len(packed) > VALUE_BYTES_MAX:
            raise UnserialisableMessage(f"a secret move of {len(packed)} bytes: at most {VALUE_BYTES_MAX}")
        key = b"m" + raw
        known = self._open.get(key)
        if key in self._over or (known is not None and known.round is not None):
            raise InvalidConfig(f"round {label!r} has our move already: give each round a label of its own")
        return self._join(key, self._players(players), 0, self._me, packed, now, timeout)

    def _players(self, players: Iterable[PeerId]) -> tuple[PeerId, ...]:
        named = tuple(sorted({*players, self._me}))
        if len(named) > PLAYERS_MAX:
            raise InvalidConfig(f"{len(named)} players: at most {PLAYERS_MAX} play one round")
        return named

    def _join(
        self, key: bytes, players: tuple[PeerId, ...], sides: int, by: PeerId, value: bytes, now: float,
        timeout: float = COMMIT_S,
    ) -> Round:  # fmt: skip
        if len(self._open) >= ROUNDS_MAX:
            raise InvalidConfig(f"{ROUNDS_MAX} rounds are open: wait until some are over")
        state = self._open.setdefault(key, _Open(now))
        made = state.round = Round(key, players, sides, by)
        state.secret, state.value = self._random(SECRET_BYTES), value
        state.deadline = now + timeout
        commit = Commit(key, list_of(players), self._digest(key, players, self._me, state.secret, value))
        state.commits[self._me] = commit
        self._words.append(commit)
        self._go_on(key, state, now)
        return made

    def _digest(self, key: bytes, players: tuple[PeerId, ...], by: PeerId, secret: bytes, value: bytes) -> bytes:
        parts = (_DOMAIN, self._room, key, list_of(players), by.raw, secret, value)
        return sha256(b"".join([len(part).to_bytes(4, "big") + part for part in parts])).digest()

    # ----------------------------------------------------------------------------------------------------- the others

    def receive(self, sender: PeerId, word: CommitmentWord, now: float) -> None:
        if word.round in self._over:
            return
        if isinstance(word, Roll):
            self._hear_roll(sender, word, now)
            return
        state = self._open.get(word.round)
        if state is None:
            waiting = sum(other.round is None and sender in other.commits for other in self._open.values())
            if waiting >= ROUNDS_OF_ONE_MAX or len(self._open) >= ROUNDS_MAX or not isinstance(word, Commit):
                raise ProtocolError("a round that nobody here plays")
            state = self._open[word.round] = _Open(now)
        if isinstance(word, Commit):
            if state.commits.setdefault(sender, word) != word:
                raise ProtocolError("a second commitment")
        elif sender in state.commits:
            state.reveals.setdefault(sender, word)
        self._go_on(word.round, state, now)

    def _hear_roll(self, sender: PeerId, word: Roll, now: float) -> None:
        players = tuple([PeerId.from_raw_untrusted(raw) for raw in word.players])
        known = self._open.get(word.round)
        if word.round[:1] != b"r" or players != tuple(sorted(set(players))) or sender not in players:
            raise ProtocolError("a roll by nobody, or of players out of order")
        if self._me not in players or (known is not None and known.round is not None):
            return
        rolls = sum(other.round is not None and other.round.by == sender for other in self._open.values())
        if rolls >= ROUNDS_OF_ONE_MAX or len(self._open) >= ROUNDS_MAX:
            raise ProtocolError("too many rolls at once")
        self._join(word.round, players, word.sides, sender, b"", now)

    def left(self, peer: PeerId, now: float) -> None:
        for key, state in list(self._open.items()):
            if state.round is not None and peer in state.round.players and peer not in state.reveals:
                self._fail(key, state, {peer: "left"})

    def _go_on(self, key: bytes, state: _Open, now: float) -> None:
        of = state.round
        if of is None or any(peer not in state.commits for peer in of.players):
            return
        wrong = {
            peer: "plays with other players"
            for peer in of.players
            if state.commits[peer].players != list_of(of.players)
        }
        if wrong:
            self._fail(key, state, wrong)
            return
        if not state.has_revealed:
            state.has_revealed = True
            state.deadline = now + REVEAL_S
            reveal = state.reveals[self._me] = Reveal(key, state.secret, state.value)
            self._words.append(reveal)
        for peer in of.players:
            said = state.reveals.get(peer)
            if (
                said is not None
                and self._digest(key, of.players, peer, said.secret, said.value) != state.commits[peer].digest
            ):
                wrong[peer] = "revealed something else"
            elif said is not None and not of.sides and not _is_plain(said.value):
                wrong[peer] = "revealed what cannot be read"
        if wrong:
            self._fail(key, state, wrong)
        elif all(peer in state.reveals for peer in of.players):
            self._succeed(key, state, of)

    def _succeed(self, key: bytes, state: _Open, of: Round) -> None:
        self._close(key)
        if of.sides:
            secrets = b"".join([state.reveals[peer].secret for peer in of.players])
            drawn = sha256(b"psyne-roll" + self._room + key + list_of(of.players) + secrets).digest()
            of.value = int.from_bytes(drawn, "big") % of.sides + 1  # 2**256 and up to 2**53 sides: no bias to speak of
            self._events.append(Rolled(of.by, of.sides, of.value))
        else:
            of.moves = {peer: _values.decode(state.reveals[peer].value) for peer in of.players}
            self._events.append(MovesRevealed(of.label, of.moves))
        of.is_done = True

    def _fail(self, key: bytes, state: _Open, refused: dict[PeerId, str]) -> None:
        assert state.round is not None
        self._close(key)
        state.round.refused = refused
        state.round.is_done = True
        self._events.append(RoundFailed(state.round.label, refused))

    def _close(self, key: bytes) -> None:
        del self._open[key]
        self._over[key] = None
        while len(self._over) > 4 * ROUNDS_MAX:
            del self._over[next(iter(self._over))]

    # ------------------------------------------------------------------------------------------------------------ time

    def next_timeout(self) -> float:
        return min((state.deadline for state in self._open.values()), default=math.inf)

    def handle_timeout(self, now: float) -> None:
        for key, state in list(self._open.items()):
            if now < state.deadline:
                continue
            of = state.round
            if of is None:
                self._close(key)
            elif state.has_revealed:
                self._fail(key, state, {peer: "does not reveal" for peer in of.players if peer not in state.reveals})
            else:
                self._fail(key, state, {peer: "does not commit" for peer in of.players if peer not in state.commits})

    def take_words(self) -> list[CommitmentWord]:
        words, self._words = self._words, []
        return words

    def take_events(self) -> list[CommitmentEvent]:
        events, self._events = self._events, []
        return events


def _is_plain(value: bytes) -> bool:
    """A player commits to bytes, and what they are is seen when it reveals them."""
    try:
        read_untrusted(_values, value, "a secret move")
    except ProtocolError:
        return False
    return True


def list_of(players: tuple[PeerId, ...]) -> bytes:
    return sha256(b"psyne-players" + b"".join([peer.raw for peer in players])).digest()


def witness(
    room: bytes, seed: int, tick: int, members: Iterable[PeerId], besides: Iterable[PeerId] = ()
) -> PeerId | None:
    """Who checks what is claimed at `tick`: drawn by lot from the members but those concerned, the same on every machine
    that knows the same members; nobody knows it before `seed` is known. None if nobody is left."""
    left = sorted({*members} - {*besides})
    if not left:
        return None
    drawn = sha256(b"psyne-witness" + room + seed.to_bytes(8, "big") + tick.to_bytes(8, "big"))
    return left[int.from_bytes(drawn.digest(), "big") % len(left)]
