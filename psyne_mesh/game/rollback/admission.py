"""A player joins while the game runs: everybody agrees on the tick, and nobody passes it before all have."""

from __future__ import annotations

from psyne_mesh.game.rollback.events import JoinRefused
from psyne_mesh.game.rollback.wire import Admission, Agreement, Entry, Proposal, Refusal, Word

NOTICE_TICKS = 30
"""From the proposal to the tick it names: half a second at 60 Hz, enough for everybody's agreement, so that nobody
waits.
"""
AHEAD_MAX = 1024
"""A proposal further ahead is refused: it would only hold the seat."""


class Admissions:
    """1. `propose(seat, frame, others)` at one machine. 2. `hear(source, word, frame, is_free, others)` for the four
    words of it. 3. `drop(seat)` when a player is gone, `settle(proposer, entries)` when its departure is settled. 4.
    Drain `words` (to whom, what), `agreed` (seat, frame) that we proposed, `entries` that others let in, and
    `events`. Nothing is simulated from `holds_at` on.
    """

    def __init__(self) -> None:
        self._open: dict[int, tuple[int, set[int]]] = {}  # what we proposed: seat -> frame, whose agreement is missing
        self._held: dict[int, tuple[int, int]] = {}  # what we agreed to: seat -> frame, proposer
        self.words: list[tuple[int, Word]] = []
        self.agreed: list[tuple[int, int]] = []
        self.entries: list[Entry] = []
        self.events: list[JoinRefused] = []

    @property
    def holds_at(self) -> int | None:
        frames = [frame for frame, _ in (*self._open.values(), *self._held.values())]
        return min(frames) if frames else None

    @property
    def is_open(self) -> bool:
        return bool(self._open or self._held)

    def propose(self, seat: int, frame: int, others: set[int]) -> None:
        self._open[seat] = (frame, set(others))
        self.words += [(other, Proposal(seat, frame)) for other in sorted(others)]
        self._close(seat)

    def hear(
        self, source: int, word: Proposal | Agreement | Admission | Refusal, frame: int, is_free: bool, others: set[int]
    ) -> None:
        """`frame`: the next that we simulate. `is_free`: the seat has no player and no departure is being settled."""
        if isinstance(word, Proposal):
            if frame < word.frame < frame + AHEAD_MAX and is_free and not self.is_open:
                self._held[word.seat] = (word.frame, source)
                self.words.append((source, Agreement(word.seat, word.frame)))
            else:
                self.words.append((source, Refusal(word.seat, word.frame)))
        elif isinstance(word, Admission):
            if self._held.get(word.entry.seat) == (word.entry.frame, source):
                del self._held[word.entry.seat]
                self.entries.append(word.entry)
        elif word.seat in self._open and self._open[word.seat][0] == word.frame:
            if isinstance(word, Agreement):
                self._open[word.seat][1].discard(source)
                self._close(word.seat)
            else:
                self._refuse(word.seat, others)
        elif isinstance(word, Refusal) and self._held.get(word.seat) == (word.frame, source):
            del self._held[word.seat]

    def drop(self, seat: int) -> None:
        """Its agreement is not needed any more. What it proposed is settled with its departure."""
        for wanted, (_, missing) in list(self._open.items()):
            missing.discard(seat)
            self._close(wanted)

    def settle(self, proposer: int, entries: list[Entry]) -> None:
        """`proposer` is gone, and `entries` are what the survivors heard it admit: so it is for all, or for nobody."""
        for seat, (frame, source) in list(self._held.items()):
            if source == proposer:
                del self._held[seat]
                self.entries += [entry for entry in entries if (entry.seat, entry.frame) == (seat, frame)][:1]

    def _refuse(self, seat: int, others: set[int]) -> None:
        frame, _ = self._open.pop(seat)
        self.words += [(other, Refusal(seat, frame)) for other in sorted(others)]
        self.events.append(JoinRefused(seat))

    def _close(self, seat: int) -> None:
        frame, missing = self._open[seat]
        if not missing:
            del self._open[seat]
            self.agreed.append((seat, frame))
