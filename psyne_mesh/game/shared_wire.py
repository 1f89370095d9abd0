"""The messages of shared objects as bytes: a head with acknowledgements, then records of classes and objects.

head      version u8 | flags u8 | session u32 | number u32 | heard session u32 | heard u32 | heard before u32
          | stamp u64 (us of the sender's clock) | interval u8 (ms)
record    varint(object << 3 | at rest << 2 | kind), then by kind; at rest: none of its smooth fields is moving
          CLASS    length varint | announcement          (`object` is the number of the class)
          FULL     class varint | term varint | all fields
          DELTA    mask, 1 bit a field, in whole bytes | the fields that it names
          REMOVED  nothing
fields    the bits of numbers, most significant first, filled up to whole bytes; if the mask names fields of MessagePack,
          length varint | one array of them
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.game.schema import OBJECT_BYTES_MAX

Wire = int | bytes

VERSION = 1
RESYNC = 1  # flag: we do not know what your last message builds on, so begin anew
HEAD = struct.Struct(">BBIIIIIQB")
CLASS, FULL, DELTA, REMOVED = range(4)
AT_REST = 4
# A message with all records of its limits: 4 KiB of fields, an announcement of 64 fields; senders split at `RECORDS_BYTES`.
MESSAGE_BYTES_MAX = 16_000
VARINT_SHIFT_MAX = 28  # five bytes, so 35 bits: an object's number is one of 32
_RAW = msgspec.msgpack.Decoder(list[msgspec.Raw])


class Head:
    """The head of one message. `number` 0 is a message that carries nothing but acknowledgements, and gets none."""

    def __init__(
        self, flags: int, session: int, number: int, heard_session: int, heard: int, before: int, stamp: float,
        interval_s: float,
    ) -> None:  # fmt: skip
        self.flags = flags
        self.session = session
        self.number = number
        self.heard_session = heard_session
        self.heard = heard
        self.before = before
        self.stamp = stamp
        self.interval_s = interval_s

    def encoded(self) -> bytes:
        return HEAD.pack(
            VERSION, self.flags, self.session, self.number, self.heard_session, self.heard, self.before,
            int(self.stamp * 1e6), max(1, min(255, round(self.interval_s * 1000))),
        )  # fmt: skip

    @classmethod
    def parse_untrusted(cls, data: bytes) -> Head:
        if len(data) < HEAD.size or data[0] != VERSION or len(data) > MESSAGE_BYTES_MAX:
            raise ProtocolError("not a message of shared objects")
        _, flags, session, number, heard_session, heard, before, stamp, interval = HEAD.unpack_from(data)
        if interval == 0 or stamp > 2**62:
            raise ProtocolError("shared objects with an impossible stamp or interval")
        return cls(flags, session, number, heard_session, heard, before, stamp / 1e6, interval / 1000)


def varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def varint_untrusted(data: bytes, at: int) -> tuple[int, int]:
    """The number and where it ends."""
    number = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > VARINT_SHIFT_MAX:
            break
    raise ProtocolError("a number that ends nowhere")


def fields_encoded(widths: Sequence[int], mask: int, values: Sequence[Wire]) -> bytes:
    """Those fields of `values` that the mask names, the first field being its lowest bit."""
    bits = 0
    length = 0
    packed: list[bytes] = []
    for number, width in enumerate(widths):
        if not mask >> number & 1:
            continue
        value = values[number]
        if isinstance(value, bytes):
            packed.append(value)
        else:
            bits = bits << width | value
            length += width
    whole = (length + 7) // 8
    out = (bits << (whole * 8 - length)).to_bytes(whole, "big")
    if not packed:
        return out
    head = bytes((0x90 | len(packed),)) if len(packed) < 16 else b"\xdc" + len(packed).to_bytes(2, "big")
    section = head + b"".join(packed)
    return out + varint(len(section)) + section


def fields_untrusted(widths: Sequence[int], mask: int, data: bytes, at: int) -> tuple[dict[int, Wire], int]:
    """What each named field has on the wire, and where the fields end."""
    if mask >> len(widths):
        raise ProtocolError("a mask with more fields than the class has")
    named = [number for number in range(len(widths)) if mask >> number & 1]
    length = sum([widths[number] for number in named])
    whole = (length + 7) // 8
    if at + whole > len(data):
        raise ProtocolError("an object ends inside its numbers")
    bits = int.from_bytes(data[at : at + whole], "big") >> (whole * 8 - length)
    at += whole
    values: dict[int, Wire] = {}
    packed = []
    for number in reversed(named):
        width = widths[number]
        if width:
            values[number] = bits & ((1 << width) - 1)
            bits >>= width
        else:
            packed.append(number)
    if not packed:
        return values, at
    size, at = varint_untrusted(data, at)
    if size > 2 * OBJECT_BYTES_MAX or at + size > len(data):
        raise ProtocolError("an object ends inside its fields")
    try:
        section = _RAW.decode(data[at : at + size])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ProtocolError(f"fields that are no MessagePack: {error}") from error
    if len(section) != len(packed):
        raise ProtocolError("an object with more or fewer fields than it says")
    for number, raw in zip(reversed(packed), section):
        values[number] = bytes(raw)
    return values, at + size
