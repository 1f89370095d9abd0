"""Bytes as text of the wire."""

from __future__ import annotations

import base64
import binascii

from psyne_mesh.errors import ProtocolError


def to_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def from_base64_untrusted(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError("not base64") from error
