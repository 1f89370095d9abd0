"""A spectator's side: whose batches are believed, in which order they are read, and what is missing of them.

Every batch is signed by the player whose words it holds, so whoever passes it on can leave it out and cannot change it. Who is
a player at all, players say of each other: each names whom it sees in the room. The maker of the room, whose key is in the
manifest, is one while it is here, and so is whom it names and who names it; without it those already shown go on, and for who
has seen nobody yet, the one with whom most agree.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from psyne_mesh.game.watching.wire import EVER, FLEETING, MORE, TEXT, Batch, Facts, Need, Signed, batch_untrusted
from psyne_mesh.identity import PeerId

AUTHORS_MAX = 48
"""Keys whose batches are kept: the players of a full room and as many who only say that they are."""
AHEAD_MAX = 64
"""Batches of one player that wait for an earlier one: sixteen seconds' worth."""
NEED_AFTER_S = 0.3
"""A batch that others overtook may still be on its way through the overlay for so long."""
NEED_EVERY_S = 0.7
GIVE_UP_S = 5.0
"""What nobody gives in this time is lost, and told."""
DOUBT_S = 1.5
"""The others have not named a player for so long, and it has not said goodbye itself."""
SILENT_S = 6.0
"""A player of whom nothing has come for so long is gone, unless it is said sooner by the others: `gossip` allows 4 s."""
LOG_S = 10.0
LOG_BYTES_MAX = 2**18
"""Of each player, for who asks: a gate answers from it, and any spectator may become one."""
MESSAGE_BYTES_MAX = 2**20
BEGUN_MAX = 2
"""Messages of one player whose last piece has not come: it says one to its end before the next."""
HELD_MAX = 1024
HELD_BYTES_MAX = 2**18
"""What an author said who is not known for a player yet. It is lost beyond, as if it had come before we did."""


class PlayerSeen:
    """An author is a player; `PlayerTold` follows with each new fact."""

    def __init__(self, player: PeerId, facts: Facts) -> None:
        self.player = player
        self.facts = facts


class PlayerTold(PlayerSeen):
    """Of a player: name, metadata or seat are others."""


class PlayerGone:
    """reason: as of `PeerLeft`."""

    def __init__(self, player: PeerId, reason: str) -> None:
        self.player = player
        self.reason = reason


class MessageSaid:
    def __init__(self, player: PeerId, channel: str, data: bytes, *, is_text: bool, is_reliable: bool) -> None:
        self.player = player
        self.channel = channel
        self.data = data
        self.is_text = is_text
        self.is_reliable = is_reliable


class WordsSaid:
    """About replicated maps and shared objects. is_whole: all that holds."""

    def __init__(self, player: PeerId, states: list[bytes], objects: list[bytes], *, is_whole: bool) -> None:
        self.player = player
        self.states = states
        self.objects = objects
        self.is_whole = is_whole


class MessagesMissed:
    """So many reliable messages of the player never came."""

    def __init__(self, player: PeerId, count: int) -> None:
        self.player = player
        self.count = count


class HostTold:
    """More than half of the players say so."""

    def __init__(self, term: int, host: PeerId | None) -> None:
        self.term = term
        self.host = host


Happened = MessageSaid | WordsSaid | MessagesMissed
ViewerEvent = PlayerSeen | PlayerTold | PlayerGone | HostTold | Happened


class _Author:
    def __init__(self, now: float) -> None:
        self.session = 0
        self.next = 0
        self.is_begun = False  # a whole batch has come in this session
        self.said = -1  # reliable messages before the next batch; -1: nothing was read yet
        self.stay = -1
        self.ahead: dict[int, Batch] = {}
        self.heard_at = now
        self.lacks_since = math.inf
        self.need_at = math.inf
        self.facts: Facts | None = None
        self.sees: frozenset[PeerId] = frozenset()  # whom its facts name
        self.doubted_at = math.inf  # since when whom we believe has not named it
        self.pieces: dict[str, list[bytes]] = {}
        self.log: deque[tuple[int, int, float, Signed]] = deque()
        self.log_bytes = 0
        self.held: list[Happened] = []
        self.held_bytes = 0

    def cursor(self) -> tuple[int, int]:
        return (self.session, self.next) if self.is_begun else (0, 0)

    def holds(self, session: int, number: int) -> bool:
        return any(each[:2] == (session, number) for each in self.log)

    def need(self, author: PeerId) -> Need:
        return Need(author.raw, *self.cursor(), min(self.ahead, default=EVER) if self.is_begun else EVER)


