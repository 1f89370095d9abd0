"""From a plan to the scripts that build it: what `ip` and `nft` are to be told in each namespace (pure)."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping

from tests.lab import nat
from tests.lab.topology import Host, Plan, Router, Uplink

Scripts = Mapping[str, list[str]]  # namespace -> lines for `ip -batch`; to be run in this order

QUIET = {
    # Where Docker has loaded br_netfilter, frames inside a lan would pass the router's IP rules too.
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
}
ROUTING = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
_interface_numbers = itertools.count(1000)
SILENT6 = {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"}


def namespaces(plan: Plan, shaped: bool) -> dict[str, dict[str, str]]:
    """Every namespace with its sysctls."""
    settings = {name: dict(QUIET) for name in ("inet", *plan.routers, *plan.hosts, *plan.servers)}
    for name in ("inet", *plan.routers):
        settings[name] |= ROUTING
    if shaped:
        settings["wire"] = QUIET | SILENT6
    return settings


def scripts(plan: Plan, shaped: bool) -> Scripts:
    """The `ip` batches; "inet" comes first because it makes every link."""
    lines: defaultdict[str, list[str]] = defaultdict(list)
    lines["inet"] += [*_links(plan, shaped), *_internet(plan)]
    if shaped:
        lines["wire"] += [f"link set {end}-{site} up" for site in plan.internet_links() for end in "ei"]
    for router in plan.routers.values():
        lines[router.name] += _router(plan, router)
    for host in plan.hosts.values():
        lines[host.name] += configure(host.uplink, interface_of(host))
    for name, place in plan.servers.items():
        lines[name] += [f"addr add {address}/28 dev eth0" for address in place.addresses4]
        lines[name] += [f"addr add {address}/64 dev eth0 nodad" for address in place.addresses6]
        lines[name] += ["link set eth0 up", f"route add default via {place.gateway4}"]
        lines[name] += [f"route add default via {place.gateway6}"]
    return lines


def rulesets(plan: Plan) -> dict[str, str]:
    return {name: nat.ruleset(router.box, bare(router.uplink.address4)) for name, router in plan.routers.items()}


def interface_of(host: Host) -> str:
    return "wan" if host.uplink.to == "inet" else "eth0"


def plug_in(name: str, uplink: Uplink, interface: str, *, isolated: bool) -> list[str]:
    """For the namespace of a router: a cable from its lan to `name`."""
    lines = [veth(f"p-{name}", uplink.to, interface, name), f"link set p-{name} master lan up"]
    if isolated:
        lines.append(f"link set p-{name} type bridge_slave isolated on")
    return lines


def configure(uplink: Uplink, interface: str) -> list[str]:
    """For the namespace at the lower end: addresses and default routes."""
    lines = []
    if uplink.address4:
        lines.append(f"addr add {uplink.address4} dev {interface}")
    if uplink.address6:
        lines.append(f"addr add {uplink.address6} dev {interface} nodad")
    lines.append(f"link set {interface} up")
    if uplink.gateway4:
        lines.append(f"route replace default via {uplink.gateway4}")
    if uplink.gateway6:
        lines.append(f"route replace default via {uplink.gateway6}")
    return lines


def veth(interface: str, netns: str, peer: str, peer_netns: str) -> str:
    """A cable. The kernel reports "carrier on" at once only when the two ends have different interface numbers (it
    takes equal ones for no link at all) and else up to a second later, during which IPv6 does not answer."""
    one, other = next(_interface_numbers), next(_interface_numbers)
    return f"link add {interface} index {one} netns {netns} type veth peer name {peer} index {other} netns {peer_netns}"


def bare(address: str | None) -> str | None:
    """Without the prefix length."""
    return address.split("/")[0] if address else None


def _links(plan: Plan, shaped: bool) -> list[str]:
    lines = []
    for site, edge in plan.internet_links().items():
        if shaped:
            lines.append(veth(f"e-{site}", "wire", "wan", edge))
            lines.append(veth(f"i-{site}", "inet", f"i-{site}", "wire"))
        else:
            lines.append(veth(f"i-{site}", "inet", "wan", edge))
        lines.append(f"link set i-{site} up")
    for name in plan.servers:
        lines += [veth(f"v-{name}", "inet", "eth0", name), f"link set v-{name} up"]
    return lines


def _internet(plan: Plan) -> list[str]:
    lines = []
    for place in plan.servers.values():
        lines.append(f"addr add {place.gateway4}/28 dev v-{place.name}")
        lines.append(f"addr add {place.gateway6}/64 dev v-{place.name} nodad")
    edges: list[tuple[str, Uplink, str | None]] = []
    for site, edge in plan.internet_links().items():
        if edge in plan.routers:
            router = plan.routers[edge]
            edges.append((site, router.uplink, router.lan6))
        else:
            edges.append((site, plan.hosts[edge].uplink, None))
    for site, uplink, lan6 in edges:
        if uplink.gateway4:
            lines.append(f"addr add {uplink.gateway4}/28 dev i-{site}")
        if uplink.gateway6:
            lines.append(f"addr add {uplink.gateway6}/64 dev i-{site} nodad")
        if lan6:
            lines.append(f"route add {network(lan6)} via {bare(uplink.address6)}")
    return lines


def _router(plan: Plan, router: Router) -> list[str]:
    lines = ["link add lan type bridge"]
    lines += [f"addr add {router.lan4} dev lan"] if router.lan4 else []
    lines += [f"addr add {router.lan6} dev lan nodad"] if router.lan6 else []
    lines.append("link set lan up")
    below = [(inner.name, inner.uplink, "wan") for inner in plan.routers.values() if inner.uplink.to == router.name]
    below += [(host.name, host.uplink, "eth0") for host in plan.hosts.values() if host.uplink.to == router.name]
    for name, uplink, interface in below:
        lines += plug_in(name, uplink, interface, isolated=router.isolated)
    return lines + configure(router.uplink, "wan")


def network(address: str) -> str:
    """The /64 of an IPv6 address such as 2001:db8:b00::1/64."""
    return address.rsplit(":", 1)[0] + ":/64"
