"""The two things that members sign and everybody passes on: records ("I am") and accusations ("it is silent").

Order of records of one key: (epoch, incarnation, state rank). Only the subject can raise either number, because only it
can sign. An accusation names the (epoch, incarnation) it speaks of, so a newer record refutes it by being newer.

Each names the room, and the instance of it that its signer was in (see `freshness`); a record says when it was signed, too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Literal, Protocol, TypeAlias

import attrs

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.frozen import Frozen
from psyne_mesh.gossip.codec import HASH_BYTES, ID_BYTES, Reader, peer_of, peer_of_key, raw_of, sized, varint
from psyne_mesh.identity import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, PeerId, verify_untrusted

RECORD_DOMAIN = b"psyne-record"
ACCUSATION_DOMAIN = b"psyne-accusation"
NAME_MAX_BYTES = 64
METADATA_MAX_BYTES = 512
RECORD_MAX_BYTES = 1040  # 1030 is the largest that our own limits can make; fits behind a probe in 1100 bytes
ACCUSATION_MAX_BYTES = 160
SEATS_MAX = 1024
BALLOT_MAX = 32  # seats that one ballot names; larger rooms go without ballots
BALLOT_ID_BYTES = 6  # of the holder's id: enough to tell apart those who claim one seat

ALIVE, LEAVING = 0, 1
LEAVE_REASONS: tuple[LeavingReason, ...] = ("left", "capacity", "kicked")  # what a leaving record says, by number
SUSPECT, DOWN = 0, 1  # what an accusation says

_RECORD_VERSION = 2
_INSTANCE = struct.Struct(">Q")
AT_MAX = 1 << 40  # seconds since 1970, for 34,000 years
_COORDINATES = struct.Struct(">hhhHH")

LeavingReason: TypeAlias = Literal["left", "capacity", "kicked"]

Verify: TypeAlias = Callable[[bytes, bytes, bytes, bytes], PeerId]
"""(public key, domain, payload, signature) -> the signer's id, or `ProtocolError`: a `Verifier`, or a cheap stand-in
for simulations."""


class Verifier:
    """The real one: ed25519."""

    def __call__(self, public_key: bytes, domain: bytes, payload: bytes, signature: bytes) -> PeerId:
        return verify_untrusted(public_key, domain, payload, signature)


class Signer(Protocol):
    """What a node needs of an identity: `identity.Identity`, or a cheap stand-in for simulations."""

    @property
    def peer_id(self) -> PeerId: ...
    @property
    def public_key(self) -> bytes: ...
    def sign(self, domain: bytes, payload: bytes, /) -> bytes: ...


class RoomKey(Frozen):
    """16 bytes that name a room on the wire. `RoomKey.of(b"any bytes")` hashes other lengths."""

    raw: bytes

    @classmethod
    def of(cls, room: bytes | RoomKey) -> RoomKey:
        if isinstance(room, RoomKey):
            return room
        return cls(room if len(room) == ID_BYTES else sha256(b"psyne-room" + room).digest()[:ID_BYTES])


@attrs.frozen(eq=False)
class Record:
    """One signed statement of a member about itself; `encoded` is what travels.

    `instance`: of the room, 0 before its signer knew it; `at`: Unix seconds, when it was signed.
    `seat` is the claimed seat number or None; `ballot` says whom it sees in which seat; `coordinates` are Vivaldi's
    (x, y, z, height, error) in wire units, or None; `lifetime` is in seconds, from the moment the receiver first saw the
    record; `version_hash` names the bytes.
    """

    peer: PeerId
    room: bytes
    instance: int
    at: int
    public_key: bytes = attrs.field(repr=False)
    epoch: int
    incarnation: int
    state: int
    reason: int
    joined_at: int
    seat: int | None
    ballot: tuple[tuple[int, bytes], ...]
    lifetime: int
    coordinates: tuple[int, int, int, int, int] | None
    name: str
    metadata: bytes
    body: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)
    encoded: bytes = attrs.field(repr=False)
    order: tuple[int, int, int] = attrs.field(repr=False)
    version_hash: bytes = attrs.field(repr=False)

    def encode(self) -> bytes:
        """The bytes that travel, and that `Node.learn` takes."""
        return self.encoded

    @property
    def leave_reason(self) -> LeavingReason:
        return LEAVE_REASONS[self.reason]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.encoded == other.encoded

    def __hash__(self) -> int:
        return hash(self.version_hash)


@attrs.frozen(kw_only=True)
class OwnState:
    """What a node says about itself; `sign` makes the record of it."""

    epoch: int
    incarnation: int = 0
    state: int = ALIVE
    reason: int = 0
    joined_at: int = 0
    seat: int | None = None
    ballot: tuple[tuple[int, bytes], ...] = ()
    lifetime: int = 300
    coordinates: tuple[int, int, int, int, int] | None = None
    name: str = ""
    metadata: bytes = b""

    def __attrs_post_init__(self) -> None:
        try:
            name_bytes = len(self.name.encode())
        except (AttributeError, UnicodeEncodeError) as error:
            raise InvalidConfig(f"a name is text without lone surrogates: {error}") from error
        if name_bytes > NAME_MAX_BYTES or len(self.metadata) > METADATA_MAX_BYTES:
            raise InvalidConfig(f"a name is at most {NAME_MAX_BYTES} bytes of UTF-8, metadata {METADATA_MAX_BYTES}")

    def sign(self, room: RoomKey, signer: Signer, instance: int = 0, at: int = 0) -> Record:
        parts = [
            bytes((_RECORD_VERSION,)),
            room.raw,
            _INSTANCE.pack(instance),
            varint(at),
            signer.public_key,
            varint(self.epoch),
            varint(self.incarnation),
            bytes((self.state, self.reason)),
            varint(self.joined_at),
            varint(0 if self.seat is None else self.seat + 1),
            varint(len(self.ballot)),
            *(varint(seat) + holder for seat, holder in self.ballot),
            varint(self.lifetime),
            b"\0" if self.coordinates is None else b"\1" + _COORDINATES.pack(*self.coordinates),
            sized(self.name.encode()),
            sized(self.metadata),
        ]
        body = b"".join(parts)
        return record_untrusted(body + signer.sign(RECORD_DOMAIN, body))


@lru_cache(maxsize=8192)
def record_untrusted(encoded: bytes) -> Record:
    """Read a record; the signature is NOT yet checked. Remembered: the same bytes come by many ways."""
    if not SIGNATURE_BYTES < len(encoded) <= RECORD_MAX_BYTES:
        raise ProtocolError("record length out of bounds")
    body, signature = encoded[:-SIGNATURE_BYTES], encoded[-SIGNATURE_BYTES:]
    reader = Reader(body, 0)
    if reader.u8_untrusted() != _RECORD_VERSION:
        raise ProtocolError("unknown record version")
    room = reader.take_untrusted(ID_BYTES)
    instance, at = instance_untrusted(reader), at_untrusted(reader)
    public_key = reader.take_untrusted(PUBLIC_KEY_BYTES)
    epoch, incarnation = reader.varint_untrusted(), reader.varint_untrusted()
    state, reason = reader.u8_untrusted(), reader.u8_untrusted()
    if state > LEAVING or reason >= len(LEAVE_REASONS):
        raise ProtocolError("unknown record state")
    joined_at, seat = reader.varint_untrusted(), reader.varint_untrusted()
    ballot = tuple(
        (reader.varint_untrusted(), reader.take_untrusted(BALLOT_ID_BYTES))
        for _ in range(reader.count_untrusted(BALLOT_MAX))
    )
    lifetime = reader.varint_untrusted()
    if seat > SEATS_MAX or not 1 <= lifetime <= 86_400:
        raise ProtocolError("record seat or lifetime out of bounds")
    coordinates = None
    if reader.u8_untrusted():
        coordinates = _COORDINATES.unpack(reader.take_untrusted(_COORDINATES.size))
    raw_name, metadata = reader.sized_untrusted(NAME_MAX_BYTES), reader.sized_untrusted(METADATA_MAX_BYTES)
    reader.done_untrusted()
    try:
        name = raw_name.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("record name is not UTF-8") from error
    return Record(
        peer=peer_of_key(public_key),
        room=room,
        instance=instance,
        at=at,
        public_key=public_key,
        epoch=epoch,
        incarnation=incarnation,
        state=state,
        reason=reason,
        joined_at=joined_at,
        seat=seat - 1 if seat else None,
        ballot=ballot,
        lifetime=lifetime,
        coordinates=coordinates,
        name=name,
        metadata=metadata,
        body=body,
        signature=signature,
        encoded=encoded,
        order=(epoch, incarnation, state),
        version_hash=blake2b(encoded, digest_size=HASH_BYTES).digest(),
    )


def verify_record_untrusted(record: Record, room: RoomKey, verify: Verify) -> None:
    """Raises `ProtocolError` unless `record` is of this room and its own key signed it."""
    if record.room != room.raw:
        raise ProtocolError("record of another room")
    if verify(record.public_key, RECORD_DOMAIN, record.body, record.signature) != record.peer:
        raise ProtocolError("record signed by another key")


def instance_bytes(instance: int) -> bytes:
    return _INSTANCE.pack(instance)


def instance_untrusted(reader: Reader) -> int:
    """Of the room, as every signed statement names it."""
    return int.from_bytes(reader.take_untrusted(_INSTANCE.size), "big")


def at_untrusted(reader: Reader) -> int:
    at = reader.varint_untrusted()
    if at >= AT_MAX:
        raise ProtocolError("signed at no time that there will ever be")
    return at


@lru_cache(maxsize=32_768)
def rank(room: bytes, peer: PeerId) -> bytes:
    """H(room, peer), by which members divide tasks without a word. Remembered: who looks for the lowest looks at everybody."""
    return blake2b(peer.encode(), key=room, digest_size=8).digest()


# ------------------------------------------------------------------------------------------------------ accusations


@attrs.frozen
class Accusation:
    """`accuser` says: `subject`, last known at (epoch, incarnation), is silent (SUSPECT) or gone (DOWN). It has no date: it
    counts for that version only, and that is a record's, which has one."""

    instance: int
    subject: PeerId
    epoch: int
    incarnation: int
    verdict: int
    accuser: PeerId
    signature: bytes = attrs.field(repr=False)
    encoded: bytes = attrs.field(repr=False)


