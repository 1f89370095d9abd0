"""The addresses of this machine that a host candidate may show, best first."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

import ifaddr

from psyne_mesh.config import WebRTCConfig

# Bridges and tunnels of containers and virtual machines: a peer elsewhere seldom gets through them.
VIRTUAL_PREFIXES: Final = (
    "docker",
    "br-",
    "veth",
    "virbr",
    "vmnet",
    "vboxnet",
    "lxc",
    "lxd",
    "podman",
    "cni",
    "flannel",
)
ADDRESSES_MAX: Final = 16  # of one machine: each costs every peer a check; the least preferred are left out

Interface = tuple[str, str]  # name, numeric address


def list_interfaces() -> list[Interface]:
    """Every numeric address of this machine with the name of its interface, in the system's order."""
    found: list[Interface] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if isinstance(ip.ip, str):
                found.append((adapter.name, ip.ip))
            elif ip.ip[2] == 0:  # an IPv6 address with a scope is link-local
                found.append((adapter.name, ip.ip[0]))
    return found


def host_addresses(interfaces: Iterable[Interface], config: WebRTCConfig) -> list[str]:
    """Which of `interfaces` to offer, in the order of preference.

    Physical before virtual before loopback; IPv6 and IPv4 take turns, so that one broken family cannot hold up the
    other for long (RFC 8421 section 3).
    """
    ranks: dict[int, tuple[list[str], list[str]]] = {0: ([], []), 1: ([], []), 2: ([], [])}
    for name, host in interfaces:
        address = ipaddress.ip_address(host)
        if config.interfaces is not None and name not in config.interfaces:
            continue
        if not (config.use_ipv6 if address.version == 6 else config.use_ipv4):
            continue
        if address.is_loopback and not config.include_loopback:
            continue
        if address.is_unspecified or (address.version == 6 and address.is_link_local):
            continue
        rank = 2 if address.is_loopback else 1 if name.startswith(VIRTUAL_PREFIXES) or address.is_link_local else 0
        family = ranks[rank][0 if address.version == 6 else 1]
        if str(address) not in family:
            family.append(str(address))
    return [host for six, four in ranks.values() for host in _take_turns(six, four)][:ADDRESSES_MAX]


def _take_turns(first: Sequence[str], second: Sequence[str]) -> list[str]:
    mixed: list[str] = []
    for index in range(max(len(first), len(second))):
        mixed += first[index : index + 1] + second[index : index + 1]  # type: ignore[operator]
    return mixed