class Viewer:
    """1. `receive(signed, now)` for each batch, whoever passed it on. 2. `handle_timeout(now)` at `next_timeout()`. 3. After
    each: `take_outputs()`, for everybody; `take_events()`.

    creator: who signed the room's manifest. verify: the id of who signed a body, or `ProtocolError`.
    """

    def __init__(
        self, creator: PeerId | None, players_max: int, verify: Callable[[Signed], PeerId],
    ) -> None:  # fmt: skip
        self._creator = creator
        self._players_max = players_max
        self._verify = verify
        self._authors: dict[PeerId, _Author] = {}
        self._players: dict[PeerId, None] = {}
        self._host: tuple[int, PeerId | None] = 0, None
        self._outputs: list[Need] = []
        self._events: list[ViewerEvent] = []

    # ------------------------------------------------------------------------------------------------------- questions

    @property
    def host(self) -> tuple[int, PeerId | None]:
        """(term, who), None while most do not agree."""
        return self._host

    def heard_at(self, author: PeerId) -> float:
        known = self._authors.get(author)
        return -math.inf if known is None else known.heard_at

    def cursor(self, author: PeerId) -> tuple[int, int]:
        """(session, the first batch that is missing); session 0: all of them are."""
        known = self._authors.get(author)
        return (0, 0) if known is None else known.cursor()

    def kept(self, need: Need) -> tuple[list[Signed], tuple[int, int] | None]:
        """Of what is needed: the batches that are still here, and the first that are not, as (from, until)."""
        known = self._authors.get(PeerId(need.author.hex()))
        log = {} if known is None else {each[1]: each[3] for each in known.log if each[0] == need.session}
        kept = {number: log[number] for number in sorted(log) if need.next <= number < need.until}
        first = need.next
        while first in kept:
            first += 1
        until = min((number for number in kept if number > first), default=need.until)
        return list(kept.values()), (first, until) if first < need.until < EVER else None

    # ---------------------------------------------------------------------------------------------------------- verbs

    def is_author(self, author: PeerId) -> bool:
        """Something of it has come."""
        return author in self._authors

    def receive(self, signed: Signed, now: float, *, is_first_hand: bool = False) -> PeerId | None:
        """Whose it is, if it is new. Raises ProtocolError for what nobody has signed; nothing has changed then.

        is_first_hand: from its author, who says it again for somebody who lacks it: it is new if we do not hold it.
        """
        author = self._verify(signed)
        batch = batch_untrusted(signed.body)
        known = self._authors.get(author)
        if known is None:
            if len(self._authors) >= AUTHORS_MAX and not self._forget_one():
                return None
            known = self._authors[author] = _Author(now)
        if batch.session < known.session:
            return None
        if batch.session > known.session:
            known.session, known.next, known.is_begun = batch.session, 0, False
            known.ahead.clear()
        if batch.number in known.ahead or (known.is_begun and batch.number < known.next):
            if not is_first_hand or known.holds(batch.session, batch.number):
                return None
            self._keep(known, batch, signed, now)
            return author
        known.heard_at = now
        self._keep(known, batch, signed, now)
        if len(known.ahead) >= AHEAD_MAX:
            del known.ahead[min(known.ahead)]
        known.ahead[batch.number] = batch
        self._read(author, known, now)
        return author

    def want_whole(self, author: PeerId, now: float) -> None:
        """What it said could not be followed: all that holds is wanted once more."""
        if (known := self._authors.get(author)) is not None and known.is_begun:
            self._outputs.append(Need(author.raw, 0, 0))

    def next_timeout(self) -> float:
        dues = [math.inf]
        for author, known in self._authors.items():
            dues.append(min(known.need_at, known.lacks_since + GIVE_UP_S if known.is_begun else math.inf))
            if author in self._players:
                dues.append(min(known.heard_at + SILENT_S, known.doubted_at + DOUBT_S))
        return min(dues)

    def handle_timeout(self, now: float) -> None:
        for author, known in list(self._authors.items()):
            if now >= known.lacks_since + GIVE_UP_S and known.is_begun:
                known.next = min(known.ahead)  # which says how much was lost; what holds is wanted whole
                known.lacks_since = known.need_at = math.inf
                self._outputs.append(Need(author.raw, 0, 0))
                self._read(author, known, now)
            if now >= known.need_at:
                known.need_at = now + NEED_EVERY_S
                self._outputs.append(known.need(author))
            if now >= known.heard_at + SILENT_S:
                known.lacks_since = known.need_at = math.inf
            if author in self._players and now >= min(known.heard_at + SILENT_S, known.doubted_at + DOUBT_S):
                self._gone(author, "timeout")
                self._elect(now)

    def take_outputs(self) -> list[Need]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_events(self) -> list[ViewerEvent]:
        events, self._events = self._events, []
        return events

    # -------------------------------------------------------------------------------------------------- the order of words

    def _forget_one(self) -> bool:
        others = [author for author in self._authors if author not in self._players]
        if not others:
            return False
        del self._authors[min(others, key=lambda author: self._authors[author].heard_at)]
        return True

    def _keep(self, known: _Author, batch: Batch, signed: Signed, now: float) -> None:
        log = known.log
        log.append((batch.session, batch.number, now, signed))
        known.log_bytes += len(signed.body)
        while log[0][2] < now - LOG_S or known.log_bytes > LOG_BYTES_MAX:
            known.log_bytes -= len(log.popleft()[3].body)

    def _read(self, author: PeerId, known: _Author, now: float) -> None:
        if not known.is_begun:
            whole = [number for number, batch in known.ahead.items() if batch.is_whole]
            if whole:
                known.next, known.is_begun = min(whole), True
                known.pieces.clear()
                known.ahead = {number: batch for number, batch in known.ahead.items() if number >= known.next}
        while known.is_begun and (batch := known.ahead.pop(known.next, None)) is not None:
            known.next += 1
            known.lacks_since = known.need_at = math.inf
            self._take(author, known, batch, now)
        lacks = bool(known.ahead) or not known.is_begun
        if lacks and known.lacks_since == math.inf:
            known.lacks_since, known.need_at = now, now + (NEED_AFTER_S if known.is_begun else 0.0)

    def _take(self, author: PeerId, known: _Author, batch: Batch, now: float) -> None:
        is_leaving = batch.facts is not None and batch.facts.is_leaving
        if batch.facts is not None and not is_leaving:
            if batch.facts.stay != known.stay:
                known.stay, known.said = batch.facts.stay, -1
            known.facts = batch.facts
            known.sees = frozenset([PeerId(raw.hex()) for raw in batch.facts.players])
            self._elect(now)
            if author in self._players:
                self._events.append(PlayerTold(author, batch.facts))
        if 0 <= known.said < batch.said:
            self._happened(author, known, MessagesMissed(author, batch.said - known.said))
        known.said = batch.said
        if batch.states or batch.objects:
            words = WordsSaid(author, batch.states, batch.objects, is_whole=batch.is_whole)
            self._happened(author, known, words)
        for channel, pieces in batch.messages:
            for flags, data in pieces:
                self._piece(author, known, channel, flags, data)
        if is_leaving and author in self._players:
            self._gone(author, "left")
            self._elect(now)

    def _piece(self, author: PeerId, known: _Author, channel: str, flags: int, data: bytes) -> None:
        is_reliable = not flags & FLEETING
        if is_reliable:
            begun = known.pieces.setdefault(channel, [])
            if len(known.pieces) > BEGUN_MAX:
                del known.pieces[next(iter(known.pieces))]
            if sum(map(len, begun)) <= MESSAGE_BYTES_MAX:
                begun.append(data)
            if flags & MORE:
                return
            data = b"".join(known.pieces.pop(channel))
            known.said += 1
            if len(data) > MESSAGE_BYTES_MAX:
                self._happened(author, known, MessagesMissed(author, 1))
                return
        said = MessageSaid(author, channel, data, is_text=bool(flags & TEXT), is_reliable=is_reliable)
        self._happened(author, known, said)

    def _happened(self, author: PeerId, known: _Author, event: Happened) -> None:
        if author in self._players:
            self._events.append(event)
            return
        size = len(event.data) if isinstance(event, MessageSaid) else 64
        if isinstance(event, WordsSaid):
            size = sum(map(len, [*event.states, *event.objects]))
        if len(known.held) < HELD_MAX and known.held_bytes + size <= HELD_BYTES_MAX:
            known.held.append(event)
            known.held_bytes += size

    # ----------------------------------------------------------------------------------------------------- who is a player

    def _elect(self, now: float) -> None:
        """Who is here by the word of whom we believe. Who is not any more may have said goodbye itself, which comes later."""
        told = {
            author: known.sees for author, known in self._authors.items() if known.facts is not None and known.is_begun
        }
        agree = {author: [other for other in seen if author in told.get(other, ())] for author, seen in told.items()}
        anchor = self._anchor(agree, now)
        players = [] if anchor is None else sorted({anchor, *agree[anchor]})[: self._players_max]
        for author in self._players:
            known = self._authors[author]
            known.doubted_at = math.inf if author in players else min(known.doubted_at, now)
        for author in players:
            if author not in self._players:
                self._seen(author)
        self._count_hosts()

    def _anchor(self, agree: dict[PeerId, list[PeerId]], now: float) -> PeerId | None:
        lately = [author for author in agree if now - self._authors[author].heard_at < DOUBT_S] or list(agree)
        if self._creator in lately:
            return self._creator
        candidates = [author for author in lately if author in self._players] or lately
        return max(candidates, key=lambda author: (len(agree[author]), author), default=None)

    def _seen(self, author: PeerId) -> None:
        known = self._authors[author]
        assert known.facts is not None
        self._players[author] = None
        self._events += [PlayerSeen(author, known.facts), *known.held]
        known.held, known.held_bytes = [], 0

    def _gone(self, author: PeerId, reason: str) -> None:
        known = self._authors[author]
        del self._players[author]
        known.facts, known.doubted_at = None, math.inf
        known.is_begun = False  # if it comes again, it begins with all that holds
        self._events.append(PlayerGone(author, reason))

    def _count_hosts(self) -> None:
        votes: dict[tuple[int, PeerId | None], int] = {}
        for author in self._players:
            facts = self._authors[author].facts
            if facts is not None:
                said = facts.term, PeerId(facts.host.hex()) if facts.host else None
                votes[said] = votes.get(said, 0) + 1
        best = max(votes, key=lambda vote: votes[vote], default=(0, None))
        if votes and votes[best] * 2 > len(self._players) and best[0] >= self._host[0] and best != self._host:
            self._host = best
            self._events.append(HostTold(*best))
