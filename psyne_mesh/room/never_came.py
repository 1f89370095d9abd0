"""What others should have carried here and nobody could give: its author is told, wherever it is. Pure.

The word goes through others, too, and may be lost, or come before its author has heard that we are back. So it holds all that
was lost of this author in its stay, and is said again; who hears it knows how many of these are news.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from psyne_mesh.identity import PeerId
from psyne_mesh.limits import forget_oldest

# Seconds after a loss when the word is said: a cut that heals makes both sides members again within the first few.
SAID_AFTER_S = (0.0, 1.0, 3.0, 10.0)
PLAYERS_MAX = 1024  # as many as a room has; of the one heard of longest ago a loss may be told twice


class _Author:
    """Of one author. said: how often since the last loss."""

    __slots__ = ("lost", "lost_at", "said", "stay")

    def __init__(self, stay: int) -> None:
        self.stay = stay
        self.lost = 0
        self.lost_at = 0.0
        self.said = 0


class NeverCame:
    """1. `lost` whenever broadcasts of an author are given up. 2. `due(now)` at `next_timeout`: to whom which word is said.
    3. `news` for a word that comes: how many of our own it tells of for the first time.

    A stay is the `joined_at` of the other player: what was lost of an earlier one is nobody's any more.
    """

    def __init__(self) -> None:
        self._authors: OrderedDict[PeerId, _Author] = OrderedDict()
        self._told: OrderedDict[PeerId, tuple[int, int]] = OrderedDict()

    def lost(self, author: PeerId, stay: int, count: int, now: float) -> None:
        entry = self._authors.pop(author, None)
        if entry is None or entry.stay != stay:
            entry = _Author(stay)
        entry.lost += count
        entry.lost_at, entry.said = now, 0
        self._authors[author] = entry
        forget_oldest(self._authors, PLAYERS_MAX)

    def next_timeout(self) -> float:
        return min(map(_due_at, self._authors.values()), default=math.inf)

    def due(self, now: float) -> list[tuple[PeerId, int]]:
        """Author, and how many of its broadcasts of this stay never came here."""
        words = []
        for author, entry in self._authors.items():
            if _due_at(entry) <= now:
                words.append((author, entry.lost))
                while _due_at(entry) <= now:
                    entry.said += 1
        return words

    def news(self, hearer: PeerId, stay: int, count: int) -> int:
        known_stay, known = self._told.pop(hearer, (stay, 0))
        if known_stay != stay:
            known = 0
        self._told[hearer] = stay, max(known, count)
        forget_oldest(self._told, PLAYERS_MAX)
        return max(0, count - known)


def _due_at(author: _Author) -> float:
    return author.lost_at + SAID_AFTER_S[author.said] if author.said < len(SAID_AFTER_S) else math.inf
