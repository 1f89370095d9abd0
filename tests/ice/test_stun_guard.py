"""What the guard lets through never makes aioice stumble."""

from __future__ import annotations

import struct

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.ice.stun_guard import (
    ATTRIBUTES_MAX,
    STUN_BYTES_MAX,
    asked_ufrag_untrusted,
    check_stun_untrusted,
    is_authentic,
)

KEY = b"VOkJxbRl1RmTxUk/WvJxBt"
# RFC 5769 section 2.1: the sample request
SAMPLE = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff"
    "80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
HEADER = struct.Struct("!HHI12s")
COOKIE = 0x2112A442


def check(**changes: object) -> stun.Message:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, b"t" * 12)
    attributes: dict[str, object] = {"USERNAME": "here:there", "PRIORITY": 1, "ICE-CONTROLLING": 2, **changes}
    message.attributes = {name: value for name, value in attributes.items() if value != "absent"}
    return message


def signed(message: stun.Message, key: bytes = KEY) -> bytes:
    message.add_message_integrity(key)
    return bytes(message)


def packet(*attributes: tuple[int, bytes], kind: int = 0x0001) -> bytes:
    body = b"".join(struct.pack("!HH", number, len(v)) + v + bytes(-len(v) % 4) for number, v in attributes)
    return HEADER.pack(kind, len(body), COOKIE, b"t" * 12) + body


def test_the_rfc_sample_passes_and_is_authentic() -> None:
    header = check_stun_untrusted(SAMPLE)
    assert header.local_ufrag == b"evtj"
    assert is_authentic(SAMPLE, header, KEY)
    assert not is_authentic(SAMPLE, header, b"another password")


def test_a_check_of_aioice_passes() -> None:
    data = signed(check())
    header = check_stun_untrusted(data)
    assert header.local_ufrag == b"here"
    assert header.transaction_id == b"t" * 12
    assert is_authentic(data, header, KEY)
    assert not is_authentic(data[:-40] + b"\xff" + data[-39:], header, KEY)


@pytest.mark.parametrize("absent", ["USERNAME", "PRIORITY", "ICE-CONTROLLING"])
def test_a_check_without_what_aioice_reads_blindly_is_refused(absent: str) -> None:
    with pytest.raises(ProtocolError):
        check_stun_untrusted(signed(check(**{absent: "absent"})))


def test_an_unsigned_check_is_refused() -> None:
    message = check()
    message.add_fingerprint()
    with pytest.raises(ProtocolError, match="MESSAGE-INTEGRITY"):
        check_stun_untrusted(bytes(message))


def test_what_follows_the_signature_is_not_believed() -> None:
    message = check(PRIORITY="absent")
    message.add_message_integrity(KEY)
    message.attributes.pop("FINGERPRINT")
    data = bytearray(bytes(message)) + struct.pack("!HHI", 0x0024, 4, 1)
    data[2:4] = struct.pack("!H", len(data) - 20)
    with pytest.raises(ProtocolError, match="PRIORITY"):
        check_stun_untrusted(bytes(data))


def test_the_packet_that_kills_an_unguarded_loop_is_refused() -> None:
    hostile = packet((0x0024, b"\0\0"))
    assert len(hostile) == 28
    with pytest.raises(struct.error):
        stun.parse_message(hostile)
    with pytest.raises(ProtocolError):
        check_stun_untrusted(hostile)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 20,
        SAMPLE[:-1],
        SAMPLE + b"\0\0\0\0",
        SAMPLE[:-1] + b"\0",
        packet((0x8028, b"\0\0\0\0"), (0x8022, b"x")),
        packet((0x0006, b"\xff\xfe"), kind=0x0101),
        packet((0x0009, b"\0"), kind=0x0111),
        packet((0x0020, b"\0\x01\0\0"), kind=0x0101),
        packet((0x0008, b"short"), kind=0x0101),
        packet(kind=0x0101),
        packet((0x8022, b"an error without a code"), kind=0x0111),
        packet((0x8022, b"an error without a code"), kind=0x0113),
        packet(kind=0x0003),
        packet(kind=0x0555),
        packet((0x8022, b"x" * STUN_BYTES_MAX), kind=0x0101),
        struct.pack("!HHI12sHH", 0x0101, 4, COOKIE, b"t" * 12, 0x8022, 400),
    ],
)
def test_broken_messages_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        check_stun_untrusted(data)


def passes(data: bytes) -> bool:
    try:
        header = check_stun_untrusted(data)
    except ProtocolError:
        return False
    message = stun.parse_message(data)  # must not raise
    if header.message_class == stun.Class.REQUEST:
        assert {"USERNAME", "PRIORITY", "MESSAGE-INTEGRITY"} <= set(message.attributes)
        assert message.check_message_integrity(KEY) == is_authentic(data, header, KEY)
        assert message.attributes["USERNAME"].encode() == header.username
    assert message.transaction_id == header.transaction_id
    return True


ATTRIBUTES = st.lists(
    st.tuples(
        st.sampled_from([*stun.ATTRIBUTES_BY_TYPE, 0x7777, 0xC057]) | st.integers(0, 0xFFFF), st.binary(max_size=24)
    ),
    max_size=8,
)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_guard_or_aioice_stumble(data: bytes) -> None:
    passes(data)


@given(ATTRIBUTES, st.sampled_from([0x0001, 0x0101, 0x0111, 0x0011, 0x0017, 0x0103, 0x0113, 0x0108, 0x0109]))
def test_no_attributes_make_aioice_stumble(attributes: list[tuple[int, bytes]], kind: int) -> None:
    passes(packet(*attributes, kind=kind))


@given(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255), st.integers(20, len(SAMPLE)))
def test_no_damaged_check_makes_aioice_stumble(at: int, value: int, length: int) -> None:
    data = bytearray(SAMPLE)
    data[at] = value
    passes(bytes(data))
    cut = data[: length - length % 4]
    cut[2:4] = struct.pack("!H", len(cut) - 20)
    passes(bytes(cut))


@given(st.text(max_size=40), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_every_well_formed_check_passes(username: str, priority: int, tie_breaker: int) -> None:
    changes = {"USERNAME": username, "PRIORITY": priority, "ICE-CONTROLLING": "absent", "ICE-CONTROLLED": tie_breaker}
    assert passes(signed(check(**changes)))


def test_attributes_are_counted() -> None:
    """370 empty ones fit into a datagram, and each is a turn of the loop."""
    empty = [(0x8023, b"")] * ATTRIBUTES_MAX
    assert check_stun_untrusted(packet(*empty[1:], (0x0020, b"\0\1" + b"x" * 6), kind=0x0101)).attributes[0x8023] == b""
    with pytest.raises(ProtocolError):
        check_stun_untrusted(packet(*empty, (0x0020, b"\0\1" + b"x" * 6), kind=0x0101))


def test_the_ufrag_is_found_at_a_glance() -> None:
    assert asked_ufrag_untrusted(signed(check())) == b"here"
    assert asked_ufrag_untrusted(SAMPLE) is None  # SOFTWARE stands first
    for size in range(40):
        asked_ufrag_untrusted(signed(check())[:size])
