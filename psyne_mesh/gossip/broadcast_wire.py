"""The bytes of broadcast frames: GOSSIP, IHAVE, GRAFT, HAVES (PRUNE has no body)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import blake2b
from typing import TypeAlias

import attrs

from psyne_mesh.errors import ProtocolError
from psyne_mesh.frozen import Frozen
from psyne_mesh.gossip import codec
from psyne_mesh.gossip.codec import Reader, raw_of, sized, varint
from psyne_mesh.gossip.records import RoomKey, Signer, Verify, at_untrusted, instance_bytes, instance_untrusted
from psyne_mesh.identity import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, PeerId

Id: TypeAlias = tuple[PeerId, int, int]
"""(origin, epoch, sequence): the name of a message."""

BROADCAST_DOMAIN = b"psyne-broadcast"
KEEP_DOMAIN = b"psyne-keep"
FLAT = 1  # the origin sent this to everybody itself: in a full mesh nobody forwards
REPAIR = 2  # sent because it was asked for: says nothing about the shape of the tree
BESIDE = 4  # the origin sent this over links beside the tree, too: a copy too many says nothing about the tree's shape
ASK = 1  # HAVES: tell me what I lack
KEEP_EPOCH = 0  # no life of a player: the ids of the tree keeper's empty messages
_AGE_MAX = 1 << 24  # two days; more makes no difference
IDS_MAX = 1024  # in one IHAVE, GRAFT or HAVES
_HEAD = struct.Struct(">BBBBH")  # version, type, hops, flags, age in 10 ms
_AGE_UNITS = 100  # to the second


@attrs.frozen
class Message:
    """One broadcast. `body` is everything behind the hop count, as it travels; `floor` is the oldest sequence of the
    origin that could still be repaired when it was sent. `instance` of the room, and `at`, in Unix seconds, are of its
    signing. The signature is over a hash of the payload: two heads prove that two payloads had one name."""

    origin: PeerId
    public_key: bytes = attrs.field(repr=False)
    instance: int
    at: int
    epoch: int
    sequence: int
    floor: int
    payload: bytes
    body: bytes = attrs.field(repr=False)


class Head(Frozen):
    """What changes on the way: hops so far, flags, and the seconds since the origin sent it, as far as known."""

    hops: int
    flags: int
    age_s: float = 0.0


@attrs.frozen
class Keep:
    """A sign of the tree's keeper: an empty message that keeps the tree in shape. `body` as in `Message`."""

    origin: PeerId
    public_key: bytes = attrs.field(repr=False)
    instance: int
    at: int
    number: int
    body: bytes = attrs.field(repr=False)


class Have(Frozen):
    """The sender holds `origin`'s messages up to `high` without a gap, can repeat those from `low` on, and knows of the
    newest since `age_s`."""

    origin: PeerId
    epoch: int
    high: int
    low: int
    age_s: float


def sign_message(
    room: RoomKey, signer: Signer, epoch: int, sequence: int, floor: int, payload: bytes, instance: int = 0, at: int = 0
) -> Message:
    head = _message_head(signer.public_key, instance, at, epoch, sequence, floor)
    body = head + sized(payload) + signer.sign(BROADCAST_DOMAIN, room.raw + head + _digest(payload))
    return Message(signer.peer_id, signer.public_key, instance, at, epoch, sequence, floor, payload, body)


def verify_message_untrusted(message: Message, room: RoomKey, verify: Verify) -> None:
    m = message
    head = _message_head(m.public_key, m.instance, m.at, m.epoch, m.sequence, m.floor)
    signed = room.raw + head + _digest(m.payload)
    if verify(m.public_key, BROADCAST_DOMAIN, signed, m.body[-SIGNATURE_BYTES:]) != m.origin:
        raise ProtocolError("broadcast signed by another key")


def _message_head(public_key: bytes, instance: int, at: int, epoch: int, sequence: int, floor: int) -> bytes:
    numbers = varint(at) + varint(epoch) + varint(sequence) + varint(sequence - floor)
    return public_key + instance_bytes(instance) + numbers


def _digest(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=32).digest()


def encode_gossip(head: Head, body: bytes) -> bytes:
    age = min(65_535, round(head.age_s * _AGE_UNITS))
    return _HEAD.pack(codec.VERSION, codec.GOSSIP, min(head.hops, 255), head.flags, age) + body


