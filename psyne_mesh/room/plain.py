"""Plain values, as the state of rooms and players holds them: None, bool, int, float, str, bytes, lists and dicts of these."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from psyne_mesh.errors import ProtocolError, UnserialisableMessage

_WHAT = "state holds numbers, text, bytes, True, False, None, and lists and dicts (with text as keys) of these"
_DEPTH_MAX = 32


def encode_plain(value: Any) -> bytes:
    """`UnserialisableMessage` names what cannot travel."""
    _check(value, _DEPTH_MAX)
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, ValueError, TypeError) as error:
        raise UnserialisableMessage(f"{value!r:.80} cannot travel: {error}; {_WHAT}") from error


def decode_plain_untrusted(data: bytes) -> Any:
    """Raises ProtocolError."""
    try:
        value = msgspec.msgpack.decode(data)
        _check(value, _DEPTH_MAX)
    except (UnserialisableMessage, RecursionError, ValueError) as error:
        raise ProtocolError(f"not a plain value: {error}") from None
    return value


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise UnserialisableMessage(f"a value that is nested deeper than {_DEPTH_MAX}")
    match value:
        case None | bool() | str() | bytes() | int():
            return
        case float():
            if not math.isfinite(value):
                raise UnserialisableMessage(f"{value!r} is no number that others can use")
        case list() | tuple():
            for item in value:
                _check(item, depth - 1)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise UnserialisableMessage(f"a dict with the key {key!r}; {_WHAT}")
                _check(item, depth - 1)
        case _:
            raise UnserialisableMessage(f"a {type(value).__name__} cannot travel; {_WHAT}")
