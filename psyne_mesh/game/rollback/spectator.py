"""Who watches, and who will join: confirmed inputs only, so nothing is guessed, from one player, attested by others."""

from __future__ import annotations

from collections.abc import Hashable

from psyne_mesh.errors import ProtocolError
from psyne_mesh.game.rollback.desync import CHECK_EVERY_TICKS, hash_of
from psyne_mesh.game.rollback.events import Advance, Load, PlayerInput, Request, Save, SnapshotDisputed
from psyne_mesh.game.rollback.session import RollbackSession
from psyne_mesh.game.rollback.wire import (
    PART_BYTES,
    STATE_BYTES_MAX,
    Hashes,
    Part,
    Rows,
    Seated,
    decode_word_untrusted,
    encode_word,
)

ROWS_MAX = 60
"""In one word: a second at 60 Hz."""
WAITING_MAX = 1200
"""Rows that a spectator was told and has not simulated: twenty seconds, the transfer of a state included. Then it
begins anew.
"""
CUSHION_TICKS = 6
"""A spectator plays so far behind what it knows: a tenth of a second at 60 Hz, against the jitter of its source."""
CATCH_UP_TICKS = 8
PARTS_AT_ONCE = 2
"""Of a state, in each turn of `words`: at ten turns a second some 1 MB/s, beside the players' inputs."""
ATTESTED_MAX = 256
LIVE_TICKS = 30


class Feed:
    """A player's part.

    1. `add(spectator, source)` when somebody wants to watch: one player is its source, the others attest;
    `remove(spectator)`.
    2. `words()` some ten times a second: what to send to whom, reliably and in order.
    """

    def __init__(self, session: RollbackSession) -> None:
        self._session = session
        self._next: dict[Hashable, int | None] = {}
        self._parts: dict[Hashable, list[bytes]] = {}
        self._attested: dict[Hashable, int] = {}

    def add(self, spectator: Hashable, *, source: bool) -> None:
        """`source`: it gets the state and the inputs from us, and else only the hashes of our confirmed states."""
        self.remove(spectator)
        if source:
            self._next[spectator] = None
        else:
            self._attested[spectator] = -1

    def attest_anew(self, spectator: Hashable) -> None:
        """It has not begun: what we attested may have come before it knew from whom its state comes."""
        if spectator in self._attested:
            self._attested[spectator] = -1

    def remove(self, spectator: Hashable) -> None:
        for table in (self._next, self._parts, self._attested):
            table.pop(spectator, None)

    def words(self) -> list[tuple[Hashable, bytes]]:
        """A state of more than STATE_BYTES_MAX cannot be handed over: its spectators wait for ever."""
        said: list[tuple[Hashable, bytes]] = []
        encoded: dict[tuple[int, int], bytes] = {}
        for spectator, first in list(self._next.items()):
            if first is None or first < self._session.oldest_confirmed:
                frame, state = self._session.snapshot()
                if not 0 < len(state) <= STATE_BYTES_MAX:
                    continue
                self._parts[spectator] = parts_of(frame, state)
                first = frame
            waiting = self._parts.get(spectator, [])
            said += [(spectator, part) for part in waiting[:PARTS_AT_ONCE]]
            del waiting[:PARTS_AT_ONCE]
            end = min(self._session.confirmed, self._session.frame - 1, first + ROWS_MAX - 1)
            if end >= first:
                if (first, end) not in encoded:
                    rows = [self._session.confirmed_inputs(frame) for frame in range(first, end + 1)]
                    encoded[first, end] = encode_word(Rows(first, rows))
                said.append((spectator, encoded[first, end]))
            self._next[spectator] = max(first, end + 1)
        return said + self._attestations()

    def _attestations(self) -> list[tuple[Hashable, bytes]]:
        said: list[tuple[Hashable, bytes]] = []
        for spectator, told in self._attested.items():
            for frame, digest in self._session.checked_states():
                if frame > told:
                    said.append((spectator, encode_word(Hashes(frame, [digest]))))
                    self._attested[spectator] = frame
        return said


def parts_of(frame: int, state: bytes) -> list[bytes]:
    cuts = range(0, len(state), PART_BYTES)
    return [encode_word(Part(frame, index, len(cuts), state[cut : cut + PART_BYTES])) for index, cut in enumerate(cuts)]


