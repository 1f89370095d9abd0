"""What doctor says of servers, good and bad. Real sockets on loopback, servers of our own in this process."""

from __future__ import annotations

import socket
import ssl
from functools import partial

import attrs
import pytest
import trio
import trustme

from psyne_mesh.cli.verdict import judge
from psyne_mesh.config import StunServer, TurnServer, WebRTCConfig
from psyne_mesh.webrtc.ice.probe import NetworkReport, probe_network
from tests.doctor.servers import Obedience, two_faced_server
from tests.ice.servers import CREDENTIAL, USER, stun_server, turn_server

OUTSIDE = "192.0.2.7"
EIM, APDM, ADF = "endpoint-independent", "address-and-port-dependent", "address-dependent"


async def examine(*stun: tuple[str, int], turn: tuple[TurnServer, ...] = (), **options: object) -> NetworkReport:
    config = WebRTCConfig(
        bind_host="127.0.0.1",
        ice_gathering_timeout_s=0.5,
        stun_servers=[StunServer(*address) for address in stun],
        turn_servers=turn,
    )
    with trio.fail_after(20):
        return await probe_network(config, **options)  # type: ignore[arg-type]


def closed_port(kind: int = socket.SOCK_DGRAM) -> int:
    with socket.socket(type=kind) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_a_misspelt_name_says_nothing_about_udp() -> None:
    config = WebRTCConfig(stun_servers=[StunServer("stun.example.invalid")])
    verdict = judge(await probe_network(config, interfaces=lambda: [("eth0", "10.0.0.2")]), None)
    assert verdict.ok
    assert verdict.nat == "unknown"
    assert "check the spelling" in verdict.advice[0]


async def test_a_server_that_refuses_shows_that_udp_gets_through() -> None:
    async with stun_server() as server:
        server.refuse = 500
        report = await examine(server.address)
    assert report.udp
    assert report.ipv4 is None


async def test_a_server_of_rfc_3489_is_as_good_as_another() -> None:
    async with stun_server() as server:
        server.legacy, server.mapped = True, (OUTSIDE, 7)
        report = await examine(server.address)
    assert report.servers[0].mapped == ((OUTSIDE, 7),)


# ------------------------------------------------------------------------------------------------------------- RFC 5780


@pytest.mark.parametrize(
    ("change", "filtering"),
    [
        ("obeys", EIM),
        ("ip change is filtered", ADF),
        ("is filtered", APDM),
        ("ignores", None),  # shows nothing, and so must not pass for an open door
        ("refuses", None),
    ],
)
async def test_filtering_is_believed_only_when_it_was_seen(change: Obedience, filtering: str | None) -> None:
    async with two_faced_server() as server:
        server.change = change
        server.mapped = lambda source, asked: (OUTSIDE, source[1])
        report = await examine(server.address)
    assert report.ipv4 is not None
    assert (report.ipv4.mapping, report.ipv4.filtering) == (EIM, filtering)


@pytest.mark.parametrize(
    ("depends_on", "mapping"), [("nothing", EIM), ("host", ADF), ("port", APDM), ("both", APDM), ("truth", "none")]
)
async def test_mapping_by_one_server_with_two_faces(depends_on: str, mapping: str) -> None:
    async with two_faced_server() as server:
        numbers = {address: 20_000 + number for number, address in enumerate(server.sockets)}

        def mapped(source: tuple[str, int], asked: tuple[str, int]) -> tuple[str, int]:
            places = {"nothing": 1, "host": int(asked[0][-1]), "port": asked[1], "both": numbers[asked]}
            return source if depends_on == "truth" else (OUTSIDE, places[depends_on])

        server.mapped = mapped
        report = await examine(server.address)
    assert report.ipv4 is not None
    assert report.ipv4.mapping == mapping
    assert "RFC 5780" in report.ipv4.evidence


async def test_an_alternate_address_that_is_dead_proves_nothing() -> None:
    async with two_faced_server() as server:
        server.alternate_is_dead = True
        server.mapped = lambda source, asked: (OUTSIDE, 1)
        report = await examine(server.address)
    assert report.ipv4 is not None
    assert (report.ipv4.mapping, report.ipv4.filtering) == (None, None)
    assert any("second STUN server" in line for line in judge(report, None).advice)


