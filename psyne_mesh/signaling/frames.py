"""How many WebSocket frames pass: each costs its reader about as much as a whole message, even an empty one. Pure."""

from __future__ import annotations


class FrameCounter:
    """`feed(data)` with all bytes of one direction, in order, from the first frame on: how many frames begin in them.

    It reads lengths only (RFC 6455 section 5.2); what breaks the protocol is found by the parser behind it.
    """

    __slots__ = ("_head", "_skip")

    def __init__(self) -> None:
        self._head = b""  # the beginning of a frame, too short to know its length
        self._skip = 0  # bytes of the current frame that are still to come

    def feed(self, data: bytes | bytearray) -> int:
        frames, at = 0, 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            if not self._head:
                frames += 1
            missing = _head_size(self._head) - len(self._head)
            self._head += data[at : at + missing]
            at += missing
            if len(self._head) >= 2 and len(self._head) == _head_size(self._head):
                self._skip = _payload_size(self._head) + (4 if self._head[1] & 0x80 else 0)  # the mask is skipped, too
                self._head = b""
        return frames


def _head_size(head: bytes) -> int:
    """Of a frame up to its length, as far as `head` tells."""
    if len(head) < 2:
        return 2
    return 2 + {126: 2, 127: 8}.get(head[1] & 0x7F, 0)


def _payload_size(head: bytes) -> int:
    short = head[1] & 0x7F
    return short if short < 126 else int.from_bytes(head[2:], "big")
