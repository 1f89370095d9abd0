"""The Data Channel Establishment Protocol, RFC 8832: an OPEN, and its ACK."""

from __future__ import annotations

import struct

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import InvalidConfig, ProtocolError

PRIORITY_NORMAL = 256  # RFC 8831 section 6.4
ACK = b"\x02"
# Of our own, between two of us only: see `credit.py`. RFC 8832 section 8.2.1 has left the value unassigned
CREDIT = b"\x43"

_OPEN = 0x03
_OPEN_HEADER = struct.Struct("!BBHIHH")  # type, channel type, priority, reliability, label length, protocol length
_CREDIT = struct.Struct("!cHQ")  # type, stream, what it may cost in all
_UNORDERED = 0x80
_RELIABLE, _PARTIAL_RELIABLE_REXMIT, _PARTIAL_RELIABLE_TIMED = 0, 1, 2
_RELIABILITY_MAX = 65_535  # the wire has 32 bits, W3C and DataChannelConfig 16; more is as good as reliable


def encode_open(config: DataChannelConfig) -> bytes:
    """The DATA_CHANNEL_OPEN message that announces a channel of this configuration."""
    if config.max_retransmits is not None:
        channel_type, reliability = _PARTIAL_RELIABLE_REXMIT, config.max_retransmits
    elif config.max_packet_life_time_ms is not None:
        channel_type, reliability = _PARTIAL_RELIABLE_TIMED, config.max_packet_life_time_ms
    else:
        channel_type, reliability = _RELIABLE, 0
    if not config.ordered:
        channel_type |= _UNORDERED
    try:
        label, protocol = config.label.encode(), config.protocol.encode()
    except UnicodeEncodeError as error:
        raise InvalidConfig("label and protocol must be Unicode text without lone surrogates") from error
    header = _OPEN_HEADER.pack(_OPEN, channel_type, config.priority, reliability, len(label), len(protocol))
    return header + label + protocol


def encode_credit(stream_id: int, limit: int) -> bytes:
    return _CREDIT.pack(CREDIT, stream_id, max(0, limit))


def parse_credit_untrusted(message: bytes) -> tuple[int, int]:
    """Stream and what it may cost in all. Raises `ProtocolError`."""
    if len(message) != _CREDIT.size or message[:1] != CREDIT:
        raise ProtocolError("not a word of credit")
    _, stream_id, limit = _CREDIT.unpack(message)
    return stream_id, limit


def parse_dcep_untrusted(message: bytes) -> DataChannelConfig | None:
    """What an OPEN asks for; `None` for an ACK. Raises `ProtocolError` for anything else.

    Priority 0 stands for "normal": several stacks send it for "not set", and no channel should starve by it.
    """
    if message[:1] == ACK:
        return None
    if len(message) < _OPEN_HEADER.size or message[0] != _OPEN:
        raise ProtocolError("neither DATA_CHANNEL_OPEN nor DATA_CHANNEL_ACK (RFC 8832 section 8.2.1)")
    _, channel_type, priority, reliability, label_length, protocol_length = _OPEN_HEADER.unpack_from(message)
    kind = channel_type & ~_UNORDERED
    if kind > _PARTIAL_RELIABLE_TIMED:
        raise ProtocolError(f"channel type {channel_type:#x} is unassigned (RFC 8832 section 8.2.2)")
    try:
        label, protocol = _texts_untrusted(message[_OPEN_HEADER.size :], label_length, protocol_length)
    except UnicodeDecodeError as error:
        raise ProtocolError("label and protocol of DATA_CHANNEL_OPEN are UTF-8") from error
    reliability = min(reliability, _RELIABILITY_MAX)
    return DataChannelConfig(
        label=label,
        protocol=protocol,
        ordered=not channel_type & _UNORDERED,
        max_retransmits=reliability if kind == _PARTIAL_RELIABLE_REXMIT else None,
        max_packet_life_time_ms=reliability if kind == _PARTIAL_RELIABLE_TIMED else None,
        priority=priority or PRIORITY_NORMAL,
    )


def _texts_untrusted(data: bytes, label_length: int, protocol_length: int) -> tuple[str, str]:
    """Label and protocol. Their lengths count bytes (RFC 8832 section 5.1); aiortc up to 1.16 counts characters, which is
    unmistakable: the bytes do not add up then, and the characters do."""
    if len(data) == label_length + protocol_length:
        return data[:label_length].decode(), data[label_length:].decode()
    text = data.decode()
    if len(text) != label_length + protocol_length:
        raise ProtocolError("the lengths in DATA_CHANNEL_OPEN do not add up to its size")
    return text[:label_length], text[label_length:]
