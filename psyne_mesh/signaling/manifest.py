"""What a room is, signed by the player who made it: limits, policy, version, and the code by which friends name it. Pure.

The server orders and lists; it is not believed. A joiner checks the manifest before it enters, and the lists carry it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import msgspec

from psyne_mesh.errors import InvalidConfig, ManifestRefused, ProtocolError
from psyne_mesh.identity import Identity, PeerId, verify_untrusted
from psyne_mesh.names import PART_PATTERN
from psyne_mesh.signaling.base64 import from_base64_untrusted, to_base64

if TYPE_CHECKING:
    import random

# open: anybody; code: who knows the code; password: who proves to know it; invite: whom its creator has invited.
Policy = Literal["open", "code", "password", "invite"]

MANIFEST_DOMAIN = b"psyne-manifest"
CODE_CHARS = (
    8  # 40 bits: with 10,000 rooms, one guess in 100 million finds one, and a client may ask ten times a second
)
SPECTATORS_MAX = 256  # whose records one list of members holds
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: nothing that is read as something else
CODE_PATTERN = f"[{_ALPHABET}]{{{CODE_CHARS}}}"
_MISREAD = str.maketrans("OIL", "011", " -")
_PLAIN = r"\A[ !#-\[\]-~]*\Z"

Code = Annotated[str, msgspec.Meta(pattern=rf"\A(?:{CODE_PATTERN})?\Z")]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a room's creator signs beside name, application, region, `max_players`, skill range and metadata.

    code: names the room to friends; chosen at random by its creator. lock: what a proof at the door is compared with, see
    `locks.py`. spectators: so many may watch. creator: its public key; empty with `signature` for a room that nobody answers
    for, which is open.
    """

    code: Code = ""
    app_version: Annotated[str, msgspec.Meta(max_length=64, pattern=PART_PATTERN)] = ""
    policy: Policy = "open"
    visible: bool = True
    lock: Annotated[str, msgspec.Meta(max_length=128, pattern=_PLAIN)] = ""
    spectators: Annotated[int, msgspec.Meta(ge=0, le=SPECTATORS_MAX)] = 0
    creator: Annotated[str, msgspec.Meta(max_length=64, pattern=_PLAIN)] = ""
    signature: Annotated[str, msgspec.Meta(max_length=128, pattern=_PLAIN)] = ""

    @property
    def creator_id(self) -> PeerId | None:
        """Who made the room, or None where nobody signed."""
        try:
            return PeerId.of(from_base64_untrusted(self.creator)) if self.creator else None
        except ProtocolError:
            return None


class Described(Protocol):
    """A `JoinRequest` or a `RoomInfo`."""

    @property
    def name(self) -> str: ...
    @property
    def app_id(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def instance(self) -> str: ...
    @property
    def max_players(self) -> int: ...
    @property
    def skill_range(self) -> tuple[float, float] | None: ...
    @property
    def metadata(self) -> Mapping[str, object]: ...
    @property
    def manifest(self) -> Manifest: ...


def new_code(rng: random.Random) -> str:
    return "".join(rng.choice(_ALPHABET) for _ in range(CODE_CHARS))


def shown_code(code: str) -> str:
    """As people read it aloud: `K7QM-3FHT`."""
    half = CODE_CHARS // 2
    return f"{code[:half]}-{code[half:]}" if code else ""


def code_of(text: str) -> str:
    """A code as a person typed it, or `InvalidConfig`: small letters, spaces, hyphens and O for 0 are all right."""
    code = text.upper().translate(_MISREAD)
    if len(code) != CODE_CHARS or not set(code) <= set(_ALPHABET):
        raise InvalidConfig(f"{text!r} is no code of a room: {CODE_CHARS} letters and digits, such as K7QM-3FHT")
    return code


def sign(manifest: Manifest, described: Described, identity: Identity) -> Manifest:
    """`described` holds the rest of what is signed, as it goes over the wire."""
    signature = identity.sign(MANIFEST_DOMAIN, _payload(manifest, described))
    return msgspec.structs.replace(manifest, creator=to_base64(identity.public_key), signature=to_base64(signature))


def check_untrusted(room: Described, players: int = 0) -> None:
    """`ManifestRefused` unless the room is as its creator signed it. `players`: how many the server says are in it."""
    manifest = room.manifest
    shown = f"room {room.name!r} {shown_code(manifest.code)}".rstrip()
    if room.instance not in ("", manifest.code):
        raise ManifestRefused(f"{shown} is shown under another code than its creator signed")
    if players > room.max_players:
        raise ManifestRefused(f"{shown} is for {room.max_players} players by its manifest, and {players} are in it")
    if not manifest.signature:
        if manifest.policy != "open" or manifest.lock:
            raise ManifestRefused(f"{shown} is {manifest.policy}, and nobody signed that")
        return
    if (manifest.policy in ("password", "invite")) != bool(manifest.lock):
        raise ManifestRefused(f"{shown} is {manifest.policy}, and its lock says something else")
    try:
        verify_untrusted(
            from_base64_untrusted(manifest.creator), MANIFEST_DOMAIN, _payload(manifest, room),
            from_base64_untrusted(manifest.signature),
        )  # fmt: skip
    except ProtocolError as error:
        raise ManifestRefused(f"{shown} is not what its creator signed: limits, policy or lock were changed") from error


def _payload(manifest: Manifest, room: Described) -> bytes:
    signed = (
        room.name, room.app_id, room.region, room.max_players, room.skill_range, room.metadata,
        manifest.code, manifest.app_version, manifest.policy, manifest.visible, manifest.lock,
    )  # fmt: skip
    return _encoder.encode((*signed, manifest.spectators) if manifest.spectators else signed)


_encoder = msgspec.json.Encoder(order="deterministic")
