"""Words about one room that their signer stands for, before whomever they come to."""

from __future__ import annotations

from typing import Annotated, Protocol, TypeVar

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, PeerId, verify_untrusted
from psyne_mesh.words import read_untrusted

BODY_BYTES_MAX = 1024
"""The longest is a vote with its reason, 656; its own type bounds each word."""


class Signer(Protocol):
    @property
    def public_key(self) -> bytes: ...
    def sign(self, domain: bytes, payload: bytes) -> bytes: ...


class OfARoom(Protocol):
    @property
    def room(self) -> bytes: ...


class _Signed(msgspec.Struct, frozen=True, array_like=True):
    body: Annotated[bytes, msgspec.Meta(max_length=BODY_BYTES_MAX)]
    key: Annotated[bytes, msgspec.Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


W = TypeVar("W", bound=OfARoom)
_signed = msgspec.msgpack.Decoder(_Signed)


def signed(signer: Signer, domain: bytes, word: OfARoom) -> bytes:
    body = msgspec.msgpack.encode(word)
    return msgspec.msgpack.encode(_Signed(body, signer.public_key, signer.sign(domain, body)))


def signed_untrusted(
    decoder: msgspec.msgpack.Decoder[W], data: bytes | str, domain: bytes, room: bytes, what: str
) -> tuple[PeerId, W]:
    """Who signed it, and what it says of this room. Raises ProtocolError."""
    outer = read_untrusted(_signed, data, what)
    word = read_untrusted(decoder, outer.body, what)
    if word.room != room:
        raise ProtocolError(f"not {what}: it is of another room")
    return verify_untrusted(outer.key, domain, outer.body, outer.signature), word
