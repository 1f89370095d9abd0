"""The ledger of a room: how many reliable messages each player was owed, and owes us, over all links of its stay. Pure.

A link that ends takes an unknown part of what was under way with it. So who opens the next one states what it had sent before,
and who hears that knows what never came, and says so: then both know the same number. A frame of the link:

`OWED_TAG | tag of the room: 8 | kind: 1 | stay of who hears: 8 | stay of who speaks: 8`, then for each channel
`length: 1 | name | count: 8`. A stay is the `joined_at` of a record. Members of earlier versions pass it over.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket, forget_oldest

OWED_TAG = b"\xff" * 7 + b"\x02"
_HEAD = struct.Struct("!8s8sBQQ")
_COUNT = struct.Struct("!Q")
CHANNELS_MAX = 256  # of one player: as many as a room has
CHANNELS_OF_FRAME = 64  # with the longest names less than 9 KB: every member takes that
NAME_BYTES_MAX = 128
COUNT_MAX = 2**48
ACCOUNTS_MAX = 1024  # players, as many as a room has
# What a link had not delivered when it ended is told as lost after so long, unless the next link says what became of it: a
# handshake takes a second or two, and three tries fit.
UNSURE_S = 10.0
# Frames of one player that are read in a row, and each second: four for each link, one for each loss that is told.
_FRAMES, _FRAMES_PER_S = 64.0, 8.0


class Kind(IntEnum):
    STATED = 0  # so many we had sent you by links that have ended, or would have
    MISSING = 1  # the answer: so many of these never came
    DROPPED = 2  # so many of yours came, and found no room here


class Statement(NamedTuple):
    kind: Kind
    hearer_stay: int
    speaker_stay: int
    counts: dict[str, int]


class Carried(NamedTuple):
    """Of one channel over one link: reliable messages that we sent, that came, and that were not acknowledged at its end."""

    sent: int
    came: int
    unacknowledged: int = 0


Losses = dict[str, int]
"""Messages by the name of their channel."""


class _Account:
    """Of one player. sent, came: over links that have ended. told: losses that our application knows of already. unsure: not
    acknowledged when their link ended. stated: what came of it before we know the player. claimed: what it says it lacks."""

    __slots__ = ("came", "claimed", "frames", "sent", "stated", "stay", "told", "unsure", "unsure_until")

    def __init__(self, now: float) -> None:
        self.stay: int | None = None
        self.sent: Losses = {}
        self.came: Losses = {}
        self.told: Losses = {}
        self.claimed: Losses = {}
        self.unsure: Losses = {}
        self.unsure_until = math.inf
        self.stated: Statement | None = None
        self.frames = TokenBucket(burst=_FRAMES, per_second=_FRAMES_PER_S, now=now)


class Owed:
    """1. `meet` when a player is discovered, `part` when its stay is over. 2. `link_ended` with what
    went over it; `missed` for what no link took. 3. `statement`: frames for each new link. 4. `receive_untrusted`
    what comes; then `settle(peer)` once no earlier link of the peer is left: what never came, and the answer. 5. `overdue` at
    `unsure_until`: of whom nothing more was heard.
    """

    def __init__(self, tag: bytes, stay: int) -> None:
        self._tag = tag
        self._stay = stay
        self._accounts: OrderedDict[PeerId, _Account] = OrderedDict()
        self._unsure_until = math.inf
        self.broadcasts = self.carried = 0  # that others took for us: to everybody, and to one player

    def meet(self, peer: PeerId, stay: int, live: Mapping[str, Carried], now: float) -> Losses:
        """The player is here, for that stay: what is left of an earlier one is lost. `live`: what has gone over links of an
        earlier stay that have not ended yet."""
        account = self._account(peer, now)
        lost: Losses = {}
        if account.stay not in (None, stay):
            lost = account.unsure
            stated, account = account.stated, self._renew(peer, live, now)
            account.stated = stated
        account.stay = stay
        return lost

    def part(self, peer: PeerId, live: Mapping[str, Carried], now: float) -> Losses:
        """Its stay is over: what it was still owed is lost. `live`: what has gone over links of that stay that go on, for
        other rooms, or have not ended yet."""
        account = self._accounts.get(peer)
        lost = {} if account is None else account.unsure
        self._renew(peer, live, now)
        return lost

    def link_ended(self, peer: PeerId, carried: Mapping[str, Carried], now: float) -> None:
        account = self._account(peer, now)
        for name, one in carried.items():
            _add(account.sent, name, one.sent)
            if name in account.came or len(account.came) < CHANNELS_MAX:
                _add(account.came, name, one.came)
            if one.unacknowledged:
                _add(account.unsure, name, one.unacknowledged)
                account.unsure_until = min(account.unsure_until, now + UNSURE_S)
                self._unsure_until = min(self._unsure_until, account.unsure_until)

    def missed(self, peer: PeerId, name: str, now: float, *, told: bool) -> None:
        """A message for the player that no link took. `told`: our application knows."""
        account = self._account(peer, now)
        _add(account.sent, name, 1)
        if told:
            _add(account.told, name, 1)

    def statement(self, peer: PeerId, ending: Iterable[Mapping[str, Carried]]) -> list[bytes]:
        """`ending`: what has gone over earlier links that still flush."""
        account = self._accounts.get(peer)
        if account is None or account.stay is None:
            return []
        sent = dict(account.sent)
        for carried in ending:
            for name, one in carried.items():
                _add(sent, name, one.sent)
        sent = {name: count for name, count in sent.items() if count > 0}
        return self._frames(Kind.STATED, account.stay, sent)

    def dropped(self, peer: PeerId, counts: Losses) -> list[bytes]:
        """Frames: so many of the player's messages came, and found no room."""
        account = self._accounts.get(peer)
        return [] if account is None or account.stay is None else self._frames(Kind.DROPPED, account.stay, counts)

    def receive_untrusted(self, peer: PeerId, frame: bytes, now: float, live: Mapping[str, Carried]) -> Losses:
        """A frame of the player. Of our own messages so many are lost, which the application does not know yet; a statement
        waits for `settle`. `ProtocolError` for what is none, or comes too often. `live`: what has gone over links that have
        not ended: nobody lacks more than was sent, whatever it says."""
        statement = statement_untrusted(frame)
        account = self._account(peer, now)
        if not account.frames.allow(now):
            raise ProtocolError("too many words about losses")
        if statement.hearer_stay != self._stay or account.stay not in (None, statement.speaker_stay):
            return {}  # of another stay, of the player or of ours
        if statement.kind is Kind.STATED:
            counts = {} if account.stated is None else account.stated.counts
            if len(counts.keys() | statement.counts.keys()) > CHANNELS_MAX:
                raise ProtocolError("a statement about more channels than a room has")
            account.stated = statement._replace(counts=counts | statement.counts)
            return {}
        return self._learn(account, statement, live)

    def _learn(self, account: _Account, statement: Statement, live: Mapping[str, Carried]) -> Losses:
        news: Losses = {}
        for name, said in statement.counts.items():
            sent = account.sent.get(name, 0) + (live[name].sent if name in live else 0)
            if statement.kind is Kind.DROPPED:
                sent += self.broadcasts + self.carried  # whichever channels they were of
            count = max(0, min(said, sent - account.claimed.get(name, 0)))
            _add(account.claimed, name, count)
            if statement.kind is Kind.MISSING:
                account.unsure.pop(name, None)
                known = min(count, account.told.get(name, 0))
                _add(account.told, name, -known)
                count -= known
            if count:
                news[name] = count
        return news

    def settle(self, peer: PeerId) -> tuple[Losses, list[bytes]]:
        """No earlier link of the player is left: how many of its messages never came, and the answer, if it stated anything."""
        account = self._accounts.get(peer)
        if account is None or account.stated is None or account.stay is None:
            return {}, []
        stated, account.stated = account.stated, None
        if stated.speaker_stay != account.stay:
            return {}, []
        missing: Losses = {}
        for name, sent in stated.counts.items():
            missing[name] = max(0, sent - account.came.get(name, 0))
            account.came[name] = max(sent, account.came.get(name, 0))
        for name in list(account.came)[: max(0, len(account.came) - CHANNELS_MAX)]:
            del account.came[name]
        answer = self._frames(Kind.MISSING, account.stay, missing)
        return {name: count for name, count in missing.items() if count}, answer

    @property
    def unsure_until(self) -> float:
        """When `overdue` has something to say, at the earliest."""
        return self._unsure_until

    def overdue(self, now: float) -> list[tuple[PeerId, Losses]]:
        """Of whom no next link came in time, and what is lost then, at most."""
        late = []
        for peer, account in self._accounts.items():
            if account.unsure_until <= now:
                account.unsure_until = math.inf
                if account.unsure:
                    late.append((peer, account.unsure))
                    for name, count in account.unsure.items():
                        _add(account.told, name, count)
                    account.unsure = {}
        self._unsure_until = min((account.unsure_until for account in self._accounts.values()), default=math.inf)
        return late

    def _account(self, peer: PeerId, now: float) -> _Account:
        account = self._accounts.get(peer)
        if account is None:
            account = self._accounts[peer] = _Account(now)
            forget_oldest(self._accounts, ACCOUNTS_MAX)
        return account

    def _renew(self, peer: PeerId, live: Mapping[str, Carried], now: float) -> _Account:
        self._accounts.pop(peer, None)
        account = _Account(now)
        for name, one in live.items():
            account.sent[name], account.came[name] = -one.sent, -one.came
        self._accounts[peer] = account
        return account

    def _frames(self, kind: Kind, stay: int, counts: Losses) -> list[bytes]:
        head = _HEAD.pack(OWED_TAG, self._tag, kind, stay, self._stay)
        entries = []
        for name, count in counts.items():
            raw = name.encode()
            entries.append(bytes((len(raw),)) + raw + _COUNT.pack(min(count, COUNT_MAX)))
        starts = range(0, len(entries), CHANNELS_OF_FRAME)
        return [head + b"".join(entries[start : start + CHANNELS_OF_FRAME]) for start in starts]


