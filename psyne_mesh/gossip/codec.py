"""The bytes of gossip frames: one version byte, one type byte, then varints and 16-byte ids.

This file knows shapes, not meanings: fixed probe frames in one `struct`, a bounded reader for the rest. Every
`*_untrusted` function raises `ProtocolError` and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import PeerId

VERSION = 2
ID_BYTES = 16
UNRELIABLE_FRAME_MAX = 1100  # one SCTP chunk in one 1191-byte packet: nothing is fragmented on the unreliable channel
FRAME_MAX = 131_072  # the largest frame we read at all; larger ones are dropped whole
# Items in one frame; a frame with more is dropped whole. Each may have a signature to verify, of some 100 to 150 us: no frame
# holds a game up for more than 4 ms.
ITEMS_MAX = 24

# Frame types.
PING, ACK, PING_REQ, INDIRECT = 1, 2, 3, 4
HELLO, RUMOURS, SUMMARY, DIGEST, DELTA = 5, 6, 7, 8, 9
GOSSIP, IHAVE, GRAFT, PRUNE, HAVES = 10, 11, 12, 13, 14
SIGNAL, RELAY = 15, 16
FORWARD_JOIN, SHUFFLE, SHUFFLE_REPLY, DISCONNECT = 17, 18, 19, 20
TOLD, KEEP = 21, 22

# Item types inside HELLO, RUMOURS, DELTA and behind probes.
ITEM_RECORD, ITEM_ACCUSATION, ITEM_GONE, ITEM_PROOF = 1, 2, 3, 4

# version, type, sequence, view hash (zeros: no claim), srtt (0.1 ms, 0: unknown), number of links and LARGE_ROOM,
# coordinate x y z height (0.1 ms) and error (0.001), probes sent and got on this link so far (modulo 65536)
LINKS_MASK, LARGE_ROOM = (
    0x7F,
    0x80,
)  # of the number of links in a probe: the number, and whether the room is a large one
HASH_BYTES = 16  # of a record, or of a view: no two can be found that have the same
NO_HASH = bytes(HASH_BYTES)
PROBE = struct.Struct(f">BBI{HASH_BYTES}sHBhhhHHHH")
_INDIRECT = struct.Struct(">BBI16sB")


def head(kind: int) -> bytes:
    return bytes((VERSION, kind))


def frame_type_untrusted(frame: bytes) -> int:
    """The type of `frame`, after its version and length were found good."""
    if not 2 <= len(frame) <= FRAME_MAX:
        raise ProtocolError("frame length out of bounds")
    if frame[0] != VERSION:
        raise ProtocolError(f"gossip version {frame[0]}, ours is {VERSION}")
    return frame[1]


@lru_cache(maxsize=32_768)
def peer_of(raw: bytes) -> PeerId:
    """The peer id of 16 raw bytes; remembered, because every hop asks it again."""
    return PeerId(raw.hex())


@lru_cache(maxsize=32_768)
def peer_of_key(public_key: bytes) -> PeerId:
    """The same object as `peer_of` gives: tables find it without comparing digits."""
    return peer_of(PeerId.of(public_key).raw)


@lru_cache(maxsize=32_768)
def raw_of(peer: PeerId) -> bytes:
    return bytes.fromhex(peer)


# ------------------------------------------------------------------------------------------------------- primitives


@lru_cache(maxsize=32_768)
def varint(value: int) -> bytes:
    """Unsigned LEB128 of a number below 2**64; remembered, because epochs and sizes come again and again."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def sized(data: bytes) -> bytes:
    return varint(len(data)) + data


