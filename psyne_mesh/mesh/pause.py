"""A player's own word that it is away from the game for a while: a frame of its link,
`PAUSE_TAG | tag of the room | reason`. Pure.

An empty reason says that it is back. Members of earlier versions take it for a frame of a room that they are not in.
"""

from __future__ import annotations

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.names import is_plain

PAUSE_TAG = b"\xff" * 7 + b"\x01"
REASON_BYTES_MAX = 128
_ROOM_BYTES = 8
_HEAD_BYTES = len(PAUSE_TAG) + _ROOM_BYTES


def check_reason(reason: object) -> str:
    """`InvalidConfig` for what cannot travel or be shown."""
    if not isinstance(reason, str) or not is_plain(reason) or not 1 <= len(reason.encode()) <= REASON_BYTES_MAX:
        raise InvalidConfig(f"pause({reason!r}): a reason is a text of 1 to {REASON_BYTES_MAX} bytes that can be shown")
    return reason


def pause_frame(room: bytes, reason: str | None) -> bytes:
    return PAUSE_TAG + room + (reason or "").encode()


def pause_untrusted(frame: bytes) -> tuple[bytes, str | None]:
    """(tag of the room, reason), or `ProtocolError`. None: the player is back."""
    if not _HEAD_BYTES <= len(frame) <= _HEAD_BYTES + REASON_BYTES_MAX or not frame.startswith(PAUSE_TAG):
        raise ProtocolError("not a pause")
    try:
        reason = frame[_HEAD_BYTES:].decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("the reason of a pause is no UTF-8") from error
    if not is_plain(reason):
        raise ProtocolError("the reason of a pause cannot be shown")
    return frame[len(PAUSE_TAG) : _HEAD_BYTES], reason or None
