"""The words between players, gates and spectators, as one MessagePack array each.

Want      a gate to a player: send what you have said from there on
Signed    a player's batch with its signature; `key`, which the gate adds, is the player's public key, for who never met it
Batch     what a player has said since its last one, and who it is
Need      a spectator to the gates: this player's batches do not come from there on
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.words import read_untrusted

PIECE_BYTES = 4 * 1024
"""Of one message in one batch; larger ones come in pieces."""
BATCH_BYTES = 10 * 1024
"""What a batch is filled up to: others carry 16 KiB whole (`GossipConfig.broadcast_max_bytes`)."""
WORD_BYTES_MAX = 16 * 1024
PLAYERS_MAX = 64
CHANNELS_MAX = 256
ENTRIES_MAX = 1024
NUMBER_MAX = 1 << 53
EVER = NUMBER_MAX - 1

TEXT, FLEETING, MORE = 1, 2, 4
"""Of a message: it is text; it was sent unreliably; its next piece follows, so this one is of `PIECE_BYTES`."""

_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=NUMBER_MAX)]
_Raw: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Channel: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Piece: TypeAlias = tuple[
    Annotated[int, msgspec.Meta(ge=0, lt=8)], Annotated[bytes, msgspec.Meta(max_length=PIECE_BYTES)]
]
_Words: TypeAlias = Annotated[
    list[Annotated[bytes, msgspec.Meta(max_length=WORD_BYTES_MAX)]], msgspec.Meta(max_length=64)
]


class Want(msgspec.Struct, frozen=True, array_like=True, tag="want"):
    """session: that the gate has heard of, 0 for none; next: the first batch of it that it lacks. is_new: somebody has nothing
    yet, so say all that holds. until: these alone are to be said again, and the gate does not ask to be the one that is
    spoken to."""

    session: _Number
    next: _Number
    is_new: bool
    until: _Number = EVER


class Signed(msgspec.Struct, frozen=True, array_like=True, tag="signed"):
    body: Annotated[bytes, msgspec.Meta(max_length=WORD_BYTES_MAX)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
    key: Annotated[bytes, msgspec.Meta(max_length=32)] = b""


class Need(msgspec.Struct, frozen=True, array_like=True, tag="need"):
    """As `Want`, of that player; session 0: nothing of it has come yet. until: what came already begins there."""

    author: _Raw
    session: _Number
    next: _Number
    until: _Number = EVER


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """A player about itself and the room. seat: -1 without one. players: whom it sees in the room, itself too; term and host
    (b"": nobody, or nobody asks) as it knows them."""

    name: Annotated[str, msgspec.Meta(max_length=512)]
    metadata: Annotated[bytes, msgspec.Meta(max_length=1024)]
    stay: _Number
    seat: Annotated[int, msgspec.Meta(ge=-1, lt=1024)]
    players: Annotated[list[_Raw], msgspec.Meta(max_length=PLAYERS_MAX)]
    term: _Number = 0
    host: Annotated[bytes, msgspec.Meta(max_length=16)] = b""
    is_leaving: bool = False


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """session: grows each time the player begins anew; number: counts in it, from 0. said: how many reliable messages its
    author said before those in here, so that a gap has a number. is_whole: `facts`, `states` and `objects` are all that
    holds, and who has nothing yet begins here. messages: by channel, in the order in which they were said."""

    session: _Number
    number: _Number
    said: _Number
    is_whole: bool = False
    facts: Facts | None = None
    states: _Words = []
    objects: _Words = []
    messages: Annotated[
        list[tuple[_Channel, Annotated[list[_Piece], msgspec.Meta(max_length=ENTRIES_MAX)]]],
        msgspec.Meta(max_length=CHANNELS_MAX),
    ] = []  # fmt: skip


FeedWord: TypeAlias = Want | Signed | Need
_words = msgspec.msgpack.Decoder(Want | Signed | Need)
_batch = msgspec.msgpack.Decoder(Batch)
_encoder = msgspec.msgpack.Encoder()


def encode(word: FeedWord | Batch) -> bytes:
    return _encoder.encode(word)


def decode_untrusted(data: bytes | str) -> FeedWord:
    """Raises ProtocolError."""
    if len(data) > WORD_BYTES_MAX:
        raise ProtocolError("a word about spectators that is too large")
    word: FeedWord = read_untrusted(_words, data, "a word about spectators")
    return word


def batch_untrusted(body: bytes) -> Batch:
    """Of `Signed.body`, whoever signed it. Raises ProtocolError."""
    if len(body) > WORD_BYTES_MAX:
        raise ProtocolError("a batch for spectators that is too large")
    batch: Batch = read_untrusted(_batch, body, "a batch for spectators")
    if batch.facts is not None and len(batch.facts.host) not in (0, 16):
        raise ProtocolError("a host of another size")
    pieces = [piece for _, pieces in batch.messages for piece in pieces]
    if any(flags & MORE and len(data) != PIECE_BYTES for flags, data in pieces):
        raise ProtocolError("a piece of a message that is cut too small")  # thousands of them would be one message
    return batch
