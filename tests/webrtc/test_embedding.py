"""DTLS handshakes inside ICE's checks (draft-hancke-webrtc-sped-00)."""

from __future__ import annotations

import binascii
from typing import Any

import attrs
import pytest
import trio
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from psyne_mesh.config import DataChannelConfig, WebRTCConfig
from psyne_mesh.testing.network import Quality, VirtualNetwork
from psyne_mesh.webrtc.dtls import EMBEDDED_MTU, EMBEDDING_OPTION, Embedding
from psyne_mesh.webrtc.dtls.embedding import ACKS_MAX, HELD_MAX, is_handshake
from psyne_mesh.webrtc.endpoint import open_endpoint
from psyne_mesh.webrtc.ice.embedded import put, taken
from psyne_mesh.webrtc.ice.stun_guard import check_stun_untrusted, is_authentic
from psyne_mesh.webrtc.sdp import parse_sdp_untrusted

RTT_S = 0.1
FLIGHT = [bytes([22]) + bytes([number]) * 300 for number in range(3)]


# ------------------------------------------------------------------------------------------------------------- the core


def crcs(*datagrams: bytes) -> bytes:
    return b"".join(binascii.crc32(datagram).to_bytes(4, "big") for datagram in datagrams)


def test_a_flight_goes_round_until_it_is_acknowledged() -> None:
    one = Embedding()
    assert one.attributes() == (b"", b"")  # "I understand"
    one.hold(FLIGHT)
    assert [one.attributes() for _ in range(4)] == [(b"", data) for data in (*FLIGHT, FLIGHT[0])]
    assert one.receive_untrusted(crcs(FLIGHT[1]), b"") is None
    assert {one.attributes() for _ in range(4)} == {(b"", FLIGHT[0]), (b"", FLIGHT[2])}
    one.receive_untrusted(crcs(FLIGHT[0], FLIGHT[2]), b"")
    assert one.attributes() == (b"", b"")
    assert one.waiting == []


def test_a_datagram_comes_up_once_and_is_acknowledged_each_time() -> None:
    one = Embedding()
    assert one.receive_untrusted(None, FLIGHT[0]) == FLIGHT[0]
    assert one.receive_untrusted(None, FLIGHT[0]) is None
    assert one.attributes() == (crcs(FLIGHT[0]), b"")
    for number in range(10):
        one.receive_untrusted(None, bytes([22, number]))
    assert one.attributes() == (crcs(*(bytes([22, number]) for number in range(10 - ACKS_MAX, 10))), b"")


def test_a_new_flight_takes_the_place_of_the_last_but_an_ack_does_not() -> None:
    one = Embedding()
    one.hold(FLIGHT)
    one.hold([b"\x2e" + bytes(30)])
    assert len(one.waiting) == 4
    one.hold(FLIGHT[:1])
    assert one.waiting == FLIGHT[:1]


def test_only_handshakes_are_carried_and_only_what_fits() -> None:
    assert is_handshake(bytes([22, 254]))
    assert is_handshake(b"\x2e")
    assert not any(is_handshake(data) for data in (b"", b"\x2f", b"\x17\xfe\xfd", b"\x15", b"\x80"))
    one = Embedding()
    one.hold([b"\x2f" + bytes(200), bytes([22]) * (EMBEDDED_MTU + 1)])
    assert one.waiting == []
    one.hold([bytes([22, number]) * 100 for number in range(20)])
    assert len(one.waiting) == HELD_MAX


def test_after_the_end_nothing_is_said_or_heard() -> None:
    one = Embedding()
    one.hold(FLIGHT)
    one.finish()
    assert one.attributes() is None
    assert one.receive_untrusted(b"", FLIGHT[0]) is None


@given(st.lists(st.tuples(st.none() | st.binary(max_size=40), st.binary(max_size=80)), max_size=100))
def test_whatever_comes_the_tables_stay_small(messages: list[tuple[bytes | None, bytes]]) -> None:
    one = Embedding()
    one.hold(FLIGHT)
    for ack, data in messages:
        assert one.receive_untrusted(ack, data) in (data, None)
        values = one.attributes()
        assert values is not None
        assert len(values[0]) <= 4 * ACKS_MAX
    assert len(one._heard) <= 4 * HELD_MAX


