"""The message types of a game in TypeScript: what a value looks like, and what the member in the page checks it by.

The file that comes out imports nothing but the member and holds plain data, so it can be read, kept under version control
and compared.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.schema import Schema
from psyne_mesh.room.described import SAFE_INT, Described, DescribedEnum, DescribedType, Description

_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
# ECMA-262 section 12.7.2, what a module of TypeScript cannot declare as a type, and the names that the file itself uses.
_RESERVED = {
    "any", "await", "bigint", "boolean", "break", "case", "catch", "class", "const", "continue", "debugger",
    "default", "delete", "do", "else", "enum", "eval", "export", "extends", "false", "finally", "for", "function",
    "if", "implements", "import", "in", "instanceof", "interface", "let", "new", "never", "null", "number", "object",
    "package", "private", "protected", "public", "return", "static", "string", "super", "switch", "symbol", "this",
    "throw", "true", "try", "typeof", "undefined", "unknown", "var", "void", "while", "with", "yield", "arguments",
    "Record", "Uint8Array", "FieldType", "messageType",
}  # fmt: skip
_BOUNDS = ("ge", "gt", "le", "lt", "minLength", "maxLength", "pattern")


def typescript(description: Description, source: str, shared: Sequence[Schema] = ()) -> str:
    """The whole file. source: where the types come from, for its first line. `InvalidConfig` names what has no form in
    TypeScript."""
    for name in (*description.enums, *description.types):
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise InvalidConfig(f"a class {name} cannot be called so in TypeScript: rename it")
    by_name = {schema.name: schema for schema in shared}
    messages = [each for each in description.types.values() if _is_message(each)]
    structs = [each for each in description.types.values() if not _is_message(each) and each.name not in by_name]
    names = ["type FieldType"] * bool(structs) + ["messageType"] * bool(messages)
    head = [f"// Made by `psyne-mesh schema --typescript {source}`; make it again instead of changing it."]
    head += [f'import {{ {", ".join(names)} }} from "psyne-mesh";'] if names else []
    parts = ["\n".join(head), *map(_enum, description.enums.values())]
    for each in description.types.values():
        if each.name in by_name:
            parts.append(_shared(each, by_name[each.name]))
        else:
            parts.append(_message(each) if _is_message(each) else _struct(each))
    return "\n\n".join(parts) + "\n"


def _is_message(described: DescribedType) -> bool:
    return described.array and described.tag is not None


def _enum(described: DescribedEnum) -> str:
    members = ", ".join(f"{_key(name)}: {_literal(value)}" for name, value in described.members)
    name = described.name
    return (
        f"export const {name} = {{ {members} }} as const;\nexport type {name} = (typeof {name})[keyof typeof {name}];"
    )


def _message(described: DescribedType) -> str:
    name = described.name
    optional = " | ".join(_literal(field.name) for field in described.fields if field.has_default)
    lines = [
        *_interface(described),
        f"export const {name} = messageType<{name}{f', {optional}' if optional else ''}>({{",
    ]
    lines += [f"  tag: {_literal(described.tag)},", *_fields(described, "  ")]
    lines += [f"  hash: {_literal(described.hash)},", f"  text: {_text(described.text)},", "});"]
    return "\n".join(lines)


def _struct(described: DescribedType) -> str:
    """What is inside of messages. It stands before those that hold it."""
    lines = [*_interface(described), f"export const {described.name}: FieldType = {{"]
    lines += [f"  kind: {_literal('array' if described.array else 'object')},", *_fields(described, "  ")]
    if described.tag is not None:
        tag = described.tag if described.array else [described.tag_field, described.tag]
        lines += [f"  tag: {_literal(tag)},"]
    return "\n".join([*lines, "};"])


def _interface(described: DescribedType) -> Iterator[str]:
    yield from _comment(described.kind.__doc__)
    yield f"export interface {described.name} {{"
    for field in described.fields:
        yield f"  {_key(field.name)}: {_spelled(field.type)};"
    yield "}"


def _fields(described: DescribedType, indent: str) -> Iterator[str]:
    yield f"{indent}fields: ["
    for field in described.fields:
        name = field.name
        if field.wire != name and not described.array:
            raise InvalidConfig(f"{described.name}.{name} is called {field.wire} on the wire: give it one name")
        where = f"{described.name}.{name}"
        parts = [_literal(name), _described(field.type, where, (described.name,))]
        if field.has_default:
            parts += [_literal(_value(field.type, field.default), is_big=field.type["kind"] == "bigint")]
        yield f"{indent}  [{', '.join(parts)}],"
    yield f"{indent}],"


def _described(described: Described, where: str, inside: tuple[str, ...]) -> str:
    kind = described["kind"]
    if kind == "struct":
        return _named(described["of"], where, inside)
    bounds = [f"{name}: {_literal(described[name])}" for name in _BOUNDS if name in described]
    inner = []
    if kind == "enum":
        inner = [f"values: {_literal(described['values'])}"]
    elif kind == "list":
        inner = [f"items: {_described(described['items'], where, inside)}"]
    elif kind == "tuple":
        inner = [f"items: [{', '.join(_described(each, where, inside) for each in described['items'])}]"]
    elif kind == "union":
        inner = [f"of: [{', '.join(_described(each, where, inside) for each in described['of'])}]"]
    elif kind == "dict":
        if described["keys"]["kind"] not in ("str", "enum") or not all(
            isinstance(value, str) for value in described["keys"].get("values", ())
        ):
            raise InvalidConfig(f"{where}: the keys of a dict are text in TypeScript; use a list of pairs")
        inner = [f"values: {_described(described['values'], where, inside)}"]
    parts = [*inner, *bounds]
    return f"{{ kind: {_literal(kind)}, {', '.join(parts)} }}" if parts else _literal(kind)


def _named(struct: DescribedType, where: str, inside: tuple[str, ...]) -> str:
    if struct.name in inside or any(_holds(field.type, inside) for field in struct.fields):
        raise InvalidConfig(
            f"{where}: {struct.name} holds itself, which no member in a page reads; use a list of its parts"
        )
    if _is_message(struct):
        tag = struct.tag
        return f'{{ kind: "array", tag: {_literal(tag)}, fields: {struct.name}.fields }}'
    return struct.name


def _holds(described: Described, names: tuple[str, ...]) -> bool:
    if described["kind"] == "struct":
        struct: DescribedType = described["of"]
        return struct.name in names or any(_holds(field.type, (*names, struct.name)) for field in struct.fields)
    inner = [described[key] for key in ("keys", "values", "items", "of") if isinstance(described.get(key), dict)]
    for key in ("items", "of"):
        inner += described[key] if isinstance(described.get(key), list) else []
    return any(_holds(each, names) for each in inner)


def _spelled(described: Described) -> str:
    """The type of a value."""
    match described["kind"]:
        case "int" | "float":
            return "number"
        case "str":
            return "string"
        case "bool":
            return "boolean"
        case "bytes":
            return "Uint8Array"
        case "none":
            return "null"
        case "any":
            return "unknown"
        case "enum":
            return str(described.get("name") or " | ".join(map(_literal, described["values"])))
        case "list":
            inner = _spelled(described["items"])
            return f"({inner})[]" if " | " in inner and not inner.endswith((">", "]")) else f"{inner}[]"
        case "tuple":
            return f"[{', '.join(map(_spelled, described['items']))}]"
        case "dict":
            return f"Record<string, {_spelled(described['values'])}>"
        case "union":
            return " | ".join(dict.fromkeys(map(_spelled, described["of"])))
        case "struct":
            return str(described["name"])
        case kind:
            return str(kind)  # bigint


def _value(described: Described, wire: Any) -> Any:
    """A default as a page holds it: structs by the names of their fields, however they travel."""
    match described["kind"]:
        case "struct":
            struct: DescribedType = described["of"]
            if not struct.array:
                return {field.name: _value(field.type, wire[field.wire]) for field in struct.fields}
            values = wire[1:] if struct.tag is not None else wire
            return {field.name: _value(field.type, value) for field, value in zip(struct.fields, values, strict=True)}
        case "list":
            return [_value(described["items"], each) for each in wire]
        case "tuple":
            return [_value(one, each) for one, each in zip(described["items"], wire, strict=True)]
        case "dict":
            return {key: _value(described["values"], each) for key, each in wire.items()}
    return wire


def _shared(described: DescribedType, schema: Schema) -> str:
    """An object that one player owns and all see. The member in the page does not show them yet: here is what it would need."""
    lines = [
        *_interface(described),
        f"export const {schema.name} = {{",
        f"  name: {_literal(schema.name)},",
        "  fields: [",
    ]
    for field, wire in zip(described.fields, schema.fields, strict=True):
        told = {"name": field.name, "code": wire.code, "bits": wire.bits, "smooth": wire.spec.smooth}
        if wire.spec.bits:
            told |= {"low": wire.spec.low, "high": wire.spec.high}
        lines.append(f"    {_literal(told | {'default': field.default})},")
    return "\n".join([*lines, "  ],", "} as const;"])


def _literal(value: Any, *, is_big: bool = False) -> str:
    match value:
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case int():
            return f"{value}n" if is_big or abs(value) > SAFE_INT else str(value)
        case float():
            return str(int(value)) if value.is_integer() and abs(value) <= SAFE_INT else repr(value)
        case bytes():
            return f"Uint8Array.of({', '.join(map(str, value))})"
        case str():
            return msgspec.json.encode(value).decode().replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        case list() | tuple():
            return f"[{', '.join(_literal(each) for each in value)}]"
        case dict() if all(isinstance(key, str) for key in value):
            return (
                f"{{ {', '.join(f'{_key(key)}: {_literal(each)}' for key, each in value.items())} }}" if value else "{}"
            )
    raise InvalidConfig(f"{value!r} has no form in TypeScript")


def _text(text: str) -> str:
    """The text has double quotes in it, and hardly a single one."""
    return _literal(text) if set(text) & set("'\\\u2028\u2029") or not text.isprintable() else f"'{text}'"


def _key(name: str) -> str:
    return name if _NAME.fullmatch(name) else _literal(name)


def _comment(doc: str | None) -> list[str]:
    """Of a class: its first paragraph. Dataclasses write one of their own where there is none."""
    if not doc or re.match(r"\w+\(", doc):
        return []
    return [f"/** {' '.join(textwrap.dedent(doc).strip().split(chr(10) + chr(10))[0].split()).replace('*/', '* /')} */"]
