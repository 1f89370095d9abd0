"""Layouts, and parsers that let only ProtocolError out."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.sctp import wire

HEADER = wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(7)


def test_a_sealed_packet_is_read_back_chunk_by_chunk() -> None:
    chunks = [wire.chunk(wire.COOKIE_ACK, 0, b""), wire.chunk(wire.HEARTBEAT, 3, b"abcde")]
    packet = wire.seal(HEADER, chunks)
    parsed = wire.parse_packet_untrusted(packet)
    assert parsed[:3] == (5000, 5000, 7)
    assert parsed.chunks == [(wire.COOKIE_ACK, 0, 12, 16), (wire.HEARTBEAT, 3, 16, 25)]
    assert packet[20:25] == b"abcde"
    assert wire.checksum_is_right(packet)


def test_the_checksum_is_crc32c_in_little_endian() -> None:
    # RFC 3720 appendix B.4: the CRC32c of 32 zero bytes is aa 36 91 8a as sent
    assert wire.CHECKSUM.pack(wire.google_crc32c.value(bytes(32))) == bytes.fromhex("aa36918a")


def test_any_flipped_bit_breaks_the_checksum() -> None:
    packet = wire.seal(HEADER, [wire.chunk(wire.HEARTBEAT, 0, b"abcdefgh")])
    for position in range(len(packet)):
        broken = bytearray(packet)
        broken[position] ^= 0x10
        assert not wire.checksum_is_right(bytes(broken))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\x06\x00\x00\x03",  # length below four
        b"\x06\x00\x00\x05",  # beyond the packet
        b"\x00\x03\x00\x0f" + bytes(12),  # DATA cut short
        b"\x03\x00\x00\x0c" + bytes(8),  # SACK cut short
        b"\x0b\x00\x00\x04\x00\x00",  # stray bytes
    ],
)
def test_chunks_that_do_not_fit_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.parse_packet_untrusted(bytes(12) + body)


@given(st.binary(max_size=200))
@example(bytes(12))
@example(bytes(16))
def test_no_bytes_make_the_packet_parser_raise_anything_else(data: bytes) -> None:
    try:
        packet = wire.parse_packet_untrusted(data)
    except ProtocolError:
        return
    previous = 12
    for _, _, start, end in packet.chunks:
        assert previous <= start < end <= len(data)
        previous = end


@given(st.binary(max_size=120), st.sampled_from([wire.INIT, wire.SACK, wire.FORWARD_TSN, wire.I_FORWARD_TSN]))
def test_no_bytes_make_a_chunk_parser_raise_anything_else(value: bytes, kind: int) -> None:
    data = bytes(12) + wire.chunk(kind, 0, value)
    parsers = {
        wire.INIT: wire.parse_init_untrusted,
        wire.SACK: wire.parse_sack_untrusted,
        wire.FORWARD_TSN: wire.parse_forward_tsn_untrusted,
        wire.I_FORWARD_TSN: wire.parse_i_forward_tsn_untrusted,
    }
    try:
        (chunk,) = wire.parse_packet_untrusted(data).chunks
        parsers[kind](data, *chunk[2:])
    except ProtocolError:
        pass


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 65_535), unique=True, max_size=40).map(sorted),
    st.lists(st.integers(0, 2**32 - 1), max_size=10),
)
def test_sacks_survive_the_wire(cumulative: int, a_rwnd: int, bounds: list[int], duplicates: list[int]) -> None:
    gaps = list(zip(bounds[::2], bounds[1::2]))
    chunk = wire.sack_chunk(cumulative, a_rwnd, gaps, duplicates)
    assert wire.parse_sack_untrusted(chunk, 0, len(chunk)) == (cumulative, a_rwnd, gaps, tuple(duplicates))


@pytest.mark.parametrize("gaps", [[(0, 1)], [(3, 2)], [(2, 5), (5, 6)], [(9, 9), (2, 3)]])
def test_gap_blocks_that_do_not_ascend_are_refused(gaps: list[tuple[int, int]]) -> None:
    chunk = wire.sack_chunk(1, 1, gaps)
    with pytest.raises(ProtocolError):
        wire.parse_sack_untrusted(chunk, 0, len(chunk))


def test_skipped_streams_survive_the_wire() -> None:
    skipped = [(1, False, 70), (2, True, 9)]
    chunk = wire.forward_tsn_chunk(5, skipped, interleaving=True)
    assert wire.parse_i_forward_tsn_untrusted(chunk, 0, len(chunk)) == (5, skipped)
    chunk = wire.forward_tsn_chunk(5, skipped, interleaving=False)
    assert wire.parse_forward_tsn_untrusted(chunk, 0, len(chunk)) == (5, skipped[:1])  # RFC 3758: ordered ones only


@pytest.mark.parametrize(
    ("kind", "is_reported", "goes_on"),
    [(0x0FFF, False, False), (0x4FFF, True, False), (0x8FFF, False, True), (0xCFFF, True, True)],
)
def test_unknown_parameters_follow_their_two_high_bits(kind: int, is_reported: bool, goes_on: bool) -> None:
    after = wire.parameter(wire.PARAM_STATE_COOKIE, b"cookie")
    chunk = wire.init_chunk(wire.INIT, 1, 2, 3, 4, 5, [wire.parameter(kind, b"odd"), after])
    init = wire.parse_init_untrusted(chunk, 0, len(chunk))
    assert init.unrecognized == ((wire.parameter(kind, b"odd"),) if is_reported else ())
    assert init.cookie == (b"cookie" if goes_on else b"")


@given(st.integers(0, 2**40), st.integers(-(2**31), 2**31 - 1))
def test_unwrap_finds_the_nearest(reference: int, distance: int) -> None:
    assert wire.unwrap(reference, (reference + distance) & 0xFFFFFFFF) == reference + distance


def test_causes_are_described_for_people() -> None:
    assert wire.describe_cause(12, b"enough") == "cause 12: enough"
    assert wire.describe_cause(12, b"\xff\xfe") == "cause 12: \ufffd\ufffd"
    assert wire.describe_cause(1, b"\0\1\0\0") == "cause 1"
