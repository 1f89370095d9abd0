"""The words about replicated maps, as one MessagePack array each.

Part    a map, or what changed in it since the receiver's copy, in pieces of at most `PART_BYTES`
At      a map stands there; who has another stand asks
Have    the sender's copy stands there: send what comes after
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.words import read_untrusted

PART_BYTES = 8 * 1024
"""Keys and values of one part: others carry it whole to who has no link with us, up to 16 KiB (`GossipConfig`)."""
KEY_BYTES_MAX = 128
VALUE_BYTES_MAX = 8 * 1024
PIECES_MAX = 64
ENTRIES_MAX = 1024
"""Keys of one map, those that were taken away and are remembered included."""
NUMBER_MAX = 1 << 53

_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=NUMBER_MAX)]
_Owner: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=16)]
_Key: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_BYTES_MAX)]
_Value: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=VALUE_BYTES_MAX)] | None


class Stand(msgspec.Struct, frozen=True, array_like=True):
    """Where a map stands: after change `sequence` of `writer` in `term`. Equal stands are equal maps."""

    term: _Number = 0
    sequence: _Number = 0
    writer: _Owner = b""


NOWHERE = Stand()


class Part(msgspec.Struct, frozen=True, array_like=True, tag="part"):
    """owner: whose map, b"" for the room's. `entries`, of which None takes a key away, lead to (`term`, `sequence`) of the
    sender; from `after`, or from nothing if that is None: then this is number `piece` of `pieces`.
    """

    owner: _Owner
    term: _Number
    sequence: _Number
    after: Stand | None
    piece: Annotated[int, msgspec.Meta(ge=0, lt=PIECES_MAX)]
    pieces: Annotated[int, msgspec.Meta(ge=1, le=PIECES_MAX)]
    entries: Annotated[list[tuple[_Key, _Value]], msgspec.Meta(max_length=ENTRIES_MAX)]


class At(msgspec.Struct, frozen=True, array_like=True, tag="at"):
    owner: _Owner
    term: _Number
    sequence: _Number


class Have(msgspec.Struct, frozen=True, array_like=True, tag="have"):
    owner: _Owner
    stand: Stand


StateWord: TypeAlias = Part | At | Have
_decoder = msgspec.msgpack.Decoder(Part | At | Have)
_encoder = msgspec.msgpack.Encoder()


def encode(word: StateWord) -> bytes:
    return _encoder.encode(word)


def decode_untrusted(data: bytes | str) -> StateWord:
    """Raises ProtocolError."""
    word: StateWord = read_untrusted(_decoder, data, "a word about the state of a room")
    if len(word.owner) not in (0, 16):
        raise ProtocolError("a map of nobody")
    if isinstance(word, Part) and word.piece >= word.pieces:
        raise ProtocolError("a piece beyond the last one")
    return word
