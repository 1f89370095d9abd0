"""A channel message on its way through other members: its channel's name, whether it is text, and its bytes."""

from __future__ import annotations

from psyne_mesh.errors import ProtocolError
from psyne_mesh.mesh.sealed import CHANNEL_MESSAGE
from psyne_mesh.room.codec import Payload

NAME_BYTES_MAX = 128
_TEXT, _BINARY = 0, 1
_HEAD_BYTES = len(CHANNEL_MESSAGE) + 2


def carried(name: str, payload: Payload) -> bytes:
    raw = name.encode()
    kind, data = (_TEXT, payload.encode()) if isinstance(payload, str) else (_BINARY, payload)
    return CHANNEL_MESSAGE + bytes((kind, len(raw))) + raw + data


def carried_untrusted(blob: bytes) -> tuple[str, Payload]:
    """The channel's name and the payload, or `ProtocolError`."""
    if (
        len(blob) < _HEAD_BYTES
        or blob[:1] != CHANNEL_MESSAGE
        or blob[1] > _BINARY
        or not 1 <= blob[2] <= NAME_BYTES_MAX
    ):
        raise ProtocolError("not a carried channel message")
    end = _HEAD_BYTES + blob[2]
    if len(blob) < end:
        raise ProtocolError("a carried channel message ends inside its name")
    try:
        name = blob[_HEAD_BYTES:end].decode()
        return name, blob[end:].decode() if blob[1] == _TEXT else blob[end:]
    except UnicodeDecodeError as error:
        raise ProtocolError("a carried channel message holds bad UTF-8") from error