# --------------------------------------------------------------------------------------------------- plain STUN servers


@pytest.mark.parametrize(("other_port", "mapping"), [(5000, EIM), (5001, "endpoint-dependent")])
async def test_two_plain_servers_are_compared(other_port: int, mapping: str) -> None:
    async with stun_server() as one, stun_server("127.0.0.2") as two:
        one.mapped, two.mapped = (OUTSIDE, 5000), (OUTSIDE, other_port)
        report = await examine(one.address, two.address)
    assert report.ipv4 is not None
    assert (report.ipv4.mapping, report.ipv4.filtering) == (mapping, None)
    assert judge(report, None).nat == ("port-restricted" if mapping == EIM else "symmetric")


async def test_every_fault_of_a_stun_server_has_its_words() -> None:
    async with stun_server() as good, stun_server("127.0.0.2") as refusing, stun_server() as silent:
        refusing.refuse, silent.silent = 400, True
        report = await examine(good.address, refusing.address, silent.address, ("name.invalid", 3478))
    fine, refused, mute, nameless = report.servers
    assert fine.problem is None
    assert fine.took_ms is not None
    assert fine.mapped[0][0] == "127.0.0.1"
    assert "told to (400)" in (refused.problem or "")
    assert mute.problem == "no answer over UDP"
    assert "resolver" in (nameless.problem or "")
    advice = judge(report, None).advice
    assert any("name.invalid" in line and "DNS" in line for line in advice)


# ----------------------------------------------------------------------------------------------------------------- TURN


async def test_turn_over_every_transport_with_its_time() -> None:
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(ours)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    entry = partial(TurnServer, "127.0.0.1", username=USER, credential=CREDENTIAL)
    async with turn_server(tls=theirs) as server:
        places = (server.address[1], server.stream_address[1], server.tls_address[1])
        entries = tuple(entry(port, transport=t) for port, t in zip(places, ("udp", "tcp", "tls")))
        report = await examine(turn=entries, tls=lambda: ours)
        assert server.allocations == {}
    assert [one.problem for one in report.servers] == [None] * 3
    assert all(one.relay is not None and one.took_ms is not None for one in report.servers)
    assert report.servers[0].udp  # a TURN server is a STUN server
    assert report.ipv4 is not None
    assert judge(report, None).otherwise == "relay"


async def test_every_fault_of_a_turn_server_has_its_words() -> None:
    entry = partial(TurnServer, username=USER, credential=CREDENTIAL)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(theirs)
    async with turn_server(tls=theirs) as server, turn_server() as full:
        full.refuse["ALLOCATE"] = 486
        here = server.address[1]
        entries = (
            TurnServer("127.0.0.1", here, username=USER, credential="wrong"),
            entry("127.0.0.1", full.address[1]),
            entry("127.0.0.1", closed_port(socket.SOCK_STREAM), transport="tcp"),
            entry("127.0.0.1", server.tls_address[1], transport="tls"),
            entry("127.0.0.1", closed_port()),
        )
        report = await examine(turn=entries)
    wrong, quota, refused, untrusted, dead = (one.problem or "" for one in report.servers)
    assert "(401" in wrong
    assert "486" in quota
    assert refused.startswith("TCP")
    assert untrusted.startswith("TLS: ")
    assert "certificate verify failed" in untrusted
    assert dead == "no answer"
    advice = judge(report, None, turn_user=USER).advice
    assert "check both" in advice[0]
    assert "quota" in advice[1]
    assert "is it running" in advice[4]
    assert "ended 5 s ago" in judge(report, None, turn_user="100:me", unix_time=105).advice[0]
    assert "--turn-user" in judge(report, None).advice[0]


async def test_sockets_are_looked_at() -> None:
    report = await examine()
    assert report.socket.receive_buffer > 0
    small = attrs.evolve(report, socket=attrs.evolve(report.socket, receive_buffer=65_536))
    assert any(line.startswith("UDP buffers are 64 KiB") for line in judge(small, None).advice)
