"""Equal inputs must give equal states: when they do not, say since which tick, in which field, and on whose machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b

from psyne_mesh.game.rollback.events import Desync
from psyne_mesh.game.rollback.wire import FRAMES_MAX, STATE_BYTES_MAX, Hashes, State, Word

CHECK_EVERY_TICKS = 30
"""Half a second at 60 Hz: with the exchange of states after it a difference is named within a second. A hash costs a
microsecond.
"""
KEPT_TICKS = FRAMES_MAX
"""Of hashes and states: two seconds, four checks. An older difference is named by its oldest kept tick."""
KEPT_BYTES_MAX = 4 << 20
EXCHANGE_AGAIN_S = 5.0
"""A machine answers the questions of one seat this often: a state can be a megabyte."""

Difference = Callable[[bytes, bytes], tuple[str, object, object]]
"""(our state, theirs) -> (path of the first field that differs, our value, their value)."""


def hash_of(state: bytes) -> bytes:
    """Not Python's `hash`: that of a str differs between processes."""
    return blake2b(state, digest_size=8).digest()


class StateChecks:
    """1. `confirmed(frame, state, now)` for each confirmed state, in order. 2. `heard(seat, frame, digest, now)` for
    each hash in a packet, `hear(seat, word, now)` for `Hashes` and `State`. 3. Drain `words` and `events`. 4.
    `forget(seat)` when its player is gone.
    """

    def __init__(self, seats: int, me: int, difference: Difference) -> None:
        self._seats, self._me, self._difference = seats, me, difference
        self._hashes: dict[int, bytes] = {}
        self._states: dict[int, bytes] = {}
        self._bytes = 0
        self._early: dict[
            int, tuple[int, bytes]
        ] = {}  # of each seat the newest hash of a frame that we have not confirmed yet
        self._votes: dict[int, dict[int, bytes]] = {}  # check frame -> seat -> hash
        self._named: set[int] = set()
        self._asked: dict[int, float] = {}
        self._answered: dict[int, float] = {}
        self.newest_check = -1
        self.words: list[tuple[int, Word]] = []
        self.events: list[Desync] = []

    def confirmed(self, frame: int, state: bytes, now: float) -> None:
        digest = hash_of(state)
        self._hashes[frame] = digest
        self._states[frame] = state
        self._bytes += len(state)
        self._hashes.pop(frame - KEPT_TICKS, None)
        self._drop_state(frame - KEPT_TICKS)
        while self._bytes > KEPT_BYTES_MAX and len(self._states) > 1:
            self._drop_state(next(iter(self._states)))
        if frame % CHECK_EVERY_TICKS == 0:
            self.newest_check = frame
            self._vote(frame, self._me, digest)
            for seat, (early, theirs) in list(self._early.items()):
                if early <= frame:
                    del self._early[seat]
                    self.heard(seat, early, theirs, now)

    def _drop_state(self, frame: int) -> None:
        state = self._states.pop(frame, None)
        if state is not None:
            self._bytes -= len(state)

    def state(self, frame: int) -> bytes | None:
        return self._states.get(frame)

    def kept(self, frame: int) -> bytes:
        return self._states[frame]

    def digest(self, frame: int) -> bytes | None:
        return self._hashes.get(frame)

    def checks(self) -> list[tuple[int, bytes]]:
        return [(frame, digest) for frame, digest in self._hashes.items() if frame % CHECK_EVERY_TICKS == 0]

    def heard(self, seat: int, frame: int, digest: bytes, now: float) -> None:
        ours = self._hashes.get(frame)
        if ours is None:
            if frame > self.newest_check:
                self._early[seat] = (frame, digest)
            return
        self._vote(frame, seat, digest)
        if (
            ours != digest
            and seat not in self._named
            and now - self._asked.get(seat, -EXCHANGE_AGAIN_S) >= EXCHANGE_AGAIN_S
        ):
            self._asked[seat] = now
            first = max(frame - FRAMES_MAX + 1, min(self._hashes))
            self.words.append((seat, Hashes(first, [self._hashes[at] for at in range(first, frame + 1)])))

    def _vote(self, frame: int, seat: int, digest: bytes) -> None:
        if frame % CHECK_EVERY_TICKS:
            return
        self._votes.setdefault(frame, {})[seat] = digest
        while len(self._votes) > KEPT_TICKS // CHECK_EVERY_TICKS + 1:
            del self._votes[min(self._votes)]

    def hear(self, seat: int, word: Hashes | State, now: float) -> None:
        if isinstance(word, State):
            ours = self._states.get(word.frame)
            if ours is not None and ours != word.state:
                self._name(seat, word.frame, *self._difference(ours, word.state))
            return
        first = self._first_difference(word)
        if first is None or now - self._answered.get(seat, -EXCHANGE_AGAIN_S) < EXCHANGE_AGAIN_S:
            return
        self._answered[seat] = now
        newest = word.first + len(word.hashes) - 1
        if (
            seat not in self._named
            and newest in self._hashes
            and now - self._asked.get(seat, -EXCHANGE_AGAIN_S) >= EXCHANGE_AGAIN_S
        ):
            self._asked[seat] = now
            begin = max(first, min(self._hashes))
            self.words.append((seat, Hashes(begin, [self._hashes[at] for at in range(begin, newest + 1)][:FRAMES_MAX])))
        state = self._states.get(first, b"")
        if state and len(state) <= STATE_BYTES_MAX:
            self.words.append((seat, State(first, state)))
        else:
            self._name(seat, first)

    def _first_difference(self, word: Hashes) -> int | None:
        for frame, theirs in enumerate(word.hashes, word.first):
            ours = self._hashes.get(frame)
            if ours is not None and ours != theirs:
                return frame
        return None

    def _name(self, seat: int, frame: int, path: str = "", ours: object = None, theirs: object = None) -> None:
        if seat not in self._named:
            self._named.add(seat)
            self.events.append(Desync(seat, frame, self._odd(), path, ours, theirs))

    def _odd(self) -> tuple[int, ...]:
        """The seats that differ from what more than half of all say, at the newest check where that many agree."""
        for frame in sorted(self._votes, reverse=True):
            votes = self._votes[frame]
            digest, count = Counter(votes.values()).most_common(1)[0]
            if count < len(votes) and count * 2 > self._seats:
                return tuple(sorted(seat for seat, said in votes.items() if said != digest))
        return ()

    def resize(self, seats: int) -> None:
        """So many seats have players now."""
        self._seats = seats

    def forget(self, seat: int) -> None:
        self._named.discard(seat)
        self._asked.pop(seat, None)
        self._answered.pop(seat, None)
        self._early.pop(seat, None)
        for votes in self._votes.values():
            votes.pop(seat, None)