class Spectator:
    """A spectator's part, with the requests of a session.

    1. `receive_word(seat, data)` of what players send; it raises ProtocolError, and has changed nothing then.
    2. `advance(...)` once a frame: do what the requests say, and call `saved(frame, state)` at each `Save`.
    3. `state(frame)` for `Load`. 4. `take_events()`. 5. Once `is_live`, a player may be asked to `admit` us;
    `seated` and `entered` are there when all agreed and we have come to our first tick.

    `attesters`: so many players beside the source must have the state that it gives, before it is loaded.
    """

    def __init__(self, *, seats: int, blank: bytes, hz: float = 60.0, attesters: int = 1) -> None:
        self.seats, self.hz, self.window = seats, hz, 0
        self.frame = 0
        self._known = -1
        self.is_begun = False
        self.seated: Seated | None = None
        self.entered: bytes | None = None
        self._blank = blank
        self._attesters = attesters
        self._parts: dict[int, bytes] = {}
        self._part_of: tuple[int, int, int] | None = None  # source, frame, count
        self._source = -1
        self._state = b""
        self._rows: dict[int, tuple[PlayerInput, ...]] = {}
        self._said: dict[int, dict[int, bytes]] = {}  # check frame -> seat -> hash
        self._ours: dict[int, bytes] = {}
        self._disputed: set[int] = set()
        self._events: list[SnapshotDisputed] = []

    @property
    def confirmed(self) -> int:
        """The newest frame whose inputs it was told: all that it simulates is final."""
        return self._known

    @property
    def is_live(self) -> bool:
        """It has come to within half a second of what the players have confirmed."""
        return self.is_begun and len(self._rows) <= LIVE_TICKS

    def receive_word(self, seat: int, data: bytes) -> None:
        word = decode_word_untrusted(data)
        if isinstance(word, Part):
            self._hear_part(seat, word)
        elif isinstance(word, Rows):
            self._hear_rows(seat, word)
        elif isinstance(word, Hashes):
            self._hear_hashes(seat, word)
        elif isinstance(word, Seated) and self.is_begun and self.frame <= word.entry.frame and seat in word.players:
            self.seated = word
        self._begin()

    def _hear_part(self, seat: int, part: Part) -> None:
        if self._part_of != (seat, part.frame, part.count):
            if part.index:
                return
            self._part_of = (seat, part.frame, part.count)
            self._parts.clear()
            self._rows.clear()
            self._source, self._known, self.is_begun = seat, part.frame - 1, False
        if part.index < part.count and part.count * PART_BYTES <= STATE_BYTES_MAX + PART_BYTES:
            self._parts[part.index] = part.data

    def _hear_rows(self, seat: int, word: Rows) -> None:
        if seat != self._source:
            return
        step = len(self._blank)
        for frame, (present, row) in enumerate(word.rows, word.first):
            if len(row) != self.seats * step or frame != self._known + 1 or len(self._rows) >= WAITING_MAX:
                raise ProtocolError("rows of another game, out of order, or far ahead")
            self._rows[frame] = tuple(
                [
                    PlayerInput(row[at * step : (at + 1) * step], False, bool(present >> at & 1))
                    for at in range(self.seats)
                ]
            )
            self._known = frame

    def _hear_hashes(self, seat: int, word: Hashes) -> None:
        if word.first % CHECK_EVERY_TICKS == 0 and word.hashes and 0 <= seat < self.seats:
            self._said.setdefault(word.first, {})[seat] = word.hashes[0]
            self._compare(word.first)
            while len(self._said) > ATTESTED_MAX:
                del self._said[next(iter(self._said))]

    def _begin(self) -> None:
        if self.is_begun or self._part_of is None or len(self._parts) < self._part_of[2]:
            return
        _, frame, count = self._part_of
        state = b"".join([self._parts[index] for index in range(count)])
        self._ours[frame] = digest = hash_of(state)
        self._compare(frame)
        if list(self._said.get(frame, {}).values()).count(digest) < self._attesters:
            return
        self.is_begun = True
        self.frame, self._state = frame, state
        self._parts.clear()

    def _compare(self, frame: int) -> None:
        ours = self._ours.get(frame)
        for seat, said in self._said.get(frame, {}).items() if ours is not None else ():
            if said != ours and seat not in self._disputed:
                self._disputed.add(seat)
                self._events.append(SnapshotDisputed(self._source, seat, frame))

    def advance(self, local: bytes = b"", now: float = 0.0) -> list[Request]:
        """A spectator has no hand, and follows what it knows: both are ignored. One tick a call; more while it is
        further behind what it knows than the cushion. Stops at its own first tick.
        """
        if not self.is_begun:
            return []
        requests: list[Request] = []
        if self._state:
            requests.append(Load(self.frame))
        behind = len(self._rows)
        for _ in range(CATCH_UP_TICKS if behind > LIVE_TICKS else 2 if behind > CUSHION_TICKS or self.seated else 1):
            if self.seated is not None and self.frame >= self.seated.entry.frame:
                requests.append(Save(self.frame))
                break
            row = self._rows.pop(self.frame, None)
            if row is None:
                break
            requests += [Save(self.frame), Advance(self.frame, row)]
            self.frame += 1
        return requests

    def saved(self, frame: int, state: bytes) -> None:
        if frame % CHECK_EVERY_TICKS == 0:
            self._ours[frame] = hash_of(state)
            self._ours.pop(frame - ATTESTED_MAX * CHECK_EVERY_TICKS, None)
            self._compare(frame)
        if self.seated is not None and frame == self.seated.entry.frame:
            self.entered = state

    def state(self, frame: int) -> bytes:
        state, self._state = self._state, b""
        return state

    def take_events(self) -> list[SnapshotDisputed]:
        events, self._events = self._events, []
        return events
