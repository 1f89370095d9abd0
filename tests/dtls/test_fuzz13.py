"""Any bytes at any moment of DTLS 1.3: nothing is raised, nothing comes up that the peer did not send, an open session stays
open; and each parser lets out the one exception that it declares."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.dtls import DtlsSession, Failed
from psyne_mesh.webrtc.dtls.gate12 import certificate_of, client_has_signed, server_has_signed
from psyne_mesh.webrtc.dtls.handshake13 import messages, signing
from psyne_mesh.webrtc.dtls.handshake13.core import read_ack_untrusted
from psyne_mesh.webrtc.dtls.handshake13.messages import Message
from psyne_mesh.webrtc.dtls.handshake13.reassembly import split_fragments_untrusted
from psyne_mesh.webrtc.dtls.record13 import cut_untrusted
from psyne_mesh.webrtc.dtls.session13 import Session13
from tests.dtls.pair import CLIENT, SERVER, deliver_all
from tests.dtls.pair13 import CLASSIC, Pair13, talk

PARSERS: list[Callable[[bytes], Any]] = [
    messages.read_client_hello_untrusted, messages.read_server_hello_untrusted,
    messages.check_encrypted_extensions_untrusted, messages.read_certificate_request_untrusted,
    messages.read_certificate_untrusted, messages.read_certificate_verify_untrusted,
    messages.read_key_update_untrusted, read_ack_untrusted, split_fragments_untrusted, cut_untrusted,
]  # fmt: skip


def recorded() -> list[tuple[str, bytes]]:
    return Pair13(allowed_groups=CLASSIC).connect().run(1).sent


SENT = recorded()
BODIES = [f.data for _, d in SENT for r in cut_untrusted(d)[0] for f in split_fragments_untrusted(r.data) or []]


def mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        match rng.randrange(4):
            case 0 if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            case 1:
                del changed[rng.randrange(len(changed) + 1) :]
            case 2:
                changed[rng.randrange(len(changed) + 1) : 0] = rng.randbytes(rng.randint(0, 4))
            case 3 if changed:
                at = rng.randrange(len(changed))
                changed[at : at + 2] = rng.choice((b"\0\0", b"\xff\xff", b"\0\1", b"\x7f\xff"))
    return bytes(changed)


def parse_all(data: bytes) -> None:
    for parse in PARSERS:
        try:
            parse(data)
        except ProtocolError:
            continue
    flight = [Message(kind, data) for kind in (2, 11, 12)]
    certificate_of(flight)
    assert not server_has_signed(flight, data)
    assert not client_has_signed([Message(kind, data) for kind in (11, 16, 15)], data)


@given(st.binary(max_size=300))
def test_parsers_raise_protocol_error_and_nothing_else(data: bytes) -> None:
    parse_all(data)


@given(st.binary(max_size=400))
def test_any_certificate_is_verified_or_refused(der: bytes) -> None:
    with pytest.raises(ProtocolError):
        signing.verify_untrusted(der, b"content", 0x0403, b"signature")


def hostile(rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randint(0, 120))
    if kind == 1:
        return bytes((rng.choice((0x2C, 0x2D, 0x2E, 0x2F, 0x24, 0x3F, 0x20)),)) + rng.randbytes(rng.randint(0, 80))
    _, datagram = rng.choice(SENT)
    return mutated(rng, datagram)


def attack(seed: int) -> None:
    """A handshake under mutated datagrams beside the honest ones, then an open session under more of them."""
    rng = random.Random(seed)

    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        lies = [mutated(rng, datagram), hostile(rng)]
        return [(rng.random() * 0.02, lie) for lie in lies] + [(0.0, datagram)]

    pair = Pair13(wire, allowed_groups=CLASSIC)
    pair.server.start(0.0)
    pair.client.start(0.0)
    pair.run(20, until_established=True)
    assert pair.packets == {"client": [], "server": []}
    for name in ("client", "server"):
        assert not [event for event in pair.events[name] if isinstance(event, Failed)]
    pair.wire = deliver_all
    pair.run(1)
    for session in (pair.client, pair.server):
        for _ in range(20):
            assert session.receive(hostile(rng), pair.now) == []
    talk(pair)


@pytest.mark.parametrize("seed", range(40))
def test_a_handshake_and_a_session_under_mutated_datagrams(seed: int) -> None:
    attack(seed)


@pytest.mark.parametrize("is_client", [True, False])
@given(datagrams=st.lists(st.binary(max_size=120), max_size=8), seed=st.integers(0, 2**32))
def test_a_lonely_side_under_hostile_datagrams(is_client: bool, datagrams: list[bytes], seed: int) -> None:
    rng = random.Random(seed)
    certificate, other = (CLIENT, SERVER) if is_client else (SERVER, CLIENT)
    for make in (Session13, DtlsSession):
        session = make(certificate, is_client=is_client, remote_fingerprints=[other.fingerprint])
        session.start(0.0)
        for number, datagram in enumerate([*datagrams, *(hostile(rng) for _ in range(5))]):
            assert session.receive(datagram, number / 10) == []
            session.handle_timeout(number / 10)
            assert all(len(sent) <= 1200 for sent in session.datagrams_to_send(number / 10))
        session.close(9.0)


@pytest.mark.slow
def test_a_million_mutated_flights() -> None:
    """A million inputs for the parsers, and for the sessions one for each fiftieth of them."""
    rng = random.Random(20261201)
    for number in range(1_000_000):
        if number % 50 == 0:
            datagram = hostile(rng)
            for is_client in (True, False):
                ours, theirs = (CLIENT, SERVER) if is_client else (SERVER, CLIENT)
                session = Session13(
                    ours, is_client=is_client, remote_fingerprints=[theirs.fingerprint], allowed_groups=CLASSIC
                )
                session.start(0.0)
                assert session.receive(datagram, 0.0) == []
        else:
            data = mutated(rng, rng.choice(BODIES))
            parse = PARSERS[number % len(PARSERS)]
            try:
                parse(data)
            except ProtocolError:
                continue
