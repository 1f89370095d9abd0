"""What a message type is made of, as data: for members in another language, and for two versions of a game to compare.

A type has a *text*, a line of JSON that two games compare, and a *hash* of it. Both travel with the channel, in the
`protocol` of its DATA_CHANNEL_OPEN (RFC 8832 section 5.1), so that who has another version is told before a message came.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import attrs
import msgspec
from msgspec import inspect

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.frozen import Frozen

Described: TypeAlias = dict[str, Any]
"""A type as plain data, in the words of the member in TypeScript (js/src/schema.ts): `{"kind": "int", "ge": 0}`,
`{"kind": "list", "items": {...}}`; `{"kind": "struct", "of": DescribedType}` for one with fields."""

SAFE_INT = 2**53 - 1
"""Number.MAX_SAFE_INTEGER of ECMAScript: whole numbers beyond it are no `number` there."""
PROTOCOL = "psyne-types/1"
# Of one channel: 512 of them, names included, stay within the 256 KiB that a member takes (`ChannelLimits`). What is longer
# goes by its hashes alone.
PROTOCOL_BYTES_MAX = 320
TYPES_MAX = 64  # of one channel of a peer's
_HASH_BYTES = 8


class DescribedField(Frozen):
    """wire: its name in a struct that travels as a map. default: as on the wire."""

    name: str
    wire: str
    type: Described
    has_default: bool
    default: Any = None


class DescribedType(Frozen):
    """A struct: a message, or what is inside of one. array: it travels as `[tag, field, ...]`, else as a map."""

    kind: type[Any]
    name: str
    tag: str | int | None
    tag_field: str
    array: bool
    fields: tuple[DescribedField, ...]

    @property
    def text(self) -> str:
        """What two games compare: tag and fields in order, each with its type, and 1 if it has a default."""
        fields = [[each.name, in_words(each.type), *([1] if each.has_default else [])] for each in self.fields]
        return msgspec.json.encode([self.tag, fields]).decode()

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of the text's BLAKE2b."""
        return hashlib.blake2b(self.text.encode(), digest_size=_HASH_BYTES).hexdigest()


class DescribedEnum(Frozen):
    kind: type[Any]
    name: str
    members: tuple[tuple[str, str | int], ...]


@attrs.define
class Description:
    """Of several message types together: the structs and enums they are made of, inner ones first."""

    types: dict[str, DescribedType] = attrs.Factory(dict)
    enums: dict[str, DescribedEnum] = attrs.Factory(dict)
    _began: dict[str, type[Any]] = attrs.Factory(dict)
    _named: list[Described] = attrs.Factory(list)

    def add(self, kind: type[Any]) -> DescribedType:
        """`InvalidConfig` names a field that has no form in another language."""
        try:
            info = inspect.type_info(kind)
        except Exception as error:  # an annotation that cannot be resolved may raise anything
            raise InvalidConfig(f"the fields of {kind.__name__} cannot be read: {error}") from error
        self._struct(info, kind.__name__)
        for described in self._named:
            described["of"] = self.types[described["name"]]
        self._named.clear()
        return self.types[kind.__name__]

    def _struct(self, info: Any, where: str) -> Described:
        kind: type[Any] = info.cls
        name = kind.__name__
        self._claim(name, kind, where)
        described: Described = {"kind": "struct", "name": name, "of": None}  # until the struct is described to its end
        self._named.append(described)
        if name in self._began:
            return described
        self._began[name] = kind
        fields = tuple(self._field(field, name) for field in info.fields)
        is_struct = isinstance(info, inspect.StructType)
        self.types[name] = DescribedType(
            kind,
            name,
            info.tag if is_struct else None,
            (info.tag_field or "") if is_struct else "",
            info.array_like if is_struct else isinstance(info, inspect.NamedTupleType),
            fields,
        )
        return described

    def _claim(self, name: str, kind: type[Any], where: str) -> None:
        known = self._began.get(name) or (self.enums[name].kind if name in self.enums else None)
        if known is not None and known is not kind:
            raise InvalidConfig(
                f"{where}: two classes are called {name}, in {known.__module__} and {kind.__module__}: rename one"
            )

    def _field(self, field: inspect.Field, owner: str) -> DescribedField:
        where = f"{owner}.{field.name}"
        described = self._of(field.type, where)
        if field.required:
            return DescribedField(field.name, field.encode_name, described, False)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        try:
            wire = msgspec.msgpack.decode(msgspec.msgpack.encode(default))
        except (TypeError, msgspec.MsgspecError, ValueError) as error:
            raise InvalidConfig(f"{where}: its default {default!r} cannot travel: {error}") from error
        return DescribedField(field.name, field.encode_name, described, True, wire)

    def _of(self, info: inspect.Type, where: str) -> Described:
        match info:
            case inspect.BoolType():
                return {"kind": "bool"}
            case inspect.NoneType():
                return {"kind": "none"}
            case inspect.IntType():
                return _whole(info)
            case inspect.FloatType():
                return _bounded({"kind": "float"}, info)
            case inspect.StrType():
                return _sized({"kind": "str"}, info) | ({"pattern": info.pattern} if info.pattern else {})
            case inspect.BytesType() | inspect.ByteArrayType():
                return _sized({"kind": "bytes"}, info)
            case inspect.LiteralType():
                return {"kind": "enum", "values": list(info.values)}
            case inspect.EnumType():
                return self._enum(info.cls, where)
            case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType() | inspect.VarTupleType():
                return _sized({"kind": "list", "items": self._of(info.item_type, where)}, info)
            case inspect.TupleType():
                return {"kind": "tuple", "items": [self._of(item, where) for item in info.item_types]}
            case inspect.DictType():
                keys, values = self._of(info.key_type, where), self._of(info.value_type, where)
                return _sized({"kind": "dict", "keys": keys, "values": values}, info)
            case inspect.AnyType():
                return {"kind": "any"}
            case inspect.UnionType():
                return {"kind": "union", "of": [self._of(one, where) for one in info.types]}
            case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType() | inspect.NamedTupleType():
                return self._struct(info, where)
        what = type(info).__name__.removesuffix("Type")
        raise InvalidConfig(
            f"{where} is of {what}, which has no form in every language: numbers, text, bytes, bool, None, enums, literals, "
            "lists, tuples, dicts, unions and structs of these have one"
        )

    def _enum(self, kind: type[Any], where: str) -> Described:
        name = kind.__name__
        self._claim(name, kind, where)
        members = tuple((member.name, member.value) for member in kind)
        self.enums[name] = DescribedEnum(kind, name, members)
        return {"kind": "enum", "name": name, "values": [value for _, value in members]}


