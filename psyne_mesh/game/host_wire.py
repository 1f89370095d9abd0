"""Words about the host as bytes: MessagePack arrays, by name first."""

from __future__ import annotations

from typing import Annotated

import msgspec

from psyne_mesh.game import host
from psyne_mesh.game.host import Answer, Ask, Beat, Grant, HostWord, Place, Resign
from psyne_mesh.identity import PeerId
from psyne_mesh.words import read_untrusted

_Raw = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Number = Annotated[int, msgspec.Meta(ge=-1, lt=1 << 53)]


class _Wake(msgspec.Struct, frozen=True, array_like=True, tag="wake"):
    """Is there a host?"""


class _Beat(msgspec.Struct, frozen=True, array_like=True, tag="beat"):
    term: _Number
    sequence: _Number
    version: _Number
    roster: Annotated[list[tuple[_Number, _Raw]], msgspec.Meta(max_length=host.MEMBERS_MAX)]


class _Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    term: _Number
    sequence: _Number
    version: _Number


class _Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    term: _Number
    known_term: _Number
    known_version: _Number
    is_trial: bool


class _Grant(msgspec.Struct, frozen=True, array_like=True, tag="grant"):
    term: _Number
    is_granted: bool
    is_trial: bool


class _Resign(msgspec.Struct, frozen=True, array_like=True, tag="resign"):
    term: _Number


_decoder = msgspec.msgpack.Decoder(_Wake | _Beat | _Answer | _Ask | _Grant | _Resign)


def encode(word: HostWord | None) -> bytes:
    """None asks whether there is a host."""
    match word:
        case Beat():
            roster = [(place.seat, place.member.raw) for place in word.roster if isinstance(place.member, PeerId)]
            return msgspec.msgpack.encode(_Beat(word.term, word.sequence, word.version, roster))
        case Answer():
            return msgspec.msgpack.encode(_Answer(word.term, word.sequence, word.version))
        case Ask():
            return msgspec.msgpack.encode(_Ask(word.term, word.known_term, word.known_version, word.is_trial))
        case Grant():
            return msgspec.msgpack.encode(_Grant(word.term, word.is_granted, word.is_trial))
        case Resign():
            return msgspec.msgpack.encode(_Resign(word.term))
        case _:
            return msgspec.msgpack.encode(_Wake())


def decode_untrusted(data: bytes | str) -> HostWord | None:
    """None: somebody asks whether there is a host. Raises ProtocolError."""
    match word := read_untrusted(_decoder, data, "a word about the host"):
        case _Beat():
            roster = tuple([Place(seat, PeerId.from_raw_untrusted(raw)) for seat, raw in word.roster])
            return Beat(word.term, word.sequence, word.version, roster)
        case _Answer():
            return Answer(word.term, word.sequence, word.version)
        case _Ask():
            return Ask(word.term, word.known_term, word.known_version, word.is_trial)
        case _Grant():
            return Grant(word.term, word.is_granted, word.is_trial)
        case _Resign():
            return Resign(word.term)
        case _:
            return None