class Reader:
    """Reads one frame from left to right; any step over the end raises `ProtocolError`."""

    __slots__ = ("data", "end", "offset")

    def __init__(self, data: bytes, offset: int = 2) -> None:
        self.data = data
        self.offset = offset
        self.end = len(data)

    @property
    def more(self) -> bool:
        return self.offset < self.end

    def u8_untrusted(self) -> int:
        offset = self.offset
        if offset >= self.end:
            raise ProtocolError("frame ends too early")
        self.offset = offset + 1
        return self.data[offset]

    def varint_untrusted(self) -> int:
        data, offset, end = self.data, self.offset, self.end
        value = shift = 0
        while offset < end and shift < 70:
            byte = data[offset]
            offset += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64:
                    break
                self.offset = offset
                return value
            shift += 7
        raise ProtocolError("bad varint")

    def take_untrusted(self, n: int) -> bytes:
        offset = self.offset
        if n > self.end - offset:
            raise ProtocolError("frame ends too early")
        self.offset = offset + n
        return self.data[offset : offset + n]

    def sized_untrusted(self, limit: int) -> bytes:
        n = self.varint_untrusted()
        if n > limit:
            raise ProtocolError(f"field of {n} bytes, the limit is {limit}")
        return self.take_untrusted(n)

    def count_untrusted(self, limit: int) -> int:
        n = self.varint_untrusted()
        if n > limit:
            raise ProtocolError(f"list of {n} entries, the limit is {limit}")
        return n

    def peer_untrusted(self) -> PeerId:
        return peer_of(self.take_untrusted(ID_BYTES))

    def rest(self) -> bytes:
        offset, self.offset = self.offset, self.end
        return self.data[offset:]

    def done_untrusted(self) -> None:
        if self.offset != self.end:
            raise ProtocolError("bytes after the end of the frame")


# ------------------------------------------------------------------------------------------------------------ items


def item(kind: int, data: bytes) -> bytes:
    return b"%c%b%b" % (kind, varint(len(data)), data)


def items_untrusted(frame: bytes, offset: int) -> list[tuple[int, bytes]]:
    """The (type, bytes) items from `offset` to the end. Unknown types are kept: the reader skips them."""
    reader = Reader(frame, offset)
    items: list[tuple[int, bytes]] = []
    end = reader.end
    while offset < end:
        if len(items) == ITEMS_MAX:
            raise ProtocolError("too many items in one frame")
        reader.offset = offset + 1
        size = reader.varint_untrusted()
        start = reader.offset
        if size > end - start:
            raise ProtocolError("item longer than its frame")
        items.append((frame[offset], frame[start : (offset := start + size)]))
    return items


def pack_items(prefix: bytes, items: Iterable[bytes], limit: int) -> list[bytes]:
    """Frames that start with `prefix` and hold whole items, each at most `limit` bytes unless one item is larger."""
    frames: list[bytes] = []
    parts, size = [prefix], len(prefix)
    for data in items:
        if len(parts) > 1 and (size + len(data) > limit or len(parts) > ITEMS_MAX):
            frames.append(b"".join(parts))
            parts, size = [prefix], len(prefix)
        parts.append(data)
        size += len(data)
    if len(parts) > 1:
        frames.append(b"".join(parts))
    return frames


# ----------------------------------------------------------------------------------------------------------- probes


def probe_untrusted(frame: bytes) -> tuple[Any, ...]:
    """(version, type, sequence, view hash, srtt, links, x, y, z, height, error, sent, got); items follow at `PROBE.size`."""
    if len(frame) < PROBE.size:
        raise ProtocolError("probe too short")
    return PROBE.unpack_from(frame)


def ping_req(sequence: int, target: PeerId) -> bytes:
    return _INDIRECT.pack(VERSION, PING_REQ, sequence, raw_of(target), 0)


def indirect(sequence: int, target: PeerId, *, alive: bool) -> bytes:
    """The answer to a PING_REQ: alive (an ack came) or the nack of Lifeguard ("I am here, the target is silent")."""
    return _INDIRECT.pack(VERSION, INDIRECT, sequence, raw_of(target), alive)


def indirect_untrusted(frame: bytes) -> tuple[int, PeerId, bool]:
    """(sequence, target, alive) of a PING_REQ or INDIRECT frame."""
    if len(frame) != _INDIRECT.size:
        raise ProtocolError("indirect probe of a wrong length")
    _, _, sequence, raw, alive = _INDIRECT.unpack(frame)
    return sequence, peer_of(raw), alive == 1
