"""The addresses of this machine that a host candidate may show, best first."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import ifaddr
import trio

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

# Where the system does not tell of changes, it is asked so often: a fifth of a millisecond each time.
POLL_S: Final = 2.0
# After the news: an address comes before its route, and where one goes another often comes at once.
SETTLE_S: Final = 0.1
# RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, and the same with _ROUTE, of rtnetlink(7)
_NETLINK_NEWS: Final = 0x10 | 0x100 | 0x40 | 0x400
# Somewhere outside (RFC 5737, RFC 3849): nothing is sent there, only the route to it is asked for.
_OUTSIDE: Final = ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1"))

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


def lasting_addresses(interfaces: Iterable[Interface], config: WebRTCConfig) -> frozenset[str]:
    """Those whose coming and going says that this machine changed its network: containers and loopback say nothing."""
    physical = [(name, host) for name, host in interfaces if not name.startswith(VIRTUAL_PREFIXES)]
    return frozenset(host for host in host_addresses(physical, config) if not ipaddress.ip_address(host).is_loopback)


def ways_out() -> frozenset[str]:
    """The addresses that this machine sends from to the outside, of either family: they change when a tunnel takes the
    default route over, though no address goes."""
    found = set()
    for family, outside in _OUTSIDE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((outside, 9))
                found.add(str(probe.getsockname()[0]))
        except OSError:  # no such family, or no route
            continue
    return frozenset(found)


async def watch_addresses(
    addresses: Callable[[], frozenset[str]],
    changed: Callable[[bool], None],
    *,
    news: Callable[[], socket.socket | None] | None = None,
    ways: Callable[[], frozenset[str]] = ways_out,
) -> None:
    """Call `changed(gone)` whenever `addresses()` or `ways()` give others than before, for as long as this task runs.

    gone: an address is there no more, or is no way out any more; not only a new one there. news: opens a socket that is
    readable after changes; by default the kernel's, where it has one. Without, the addresses are compared every `POLL_S`.
    """
    known, out = addresses(), ways()
    told = (news or _open_kernel_news)()
    try:
        while True:
            if told is None:
                await trio.sleep(POLL_S)
            else:
                await trio.lowlevel.wait_readable(told)
                await trio.sleep(SETTLE_S)
                if not _drain(told):
                    told.close()
                    told = None
            present, leading_out = addresses(), ways()
            if (present, leading_out) != (known, out):
                gone = bool(known - present or out - leading_out)
                known, out = present, leading_out
                changed(gone)
    finally:
        if told is not None:
            told.close()


def _open_kernel_news() -> socket.socket | None:
    """rtnetlink of Linux, which any user may listen to; None elsewhere, and where a sandbox forbids it."""
    if sys.platform != "linux":
        return None
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    except OSError:
        return None
    try:
        netlink.bind((0, _NETLINK_NEWS))
    except OSError:
        netlink.close()
        return None
    return netlink


def _drain(news: socket.socket) -> bool:
    """What it says exactly does not matter: the addresses are listed anew. False when it will say nothing any more."""
    while True:
        try:
            if not news.recv(65_536):
                return False
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # that there was more than it could hold is news enough
                return False
