"""The verdict for each situation, from made-up measurements."""

from __future__ import annotations

import attrs
import pytest

from psyne_mesh.cli.verdict import PLAYERS, Verdict, judge
from psyne_mesh.signaling.probe import SignalingReport
from psyne_mesh.webrtc.ice.behaviour import Filtering, Mapping, NatBehaviour
from psyne_mesh.webrtc.ice.probe import NetworkReport, ServerReport, SocketReport

SIGNALING = SignalingReport(url="ws://203.0.113.9", protocol=1, connect_ms=40.0, rtt_ms=20.0)
DEAD_SIGNALING = SignalingReport(url="ws://203.0.113.9", problem="no signaling server at ws://203.0.113.9")
SOCKET = SocketReport(receive_buffer=2**22, send_buffer=2**22, wanted_buffer=2**22, gro=True, gso=True)
RELAY = ServerReport(
    uri="turns:turn.example:443?transport=tcp",
    kind="turn",
    transport="tls",
    took_ms=90.0,
    relay=("203.0.113.5", 50_000),
)
SILENT = ServerReport(
    uri="stun:203.0.113.1:3478", kind="stun", transport="udp", udp=False, problem="no answer over UDP"
)
EIM, APDM = "endpoint-independent", "address-and-port-dependent"


def network(**fields: object) -> NetworkReport:
    usual = {
        "interfaces": (("eth0", "10.0.0.2"),), "host_candidates": ("10.0.0.2",), "servers": (), "udp": True,
        "ipv4": nat(EIM, APDM), "ipv6": None, "socket": SOCKET,
    }  # fmt: skip
    return NetworkReport(**{**usual, **fields})  # type: ignore[arg-type]


def nat(mapping: Mapping | None, filtering: Filtering | None) -> NatBehaviour:
    return NatBehaviour(mapped=("192.0.2.1", 1), mapping=mapping, filtering=filtering, evidence="")


BLOCKED = {"udp": False, "ipv4": None}
LOOPBACK = {"host_candidates": ("127.0.0.1", "::1"), "ipv4": None, "udp": None}


@pytest.mark.parametrize(
    ("found", "signaling", "ok", "words"),
    [
        ({}, SIGNALING, True, "Direct with players behind these NATs"),
        ({"servers": (RELAY,)}, SIGNALING, True, "over your TURN server"),
        ({"ipv4": nat("none", EIM)}, SIGNALING, True, "Direct with every player"),
        ({}, DEAD_SIGNALING, False, "No room can be entered: no signaling server"),
        ({}, None, True, "nobody else"),
        ({**BLOCKED, "servers": (SILENT, RELAY)}, SIGNALING, True, "UDP does not get out"),
        ({**BLOCKED, "servers": (SILENT,)}, SIGNALING, True, "No UDP answer came back (blocked, or servers down)"),
        ({**BLOCKED, "servers": (SILENT,)}, None, False, "no player can be reached"),
        ({**BLOCKED, "ipv6": nat("none", APDM)}, SIGNALING, True, "Direct with every player with IPv6"),
        ({"ipv4": nat(APDM, APDM), "ipv6": nat("none", APDM)}, SIGNALING, True, "every player with IPv6"),
        ({"ipv4": None, "udp": None}, SIGNALING, True, "in your own network"),
        (LOOPBACK, attrs.evolve(SIGNALING, url="ws://127.0.0.1:8080"), True, "on this machine"),
        (LOOPBACK, attrs.evolve(SIGNALING, url="ws://localhost:8080"), True, "on this machine"),
        (LOOPBACK, None, False, "no network address but loopback"),
    ],
)
def test_verdicts(found: dict[str, object], signaling: SignalingReport | None, ok: bool, words: str) -> None:
    verdict = judge(network(**found), signaling)
    assert verdict.ok is ok, verdict.summary
    assert words in verdict.summary


@pytest.mark.parametrize(
    ("behaviour", "name", "direct"),
    [
        (nat("none", EIM), "open", PLAYERS),
        (nat("none", APDM), "firewall", PLAYERS[:4]),
        (nat(EIM, None), "port-restricted", PLAYERS[:4]),
        (nat("address-dependent", "address-dependent"), "symmetric", PLAYERS[:3]),
        (nat("endpoint-dependent", None), "symmetric", PLAYERS[:3]),
        (nat(None, None), "unknown", ()),
    ],
)
def test_names_of_nats(behaviour: NatBehaviour, name: str, direct: tuple[str, ...]) -> None:
    verdict = judge(network(ipv4=behaviour), SIGNALING)
    assert (verdict.nat, verdict.direct_with) == (name, direct)


def advice(verdict: Verdict) -> str:
    return "\n".join(verdict.advice)


def test_advice_names_what_to_configure() -> None:
    assert "turns:HOST:443" in advice(judge(network(**BLOCKED, servers=(SILENT,)), SIGNALING))
    assert "lets no UDP out" in advice(judge(network(**BLOCKED, servers=(SILENT, RELAY)), SIGNALING))
    assert "is it running" in advice(judge(network(servers=(SILENT, RELAY)), SIGNALING))  # UDP reached another one
    assert "TurnServer.parse('turns:turn.example:443" in advice(judge(network(servers=(RELAY,)), SIGNALING))
    assert "Configure a TURN server" not in advice(judge(network(servers=(RELAY,)), SIGNALING))


@pytest.mark.parametrize(("skew_s", "words"), [(90.0, "90 s behind"), (-90.0, "90 s ahead of"), (5.0, "")])
def test_a_clock_that_is_off(skew_s: float, words: str) -> None:
    said = advice(judge(network(), attrs.evolve(SIGNALING, clock_skew_s=skew_s)))
    assert words in said
    assert ("Your clock" in said) == bool(words)
