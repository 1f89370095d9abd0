"""Messages to bytes and back, by the types that a channel was declared with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import reduce
from operator import attrgetter, or_
from typing import Any

import msgspec

from psyne_mesh.errors import InvalidConfig, ProtocolError, UnserialisableMessage
from psyne_mesh.room.described import announced_untrusted, announcement, described_types
from psyne_mesh.room.messages import Message

Payload = bytes | str


class RawCodec:
    """A channel declared with no types: `bytes` and `str` go through as they are."""

    kinds: tuple[type[Message], ...] = ()
    announcement = ""

    def difference_untrusted(self, protocol: str) -> None:
        """Whatever others say that they send: here it goes through as it is."""

    def encode(self, message: Any) -> Payload:
        if isinstance(message, bytes):
            return message
        if isinstance(message, str):
            try:
                message.encode()
            except UnicodeEncodeError as error:
                raise UnserialisableMessage(f"text with lone surrogates has no UTF-8 form: {error}") from error
            return message
        if isinstance(message, bytearray | memoryview):
            return bytes(message)
        raise UnserialisableMessage(
            f"this channel has no message types, so it carries bytes and str, not {type(message).__name__}; "
            "declare it with room.channel(name, YourMessage) to send objects"
        )

    def decode_untrusted(self, payload: Payload) -> Payload:
        return payload


class MessageCodec:
    """MessagePack by msgspec for the declared `Message` types; unknown tags, NaN, inf and deep nesting are refused."""

    def __init__(self, types: Sequence[type[Message]]) -> None:
        for kind in types:
            if not (isinstance(kind, type) and issubclass(kind, Message)):
                raise InvalidConfig(f"{kind!r} is no subclass of psyne_mesh.Message")
            _check_fields(kind)
        self.kinds = tuple(types)
        try:
            self._decoder = msgspec.msgpack.Decoder(reduce(or_, types))
        except TypeError as error:  # two types with one tag, or a field that msgspec cannot carry
            raise InvalidConfig(f"these message types cannot share a channel: {error}") from error
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
        self._checks = {kind: _finite_check(kind) for kind in self.kinds}
        self._described = described_types(self.kinds)
        # What others are told of it, with the channel itself (RFC 8832 section 5.1).
        self.announcement = announcement(self._described)

    def difference_untrusted(self, protocol: str) -> str | None:
        """Why messages of a channel that announces itself so could not be read here, naming the field; None: no reason is
        known. `ProtocolError` for what is no announcement."""
        theirs = announced_untrusted(protocol)
        return None if theirs is None else theirs.difference(self._described)

    def encode(self, message: Any) -> bytes:
        """Raises `UnserialisableMessage`, and then nothing was sent. What receivers would refuse is refused here: msgspec
        checks types and bounds when it decodes only."""
        check = self._checks.get(type(message))
        if check is None:
            names = ", ".join(kind.__name__ for kind in self.kinds)
            raise UnserialisableMessage(f"this channel carries {names}, not {type(message).__name__}")
        try:
            payload = self._encoder.encode(message)
            if finite := check(message):
                self._decoder.decode(payload)
        except Exception as error:  # a `__post_init__` of the game may raise anything
            name = type(message).__name__
            raise UnserialisableMessage(f"{name} cannot be sent: {_with_fields(error, message)}") from error
        if not finite:
            raise UnserialisableMessage(f"{message!r} holds NaN or an infinite number")
        return payload

    def decode_untrusted(self, payload: Payload) -> Message:
        if isinstance(payload, str):
            raise ProtocolError("text came on a channel of typed messages")
        try:
            message = self._decoder.decode(payload)
            finite = self._checks[type(message)](message)
        except Exception as error:  # anything: a peer chose what its `__post_init__` trips over
            raise ProtocolError(f"not a message of this channel: {error}") from error
        if not finite:
            raise ProtocolError("the message holds NaN or an infinite number")
        assert isinstance(message, Message)
        return message


def _check_fields(kind: type[Message]) -> None:
    """`InvalidConfig` names a field that could never travel: msgspec takes it, and refuses each message."""
    try:
        info = msgspec.inspect.type_info(kind)
    except Exception as error:  # an annotation that cannot be resolved may raise anything
        raise InvalidConfig(f"the fields of {kind.__name__} cannot be read: {error}") from error
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        if isinstance(field.type, msgspec.inspect.CustomType):
            name = getattr(field.type.cls, "__name__", field.type.cls)
            raise InvalidConfig(
                f"{kind.__name__}.{field.name} cannot travel, as {name} has no form on the wire; fields hold numbers, text, "
                "bytes, enums, lists, dicts, tuples, dataclasses and msgspec structs; of a player, send `peer.id` as str"
            )


def codec_for(types: Sequence[type[Message]]) -> RawCodec | MessageCodec:
    return MessageCodec(types) if types else RawCodec()


def _finite_check(kind: type[Message]) -> Callable[[Message], bool]:
    """A check as cheap as the type allows: plain float fields are summed, anything nested is walked."""
    plain, nested = [], []
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        if isinstance(field.type, msgspec.inspect.FloatType):
            plain.append(field.name)
        elif not isinstance(
            field.type,
            msgspec.inspect.IntType | msgspec.inspect.StrType | msgspec.inspect.BytesType | msgspec.inspect.BoolType
            | msgspec.inspect.EnumType,
        ):  # fmt: skip
            nested.append(field.name)
    if len(plain) == 1:
        plain = plain * 2  # attrgetter gives a bare value for one name
    floats = attrgetter(*plain) if plain else None
    if not nested:
        if floats is None:
            return lambda message: True
        return lambda message: math.isfinite(sum(floats(message))) or all(map(math.isfinite, floats(message)))
    return _all_finite


_CONTAINERS = (list, tuple, set, frozenset, dict, msgspec.Struct)
_LEAVES = frozenset({int, str, bytes, bool, type(None)})


def _all_finite(value: Any) -> bool:
    """Whether no float or Decimal inside is NaN or infinite. A container takes one byte on the wire, a call would take half a
    microsecond: so one loop, whose work is a tenth of a microsecond for each value."""
    containers = [value]
    while containers:
        container = containers.pop()
        values: Any = container
        if isinstance(container, msgspec.Struct):
            values = [getattr(container, name) for name in container.__struct_fields__]
        elif isinstance(container, dict):
            values = (*container, *container.values())
        for item in values:
            kind = type(item)
            if kind in _LEAVES:
                continue
            if kind is float:
                if not math.isfinite(item):
                    return False
            elif isinstance(item, _CONTAINERS):
                if not isinstance(item, msgspec.Struct) and not item:
                    continue
                containers.append(item)
            elif isinstance(item, float | Decimal) and not math.isfinite(item):
                return False
    return True


def _with_fields(error: Exception, message: Message) -> str:
    """What msgspec says, with the names of the fields in place of their numbers on the wire, where the tag is number 0."""
    fields = dict(enumerate(message.__struct_fields__, 1))
    return re.sub(r"\$\[(\d+)\]", lambda found: fields.get(int(found[1]), found[0]), str(error))


def _plain(value: Any) -> Any:
    """A `PeerId` inside a message travels as the text that it is."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no form on the wire")
