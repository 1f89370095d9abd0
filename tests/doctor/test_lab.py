"""Doctor behind real NATs with a real coturn: it calls every access by its name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import Lab, Site
from tests.lab.coturn import PASSWORD, USER
from tests.lab.topology import KINDS, can_be_direct

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]

EIM, APDM, ADF = "endpoint-independent", "address-and-port-dependent", "address-dependent"
NAMES = {  # where there is IPv4
    "open": ("open", "none", EIM),
    "full-cone": ("full-cone", EIM, EIM),
    "address-restricted": ("address-restricted", EIM, ADF),
    "port-restricted": ("port-restricted", EIM, APDM),
    "symmetric": ("symmetric", APDM, APDM),
    "double-cone": ("port-restricted", EIM, APDM),
    "double-symmetric": ("symmetric", APDM, APDM),
    "udp-blocked": ("udp-blocked", None, None),
    "udp-rejected": ("udp-blocked", None, None),
    "dual-stack": ("port-restricted", EIM, APDM),
    "dual-symmetric": ("symmetric", APDM, APDM),
}
NAMES6 = {
    "ipv6-open": ("none", EIM),
    "ipv6-only": ("none", APDM),
    "dual-stack": ("none", APDM),
    "dual-symmetric": ("none", APDM),
}
Findings = dict[str, tuple[int | None, dict[str, Any]]]


@pytest.fixture(scope="module")
def findings() -> Iterator[Findings]:
    """Exit status and JSON of one doctor in each site, four at a time."""
    found: Findings = {}
    with Lab([Site(f"s{n}", kind) for n, kind in enumerate(KINDS)]) as lab:
        url = lab.start_signaling()
        sites = list(lab.plan.sites.values())
        for start in range(0, len(sites), 4):
            running = [
                (site, lab.python(site.name, *command(lab, site.name, url))) for site in sites[start : start + 4]
            ]
            for site, process in running:
                status = process.wait(40)
                said = process.read() if status is not None else ""
                assert said, process.errors()
                found[site.kind] = (status, json.loads(said))
        yield found


def command(lab: Lab, player: str, signaling: str) -> list[str]:
    servers = [word for uri in lab.stun_uris(player) for word in ("--stun", uri)]
    servers += [word for uri in lab.turn_uris(player, ("udp", "tcp", "tls")) for word in ("--turn", uri)]
    credentials = ["--turn-user", USER, "--turn-credential", PASSWORD]
    return ["psyne_mesh.cli", "doctor", "--json", "--signaling", signaling, *credentials, *servers]


@pytest.mark.parametrize("kind", NAMES)
def test_every_access_is_called_by_its_name(findings: Findings, kind: str) -> None:
    status, found = findings[kind]
    four = found["network"]["ipv4"] or {"mapping": None, "filtering": None}
    assert status == 0
    assert (found["verdict"]["nat"], four["mapping"], four["filtering"]) == NAMES[kind]


@pytest.mark.parametrize("kind", NAMES6)
def test_ipv6_is_seen_for_what_it_is(findings: Findings, kind: str) -> None:
    status, found = findings[kind]
    six = found["network"]["ipv6"]
    assert status == 0
    assert (six["mapping"], six["filtering"]) == NAMES6[kind]
    assert found["verdict"]["direct_over_ipv6"]


@pytest.mark.parametrize("kind", NAMES)
def test_its_promises_are_those_of_the_matrix(findings: Findings, kind: str) -> None:
    """Whom doctor calls reachable is whom the lab's own table calls so."""
    promised = set(findings[kind][1]["verdict"]["direct_with"])
    others = ("open", "full-cone", "address-restricted", "port-restricted", "symmetric")
    assert promised == {other for other in others if can_be_direct(kind, other)}


@pytest.mark.parametrize("kind", KINDS)
def test_servers_are_heard_where_they_can_be(findings: Findings, kind: str) -> None:
    for server in findings[kind][1]["network"]["servers"]:
        reached = KINDS[kind].udp or server["transport"] != "udp"
        assert (server["problem"] is None) == reached, server
        if reached:
            assert server["took_ms"] >= 30, "two links of 15 ms"
    assert findings[kind][1]["signaling"]["rtt_ms"] >= 30
