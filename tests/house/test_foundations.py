"""Errors, identity, configuration and URIs: the floor everything stands on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.config import DataChannelConfig, StunServer, TurnServer, WebRTCConfig
from psyne_mesh.errors import InvalidConfig, InvalidUri, ProtocolError
from psyne_mesh.identity import Identity, PeerId, verify_untrusted
from psyne_mesh.uri import GameUri, PeerUri, RoomUri, parse_uri


@pytest.mark.parametrize(
    ("uri", "parsed"),
    [
        ("webrtc://player2", PeerUri("player2")),
        ("webrtc://localhost:8080/lobby", RoomUri("localhost:8080", "lobby")),
        ("webrtc://play.example/lobby%201?tls=1", RoomUri("play.example", "lobby 1", tls=True)),
        ("webrtc-game://p1?room=combat-1&region=us-west", GameUri("p1", "combat-1", "us-west")),
        ("webrtc-game://p1?room=combat-1", GameUri("p1", "combat-1")),
    ],
)
def test_the_three_uri_forms(uri: str, parsed: object) -> None:
    assert parse_uri(uri) == parsed


def test_room_uris_name_their_signaling_server() -> None:
    assert RoomUri("h:1", "r").signaling_url == "ws://h:1"
    assert RoomUri("h", "r", tls=True).signaling_url == "wss://h"


@pytest.mark.parametrize(
    "uri",
    ["", "webrtc:", "webrtc://", "http://x/y", "webrtc://h:99999/r", "webrtc://u@h/r", "webrtc://h/r?x=1", "webrtc://p?x=1",
     "webrtc-game://p", "webrtc-game://p?room=", "webrtc-game://p/x?room=r", "webrtc-game://p?room=r&no=1", "webrtc://p#x",
     "webrtc://h/r?tls=2", 7, None],
)  # fmt: skip
def test_bad_uris_give_one_error_that_shows_the_forms(uri: str) -> None:
    with pytest.raises(InvalidUri, match="webrtc-game://"):
        parse_uri(uri)


@given(st.text())
def test_no_text_gets_past_the_uri_error(text: str) -> None:
    try:
        parse_uri(text)
        parse_uri("webrtc://" + text)
    except InvalidUri:
        pass


def test_a_seed_gives_the_same_player_again() -> None:
    first, second = Identity.from_seed(b"s" * 32), Identity.from_seed(b"s" * 32)
    assert first.peer_id == second.peer_id
    assert Identity.from_seed(first.seed).public_key == first.public_key
    assert Identity.generate().peer_id != Identity.generate().peer_id
    with pytest.raises(InvalidConfig):
        Identity.from_seed(b"short")


def test_secrets_do_not_show_in_repr() -> None:
    assert "secret" not in repr(TurnServer("h", username="u", credential="secret"))
    assert Identity.generate().seed.hex() not in repr(Identity.generate())


def test_signatures_bind_signer_domain_and_payload() -> None:
    me = Identity.generate()
    signature = me.sign(b"offer", b"payload")
    assert verify_untrusted(me.public_key, b"offer", b"payload", signature) == me.peer_id
    for key, domain, payload, seal in [
        (Identity.generate().public_key, b"offer", b"payload", signature),
        (me.public_key, b"answer", b"payload", signature),
        (me.public_key, b"offer", b"Payload", signature),
        (me.public_key, b"offe", b"rpayload", signature),
        (me.public_key, b"offer", b"payload", signature[:-1]),
        (me.public_key[:-1], b"offer", b"payload", signature),
        (b"\xff" * 32, b"offer", b"payload", signature),
    ]:
        with pytest.raises(ProtocolError):
            verify_untrusted(key, domain, payload, seal)


def test_peer_ids_from_outside() -> None:
    me = Identity.generate().peer_id
    assert PeerId.parse_untrusted(str(me)) == PeerId.from_raw_untrusted(me.raw) == me
    assert len(me.short) == 8
    for bad in ("", "g" * 32, "A" * 32, "a" * 31, None, 5, ["a"] * 32):
        with pytest.raises(ProtocolError):
            PeerId.parse_untrusted(bad)
    with pytest.raises(ProtocolError):
        PeerId.from_raw_untrusted(b"short")


def test_servers_are_read_from_the_uris_of_their_rfcs() -> None:
    config = WebRTCConfig(
        stun_servers=["stun:a.example:3479", "b.example"],
        turn_servers=[
            "turn:c.example?transport=tcp",
            "turns:d.example",
            TurnServer("[::1]", username="u", credential="p"),
        ],
    )
    assert config.stun_servers == (StunServer("a.example", 3479), StunServer("b.example", 3478))
    assert [(t.host, t.port, t.transport) for t in config.turn_servers[:2]] == [
        ("c.example", 3478, "tcp"),
        ("d.example", 5349, "tls"),
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataChannelConfig(max_retransmits=1, max_packet_life_time_ms=1),
        lambda: DataChannelConfig(negotiated=True),
        lambda: DataChannelConfig(id=3),
        lambda: DataChannelConfig(max_retransmits=-1),
        lambda: DataChannelConfig(label="x" * 70_000),
        lambda: DataChannelConfig(label=5),  # type: ignore[arg-type]
        lambda: WebRTCConfig(relay_only=True),
        lambda: WebRTCConfig(use_ipv4=False, use_ipv6=False),
        lambda: WebRTCConfig(connection_timeout_s=float("nan")),
        lambda: WebRTCConfig(port_range=(5, 2)),
        lambda: WebRTCConfig(stun_servers=["stun:host:notaport"]),
        lambda: WebRTCConfig(turn_servers=["turn:host?transport=sctp"]),
        lambda: WebRTCConfig(turn_servers=["turn:"]),
    ],
)
def test_bad_configuration_names_the_field(make: object) -> None:
    with pytest.raises(InvalidConfig):
        make()  # type: ignore[operator]
