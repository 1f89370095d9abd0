"""Who fetches the players' batches for all spectators: two of them, the gates, who share the players by a hash.

Each player speaks to one gate at a time, to the one that asked last. A gate asks the players that are its own; of the others
it asks those of whom nothing has come for as long as no living player and honest gate is silent. So a gate that died, or
keeps what it gets to itself, is replaced by the other one, which asks for all from where the spectators' knowledge ends.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence

from psyne_mesh.game.watching.feed import HEARTBEAT_S, INTERVAL_S, REWINDS_PER_S, WHOLE_EVERY_S
from psyne_mesh.game.watching.wire import Want
from psyne_mesh.identity import PeerId

GATES = 2
"""One would be enough until it dies; each more takes a seat of the room in which gates and players meet."""
SILENT_S = HEARTBEAT_S + INTERVAL_S + 0.45
"""A batch is due each `HEARTBEAT_S`, looked at each `INTERVAL_S`, and may take so much longer through the overlay."""
ASK_EVERY_S = 0.8
LACKING_S = 0.5
"""What a spectator lacks the other gate may have, whom it asks as well. Who asks for so long has not got it from there."""
LACKING_OTHERS_S = 1.2
"""Then the gate whose player it is could not help either."""
LACKING_AGAIN_S = 2.0
"""Spectators ask each 0.7 s (`viewer.NEED_EVERY_S`); after so long without a word something else is missing."""


def gates_of(seats: Sequence[PeerId | None], is_live: Callable[[PeerId], bool], count: int = GATES) -> list[PeerId]:
    """Of the spectators: those in the lowest seats who are here. All who know the seats say the same."""
    return [peer for peer in seats if peer is not None and is_live(peer)][:count]


class _Lacking:
    def __init__(self, now: float) -> None:
        self.since = self.last = now
        self.asked_at = -math.inf


class Gate:
    """1. `meet(players, gates, now)` whenever it changes to whom we are linked. 2. `whole(author, now)` when somebody has
    nothing of a player yet, `lacks(...)` when somebody lacks what we do not have either. 3. `handle_timeout(now)` at
    `next_timeout()`. 4. `take_outputs()` after each.

    heard_at, cursor: of the viewer beside it.
    """

    def __init__(
        self, me: PeerId, heard_at: Callable[[PeerId], float], cursor: Callable[[PeerId], tuple[int, int]]
    ) -> None:
        self._me = me
        self._heard_at = heard_at
        self._cursor = cursor
        self._gates: frozenset[PeerId] = frozenset([me])
        self._players: dict[PeerId, float] = {}  # when it is asked next; -inf: it is to be asked
        self._whole_at: dict[PeerId, float] = {}
        self._lacking: dict[PeerId, _Lacking] = {}
        self._outputs: list[tuple[PeerId, Want]] = []

    def meet(self, players: Iterable[PeerId], gates: Iterable[PeerId], now: float) -> None:
        before = {player for player in self._players if self._is_mine(player)}
        self._gates = frozenset([*gates, self._me])
        self._players = {player: self._players.get(player, -math.inf) for player in players}
        for player in self._players:
            if self._is_mine(player) and player not in before:
                self._players[player] = -math.inf
                self._ask(player, now)

    def whole(self, author: PeerId, now: float) -> None:
        """All that holds is wanted of that player; not more often than it is said."""
        if author in self._players and self._is_mine(author) and now >= self._whole_at.get(author, -math.inf):
            self._whole_at[author] = now + WHOLE_EVERY_S / 2
            self._ask(author, now, is_new=True)

    def lacks(self, author: PeerId, session: int, first: int, until: int, now: float) -> None:
        """Batches of that player that somebody asks for again and again, and we cannot give: who fetched them is a gate no
        more, or was one that others did not know. The player has them for a while."""
        if author not in self._players:
            self._lacking.pop(author, None)
            return
        known = self._lacking.get(author)
        if known is None or now >= known.last + LACKING_AGAIN_S:
            known = self._lacking[author] = _Lacking(now)
        known.last = now
        patience = LACKING_S if self._is_mine(author) else LACKING_OTHERS_S
        if now >= known.since + patience and now >= known.asked_at + 1 / REWINDS_PER_S:
            known.asked_at = now
            self._outputs.append((author, Want(session, first, False, until)))

    def next_timeout(self) -> float:
        return min([self._due(player) for player in self._players], default=math.inf)

    def handle_timeout(self, now: float) -> None:
        for player in self._players:
            if now >= self._due(player):
                self._ask(player, now)

    def take_outputs(self) -> list[tuple[PeerId, Want]]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def _ask(self, player: PeerId, now: float, *, is_new: bool = False) -> None:
        session, following = self._cursor(player)
        self._players[player] = now + ASK_EVERY_S
        self._outputs.append((player, Want(session, following, is_new or session == 0)))

    def _due(self, player: PeerId) -> float:
        return max(self._players[player], self._heard_at(player) + SILENT_S)

    def _is_mine(self, player: PeerId) -> bool:
        return max(self._gates, key=lambda gate: hashlib.sha256(player.raw + gate.raw).digest()) == self._me
