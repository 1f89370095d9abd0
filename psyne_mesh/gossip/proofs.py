"""Two faces: two different records of one version, both signed. Anybody can check that, so it travels, and bars the key.

An honest member signs one record of each version. So it need not be known whom the two were told to, or who is right: who holds
both has the proof, and nobody has to be believed.
"""

from __future__ import annotations

import attrs

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip.codec import Reader, sized
from psyne_mesh.gossip.records import (
    ALIVE,
    RECORD_MAX_BYTES,
    Record,
    RoomKey,
    Verify,
    record_untrusted,
    verify_record_untrusted,
)
from psyne_mesh.identity import PeerId

PROOF_MAX_BYTES = 2 * (RECORD_MAX_BYTES + 2)


@attrs.frozen
class Proof:
    """`peer` signed `one` and `other`; `encoded` is what travels."""

    peer: PeerId
    one: Record = attrs.field(repr=False)
    other: Record = attrs.field(repr=False)
    encoded: bytes = attrs.field(repr=False)


def contradict(one: Record, other: Record) -> bool:
    """Whether nobody honest signs both. Two goodbyes of one version are none: one was left with the server at the start."""
    same = one.peer == other.peer and one.room == other.room and one.order == other.order
    return same and one.state == ALIVE and one.encoded != other.encoded


def prove(one: Record, other: Record) -> Proof:
    """The same bytes, whoever found it."""
    one, other = sorted((one, other), key=lambda record: record.encoded)
    return Proof(one.peer, one, other, sized(one.encoded) + sized(other.encoded))


def proof_untrusted(encoded: bytes) -> Proof:
    """Read a proof; the signatures are NOT yet checked."""
    reader = Reader(encoded, 0)
    one = record_untrusted(reader.sized_untrusted(RECORD_MAX_BYTES))
    other = record_untrusted(reader.sized_untrusted(RECORD_MAX_BYTES))
    reader.done_untrusted()
    if not contradict(one, other):
        raise ProtocolError("these two records do not contradict each other")
    return prove(one, other)


def verify_proof_untrusted(proof: Proof, room: RoomKey, verify: Verify) -> None:
    """Raises `ProtocolError` unless both records are of this room and their key signed them."""
    verify_record_untrusted(proof.one, room, verify)
    verify_record_untrusted(proof.other, room, verify)
