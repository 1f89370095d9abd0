"""Rooms that not everybody may enter: passwords that no server learns, and invitations with an end. Pure.

From a password and the room's nonce a slow hash makes a key, and the key makes two things that say nothing of each other:

- the proof for the door, of which the server knows the hash only: so it can refuse, at the cost of one hash;
- the room's secret, which never leaves a player's machine. Each member's signed record carries an HMAC of the member's id
  under it, so members prove the password to the joiner as the joiner does to them, and who got in by the server's grace
  alone is nobody to them.

An invitation is signed by the room's creator and brings the room's secret; what of it goes to the server does not.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Callable
from typing import Annotated

import attrs
import msgspec

from psyne_mesh.errors import InvalidConfig, InviteExpired, NotInvited, ProtocolError, WrongPassword
from psyne_mesh.gossip.records import RECORD_DOMAIN, Verify, record_untrusted
from psyne_mesh.identity import SIGNATURE_BYTES, Identity, PeerId, verify_untrusted
from psyne_mesh.signaling.base64 import from_base64_untrusted, to_base64
from psyne_mesh.signaling.manifest import Code, Manifest

NONCE_BYTES = 16
SECRET_BYTES = 32
PROOF_BYTES = 16
PASSWORD_BYTES_MAX = 256
INVITE_DOMAIN = b"psyne-invite"
INVITE_LIFETIME_MAX_S = 30 * 86_400.0  # a guess: who invites for longer forgets whom
INVITE_CHARS_MAX = 256
_PREFIX = "psyne-invite-"
_SCRYPT = {"n": 2**14, "r": 8, "p": 1}  # RFC 7914's for interactive logins: 16 MiB and 40 ms for each guess


@attrs.frozen
class Keys:
    """Of a locked room. `lock` is public, `door` goes to the server, `secret` to nobody."""

    lock: str
    door: str = attrs.field(repr=False)
    secret: bytes = attrs.field(repr=False)


def password_keys(password: str, nonce: bytes) -> Keys:
    """`InvalidConfig` for what is no password. Takes 40 ms, as it shall."""
    check_password(password)
    key = hashlib.scrypt(_raw(password), salt=b"psyne-password" + nonce, dklen=32, **_SCRYPT)
    door = hmac.digest(key, b"psyne-door", "sha256")
    lock = f"{to_base64(nonce)}.{to_base64(hashlib.sha256(door).digest())}"
    return Keys(lock, to_base64(door), hmac.digest(key, b"psyne-secret", "sha256"))


def check_password(password: str | None) -> None:
    """`InvalidConfig`, which does not show it."""
    if password is not None and not (isinstance(password, str) and 1 <= len(_raw(password)) <= PASSWORD_BYTES_MAX):
        raise InvalidConfig(f"a password is text of 1 to {PASSWORD_BYTES_MAX} bytes")


def unlock(password: str | None, manifest: Manifest) -> Keys:
    """The keys of a room with a password, or `WrongPassword`: that is found out here, and nobody hears of it."""
    if password is None:
        raise WrongPassword("this room has a password: join_room(code, password=...)")
    try:
        nonce = from_base64_untrusted(manifest.lock.partition(".")[0])
    except ProtocolError as error:
        raise WrongPassword("the lock of this room is none that a password opens") from error
    keys = password_keys(password, nonce)
    if not hmac.compare_digest(keys.lock, manifest.lock):
        raise WrongPassword("the password is wrong; ask whoever gave you the code")
    return keys


def invite_keys(secret: bytes) -> Keys:
    """Of a room for the invited, and of its creator, who needs no proof at the door."""
    return Keys(to_base64(hashlib.sha256(b"psyne-lock" + secret).digest()), "", secret)


@attrs.frozen
class Invite:
    """`door` is what of it the server sees."""

    code: str
    expires_ms: int
    secret: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)

    @classmethod
    def make(cls, code: str, secret: bytes, expires_ms: int, identity: Identity) -> Invite:
        return cls(code, expires_ms, secret, identity.sign(INVITE_DOMAIN, _invite_payload(code, expires_ms)))

    @property
    def door(self) -> str:
        return f"{self.expires_ms}.{to_base64(self.signature)}"

    def __str__(self) -> str:
        parts = _InviteText(self.code, self.expires_ms, self.secret, self.signature)
        return _PREFIX + to_base64(msgspec.msgpack.encode(parts)).replace("+", "-").replace("/", "_").rstrip("=")

    @classmethod
    def parse_untrusted(cls, text: str) -> Invite:
        """`NotInvited` for what is none."""
        try:
            body = text.strip()[len(_PREFIX) : INVITE_CHARS_MAX].replace("-", "+").replace("_", "/")
            parts = _invite_text.decode(from_base64_untrusted(body + "=" * (-len(body) % 4)))
        except (ProtocolError, ValueError, RecursionError) as error:
            raise NotInvited("this is no invitation, or not all of it: ask for a new one") from error
        return cls(parts.code, parts.expires_ms, parts.secret, parts.signature)


def is_invite(text: str) -> bool:
    return text.strip().startswith(_PREFIX)


def check_door_untrusted(manifest: Manifest, peer: PeerId, door: str, wall_ms: int) -> None:
    """What a server asks of who wants in: `WrongPassword`, `NotInvited`, `InviteExpired`. A wrong password costs it one
    hash, a wrong invitation one signature."""
    if manifest.policy == "password":
        try:
            shown = to_base64(hashlib.sha256(from_base64_untrusted(door)).digest())
        except ProtocolError:
            shown = ""
        if not hmac.compare_digest(shown, manifest.lock.partition(".")[2]):
            raise WrongPassword("the password is wrong; ask whoever gave you the code")
    elif manifest.policy == "invite" and peer != manifest.creator_id:
        _check_invite_untrusted(manifest, door, wall_ms)


def _check_invite_untrusted(manifest: Manifest, door: str, wall_ms: int) -> None:
    expires, _, signature = door.partition(".")
    if not expires.isdecimal() or len(expires) > 16:
        raise NotInvited("this room is for the invited: ask its creator for room.invite()")
    try:
        payload = _invite_payload(manifest.code, int(expires))
        verify_untrusted(
            from_base64_untrusted(manifest.creator), INVITE_DOMAIN, payload, from_base64_untrusted(signature)
        )
    except ProtocolError as error:
        raise NotInvited("the creator of this room did not sign that invitation") from error
    if int(expires) < wall_ms:
        raise InviteExpired(f"the invitation ended {(wall_ms - int(expires)) / 1000:.0f} s ago: ask for a new one")


def member_proof(secret: bytes, room: str, peer: PeerId) -> bytes:
    """That `peer` knows the room's secret, for who knows it, too."""
    return hmac.digest(secret, b"psyne-member" + peer.raw + room.encode(), "sha256")[:PROOF_BYTES]


def verify_of_members(secret: bytes, room: str, proof_in: Callable[[bytes], bytes]) -> Verify:
    """`verify_untrusted` for the records of a locked room: who signed one must prove in it to know the secret. `proof_in`
    reads the proof out of a record's metadata, or raises `ProtocolError`."""

    def verify(public_key: bytes, domain: bytes, payload: bytes, signature: bytes) -> PeerId:
        peer = verify_untrusted(public_key, domain, payload, signature)
        if domain == RECORD_DOMAIN:
            proof = proof_in(record_untrusted(payload + signature).metadata)
            if not hmac.compare_digest(proof, member_proof(secret, room, peer)):
                raise ProtocolError("a member that does not know the secret of the room")
        return peer

    return verify


def _raw(password: str) -> bytes:
    """The same, however a keyboard makes it (NFC: RFC 8265 section 4.2.1)."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "replace")


class _InviteText(msgspec.Struct, frozen=True, array_like=True):
    code: Code
    expires_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    secret: Annotated[bytes, msgspec.Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


def _invite_payload(code: str, expires_ms: int) -> bytes:
    return f"{code}.{expires_ms}".encode()


_invite_text = msgspec.msgpack.Decoder(_InviteText)