def test_the_attributes_stand_before_the_signature_and_replace_older_ones() -> None:
    message = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE)
    message.attributes["XOR-MAPPED-ADDRESS"] = ("192.0.2.1", 4)
    for data in FLIGHT:
        put(message, crcs(data), data)
        message.add_message_integrity(b"key")
    header = check_stun_untrusted(bytes(message))
    assert is_authentic(bytes(message), header, b"key")
    assert taken(stun.parse_message(bytes(message))) == (crcs(FLIGHT[2]), FLIGHT[2])
    put(message, b"", b"")
    assert taken(message) == (b"", b"")


# --------------------------------------------------------------------------------------------------------- connections


async def took(
    one: WebRTCConfig, two: WebRTCConfig, *, loss: float = 0.0, seed: int = 1, signaling_s: float = RTT_S / 2
) -> tuple[float, Any, Any]:
    """Seconds from the answer's leaving until both sides have heard a message of the other; and the stats of both."""
    net = VirtualNetwork(seed, Quality(latency_s=RTT_S / 2, loss=loss))
    hosts = [net.host(name) for name in ("ada", "bob")]
    configs = [attrs.evolve(mine, **_networked(host.config)) for mine, host in zip((one, two), hosts)]
    heard: list[float] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(net.run)
        async with (
            open_endpoint(configs[0], sockets=hosts[0].sockets) as left,
            open_endpoint(configs[1], sockets=hosts[1].sockets) as right,
            left.open_peer(offerer=True) as offerer,
            right.open_peer(offerer=False) as answerer,
            trio.open_nursery() as talk,
        ):

            async def speak(peer: Any) -> None:
                channel = peer.create_channel(DataChannelConfig(label="game", negotiated=True, id=0))
                await channel.wait_open()
                await channel.send("first")
                assert await anext(channel) == "first"
                heard.append(trio.current_time())

            talk.start_soon(speak, offerer)
            talk.start_soon(speak, answerer)
            offer = await offerer.create_offer()
            assert (EMBEDDING_OPTION in parse_sdp_untrusted(offer).ice_options) == one.dtls_in_stun
            answer = await answerer.create_answer(offer)
            assert (EMBEDDING_OPTION in parse_sdp_untrusted(answer).ice_options) == (
                one.dtls_in_stun and two.dtls_in_stun
            )
            began = trio.current_time()
            await trio.sleep(signaling_s)
            await offerer.set_answer(answer)
            while len(heard) < 2:
                await trio.sleep(0.0005)
            stats = offerer.stats(), answerer.stats()
        nursery.cancel_scope.cancel()
    return max(heard) - began, *stats


def _networked(config: WebRTCConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("bind_host", "use_ipv4", "use_ipv6", "include_loopback")}


PLAIN, EMBEDDED = WebRTCConfig(), WebRTCConfig(dtls_in_stun=True)


async def test_a_round_trip_less(autojump_clock: MockClock) -> None:
    plain, *_ = await took(PLAIN, PLAIN)
    embedded, offerer, answerer = await took(EMBEDDED, EMBEDDED)
    assert plain - embedded == pytest.approx(RTT_S, abs=0.02)
    assert offerer.dtls.is_post_quantum == answerer.dtls.is_post_quantum
    assert offerer.dtls.version == "DTLSv1.3"


@pytest.mark.parametrize(("one", "two"), [(EMBEDDED, PLAIN), (PLAIN, EMBEDDED)])
async def test_who_does_not_know_it_is_spoken_to_as_ever(
    one: WebRTCConfig, two: WebRTCConfig, autojump_clock: MockClock
) -> None:
    plain, *_ = await took(PLAIN, PLAIN)
    mixed, *_ = await took(one, two)
    assert mixed == pytest.approx(plain, abs=0.02)


@pytest.mark.parametrize("late_s", [0.0, 0.3, 1.0])
async def test_checks_that_come_before_the_answer(late_s: float, autojump_clock: MockClock) -> None:
    embedded, *_ = await took(EMBEDDED, EMBEDDED, signaling_s=late_s)
    assert embedded <= late_s + 2.1 * RTT_S


async def test_with_1_2_as_well(autojump_clock: MockClock) -> None:
    older = WebRTCConfig(dtls_in_stun=True, dtls_versions=("1.2",))
    embedded, offerer, _ = await took(older, older)
    plain, *_ = await took(attrs.evolve(older, dtls_in_stun=False), attrs.evolve(older, dtls_in_stun=False))
    assert embedded < plain
    assert offerer.dtls.version == "DTLSv1.2"


@pytest.mark.parametrize("seed", range(5))
async def test_with_every_fifth_datagram_lost(seed: int, autojump_clock: MockClock) -> None:
    embedded, *_ = await took(EMBEDDED, EMBEDDED, loss=0.2, seed=seed)
    assert embedded < 5
