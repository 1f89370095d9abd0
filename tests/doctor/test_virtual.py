"""What doctor finds behind every kind of NAT of the virtual network, in virtual time."""

from __future__ import annotations

from functools import partial

import attrs
import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.cli.verdict import PLAYERS, judge
from psyne_mesh.config import StunServer
from psyne_mesh.signaling.probe import SignalingReport
from psyne_mesh.testing import Quality
from psyne_mesh.testing.network import STUN_ADDRESS, STUN_OTHER_ADDRESS, NatKind
from psyne_mesh.testing.world import open_network
from psyne_mesh.webrtc.ice.probe import NetworkReport, probe_network

SIGNALING = SignalingReport(url="ws://203.0.113.9", protocol=1, connect_ms=40.0, rtt_ms=20.0)
EIM, APDM, ADF = "endpoint-independent", "address-and-port-dependent", "address-dependent"
KINDS: dict[NatKind, tuple[str, str, str]] = {
    "none": ("none", EIM, "open"),
    "full-cone": (EIM, EIM, "full-cone"),
    "address": (EIM, ADF, "address-restricted"),
    "port": (EIM, APDM, "port-restricted"),
    "symmetric": (APDM, APDM, "symmetric"),
}


async def examine(
    nat: NatKind, quality: Quality | None = None, servers: tuple[StunServer, ...] = (StunServer(*STUN_ADDRESS),)
) -> tuple[NetworkReport, float]:
    """The report, and the virtual seconds that it took."""
    async with open_network(seed=3, quality=quality) as net:
        host = net.host("ada", nat=nat)
        config = attrs.evolve(host.config, stun_servers=servers)
        began = trio.current_time()
        report = await probe_network(config, sockets=host.sockets, interfaces=list)
        return report, trio.current_time() - began


def in_virtual_time(*arguments: object) -> tuple[NetworkReport, float]:
    return trio.run(partial(examine, *arguments), clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("nat", KINDS)
@pytest.mark.parametrize("latency_s", [0.01, 0.4])
def test_every_nat_is_called_by_its_name(nat: NatKind, latency_s: float) -> None:
    report, seconds = in_virtual_time(nat, Quality(latency_s=latency_s))
    mapping, filtering, name = KINDS[nat]
    assert report.ipv4 is not None
    assert (report.ipv4.mapping, report.ipv4.filtering) == (mapping, filtering)
    assert judge(report, SIGNALING).nat == name
    # The network answers for its server: one latency for both ways.
    assert report.servers[0].took_ms == pytest.approx(1000 * latency_s, abs=0.2)
    assert seconds < (4 if latency_s < 0.1 else 20)


@pytest.mark.parametrize(
    ("nat", "direct"),
    [
        ("none", PLAYERS),
        ("full-cone", PLAYERS),
        ("address", PLAYERS),
        ("port", ("open", "full-cone", "address-restricted", "port-restricted")),
        ("symmetric", ("open", "full-cone", "address-restricted")),
    ],
)
def test_with_whom_it_is_direct(nat: NatKind, direct: tuple[str, ...]) -> None:
    report, _ = in_virtual_time(nat)
    verdict = judge(report, SIGNALING)
    assert verdict.ok
    assert verdict.direct_with == direct
    assert verdict.otherwise == "tunnel"
    asked_for_turn = any("Configure a TURN server" in line for line in verdict.advice)
    assert asked_for_turn == (nat in ("port", "symmetric"))


def test_a_dead_server_is_silence_for_three_seconds_and_no_more() -> None:
    report, seconds = in_virtual_time("port", None, (StunServer("203.0.113.77", 3478),))
    assert report.udp is False
    assert report.ipv4 is None
    assert report.servers[0].problem == "no answer over UDP"
    assert seconds == pytest.approx(3.0, abs=0.1)
    assert judge(report, SIGNALING).nat == "udp-blocked"


def test_nothing_asked_nothing_known() -> None:
    report, seconds = in_virtual_time("symmetric", None, ())
    assert report.udp is None
    assert seconds == pytest.approx(0, abs=0.1)
    verdict = judge(report, SIGNALING)
    assert (verdict.ok, verdict.nat) == (True, "unknown")
    assert "Name a STUN server" in verdict.advice[0]


def test_a_dead_server_beside_a_live_one_changes_nothing() -> None:
    report, _ = in_virtual_time("symmetric", None, (StunServer("203.0.113.77"), StunServer(*STUN_OTHER_ADDRESS)))
    assert report.udp is True
    assert report.ipv4 is not None
    assert report.ipv4.mapping == APDM
    assert [server.problem is None for server in report.servers] == [False, True]
