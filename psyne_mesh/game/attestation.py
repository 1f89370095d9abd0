"""A snapshot of a game, attested: members sign the hash of what they hold, and who joins late loads what two of them signed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from psyne_mesh.game.signed import Signer, signed, signed_untrusted
from psyne_mesh.game.transfer_wire import DIGEST_BYTES, FILE_BYTES_MAX
from psyne_mesh.identity import PeerId

DOMAIN = b"psyne-snapshot"
VERSIONS_MAX = 4
"""Snapshots that a member holds: two members that save at the same ticks have one in common though one of them is behind."""
VERSION_MAX = 1 << 53

_Number = Annotated[int, msgspec.Meta(ge=0, lt=VERSION_MAX)]


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """The signer's state of the room at `version` has this SHA-256 and so many bytes."""

    room: Annotated[bytes, msgspec.Meta(max_length=32)]
    version: _Number
    size: Annotated[int, msgspec.Meta(ge=0, le=FILE_BYTES_MAX)]
    digest: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


_decoder = msgspec.msgpack.Decoder(Claim)


def attested(signer: Signer, claim: Claim) -> bytes:
    return signed(signer, DOMAIN, claim)


def claim_untrusted(data: bytes, room: bytes) -> tuple[PeerId, Claim]:
    """Who signed it, and what. Raises ProtocolError."""
    return signed_untrusted(_decoder, data, DOMAIN, room, "the word about a snapshot")


class Choice:
    """The snapshot to load, and whose signatures say so. others: who signed another one of the same version."""

    def __init__(self, claim: Claim, signers: frozenset[PeerId], others: frozenset[PeerId]) -> None:
        self.claim = claim
        self.signers = signers
        self.others = others


def choose(claims: Mapping[PeerId, Iterable[Claim]], signers_min: int) -> Choice | None:
    """The newest that so many have signed alike; of one version the one that most have signed, and none if two have as many."""
    by_version: dict[int, dict[tuple[int, bytes], set[PeerId]]] = {}
    for peer, theirs in claims.items():
        for claim in theirs:
            by_version.setdefault(claim.version, {}).setdefault((claim.size, claim.digest), set()).add(peer)
    for version in sorted(by_version, reverse=True):
        ranked = sorted(by_version[version].items(), key=lambda each: len(each[1]), reverse=True)
        (size, digest), signers = ranked[0]
        if len(signers) < signers_min or (len(ranked) > 1 and len(ranked[1][1]) == len(signers)):
            continue
        room = next(claim.room for theirs in claims.values() for claim in theirs if claim.version == version)
        others = frozenset(peer for _, several in ranked[1:] for peer in several)
        return Choice(Claim(room, version, size, digest), frozenset(signers), others)
    return None
