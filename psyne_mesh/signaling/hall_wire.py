"""What the members of a hall say to each other about rooms: the messages of a signaling server, in words of gossip. Pure.

    who asks                      who places
    Ask(number, message)    ->
                            <-    Answer(number, message), in parts where it is long; a `pong` means that others are waited for
                            <-    News(message)

and `Carried` goes from member to member: a sealed envelope, with the record of who cannot be known in that room yet.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from psyne_mesh.signaling.messages import Key, Record
from psyne_mesh.words import read_untrusted

PART_BYTES = 12_000  # a signal over the mesh is 16 KiB at most, and some of that is its seal
PARTS_MAX = 32  # a hundred rooms with as much metadata as there may be
CARRIED_CHARS_MAX = 16_384

Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Frame = Annotated[bytes, msgspec.Meta(max_length=PART_BYTES)]


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """`frame`: a message of a client. Said again until there is an answer; `number` is drawn at random, once for each."""

    number: Number
    frame: Frame


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """`frame`: one of the parts of a message of a server."""

    number: Number
    part: Annotated[int, msgspec.Meta(ge=0, lt=PARTS_MAX)]
    parts: Annotated[int, msgspec.Meta(ge=1, le=PARTS_MAX)]
    frame: Frame


class News(msgspec.Struct, frozen=True, array_like=True, tag="news"):
    """`frame`: what a server tells unasked. It may be lost: gossip of the room finds out by itself."""

    frame: Frame


class Carried(msgspec.Struct, frozen=True, array_like=True, tag="carried"):
    """For a member of `room` that we have no other way to; `record` is ours in that room."""

    room: Key
    record: Record
    envelope: Annotated[str, msgspec.Meta(max_length=CARRIED_CHARS_MAX)]


HallWord = Ask | Answer | News | Carried


def encode(word: HallWord) -> bytes:
    return msgspec.msgpack.encode(word)


def decode_untrusted(data: bytes) -> HallWord:
    """Raises `ProtocolError`."""
    return read_untrusted(_decoder, data, "a word of a hall")


def parts_of(number: int, frame: bytes) -> list[bytes]:
    """An answer as words; nothing where it is longer than any may be."""
    pieces = [frame[at : at + PART_BYTES] for at in range(0, len(frame), PART_BYTES)]
    if len(pieces) > PARTS_MAX:
        return []
    return [encode(Answer(number, place, len(pieces), piece)) for place, piece in enumerate(pieces)]


_decoder: msgspec.msgpack.Decoder[HallWord] = msgspec.msgpack.Decoder(HallWord)