def accuse(
    room: RoomKey, signer: Signer, subject: PeerId, epoch: int, incarnation: int, verdict: int, instance: int = 0
) -> Accusation:
    version = varint(epoch) + varint(incarnation)
    head = b"".join((_INSTANCE.pack(instance), raw_of(subject), version, bytes((verdict,)), raw_of(signer.peer_id)))
    signature = signer.sign(ACCUSATION_DOMAIN, room.raw + head)
    return Accusation(instance, subject, epoch, incarnation, verdict, signer.peer_id, signature, head + signature)


@lru_cache(maxsize=8192)
def accusation_untrusted(encoded: bytes) -> Accusation:
    """Read an accusation; the signature is NOT yet checked."""
    if not SIGNATURE_BYTES < len(encoded) <= ACCUSATION_MAX_BYTES:
        raise ProtocolError("accusation length out of bounds")
    reader = Reader(encoded, 0)
    instance = instance_untrusted(reader)
    subject = reader.peer_untrusted()
    epoch, incarnation, verdict = reader.varint_untrusted(), reader.varint_untrusted(), reader.u8_untrusted()
    accuser = peer_of(reader.take_untrusted(ID_BYTES))
    signature = reader.take_untrusted(SIGNATURE_BYTES)
    reader.done_untrusted()
    if verdict > DOWN or accuser == subject:
        raise ProtocolError("senseless accusation")
    return Accusation(instance, subject, epoch, incarnation, verdict, accuser, signature, encoded)


def verify_accusation_untrusted(accusation: Accusation, room: RoomKey, public_key: bytes, verify: Verify) -> None:
    """Raises `ProtocolError` unless the owner of `public_key` is the accuser and signed for this room."""
    payload = room.raw + accusation.encoded[:-SIGNATURE_BYTES]
    if verify(public_key, ACCUSATION_DOMAIN, payload, accusation.signature) != accusation.accuser:
        raise ProtocolError("accusation signed by another key")
