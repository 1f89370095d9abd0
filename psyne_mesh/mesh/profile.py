"""What a player says about itself inside its signed membership record: a region, a skill and a little more."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.gossip.records import Record
from psyne_mesh.words import read_untrusted

# The record must fit into one unreliable frame beside others (gossip records carry at most this much metadata).
PROFILE_BYTES_MAX = 512
PROOF_ROOM_BYTES = 32  # of them, for a proof and its name


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """Claims, not proofs: only the peer id behind them is proved. `skill` is a rating in the game's own points."""

    region: str = ""
    skill: tuple[float, float] | None = None
    metadata: dict[str, str] = {}
    proof: bytes = b""  # of a locked room: that we know its secret
    no_tunnel: bool = False  # a browser: no datagram of ours gets into its connections but by ICE

    @classmethod
    def make(
        cls,
        region: str | None,
        skill_range: tuple[float, float] | None,
        metadata: Mapping[str, str] | None,
    ) -> Profile:
        """Raises `InvalidConfig` when the encoded profile is over its limit."""
        try:
            profile = cls(region or "", skill_range, dict(metadata or {}))
            size = len(profile.encode())
            cls.parse_untrusted(profile.encode())
        except (TypeError, ValueError, OverflowError, ProtocolError) as error:  # such as a lone surrogate, or 10**400
            raise InvalidConfig(f"region and metadata must be text, skill_range two numbers: {error}") from error
        if size > PROFILE_BYTES_MAX - PROOF_ROOM_BYTES:
            limit = PROFILE_BYTES_MAX - PROOF_ROOM_BYTES
            raise InvalidConfig(f"region and metadata take {size} bytes; the limit is {limit}")
        return profile

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def parse_untrusted(cls, data: bytes) -> Profile:
        profile = read_untrusted(_DECODER, data, "a player profile")
        if profile.skill is not None and not all(map(math.isfinite, profile.skill)):
            raise ProtocolError("a player's skill is no number")
        return profile


def takes_tunnels(record: Record | None) -> bool:
    """Whether datagrams that others carry reach the member, as far as its record says."""
    try:
        return record is None or not Profile.parse_untrusted(record.metadata).no_tunnel
    except ProtocolError:
        return True


_DECODER = msgspec.msgpack.Decoder(Profile)
