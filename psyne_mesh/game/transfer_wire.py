"""The words of file transfers, as one MessagePack array each."""

from __future__ import annotations

import math
from typing import Annotated, Final, TypeAlias

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.names import PLAIN_PATTERN
from psyne_mesh.words import read_untrusted

FILE_BYTES_MAX: Final = 64 * 2**20
CHUNK_BYTES: Final = 4096
"""Three or four packets: what is sent at once delays the position behind it by as much."""
NAME_MAX = 200
REASON_MAX = 200
DIGEST_BYTES = 32

_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
_Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=FILE_BYTES_MAX)]


class Offer(msgspec.Struct, frozen=True, array_like=True, tag="offer"):
    """SHA-256 and size of file `number`."""

    number: _Number
    size: _Size
    digest: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
    name: Annotated[str, msgspec.Meta(max_length=NAME_MAX, pattern=PLAIN_PATTERN)]


class Want(msgspec.Struct, frozen=True, array_like=True, tag="want"):
    """The receiver has `held` bytes and takes what comes up to `limit`; `is_anew`: begin again there. `stamp`: its clock."""

    number: _Number
    held: _Size
    limit: _Size
    stamp: float
    is_anew: bool = False


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag="chunk"):
    """`stamp` is that of the `Want` which let it go."""

    number: _Number
    offset: _Size
    stamp: float
    data: Annotated[bytes, msgspec.Meta(max_length=CHUNK_BYTES)]


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """The receiver has all of it; or takes no more of it, if `reason` says why."""

    number: _Number
    reason: Annotated[str, msgspec.Meta(max_length=REASON_MAX)]


class Stop(msgspec.Struct, frozen=True, array_like=True, tag="stop"):
    """The sender gives it up."""

    number: _Number


TransferWord: TypeAlias = Offer | Want | Chunk | Done | Stop
_decoder = msgspec.msgpack.Decoder(Offer | Want | Chunk | Done | Stop)
_encoder = msgspec.msgpack.Encoder()


def encode(word: TransferWord) -> bytes:
    return _encoder.encode(word)


def decode_untrusted(data: bytes | str) -> TransferWord:
    """Raises ProtocolError."""
    word: TransferWord = read_untrusted(_decoder, data, "a word about a file")
    if isinstance(word, Want | Chunk) and not math.isfinite(word.stamp):
        raise ProtocolError("a word about a file from no time")
    return word
