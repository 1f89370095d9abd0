"""The fingerprint of a run: equal traces have equal hashes, on every run and under every PYTHONHASHSEED."""

from __future__ import annotations

import hashlib
import struct
from array import array
from typing import Final

_ENTRY: Final = struct.Struct("=5d")  # time, kind, source, destination, size
_FIELDS: Final = 5
_BLOCK: Final = 1024  # entries that are hashed at once

# Kinds of trace entries. They are part of the hash: never renumber.
FRAME: Final = 1
TIMER: Final = 2
LOST: Final = 3
LINK_UP: Final = 4
LINK_DOWN: Final = 5
DIAL: Final = 6
DIAL_FAILED: Final = 7
SCRIPT: Final = 8
SIGNALING: Final = 9


class Trace:
    """Drive it so: `add(time, kind, src, dst, size)` for every event, `digest()` at the end."""

    __slots__ = ("_hash", "_order", "_pending", "count")

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._order = hashlib.blake2b(digest_size=16)
        self._pending: list[bytes] = []
        self.count = 0

    def add(self, time: float, kind: int, src: int, dst: int, size: int) -> None:
        self._pending.append(_ENTRY.pack(time, kind, src, dst, size))
        if len(self._pending) >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        block = b"".join(self._pending)
        timeless = array("d", block)
        timeless[::_FIELDS] = array("d", bytes(8 * len(self._pending)))
        self.count += len(self._pending)
        self._hash.update(block)
        self._order.update(timeless)
        self._pending.clear()

    def digest(self) -> str:
        """32 hex digits over every entry so far."""
        self._flush()
        return self._hash.hexdigest()

    def order_digest(self) -> str:
        """The same without the times: equal when the same things happened in the same order at whatever hours."""
        self._flush()
        return self._order.hexdigest()
