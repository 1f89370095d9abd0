"""How the bytes of a fuzzer become what a target takes."""

from __future__ import annotations

from collections.abc import Iterable

PIECES_MAX = 40


class Cursor:
    """Reads from left to right; past the end everything is zero and empty."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def more(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        return self.take(1)[0] if self.more else 0

    def take(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def pieces(self) -> Iterable[tuple[int, bytes]]:
        """(flags, bytes): one byte of flags, two of length, and so many bytes, until the end."""
        for _ in range(PIECES_MAX):
            if not self.more:
                return
            flags = self.byte()
            yield flags, self.take(int.from_bytes(self.take(2), "big"))


def pieces(*parts: bytes, flags: int = 0) -> bytes:
    """The bytes that `Cursor.pieces` reads as these parts."""
    return b"".join(bytes((flags,)) + len(part).to_bytes(2, "big") + part for part in parts)
