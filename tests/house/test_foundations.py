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
        lambda: DataChannelConfig(ordered="no"),  # type: ignore[arg-type]
        lambda: DataChannelConfig(negotiated=1, id=3),  # type: ignore[arg-type]
        lambda: TurnServer("h", transport="sctp"),  # type: ignore[arg-type]
        lambda: TurnServer("h", username=None),  # type: ignore[arg-type]
        lambda: TurnServer("h", credential="\ud800"),
        lambda: StunServer("h", 3478.5),  # type: ignore[arg-type]
        lambda: TurnServer("h", "3478"),  # type: ignore[arg-type]
    ],
)
def test_bad_configuration_names_the_field(make: object) -> None:
    with pytest.raises(InvalidConfig):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("server", [StunServer, TurnServer])
@pytest.mark.parametrize(
    "host", ["", "stun..example.org", ".example.org", "x" * 64 + ".org", " h", "h\n", "a\0b", "\ud800", 5, None, b"h"]
)
def test_a_host_that_no_resolver_takes_is_refused(server: type, host: object) -> None:
    with pytest.raises(InvalidConfig, match=f"{server.__name__}.host"):
        server(host)


@pytest.mark.parametrize(
    "host", ["h", "h.", "bücher.example", "x" * 63 + ".org", "192.0.2.1", "2001:db8::1", "fe80::1%eth0"]
)
def test_names_and_addresses_are_hosts(host: str) -> None:
    assert StunServer(host).host == TurnServer(host).host == WebRTCConfig(bind_host=host).bind_host == host


@pytest.mark.parametrize(
    "uri", ["https://stun.example.org", "stun:h/path", "turn:h", "stuns:h", "stun:[::1", "", 5, None, TurnServer("h")]
)
def test_what_is_no_uri_of_a_stun_server_is_answered_with_one(uri: object) -> None:
    with pytest.raises(InvalidConfig, match=r"stun:host\[:port\]"):
        StunServer.parse(uri)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("stun_servers", wrong) for wrong in ("example.org", b"h", None, 5, StunServer("h"), {"h": 1}, [None], [5])),
        *(("turn_servers", wrong) for wrong in ("turn:h", None, TurnServer("h"), [("turn:h", "u", "p")])),
        *(("port_range", wrong) for wrong in (5, "ab", ("a", "b"), (5.5, 6.5), (5, 6, 7), (5,), (0, 5), (5, 65_536))),
        *(("interfaces", wrong) for wrong in ("lo", 5, [5], ["lo", None])),
        *(("bind_host", wrong) for wrong in (5, " ", "a..b")),
        *((flag, wrong) for flag in ("use_ipv4", "use_ipv6", "relay_only") for wrong in ("no", 1, None)),
        *((flag, "no") for flag in ("include_loopback", "dtls_fast_records")),
        ("data_channel_config", None),
        ("data_channel_config", "chat"),
        ("max_message_size", 2e5),
        ("max_message_size", True),
        ("receive_window_bytes", 1e6),
        ("path_mtu_max", 1200.5),
        ("connection_timeout_s", "5"),
    ],
)
def test_arguments_of_another_type_are_refused(field: str, wrong: object) -> None:
    with pytest.raises(InvalidConfig):
        WebRTCConfig(**{field: wrong})  # type: ignore[arg-type]


def test_a_refused_credential_is_not_shown() -> None:
    browsers = {"urls": "turn:h", "credential": "secret"}
    for make in (
        lambda: WebRTCConfig(turn_servers=[browsers]),  # type: ignore[list-item]
        lambda: WebRTCConfig(turn_servers=browsers),  # type: ignore[arg-type]
        lambda: TurnServer("h", credential=b"secret"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidConfig) as refused:
            make()
        assert "secret" not in str(refused.value)


def test_lists_become_tuples() -> None:
    config = WebRTCConfig(port_range=[5, 7], interfaces=["lo"])  # type: ignore[arg-type]
    assert (config.port_range, config.interfaces) == ((5, 7), ("lo",))
    assert hash(config) == hash(WebRTCConfig(port_range=(5, 7), interfaces=("lo",)))


def test_what_a_socket_or_a_loop_takes_is_taken() -> None:
    assert WebRTCConfig(bind_host="").bind_host is None
    assert WebRTCConfig(interfaces={"lo"}).interfaces == ("lo",)
    assert WebRTCConfig(stun_servers=(uri for uri in ["stun:h:1/"])).stun_servers == (StunServer("h", 1),)
    assert StunServer("fe80::1%" + 70 * "x").host
