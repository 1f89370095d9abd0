"""One replicated map: the log of who writes it, and the copy of who reads it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from psyne_mesh.errors import MessageTooLarge, ProtocolError
from psyne_mesh.game.state_wire import ENTRIES_MAX, KEY_BYTES_MAX, NOWHERE, PART_BYTES, VALUE_BYTES_MAX, Part, Stand

STATE_BYTES_MAX: Final = 64 * 1024
"""Keys and values of what a player, or the game in the room's map, may hold."""
COPY_BYTES_MAX: Final = 2 * STATE_BYTES_MAX
"""What is taken from outside: the room's map holds timers and the barred beside the state."""
GONE_MAX: Final = 256
"""Keys that were taken away and are remembered, so that a copy can be brought up to date without all of the map."""

_NOTHING: Mapping[str, bytes] = MappingProxyType({})
Change = tuple[str, bytes | None]


def check_entry(key: str, value: bytes | None) -> None:
    """`MessageTooLarge` for what no part can carry."""
    size = len(key.encode())
    if not 1 <= size <= KEY_BYTES_MAX:
        raise MessageTooLarge(size, KEY_BYTES_MAX)
    if value is not None and len(value) > VALUE_BYTES_MAX:
        raise MessageTooLarge(len(value), VALUE_BYTES_MAX)


def size_of(values: Mapping[str, bytes]) -> int:
    return sum(len(key.encode()) + len(value) for key, value in values.items())


class Log:
    """Of the writer: 1. `write(key, value, limit)`. 2. `parts(after)` is what brings a copy up to date. `values` is never
    changed, only replaced, so it may be read on any thread.
    """

    def __init__(
        self, owner: bytes, writer: bytes, term: int, base: Stand = NOWHERE, values: Mapping[str, bytes] = _NOTHING
    ) -> None:
        self.owner = owner
        self.base = base  # whose values are those of our (term, 0)
        self.stand = Stand(term, 0, writer)
        self.values = values
        self._changed: dict[str, int] = {}  # by key, the newest last; keys that are gone among them
        self._gone: dict[str, int] = {}
        self._floor = 0

    def write(self, key: str, value: bytes | None, limit: int = COPY_BYTES_MAX) -> bool:
        """Whether that changed anything. `MessageTooLarge` beyond the limit, in bytes of all keys and values."""
        if self.values.get(key) == value:
            return False
        check_entry(key, value)
        values = dict(self.values)
        if value is None:
            del values[key]
        else:
            values[key] = value
            if (size := size_of(values)) > limit:
                raise MessageTooLarge(size, limit)
            if len(values) > ENTRIES_MAX - GONE_MAX:
                raise MessageTooLarge(len(values), ENTRIES_MAX - GONE_MAX)
        self.values = values
        sequence = self.stand.sequence + 1
        self.stand = Stand(self.stand.term, sequence, self.stand.writer)
        self._changed.pop(key, None)
        self._changed[key] = sequence
        self._gone.pop(key, None)
        if value is None:
            self._gone[key] = sequence
            if len(self._gone) > GONE_MAX:
                oldest = next(iter(self._gone))
                self._floor = self._gone.pop(oldest)
                del self._changed[oldest]
        return True

    def parts(self, after: Stand) -> list[Part]:
        if after == self.stand:
            return []
        since = 0 if after == self.base else after.sequence if self._is_ours(after) else None
        if since is None or since < self._floor:
            return self._all()
        news = [(key, sequence) for key, sequence in self._changed.items() if sequence > since]
        parts: list[Part] = []
        for piece in _pieces([(key, self.values.get(key)) for key, _ in news]):
            reached = self._changed[piece[-1][0]] if piece else self.stand.sequence
            parts.append(Part(self.owner, self.stand.term, reached, after, 0, 1, piece))
            after = Stand(self.stand.term, reached, self.stand.writer)
        return parts

    def _is_ours(self, stand: Stand) -> bool:
        ours = self.stand
        return (stand.term, stand.writer) == (ours.term, ours.writer) and stand.sequence <= ours.sequence

    def _all(self) -> list[Part]:
        pieces = _pieces(list(self.values.items()))
        term, sequence = self.stand.term, self.stand.sequence
        return [
            Part(self.owner, term, sequence, None, number, len(pieces), piece) for number, piece in enumerate(pieces)
        ]


def _pieces(entries: list[Change]) -> list[list[Change]]:
    """One at least, each of `PART_BYTES` at most unless one entry is larger."""
    pieces: list[list[Change]] = [[]]
    size = 0
    for key, value in entries:
        more = len(key.encode()) + len(value or b"")
        if pieces[-1] and size + more > PART_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append((key, value))
        size += more
    return pieces


class Copy:
    """Of a reader: 1. `take(part, writer)` gives what changed, or None when it does not follow on what is here. 2. `values`,
    which is never changed, only replaced.
    """

    def __init__(self) -> None:
        self.stand = NOWHERE
        self.values: Mapping[str, bytes] = _NOTHING
        self._size: int | None = 0  # of `values`; None: they came from elsewhere
        # What it will be, the next piece, what has come and its size
        self._staged: tuple[Stand, int, dict[str, bytes], int] | None = None

    def put(self, values: Mapping[str, bytes], stand: Stand) -> None:
        """What was written here."""
        self.values, self.stand, self._size = values, stand, None

    def is_old(self, term: int, sequence: int, writer: bytes) -> bool:
        stand = self.stand
        return term < stand.term or (term == stand.term and writer == stand.writer and sequence <= stand.sequence)

    def take(self, part: Part, writer: bytes) -> list[Change] | None:
        """Raises ProtocolError for a map that is too large; what was here stays. The cost follows what came, but for one copy
        of a dict."""
        if self.is_old(part.term, part.sequence, writer):
            return []
        reached = Stand(part.term, part.sequence, writer)
        if part.after is None:
            return self._stage(part, reached)
        if part.after != self.stand:
            return None
        values, changes = dict(self.values), list[Change]()
        size = _put(values, size_of(values) if self._size is None else self._size, part.entries, changes)
        self.values, self.stand, self._size = values, reached, size
        return changes

    def _stage(self, part: Part, reached: Stand) -> list[Change] | None:
        if part.piece == 0:
            self._staged = reached, 0, {}, 0
        if self._staged is None or self._staged[:2] != (reached, part.piece):
            return None
        _, _, values, size = self._staged
        self._staged = None
        size = _put(values, size, [entry for entry in part.entries if entry[1] is not None], [])
        if part.piece + 1 < part.pieces:
            self._staged = reached, part.piece + 1, values, size
            return []
        before, self.values, self.stand, self._size = self.values, values, reached, size
        gone: list[Change] = [(key, None) for key in before if key not in values]
        return gone + [(key, value) for key, value in values.items() if before.get(key) != value]


def _put(values: dict[str, bytes], size: int, entries: list[Change], changes: list[Change]) -> int:
    """Into `values`, which are of that size; the size afterwards. Raises ProtocolError where they become too large."""
    for key, value in entries:
        before = values.get(key)
        if before != value:
            changes.append((key, value))
        if before is not None:
            size -= len(key.encode()) + len(before)
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value
            size += len(key.encode()) + len(value)
    if len(values) > ENTRIES_MAX or size > COPY_BYTES_MAX:
        raise ProtocolError("a map that is too large")
    return size
