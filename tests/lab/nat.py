"""What the routers of a lab do to packets, as nftables rules (behaviours in the words of RFC 4787).

Linux translates with endpoint-independent mapping as long as it can keep the port, and filters by address and port:
that is the port-restricted cone. The other kinds are made from it with two dynamic tables.
Known gap: two hosts behind one router that use the same source port at the same time share one outside port.
"""

from __future__ import annotations

import enum

import attrs

WEB_PORT = 443


class Nat(enum.StrEnum):
    """Mapping/filtering: EIM endpoint-independent mapping, APDM address-and-port-dependent; EIF, ADF, APDF likewise."""

    FULL_CONE = "full-cone"  # EIM / EIF
    ADDRESS_RESTRICTED = "address-restricted"  # EIM / ADF
    PORT_RESTRICTED = "port-restricted"  # EIM / APDF
    SYMMETRIC = "symmetric"  # APDM / APDF


class Udp(enum.StrEnum):
    """What a firewall does to UDP from inside; the last two leave only TCP to port 443."""

    PASS = "pass"
    DROP = "drop"
    REJECT = "reject"


class Inbound6(enum.StrEnum):
    """IPv6 is not translated; unsolicited packets from outside pass or not."""

    OPEN = "open"
    FIREWALL = "firewall"


@attrs.frozen
class Box:
    """One router between a `lan` bridge and a `wan` interface."""

    nat: Nat | None = Nat.PORT_RESTRICTED
    udp: Udp = Udp.PASS
    hairpin: bool = False
    inbound6: Inbound6 = Inbound6.FIREWALL


def ruleset(box: Box, wan_address: str | None, ports: tuple[int, int] | None = None) -> str:
    """The whole nftables script of a box; `ports` bounds the outside UDP ports of new mappings."""
    tables = [_firewall(box)]
    if box.nat and wan_address:
        tables.append(_translation(box.nat, box.hairpin, wan_address, ports))
    return "flush ruleset\n" + "\n".join(tables)


def outward_script(nat: Nat, hairpin: bool, wan_address: str, ports: tuple[int, int] | None) -> str:
    """Replaces the rule for new mappings in a ruleset that is loaded; mappings that stand stay."""
    rules = _outward(nat, hairpin, wan_address, ports)
    return "flush chain ip translation outward\n" + "".join(f"add rule ip translation outward {r}\n" for r in rules)


def _firewall(box: Box) -> str:
    rules = []
    if box.udp is not Udp.PASS:
        fate = "drop" if box.udp is Udp.DROP else "reject with icmpx type admin-prohibited"
        rules.append(f'iifname "lan" oifname "wan" tcp dport != {WEB_PORT} drop')
        rules.append(f'iifname "lan" oifname "wan" meta l4proto udp {fate}')
    rules += ["ct state established,related accept", 'iifname "lan" oifname "wan" accept']
    if box.nat:
        rules.append("ct status dnat accept")
    if box.inbound6 is Inbound6.OPEN:
        rules.append('iifname "wan" oifname "lan" meta nfproto ipv6 accept')
    # Unsolicited packets to the box itself are dropped, as home routers do. Otherwise conntrack would keep the peer's
    # early packet as a connection of its own, and our hole towards that peer would get another outside port.
    return f"""
table inet firewall {{
 chain forward {{ type filter hook forward priority 0; policy drop;
{_lines(rules)}
 }}
 chain input {{ type filter hook input priority 0; policy accept;
  iifname "wan" meta l4proto icmpv6 accept
  iifname "wan" ct state new drop
 }}
}}
"""


def _translation(nat: Nat, hairpin: bool, wan_address: str, ports: tuple[int, int] | None) -> str:
    to_mapping = "dnat ip to udp dport map @mappings"
    inward = []
    if nat is Nat.FULL_CONE:
        inward.append(f'iifname "wan" meta l4proto udp {to_mapping}')
    if nat is Nat.ADDRESS_RESTRICTED:
        inward.append(f'iifname "wan" meta l4proto udp ip saddr . udp dport @permitted {to_mapping}')
    if hairpin:
        inward.append(f'iifname "lan" ip daddr {wan_address} meta l4proto udp {to_mapping}')
    # The outside port is known only after the translation, hence a later priority than srcnat for the records.
    recorded = "udp sport : ct original ip saddr . ct original proto-src"
    return f"""
table ip translation {{
 map mappings {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 300s; }}
 set permitted {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout 300s; }}
 chain inward {{ type nat hook prerouting priority dstnat;
{_lines(inward)}
 }}
 chain outward {{ type nat hook postrouting priority srcnat;
{_lines(_outward(nat, hairpin, wan_address, ports))}
 }}
 chain record {{ type filter hook postrouting priority 150;
  oifname "wan" meta l4proto udp ct direction original update @mappings {{ {recorded} }}
  oifname "wan" meta l4proto udp update @permitted {{ ip daddr . udp sport }}
 }}
}}
"""


def _outward(nat: Nat, hairpin: bool, wan_address: str, ports: tuple[int, int] | None) -> list[str]:
    flags = " random,fully-random" if nat is Nat.SYMMETRIC else ""
    rules = [f'oifname "wan" masquerade{flags}']
    if ports:
        rules.insert(0, f'oifname "wan" meta l4proto udp masquerade to :{ports[0]}-{ports[1]}{flags}')
    if hairpin:  # RFC 4787 REQ-9: whoever is called over the hairpin sees the caller's outside address
        rules.insert(0, f'iifname "lan" oifname "lan" ct status dnat snat ip to {wan_address}')
    return rules


def _lines(rules: list[str]) -> str:
    return "\n".join(f"  {rule}" for rule in rules)
