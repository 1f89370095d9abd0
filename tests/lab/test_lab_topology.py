"""The plan of a lab, without building one."""

from __future__ import annotations

import ipaddress
import itertools

import pytest

from tests.lab.topology import KINDS, Plan, Site, can_be_direct

ALLOWED = [
    ipaddress.ip_network(text)
    for text in ("198.51.100.0/24", "203.0.113.0/24", "10.0.0.0/8", "100.64.0.0/10", "2001:db8::/32")
]


def every_address(plan: Plan) -> list[str]:
    uplinks = [r.uplink for r in plan.routers.values()] + [h.uplink for h in plan.hosts.values()]
    texts = [text for u in uplinks for text in (u.address4, u.gateway4, u.address6, u.gateway6)]
    texts += [text for r in plan.routers.values() for text in (r.lan4, r.lan6)]
    texts += [text for s in plan.servers.values() for text in (*s.addresses4, *s.addresses6, s.gateway4, s.gateway6)]
    return [text.split("/")[0] for text in texts if text]


def test_only_documentation_and_private_addresses() -> None:
    plan = Plan.of([Site(f"s{n}", kind) for n, kind in enumerate(KINDS)], ["sig", "turn", "turn2"])
    for text in every_address(plan):
        address = ipaddress.ip_address(text)
        assert any(address in network for network in ALLOWED if network.version == address.version), text


def test_no_two_interfaces_share_an_address() -> None:
    sites = [Site("isp", "full-cone", players=()), Site("h1", behind="isp"), Site("h2", "symmetric", behind="isp")]
    sites += [Site("net", "dual-stack", players=("p1", "p2")), Site("o", "open"), Site("d", "double-symmetric")]
    plan = Plan.of(sites, ["sig", "turn"])
    owned = [r.uplink.address4 for r in plan.routers.values()] + [h.uplink.address4 for h in plan.hosts.values()]
    owned += [r.lan4 for r in plan.routers.values()]
    assert len(set(owned)) == len(owned)
    assert plan.routers["nat-h1"].uplink.to == "nat-isp"
    assert plan.internet_links() == {"isp": "nat-isp", "net": "nat-net", "o": "o", "d": "cgn-d"}


@pytest.mark.parametrize(
    "sites",
    [
        [Site("far-too-long")],
        [Site("a", behind="b"), Site("b")],
        [Site("a", "open", players=("x", "y"))],
        [Site(f"s{n}") for n in range(17)],
    ],
)
def test_impossible_plans_are_refused(sites: list[Site]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Plan.of(sites, [])


def test_what_can_be_direct_is_the_textbook() -> None:
    cones = [
        "open",
        "full-cone",
        "address-restricted",
        "port-restricted",
        "symmetric",
        "double-cone",
        "double-symmetric",
    ]
    direct = sum(can_be_direct(a, b) for a, b in itertools.product(cones, cones))
    assert direct == 37  # of 49: all but symmetric with symmetric or port-filtering
    assert not can_be_direct("udp-blocked", "open")
    assert not can_be_direct("ipv6-only", "port-restricted")
    assert can_be_direct("ipv6-only", "dual-symmetric")