def gossip_untrusted(frame: bytes, payload_max: int) -> tuple[Head, Message]:
    """The signature is NOT yet checked."""
    if len(frame) < _HEAD.size:
        raise ProtocolError("gossip frame too short")
    _, _, hops, flags, age = _HEAD.unpack_from(frame)
    reader = Reader(frame, _HEAD.size)
    public_key = reader.take_untrusted(PUBLIC_KEY_BYTES)
    instance, at = instance_untrusted(reader), at_untrusted(reader)
    epoch, sequence, back = reader.varint_untrusted(), reader.varint_untrusted(), reader.varint_untrusted()
    payload = reader.sized_untrusted(payload_max)
    reader.take_untrusted(SIGNATURE_BYTES)
    reader.done_untrusted()
    if sequence == 0 or back >= sequence:
        raise ProtocolError("broadcast sequences count from 1")
    origin, floor, body = codec.peer_of_key(public_key), sequence - back, frame[_HEAD.size :]
    message = Message(origin, public_key, instance, at, epoch, sequence, floor, payload, body)
    return Head(hops, flags, age / _AGE_UNITS), message


def message_line(identity: Id, hops: int) -> bytes:
    """One line of an IHAVE: the id, and how far it had come."""
    return _id(*identity) + bytes((min(hops, 255),))


def encode_ihave(lines: Iterable[bytes]) -> bytes:
    return codec.head(codec.IHAVE) + b"".join(lines)


def ihave_untrusted(frame: bytes) -> list[tuple[Id, int]]:
    reader = Reader(frame)
    ids: list[tuple[Id, int]] = []
    while reader.more:
        if len(ids) == IDS_MAX:
            raise ProtocolError("too many ids")
        ids.append((_id_untrusted(reader), reader.u8_untrusted()))
    return ids


def encode_graft(ids: Iterable[Id], flags: int) -> bytes:
    return codec.head(codec.GRAFT) + bytes((flags,)) + b"".join(_id(*identity) for identity in ids)


def grafted(frame: bytes) -> int:
    """How many messages a GRAFT of our own asks for, about: a line has 24 bytes while epochs are milliseconds."""
    return max(1, (len(frame) - 3) // 24)


def graft_untrusted(frame: bytes) -> tuple[int, list[Id]]:
    """(flags, ids)."""
    reader = Reader(frame)
    flags = reader.u8_untrusted()
    ids: list[Id] = []
    while reader.more:
        if len(ids) == IDS_MAX:
            raise ProtocolError("too many ids")
        ids.append(_id_untrusted(reader))
    return flags, ids


def sign_keep(room: RoomKey, signer: Signer, number: int, instance: int = 0, at: int = 0) -> Keep:
    signed = signer.public_key + instance_bytes(instance) + varint(at) + varint(number)
    body = signed + signer.sign(KEEP_DOMAIN, room.raw + signed)
    return Keep(signer.peer_id, signer.public_key, instance, at, number, body)


def verify_keep_untrusted(keep: Keep, room: RoomKey, verify: Verify) -> None:
    signed, signature = keep.body[:-SIGNATURE_BYTES], keep.body[-SIGNATURE_BYTES:]
    if verify(keep.public_key, KEEP_DOMAIN, room.raw + signed, signature) != keep.origin:
        raise ProtocolError("keeper's sign signed by another key")


def encode_keep(hops: int, body: bytes) -> bytes:
    return bytes((codec.VERSION, codec.KEEP, min(hops, 255))) + body


def keep_untrusted(frame: bytes) -> tuple[int, Keep]:
    """(hops, sign). The signature is NOT yet checked."""
    reader = Reader(frame)
    hops, public_key = reader.u8_untrusted(), reader.take_untrusted(PUBLIC_KEY_BYTES)
    instance, at, number = instance_untrusted(reader), at_untrusted(reader), reader.varint_untrusted()
    reader.take_untrusted(SIGNATURE_BYTES)
    reader.done_untrusted()
    return hops, Keep(codec.peer_of_key(public_key), public_key, instance, at, number, frame[3:])


def encode_haves(entries: Iterable[Have], flags: int) -> bytes:
    lines = (
        _id(h.origin, h.epoch, h.high) + varint(h.high - h.low + 1) + varint(round(h.age_s * _AGE_UNITS))
        for h in entries
    )
    return codec.head(codec.HAVES) + bytes((flags,)) + b"".join(lines)


def haves_untrusted(frame: bytes) -> tuple[int, list[Have]]:
    """(flags, entries)."""
    reader = Reader(frame)
    flags = reader.u8_untrusted()
    entries: list[Have] = []
    while reader.more:
        if len(entries) == IDS_MAX:
            raise ProtocolError("too many streams")
        origin, epoch, high = _id_untrusted(reader)
        count, age = reader.varint_untrusted(), reader.varint_untrusted()
        if count > high:
            raise ProtocolError("broadcast sequences count from 1")
        entries.append(Have(origin, epoch, high, high - count + 1, min(age, _AGE_MAX) / _AGE_UNITS))
    return flags, entries


def _id(origin: PeerId, epoch: int, sequence: int) -> bytes:
    return raw_of(origin) + varint(epoch) + varint(sequence)


def _id_untrusted(reader: Reader) -> Id:
    return reader.peer_untrusted(), reader.varint_untrusted(), reader.varint_untrusted()
