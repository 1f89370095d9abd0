"""The bytes of consent checks and their answers: against the vectors of RFC 5769, and against aioice."""

from __future__ import annotations

import struct

import pytest
from aioice import stun

from psyne_mesh.webrtc.ice.binding import binding_answer, binding_request, mapped_address
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.stun_guard import SUCCESS, XOR_MAPPED_ADDRESS, check_stun_untrusted, is_authentic
from tests.ice.test_stun_guard import KEY, SAMPLE

# RFC 5769 sections 2.2 and 2.3: the sample answers over IPv4 and IPv6
ANSWER_4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f722000200008"
    "0001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
ANSWER_6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179"
    "bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
HERE_4, HERE_6 = ("192.0.2.1", 32853), ("2001:db8:1234:5678:11:2233:4455:6677", 32853)
ID = b"123456789012"


def test_the_request_of_the_rfc_is_made_byte_by_byte() -> None:
    assert binding_request(SAMPLE[8:20], SAMPLE[20:-32], KEY) == SAMPLE


@pytest.mark.parametrize(("sample", "address"), [(ANSWER_4, HERE_4), (ANSWER_6, HERE_6)])
def test_the_answers_of_the_rfc_are_read(sample: bytes, address: Address) -> None:
    header = check_stun_untrusted(sample)
    assert header.message_class == SUCCESS
    assert is_authentic(sample, header, KEY)
    assert mapped_address(header.attributes[XOR_MAPPED_ADDRESS], header.transaction_id) == address


@pytest.mark.parametrize("address", [HERE_4, HERE_6, ("255.255.255.255", 65535), ("::1", 1), ("0.0.0.0", 0)])
def test_answers_are_those_of_aioice_and_come_back_as_they_went(address: Address) -> None:
    theirs = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, ID, {"XOR-MAPPED-ADDRESS": address})
    theirs.add_message_integrity(KEY)
    ours = binding_answer(ID, address, KEY)
    assert ours == bytes(theirs)
    header = check_stun_untrusted(ours)
    assert is_authentic(ours, header, KEY)
    assert not is_authentic(ours, header, KEY + b"x")
    assert mapped_address(header.attributes[XOR_MAPPED_ADDRESS], ID) == address


@pytest.mark.parametrize("name", ["a:b", "abc:defg", "x" * 255 + ":" + "y" * 200])
def test_requests_are_those_of_aioice(name: str) -> None:
    attributes = {"USERNAME": name, "PRIORITY": 99, "ICE-CONTROLLING": 2**63, "USE-CANDIDATE": None}
    theirs = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, ID, dict(attributes))
    body = bytes(theirs)[20:]
    theirs.add_message_integrity(KEY)
    ours = binding_request(ID, body, KEY)
    assert ours == bytes(theirs)
    assert is_authentic(ours, check_stun_untrusted(ours), KEY)
    assert struct.unpack("!H", ours[2:4])[0] == len(ours) - 20
