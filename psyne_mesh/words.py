"""MessagePack from outside, read into a type or refused. The type bounds what is in it, the channel how long it is."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from psyne_mesh.errors import ProtocolError

T = TypeVar("T")


def read_untrusted(decoder: msgspec.msgpack.Decoder[T], data: bytes | str, what: str) -> T:
    """Raises ProtocolError, "not {what}: ...", also for text."""
    if isinstance(data, str):
        raise ProtocolError(f"not {what}: text came")
    try:
        return decoder.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
        raise ProtocolError(f"not {what}: {error}") from None
