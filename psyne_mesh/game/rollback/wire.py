"""What the machines of one simulation say to each other.

Inputs travel unreliably, all that the receiver has not acknowledged in each packet:

    u8 kind | varint acknowledged + 1 | i8 lateness | varint slipped | [varint checked, 8 bytes hash, if kind & 0x80]
    | varint first | runs of (u8 repeats, input) to the end

`kind` is 1; `acknowledged` the newest frame of the receiver's inputs that the sender has; `lateness` by how many
frames the receiver's newest input came too late for the sender lately (below 0: too early); `slipped` by how many
ticks the sender's schedule has slipped; `checked` a frame and `hash` the hash of the confirmed state at its
beginning; `first` the frame of the first input. A held key costs five bytes, however long it is held.

The rest is rare and travels reliably and in order, as tagged MessagePack arrays (`Word`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.words import read_untrusted

INPUT_BYTES_MAX = 64
FRAMES_MAX = 128
"""Of a packet. A machine that is that far behind has been stalled for two seconds: it waits for what it lacks."""
FRAME_LIMIT = 1 << 32
_HASH = 8
_KIND, _HAS_HASH = 1, 0x80


class Inputs(msgspec.Struct, frozen=True, gc=False):
    """The packet above. `checked` is -1 without a hash."""

    acknowledged: int
    lateness: int
    slipped: int
    first: int
    inputs: list[bytes]
    checked: int = -1
    hash: bytes = b""


def encode_inputs(packet: Inputs) -> bytes:
    out = bytearray((_KIND | (_HAS_HASH if packet.checked >= 0 else 0),))
    _put_varint(out, packet.acknowledged + 1)
    out.append(max(-128, min(127, packet.lateness)) & 0xFF)
    _put_varint(out, packet.slipped)
    if packet.checked >= 0:
        _put_varint(out, packet.checked)
        out += packet.hash
    _put_varint(out, packet.first)
    previous, repeats = b"", 0
    for data in packet.inputs:
        if data == previous and repeats < 255:
            repeats += 1
            continue
        if repeats:
            out.append(repeats)
            out += previous
        previous, repeats = data, 1
    if repeats:
        out.append(repeats)
        out += previous
    return bytes(out)


def decode_inputs_untrusted(data: bytes, input_bytes: int) -> Inputs:
    """Work is bounded by the packet and by FRAMES_MAX. Raises ProtocolError."""
    if not data or data[0] & ~_HAS_HASH != _KIND:
        raise ProtocolError("not a packet of inputs")
    acknowledged, at = _take_varint(data, 1)
    if at >= len(data):
        raise ProtocolError("a packet of inputs ends early")
    lateness = data[at] - 256 if data[at] > 127 else data[at]
    slipped, at = _take_varint(data, at + 1)
    checked, digest = -1, b""
    if data[0] & _HAS_HASH:
        checked, at = _take_varint(data, at)
        digest = data[at : at + _HASH]
        at += _HASH
        if len(digest) != _HASH:
            raise ProtocolError("a hash of the state ends early")
    first, at = _take_varint(data, at)
    inputs: list[bytes] = []
    step = 1 + input_bytes
    if (len(data) - at) % step:
        raise ProtocolError(f"inputs have {input_bytes} bytes here")
    for start in range(at, len(data), step):
        repeats = data[start]
        if not repeats or len(inputs) + repeats > FRAMES_MAX:
            raise ProtocolError("too many inputs, or none, in a run")
        inputs += [data[start + 1 : start + step]] * repeats
    return Inputs(acknowledged - 1, lateness, slipped, first, inputs, checked, digest)


def _put_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _take_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= FRAME_LIMIT:
                break
            return value, at
    raise ProtocolError("not a number of a frame")


# ------------------------------------------------------------------------------------------------------------- rare
# words

Frame = Annotated[int, msgspec.Meta(ge=-1, lt=FRAME_LIMIT)]
Seat = Annotated[int, msgspec.Meta(ge=0, lt=256)]
STATE_BYTES_MAX = 1 << 20
"""A state that is compared or handed over. Saving a larger one each tick would not fit into a frame in Python."""
PART_BYTES = 48 << 10
"""Of a state that is handed over: it leaves room for other words on the way."""


class Word(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What is said rarely, reliably and in order."""


class Known(msgspec.Struct, frozen=True, array_like=True):
    """What the sender knows of the inputs of a seat whose player is gone: all up to `last`; the newest from `first`
    on.
    """

    seat: Seat
    last: Frame
    first: Frame
    inputs: Annotated[list[bytes], msgspec.Meta(max_length=FRAMES_MAX)]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """`seat` has a player from `frame` on."""

    seat: Seat
    frame: Frame


class Cut(Word, frozen=True, tag="cut"):
    """The players of these seats are gone, says the sender; this is what it has of them, and who was let in lately."""

    gone: Annotated[list[Known], msgspec.Meta(max_length=64)]
    admitted: Annotated[list[Entry], msgspec.Meta(max_length=64)] = []


class Hashes(Word, frozen=True, tag="hashes"):
    """Hashes of the confirmed states at the beginning of frame `first` and those after it, to find the first that
    differs.
    """

    first: Frame
    hashes: Annotated[list[bytes], msgspec.Meta(max_length=FRAMES_MAX)]


class State(Word, frozen=True, tag="state"):
    """The confirmed state at the beginning of `frame`, to find the field that differs."""

    frame: Frame
    state: Annotated[bytes, msgspec.Meta(max_length=STATE_BYTES_MAX)]


class Proposal(Word, frozen=True, tag="propose"):
    """A player wants to take `seat` from `frame` on. Who agrees goes no further than `frame` before `Admission` or
    `Refusal`.
    """

    seat: Seat
    frame: Frame


class Agreement(Word, frozen=True, tag="agree"):
    seat: Seat
    frame: Frame


class Admission(Word, frozen=True, tag="admit"):
    """Everybody agreed."""

    entry: Entry


class Refusal(Word, frozen=True, tag="refuse"):
    """Nothing comes of the proposal."""

    seat: Seat
    frame: Frame


class Seated(Word, frozen=True, tag="seated"):
    """To who joins: everybody agreed. The seats that have players, and by how much the schedule has slipped."""

    entry: Entry
    players: Annotated[list[Seat], msgspec.Meta(max_length=64)]
    slipped: Frame


class Part(Word, frozen=True, tag="part"):
    """To who watches: one of `count` parts of the confirmed state at the beginning of `frame`."""

    frame: Frame
    index: Annotated[int, msgspec.Meta(ge=0, lt=64)]
    count: Annotated[int, msgspec.Meta(ge=1, le=64)]
    data: Annotated[bytes, msgspec.Meta(max_length=PART_BYTES)]


class Rows(Word, frozen=True, tag="rows"):
    """To who watches: the inputs of all seats, confirmed, of `first` and the frames after it. A row is (bits of the
    seats that have a player, all inputs one after the other).
    """

    first: Frame
    rows: Annotated[
        list[tuple[Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)], bytes]], msgspec.Meta(max_length=FRAMES_MAX)
    ]


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Word] = msgspec.msgpack.Decoder(
    Cut | Hashes | State | Proposal | Agreement | Admission | Refusal | Seated | Part | Rows
)


def encode_word(word: Word) -> bytes:
    return _encoder.encode(word)


def decode_word_untrusted(data: bytes) -> Word:
    """Raises ProtocolError."""
    return read_untrusted(_decoder, data, "a word of a simulation")
