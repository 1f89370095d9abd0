"""DATA_CHANNEL_OPEN and DATA_CHANNEL_ACK on the wire."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.webrtc.dcep import ACK, encode_open, parse_dcep_untrusted


@pytest.mark.parametrize(
    ("config", "wire"),
    [
        (DataChannelConfig(label=""), "03 00 0100 00000000 0000 0000"),
        (DataChannelConfig(label="a", ordered=False), "03 80 0100 00000000 0001 0000 61"),
        (DataChannelConfig(label="", max_retransmits=3), "03 01 0100 00000003 0000 0000"),
        (DataChannelConfig(label="", max_retransmits=0, ordered=False), "03 81 0100 00000000 0000 0000"),
        (DataChannelConfig(label="", max_packet_life_time_ms=500), "03 02 0100 000001f4 0000 0000"),
        (DataChannelConfig(label="", max_packet_life_time_ms=1, ordered=False), "03 82 0100 00000001 0000 0000"),
        (DataChannelConfig(label="é", protocol="ß", priority=1024), "03 00 0400 00000000 0002 0002 c3a9 c39f"),
    ],
)
def test_the_wire_form_of_each_channel_type(config: DataChannelConfig, wire: str) -> None:
    """Lengths count bytes of UTF-8, not characters: werift#714."""
    assert encode_open(config) == bytes.fromhex(wire)
    assert parse_dcep_untrusted(bytes.fromhex(wire)) == config


def test_an_ack_has_no_content() -> None:
    assert parse_dcep_untrusted(ACK) is None


def test_a_reliability_over_16_bits_and_priority_zero_are_understood() -> None:
    parsed = parse_dcep_untrusted(bytes.fromhex("03 81 0000 ffffffff 0000 0000"))
    assert parsed == DataChannelConfig(label="", ordered=False, max_retransmits=65_535, priority=256)


def test_the_reliability_of_a_reliable_channel_is_ignored() -> None:
    assert parse_dcep_untrusted(bytes.fromhex("03 00 0100 00000007 0000 0000")) == DataChannelConfig(label="")


@pytest.mark.parametrize(
    "wire",
    ["", "01", "03", "03 00 0100 00000000 0000", "03 00 0100 00000000 0001 0000", "03 00 0100 00000000 0000 0000 61",
     "03 00 0100 00000000 0001 0000 c3a9 61",
     "03 03 0100 00000000 0000 0000", "03 7f 0100 00000000 0000 0000", "03 00 0100 00000000 0001 0000 ff"],
)  # fmt: skip
def test_what_is_malformed_is_one_error(wire: str) -> None:
    with pytest.raises(ProtocolError):
        parse_dcep_untrusted(bytes.fromhex(wire))


def test_a_label_without_utf8_form_is_refused_before_the_wire() -> None:
    with pytest.raises(InvalidConfig):
        encode_open(DataChannelConfig(label="\ud800"))


def test_lengths_in_characters_are_understood_where_bytes_do_not_add_up() -> None:
    """What aiortc 1.16 sends for the label "théirs" and the protocol "ß"."""
    message = bytes.fromhex("03 00 0000 00000000 0006 0001") + "théirsß".encode()
    assert parse_dcep_untrusted(message) == DataChannelConfig(label="théirs", protocol="ß")


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: b"\x03" + tail))
def test_any_bytes(message: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        parse_dcep_untrusted(message)


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_label_survives(label: str, protocol: str) -> None:
    config = DataChannelConfig(label=label, protocol=protocol)
    assert parse_dcep_untrusted(encode_open(config)) == config
