"""Any bytes at any moment: nothing is raised, nothing comes up that the peer did not send, an open session stays open."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.webrtc.dtls import Failed, HandshakeCompleted
from psyne_mesh.webrtc.dtls.session12 import Session12
from tests.dtls.pair import CLIENT, SERVER, Pair

EPOCHS = st.sampled_from([0, 0, 1, 1, 2, 65535])


@st.composite
def fragment(draw: st.DrawFn) -> bytes:
    body = draw(st.binary(max_size=60))
    length = draw(st.sampled_from([len(body), len(body) + 10, 0, 2**24 - 1]))
    at = draw(st.sampled_from([0, 0, 0, 10, 2**24 - 1]))
    head = bytes([draw(st.integers(0, 24))]) + length.to_bytes(3, "big") + draw(st.integers(0, 20)).to_bytes(2, "big")
    return head + at.to_bytes(3, "big") + len(body).to_bytes(3, "big") + body


@st.composite
def record(draw: st.DrawFn) -> bytes:
    body = draw(st.binary(max_size=80) | fragment() | st.sampled_from([b"\1", b"\2\50", b"\1\0"]))
    version = draw(st.sampled_from([0xFEFD, 0xFEFD, 0xFEFF, 0x0303, 0xFEFC]))
    number = draw(st.integers(0, 50) | st.integers(0, 2**48 - 1))
    length = draw(st.sampled_from([len(body)] * 8 + [len(body) + 1, 0, 65535]))
    head = bytes([draw(st.sampled_from([20, 21, 22, 22, 22, 23, 24, 25, 26]))]) + version.to_bytes(2, "big")
    return head + draw(EPOCHS).to_bytes(2, "big") + number.to_bytes(6, "big") + length.to_bytes(2, "big") + body


datagrams = st.lists(st.binary(max_size=120) | st.lists(record(), max_size=4).map(b"".join), max_size=8)


@pytest.mark.parametrize("is_client", [True, False])
@given(hostile=datagrams, late=st.booleans())
def test_a_handshake_under_hostile_datagrams(is_client: bool, hostile: list[bytes], late: bool) -> None:
    certificate, other = (CLIENT, SERVER) if is_client else (SERVER, CLIENT)
    session = Session12(certificate, is_client=is_client, remote_fingerprints=[other.fingerprint])
    if late:
        session.start(0.0)
    for number, datagram in enumerate(hostile):
        assert session.receive(datagram, number / 10) == []
        session.handle_timeout(number / 10)
        assert all(len(sent) <= 1200 for sent in session.datagrams_to_send(number / 10))
    events = session.take_events()
    assert len(events) <= 1
    assert all(isinstance(event, Failed) for event in events)
    assert (session.state == "failed") == bool(events)
    session.close(9.0)


OPEN = {way: Pair(way=way).connect() for way in ("public", "short", "fast")}


@pytest.mark.parametrize("way", OPEN)
@given(hostile=datagrams)
def test_an_open_session_under_hostile_datagrams(way: str, hostile: list[bytes]) -> None:
    pair = OPEN[way]  # the same for all examples: what one of them breaks, the next would see
    for session in (pair.client, pair.server):
        for datagram in hostile:
            pair.now += 1
            assert session.receive(datagram, pair.now) == []
            assert all(len(sent) < 100 for sent in session.datagrams_to_send(pair.now))
    [a], [b] = pair.client.send([b"still"]), pair.server.send([b"here"])
    assert pair.server.receive(a, pair.now) == [b"still"]
    assert pair.client.receive(b, pair.now) == [b"here"]
    assert not pair.client.take_events()
    assert not pair.server.take_events()


@pytest.mark.parametrize("mtu", [300, 1200])
@pytest.mark.parametrize("seed", range(60))
def test_a_handshake_with_damaged_copies(seed: int, mtu: int) -> None:
    """A forged handshake message may end a handshake (DTLS 1.2 cannot tell), but in no other way than `Failed`."""
    rng = random.Random(seed)

    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        damaged = bytearray(datagram)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        copies = [bytes(damaged)] if rng.random() < 0.5 else [bytes(damaged[: rng.randrange(len(damaged))])]
        return [(rng.random() * 0.02, copy) for copy in [*copies, datagram]]

    pair = Pair(wire, mtu=mtu)
    pair.server.start(0.0)
    pair.client.start(0.0)
    pair.run(20.0)
    assert pair.packets == {"client": [], "server": []}
    for name in ("client", "server"):
        kinds = [type(event) for event in pair.events[name]]
        assert kinds in ([], [Failed], [HandshakeCompleted])


def test_copies_with_damaged_record_headers_do_not_disturb_a_handshake() -> None:
    """What can be told from its framing never reaches OpenSSL."""
    for seed in range(40):
        rng = random.Random(seed)

        def wire(sender: str, datagram: bytes, rng: random.Random = rng) -> list[tuple[float, bytes]]:
            damaged = bytearray(datagram)
            damaged[rng.choice([0, 1, 2, 3, 11])] ^= rng.randint(1, 255)
            cut = datagram[: rng.randrange(len(datagram))]
            return [(0.0, copy) for copy in (bytes(damaged), cut, rng.randbytes(100), datagram)]

        assert Pair(wire).connect().now < 10
