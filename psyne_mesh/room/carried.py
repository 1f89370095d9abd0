"""A channel message on its way through other members: its channel's name, whether it is text and whether it was sent
reliably, and its bytes. And the answer to those that never came: how many."""

from __future__ import annotations

import struct

from psyne_mesh.errors import ProtocolError
from psyne_mesh.mesh.membership import CHANNEL_NAME_BYTES_MAX
from psyne_mesh.mesh.sealed import CHANNEL_MESSAGE
from psyne_mesh.room.codec import Payload

_TEXT, _BINARY, _UNRELIABLE = 0, 1, 2  # the last is a flag
_KIND_MAX = _BINARY | _UNRELIABLE
_HEAD_BYTES = len(CHANNEL_MESSAGE) + 2
_LOST = CHANNEL_MESSAGE + b"\x04"  # no kind of a message: members of earlier versions pass it over
_COUNT = struct.Struct("!I")
_COUNT_MAX = 2**32 - 1


def carried(name: str, payload: Payload, *, reliable: bool = True) -> bytes:
    raw = name.encode()
    kind, data = (_TEXT, payload.encode()) if isinstance(payload, str) else (_BINARY, payload)
    return CHANNEL_MESSAGE + bytes((kind if reliable else kind | _UNRELIABLE, len(raw))) + raw + data


def carried_untrusted(blob: bytes) -> tuple[str, Payload, bool]:
    """The channel's name, the payload and whether it was sent reliably, or `ProtocolError`."""
    if (
        len(blob) < _HEAD_BYTES
        or blob[:1] != CHANNEL_MESSAGE
        or blob[1] > _KIND_MAX
        or not 1 <= blob[2] <= CHANNEL_NAME_BYTES_MAX
    ):
        raise ProtocolError("not a carried channel message")
    end = _HEAD_BYTES + blob[2]
    if len(blob) < end:
        raise ProtocolError("a carried channel message ends inside its name")
    try:
        name = blob[_HEAD_BYTES:end].decode()
        payload = blob[end:] if blob[1] & _BINARY else blob[end:].decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("a carried channel message holds bad UTF-8") from error
    return name, payload, not blob[1] & _UNRELIABLE


def lost_word(count: int) -> bytes:
    """For a member alone: so many of its broadcasts never came here, in all."""
    return _LOST + _COUNT.pack(min(count, _COUNT_MAX))


def lost_untrusted(blob: bytes) -> int | None:
    """How many of our broadcasts never came there; None: it is a message. `ProtocolError` for what is neither."""
    if not blob.startswith(_LOST):
        return None
    if len(blob) != len(_LOST) + _COUNT.size:
        raise ProtocolError("a word about lost broadcasts of another size")
    (count,) = _COUNT.unpack_from(blob, len(_LOST))
    return int(count)
