"""Values as vectors hold them."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from psyne_mesh.game.room_clock import Reading
from psyne_mesh.gossip.records import Record

SAFE = 2**53 - 1
# Of a record: what its other fields follow from.
_HIDDEN = {"body", "encoded", "order"}


def plain(value: Any) -> Any:
    """JSON of it: bytes as hexadecimal text, large numbers as decimal text, structs as objects of their fields."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return value if abs(value) <= SAFE else str(value)
    if isinstance(value, float):
        assert math.isfinite(value) or value == math.inf
        return "infinity" if value == math.inf else value
    if isinstance(value, Record):
        return {
            field.name: plain(getattr(value, field.name)) for field in attrs.fields(Record) if field.name not in _HIDDEN
        }
    if isinstance(value, Reading):
        return value._asdict()
    if attrs.has(type(value)):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if hasattr(value, "_asdict"):
        return {key: plain(item) for key, item in value._asdict().items()}
    if hasattr(value, "__dataclass_fields__"):
        return {key: plain(getattr(value, key)) for key in value.__dataclass_fields__}
    return [plain(item) for item in value]


def document(about: str, **parts: Any) -> str:
    """A file: each case on a line of its own, so that a change shows which."""
    lines = [f' "about": {json.dumps(about)}']
    for name, value in parts.items():
        if isinstance(value, list):
            body = ",\n  ".join(json.dumps(plain(each), ensure_ascii=True) for each in value)
            lines.append(f' "{name}": [\n  {body}\n ]')
        else:
            lines.append(f' "{name}": {json.dumps(plain(value))}')
    return "{\n" + ",\n".join(lines) + "\n}\n"
