"""Candidates as text, priorities, and which addresses are offered."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.config import StunServer, TurnServer, WebRTCConfig
from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.ice.candidates import Found, may_check, parse_candidate_untrusted
from psyne_mesh.webrtc.ice.interfaces import ADDRESSES_MAX, host_addresses, list_interfaces

MACHINE = [
    ("lo", "127.0.0.1"),
    ("lo", "::1"),
    ("docker0", "172.17.0.1"),
    ("eth0", "192.0.2.10"),
    ("wlan0", "198.51.100.10"),
    ("eth0", "2001:db8::10"),
    ("eth0", "fe80::1"),
]


def test_physical_before_virtual_before_loopback_and_the_families_take_turns() -> None:
    assert host_addresses(MACHINE, WebRTCConfig()) == [
        "2001:db8::10",
        "192.0.2.10",
        "198.51.100.10",
        "172.17.0.1",
        "::1",
        "127.0.0.1",
    ]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (WebRTCConfig(include_loopback=False, use_ipv6=False), ["192.0.2.10", "198.51.100.10", "172.17.0.1"]),
        (WebRTCConfig(use_ipv4=False), ["2001:db8::10", "::1"]),
        (WebRTCConfig(interfaces=("wlan0",)), ["198.51.100.10"]),
        (WebRTCConfig(interfaces=("lo",), use_ipv6=False), ["127.0.0.1"]),
    ],
)
def test_the_configuration_chooses(config: WebRTCConfig, expected: list[str]) -> None:
    assert host_addresses(MACHINE, config) == expected


def test_a_machine_without_network_still_offers_loopback() -> None:
    assert host_addresses(MACHINE[:2], WebRTCConfig()) == ["::1", "127.0.0.1"]
    assert host_addresses([], WebRTCConfig()) == []


def test_very_many_addresses_are_cut() -> None:
    many = [("eth0", f"10.0.0.{number}") for number in range(100)]
    assert len(host_addresses(many, WebRTCConfig())) == ADDRESSES_MAX


def test_this_machine_has_a_loopback_address() -> None:
    assert any(host == "127.0.0.1" for _, host in list_interfaces())


def test_a_host_candidate_as_text() -> None:
    text = Found("host", ("192.0.2.10", 5000), ("192.0.2.10", 5000), 65535).text("abcd")
    words = text.split()
    assert words[0].startswith("candidate:")
    assert words[1:] == [
        "1",
        "udp",
        str((126 << 24) + (65535 << 8) + 255),
        "192.0.2.10",
        "5000",
        "typ",
        "host",
        "ufrag",
        "abcd",
    ]
    candidate, ufrag = parse_candidate_untrusted(text)
    assert (candidate.host, candidate.port, candidate.type, ufrag) == ("192.0.2.10", 5000, "host", "abcd")


def test_a_hidden_base_leaves_no_address() -> None:
    found = Found("relay", ("203.0.113.5", 6000), ("192.0.2.10", 5000), 65535)
    assert "raddr 192.0.2.10 rport 5000" in found.text("abcd")
    assert "raddr 0.0.0.0 rport 9" in found.text("abcd", hide_base=True)
    six = Found("relay", ("2001:db8::5", 6000), ("2001:db8::1", 5000), 65535)
    assert "raddr :: rport 9" in six.text("abcd", hide_base=True)


def test_foundations_differ_by_kind_base_and_server() -> None:
    base = ("192.0.2.10", 5000)
    found = [
        Found("host", base, base, 65535),
        Found("srflx", ("198.51.100.1", 5000), base, 65535, "stun.example:3478"),
        Found("srflx", ("198.51.100.1", 5000), base, 65535, "other.example:3478"),
        Found("relay", ("203.0.113.5", 6000), base, 65535, "turn.example:3478"),
    ]
    foundations = [one.candidate().foundation for one in found]
    assert len(set(foundations)) == 4
    assert all(len(foundation) <= 32 and foundation.isalnum() for foundation in foundations)


@pytest.mark.parametrize(
    "text",
    [
        "candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host",
        "a=candidate:1 1 UDP 2130706431 192.0.2.1 5000 typ host generation 0 ufrag x network-id 1 network-cost 10",
        "1 1 udp 2130706431 8e1c6c3e-5a1f-4f0e-9d3b-1d0c3f5e8a11.local 5000 typ host",
        "candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0",
        "candidate:1 1 udp 1677729535 2001:db8::1 5000 typ srflx raddr :: rport 0",
    ],
)
def test_what_browsers_send_is_understood(text: str) -> None:
    candidate, _ = parse_candidate_untrusted(text)
    assert candidate.component == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "candidate:",
        "candidate:1 1 udp 2130706431 192.0.2.1 5000 type host",
        "candidate:1 one udp 2130706431 192.0.2.1 5000 typ host",
        "candidate:1 1 udp 2130706431 192.0.2.1 0 typ host",
        "candidate:1 1 udp 2130706431 192.0.2.1 65536 typ host",
        "candidate:1 1 udp -1 192.0.2.1 5000 typ host",
        "candidate:1 1 udp 99999999999 192.0.2.1 5000 typ host",
        "candidate:1 1 udp 2130706431 192.0.2.1 5000 typ guest",
        "candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host " + "x" * 600,
        "candidate:1 1 udp 2130706431 192.0.2.1 5000 typ höst",
    ],
)
def test_what_is_not_a_candidate_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_candidate_untrusted(text)


@given(
    st.text(max_size=120)
    | st.lists(st.sampled_from(["candidate:1", "1", "udp", "tcp", "7", "::1", "typ", "host", "raddr", "x"])).map(
        " ".join
    )
)
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(ProtocolError):
        parse_candidate_untrusted(text)


@pytest.mark.parametrize(
    "host", ["224.0.0.1", "ff02::1", "0.0.0.0", "::", "255.255.255.255", "fe80::1", "::ffff:10.0.0.1", "example.com"]
)
def test_a_peer_cannot_aim_us_at_groups(host: str) -> None:
    assert not may_check(host, loopback=True)


def test_loopback_is_checked_only_if_configured() -> None:
    assert may_check("127.0.0.1", loopback=True)
    assert not may_check("127.0.0.1", loopback=False)
    assert not may_check("::1", loopback=False)
    assert may_check("192.0.2.1", loopback=False)


@pytest.mark.parametrize(
    ("host", "sent_to"),
    [
        ("2001:db8::1%eth0", "2001:db8::1"),
        ("::1%lo", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_a_zone_is_kept_only_where_it_means_something(host: str, sent_to: str) -> None:
    """The system sends to no other address with a named zone: the name service is asked for it, and knows it not."""
    candidate, _ = parse_candidate_untrusted(f"candidate:1 1 udp 2130706431 {host} 5000 typ host")
    assert candidate.host == sent_to
    assert StunServer(host).host == TurnServer(host).host == WebRTCConfig(bind_host=host).bind_host == sent_to
