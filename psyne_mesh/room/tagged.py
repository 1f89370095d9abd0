"""A message whose class the reader finds by its tag: for what arrives without a channel that declares its types."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.room.codec import MessageCodec
from psyne_mesh.room.messages import Message


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
    payload = MessageCodec([kind]).encode(message)
    return msgspec.msgpack.encode(_Tagged(kind.__module__[-200:], _tag(kind), payload))


def decode_tagged_untrusted(data: bytes) -> Message:
    """Of several classes with that tag the one in the same module counts. Raises ProtocolError, also when there is none."""
    try:
        tagged = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a message: {error}") from None
    kinds = [kind for kind in _all_kinds(Message) if _tag(kind) == tagged.tag]
    if len(kinds) > 1:
        kinds = [kind for kind in kinds if kind.__module__ == tagged.module] or kinds
    if not kinds:
        raise ProtocolError(f"a message {tagged.tag!r:.80}, and no class of that name here")
    return MessageCodec(kinds[-1:]).decode_untrusted(tagged.message)


def _tag(kind: type[Message]) -> str | int:
    tag: str | int = kind.__struct_config__.tag  # type: ignore[assignment]
    return tag


def _all_kinds(kind: type[Message]) -> list[type[Message]]:
    return [each for child in kind.__subclasses__() for each in (child, *_all_kinds(child))]