def describe(kinds: Sequence[type[Any]]) -> Description:
    description = Description()
    for kind in kinds:
        description.add(kind)
    return description


def described_types(kinds: Sequence[type[Any]]) -> tuple[DescribedType, ...]:
    """Those that can be described: where one has a field that only Python knows, nobody compares it."""
    found = []
    for kind in kinds:
        with suppress(InvalidConfig):
            found.append(Description().add(kind))
    return tuple(found)


def _whole(info: inspect.IntType) -> Described:
    """One that may be beyond what a `number` holds is declared so: by its bounds. 64 bits are the wire's own."""
    described = _bounded({"kind": "int"}, info)
    if described.get("ge", 0) < -SAFE_INT or described.get("le", 0) > SAFE_INT:
        described["kind"] = "bigint"
    return {key: value for key, value in described.items() if (key, value) not in (("ge", -(2**63)), ("le", 2**63 - 1))}


def _bounded(described: Described, info: inspect.IntType | inspect.FloatType) -> Described:
    """What no finite number is beyond is no bound."""
    names = (("ge", info.ge), ("gt", info.gt), ("le", info.le), ("lt", info.lt), ("step", info.multiple_of))
    return described | {
        name: bound for name, bound in names if bound is not None and not abs(bound) >= sys.float_info.max
    }


def _sized(described: Described, info: Any) -> Described:
    sizes = (("minLength", getattr(info, "min_length", None)), ("maxLength", getattr(info, "max_length", None)))
    return described | {name: size for name, size in sizes if size is not None}


# ------------------------------------------------------------------------------------------------------------- in words


def in_words(described: Described, seen: tuple[str, ...] = ()) -> str:
    """The type as two games compare it, and as a player reads it: "int 0..255", "list of Point{x float, y float}"."""
    match described["kind"]:
        case "int" | "bigint" | "float" as kind:
            return f"{'int' if kind == 'bigint' else kind}{_bounds_in_words(described)}"
        case "enum":
            values = ", ".join(str(value) for value in sorted(described["values"], key=str))
            return f"{described.get('name', 'one of ')}({values})"
        case "list":
            return f"list of {in_words(described['items'], seen)}{_lengths_in_words(described)}"
        case "tuple":
            return f"({', '.join(in_words(each, seen) for each in described['items'])})"
        case "dict":
            keys, values = in_words(described["keys"], seen), in_words(described["values"], seen)
            return f"dict of {keys} to {values}{_lengths_in_words(described)}"
        case "union":
            return " or ".join(sorted(in_words(each, seen) for each in described["of"]))
        case "struct":
            return _struct_in_words(described["of"], seen)
        case kind:
            pattern = f" like {described['pattern']}" if "pattern" in described else ""
            return f"{kind}{_lengths_in_words(described)}{pattern}"


