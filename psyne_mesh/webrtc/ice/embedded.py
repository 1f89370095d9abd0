"""Datagrams of DTLS inside checks (draft-hancke-webrtc-sped-00): the two attributes, in the words of aioice."""

from __future__ import annotations

from psyne_mesh.webrtc.ice.library import stun
from psyne_mesh.webrtc.ice.stun_guard import DTLS_ACK, DTLS_DATA

_ACK, _DATA = "DTLS-ACK", "DTLS-DATA"
_ENTRIES: tuple[stun.AttributeEntry, ...] = (
    (DTLS_ACK, _ACK, stun.pack_bytes, stun.unpack_bytes),
    (DTLS_DATA, _DATA, stun.pack_bytes, stun.unpack_bytes),
)
for _entry in _ENTRIES:  # aioice keeps what it does not know in neither direction
    stun.ATTRIBUTES_BY_TYPE[_entry[0]] = _entry
    stun.ATTRIBUTES_BY_NAME[_entry[1]] = _entry


def put(message: stun.Message, ack: bytes, data: bytes) -> None:
    """Into a message that is to be signed afterwards (the draft: before MESSAGE-INTEGRITY); ACK before DATA, as Chromium."""
    for name in (_ACK, _DATA, "MESSAGE-INTEGRITY", "FINGERPRINT"):
        message.attributes.pop(name, None)
    message.attributes[_ACK] = ack
    if data:
        message.attributes[_DATA] = data


def taken(message: stun.Message) -> tuple[bytes | None, bytes] | None:
    ack, data = message.attributes.get(_ACK), message.attributes.get(_DATA, b"")
    return None if ack is None and not data else (ack, data)