def room_untrusted(frame: bytes) -> bytes:
    """The tag of the room that a frame is about, or `ProtocolError`."""
    if len(frame) < _HEAD.size or not frame.startswith(OWED_TAG):
        raise ProtocolError("not a word about losses")
    return frame[len(OWED_TAG) : len(OWED_TAG) + 8]


def statement_untrusted(frame: bytes) -> Statement:
    """What a frame says, or `ProtocolError`."""
    room_untrusted(frame)
    _, _, kind, hearer, speaker = _HEAD.unpack_from(frame)
    if kind > max(Kind):
        raise ProtocolError("an unknown word about losses")
    counts: dict[str, int] = {}
    at = _HEAD.size
    while at < len(frame):
        end = at + 1 + frame[at]
        if not 1 <= frame[at] <= NAME_BYTES_MAX or end + _COUNT.size > len(frame) or len(counts) >= CHANNELS_MAX:
            raise ProtocolError("a word about losses is cut short, or about too much")
        try:
            name = frame[at + 1 : end].decode()
        except UnicodeDecodeError as error:
            raise ProtocolError("the name of a channel is no UTF-8") from error
        (count,) = _COUNT.unpack_from(frame, end)
        if count > COUNT_MAX or name in counts:
            raise ProtocolError("a count of losses that cannot be")
        counts[name] = count
        at = end + _COUNT.size
    return Statement(Kind(kind), hearer, speaker, counts)


def _add(counts: Losses, name: str, count: int) -> None:
    counts[name] = counts.get(name, 0) + count
    if not counts[name]:
        del counts[name]