def _struct_in_words(struct: DescribedType, seen: tuple[str, ...]) -> str:
    if struct.name in seen:
        return struct.name
    fields = (f"{each.name} {in_words(each.type, (*seen, struct.name))}" for each in struct.fields)
    return f"{struct.name}{{{', '.join(fields)}}}"


def _bounds_in_words(described: Described) -> str:
    low, high = described.get("ge"), described.get("le")
    words = "" if low is None and high is None else f" {'' if low is None else low}..{'' if high is None else high}"
    for name, sign in (("gt", ">"), ("lt", "<"), ("step", "by")):
        words += f" {sign} {described[name]}" if name in described else ""
    return words


def _lengths_in_words(described: Described) -> str:
    least, most = described.get("minLength", 0), described.get("maxLength")
    if not least and most is None:
        return ""
    return f" of {least} to {most}" if most is not None else f" of {least} or more"


# -------------------------------------------------------------------------------------------------------- two versions


class TheirTypes(Frozen):
    """What a channel of another player carries, as it announced it: by hash, with the text where that was short enough."""

    texts: dict[str, str | None]

    def difference(self, ours: Sequence[DescribedType]) -> str | None:
        """Where messages that they may send cannot be read here, in words; None: nowhere, or nobody can tell yet. A field
        with a default at the end is no difference."""
        known = {each.hash: each for each in ours}
        by_tag = {each.tag: each for each in ours}
        for hash_, text in self.texts.items():
            if hash_ in known or text is None:
                continue
            tag, fields = _parsed_untrusted(text)
            mine = by_tag.get(tag)
            if mine is None:
                continue  # one more type of message on the same channel: refused if it ever comes
            if found := _difference(mine, fields):
                return found
        return None


def _difference(mine: DescribedType, theirs: list[tuple[str, str, bool]]) -> str | None:
    ours = [(each.name, in_words(each.type), each.has_default) for each in mine.fields]
    for number, (here, there) in enumerate(zip(ours, theirs, strict=False), 1):
        if here[:2] == there[:2]:
            continue
        if here[0] == there[0]:
            return f"{mine.name}.{here[0]} is {here[1]} here and {there[1]} there"
        return (
            f"field {number} of {mine.name} is {here[0]} here and {there[0]} there; new fields go to the end, and the old "
            "ones keep their names and order"
        )
    if lacking := [name for name, _, has_default in ours[len(theirs) :] if not has_default]:
        return f"{mine.name} has {', '.join(lacking)} here and not there; give new fields a default"
    return None


def announcement(types: Sequence[DescribedType]) -> str:
    """The `protocol` of a channel that carries these; "" for one without types."""
    if not types:
        return ""
    in_full = "\n".join([PROTOCOL, *(f"{each.hash} {each.text}" for each in types)])
    if len(in_full.encode()) <= PROTOCOL_BYTES_MAX:
        return in_full
    hashes = [PROTOCOL, *(each.hash for each in types)]
    return "\n".join(hashes) if len(hashes) * (2 * _HASH_BYTES + 1) <= PROTOCOL_BYTES_MAX else ""


def announced_untrusted(protocol: str) -> TheirTypes | None:
    """What `announcement` made; None for a channel that says nothing of its types. `ProtocolError` for what is neither."""
    first, _, rest = protocol.partition("\n")
    if first != PROTOCOL:
        return None
    if len(rest) > PROTOCOL_BYTES_MAX:
        raise ProtocolError("an announcement of types that is too long")
    texts: dict[str, str | None] = {}
    for line in rest.split("\n"):
        hash_, space, text = line.partition(" ")
        if len(hash_) != 2 * _HASH_BYTES or not set(hash_) <= set("0123456789abcdef"):
            raise ProtocolError("an announcement of types without their hashes")
        texts[hash_] = text if space else None
        if space:
            _parsed_untrusted(text)
    if len(texts) > TYPES_MAX:
        raise ProtocolError("an announcement of too many types")
    return TheirTypes(texts)


class _FieldText(msgspec.Struct, array_like=True):
    name: str
    words: str
    has_default: bool | int = False


_TEXT = msgspec.json.Decoder(tuple[str | int | None, list[_FieldText]])


def _parsed_untrusted(text: str) -> tuple[str | int | None, list[tuple[str, str, bool]]]:
    """Tag and fields: name, type in words, whether it has a default."""
    try:
        tag, fields = _TEXT.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise ProtocolError(f"not the text of a type: {error}") from error
    if not all(word.isprintable() for field in fields for word in (field.name, field.words)):
        raise ProtocolError("the text of a type with unprintable names")
    return tag, [(field.name, field.words, bool(field.has_default)) for field in fields]
