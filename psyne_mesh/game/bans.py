"""Who is barred from a room: by an order of its host, or by the votes of more than half of its seats. All of it is signed.

An order is kept in the room's map, behind the host's fence, so newcomers have it and the next host goes on with it. Votes are
counted by each member for itself, from who holds a seat there; who sees a majority bars, and the host writes it down.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Annotated, TypeAlias

import msgspec

from psyne_mesh.game.signed import Signer, signed_untrusted
from psyne_mesh.game.signed import signed as signed_word
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import forget_oldest

DOMAIN = b"psyne-kick"
BARRED = "!"
VOTE_S = 30.0
"""A vote counts for so long: two who are angry on different days are no majority."""
SUBJECTS_MAX = 64
"""Players against whom votes are counted; then the one voted against longest ago is forgotten."""
REASON_MAX = 100
TERM_MAX = 1 << 53

_Raw = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Room = Annotated[bytes, msgspec.Meta(max_length=32)]
_Number = Annotated[int, msgspec.Meta(ge=0, lt=TERM_MAX)]
_Reason = Annotated[str, msgspec.Meta(max_length=REASON_MAX)]


class Order(msgspec.Struct, frozen=True, array_like=True, tag="kick"):
    """The host of `term` bars `subject` from `room`."""

    room: _Room
    subject: _Raw
    term: _Number
    reason: _Reason


class Vote(msgspec.Struct, frozen=True, array_like=True, tag="vote"):
    """The signer would have `subject` barred from `room`; said at `at_ms` of the wall clock that the room goes by."""

    room: _Room
    subject: _Raw
    at_ms: _Number
    reason: _Reason


Said: TypeAlias = Order | Vote
_decoder: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Order | Vote)


def signed(signer: Signer, word: Said) -> bytes:
    return signed_word(signer, DOMAIN, word)


def read_untrusted(data: bytes | str, room: bytes) -> tuple[PeerId, Said]:
    """Who signed it, and what it says of this room. Raises ProtocolError."""
    return signed_untrusted(_decoder, data, DOMAIN, room, "a vote or an order")


class Votes:
    """1. `heard(voter, subject, now)` for each vote, once it is verified. 2. `count(subject, seated, now)` and
    `is_decided(subject, seated, now)`, where `seated` are those who hold a seat, the subject among them.
    """

    def __init__(self) -> None:
        self._until: OrderedDict[PeerId, dict[PeerId, float]] = OrderedDict()

    def heard(self, voter: PeerId, subject: PeerId, now: float) -> None:
        votes = self._until.pop(subject, {})
        votes[voter] = now + VOTE_S
        self._until[subject] = {each: until for each, until in votes.items() if until > now}
        forget_oldest(self._until, SUBJECTS_MAX)

    def count(self, subject: PeerId, seated: Collection[PeerId], now: float) -> int:
        votes = self._until.get(subject, {})
        return sum(until > now and voter in seated and voter != subject for voter, until in votes.items())

    def is_decided(self, subject: PeerId, seated: Collection[PeerId], now: float) -> bool:
        return self.count(subject, seated, now) >= needed(seated)


def needed(seated: Collection[PeerId]) -> int:
    """More than half of the seats that are held."""
    return len(seated) // 2 + 1
