"""A message whose class the reader finds by its tag: for what arrives without a channel that declares its types."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import msgspec

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.room.codec import MessageCodec
from psyne_mesh.room.messages import Message, kinds_of
from psyne_mesh.words import read_untrusted


class _Tagged(msgspec.Struct, frozen=True, array_like=True):
    module: Annotated[str, msgspec.Meta(max_length=200)]
    tag: Annotated[str, msgspec.Meta(max_length=200)] | int
    message: bytes


_decoder = msgspec.msgpack.Decoder(_Tagged)


def encode_tagged(message: Any) -> bytes:
    """`InvalidConfig` for what is no object of a `Message` class, `UnserialisableMessage` for a value that cannot travel."""
    if not isinstance(message, Message):
        hint = f"; write {message.__name__}()" if isinstance(message, type) else ""
        raise InvalidConfig(f"{message!r}: must be an object of a class of yours that subclasses Message{hint}")
    kind = type(message)
    payload = _codec_of(kind).encode(message)
    return msgspec.msgpack.encode(_Tagged(kind.__module__[-200:], _tag(kind), payload))


def decode_tagged_untrusted(data: bytes) -> Message:
    """Of several classes with that tag the one in the same module counts. Raises ProtocolError, also when there is none."""
    tagged = read_untrusted(_decoder, data, "a message")
    kinds = kinds_of(tagged.tag)
    if len(kinds) > 1:
        kinds = [kind for kind in kinds if kind.__module__ == tagged.module] or kinds
    if not kinds:
        raise ProtocolError(f"a message {tagged.tag!r:.80}, and no class of that name here")
    try:
        codec = _codec_of(kinds[-1])
    except InvalidConfig as error:  # a class that can never travel: the peer chose it
        raise ProtocolError(f"a message {tagged.tag!r:.80}: {error}") from None
    return codec.decode_untrusted(tagged.message)


@lru_cache(maxsize=256)  # more classes than a game has; making one costs as much as a hundred messages
def _codec_of(kind: type[Message]) -> MessageCodec:
    return MessageCodec([kind])


def _tag(kind: type[Message]) -> str | int:
    tag: str | int = kind.__struct_config__.tag  # type: ignore[assignment]
    return tag
