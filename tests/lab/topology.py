"""Who stands where: sites of a kind, their routers and players, and every address (pure data, no side effects).

All addresses come from ranges set aside for documentation (RFC 5737, RFC 3849), private use (RFC 1918) and carrier
NAT (RFC 6598). `inet` is the router that joins the sites and the servers; it has no link out of the lab.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import attrs

from tests.lab.nat import Box, Inbound6, Nat, Udp

MAX_SITES = 16  # 198.51.100.0/24 in blocks of /28
FIRST_PLAYER_HOST = 10
NAME_LENGTH_MAX = 9  # with its prefixes an interface name has at most 15 characters


@attrs.frozen(kw_only=True)
class Kind:
    """A sort of access: the routers from the player outwards, and the address families that pass."""

    boxes: tuple[Box, ...] = ()
    ipv4: bool = True
    ipv6: bool = False

    @property
    def symmetric(self) -> bool:
        return any(box.nat is Nat.SYMMETRIC for box in self.boxes)

    @property
    def port_filtering(self) -> bool:
        """Whether packets from an address and port never sent to are dropped somewhere (APDF)."""
        return any(box.nat in (Nat.PORT_RESTRICTED, Nat.SYMMETRIC) for box in self.boxes)

    @property
    def udp(self) -> bool:
        return all(box.udp is Udp.PASS for box in self.boxes)


HOME = Box(Nat.PORT_RESTRICTED)

KINDS: dict[str, Kind] = {
    "open": Kind(),
    "full-cone": Kind(boxes=(Box(Nat.FULL_CONE),)),
    "address-restricted": Kind(boxes=(Box(Nat.ADDRESS_RESTRICTED),)),
    "port-restricted": Kind(boxes=(HOME,)),
    "symmetric": Kind(boxes=(Box(Nat.SYMMETRIC),)),
    "double-cone": Kind(boxes=(HOME, Box(Nat.FULL_CONE))),
    "double-symmetric": Kind(boxes=(HOME, Box(Nat.SYMMETRIC))),
    "udp-blocked": Kind(boxes=(Box(Nat.PORT_RESTRICTED, udp=Udp.DROP),)),
    "udp-rejected": Kind(boxes=(Box(Nat.PORT_RESTRICTED, udp=Udp.REJECT),)),
    "ipv6-open": Kind(boxes=(Box(None, inbound6=Inbound6.OPEN),), ipv4=False, ipv6=True),
    "ipv6-only": Kind(boxes=(Box(None),), ipv4=False, ipv6=True),
    "dual-stack": Kind(boxes=(HOME,), ipv6=True),
    "dual-symmetric": Kind(boxes=(Box(Nat.SYMMETRIC),), ipv6=True),
}


def can_be_direct(a: str, b: str) -> bool:
    """Whether ICE with STUN, and without any relay, can join two sites of these kinds (RFC 5128 section 3)."""
    one, two = KINDS[a], KINDS[b]
    if not (one.udp and two.udp):
        return False
    if one.ipv6 and two.ipv6:
        return True
    if not (one.ipv4 and two.ipv4):
        return False
    return not ((one.symmetric and two.port_filtering) or (two.symmetric and one.port_filtering))


@attrs.frozen
class Site:
    """One access to the internet and the players behind it (default: one, named like the site).

    behind: the site whose network this one is plugged into (two homes behind one carrier NAT).
    hairpin: the router lets its own players meet at their outside addresses. isolated: players in the same
    network cannot talk to each other directly (guest Wi-Fi).
    """

    name: str
    kind: str = "port-restricted"
    players: tuple[str, ...] | None = attrs.field(default=None, kw_only=True)
    behind: str | None = attrs.field(default=None, kw_only=True)
    hairpin: bool = attrs.field(default=False, kw_only=True)
    isolated: bool = attrs.field(default=False, kw_only=True)

    @property
    def inhabitants(self) -> tuple[str, ...]:
        return (self.name,) if self.players is None else self.players


@attrs.frozen(kw_only=True)
class Uplink:
    """One interface towards the internet: our addresses with prefix length, and the gateways."""

    to: str  # "inet", or the router whose lan it is plugged into
    address4: str | None = None
    gateway4: str | None = None
    address6: str | None = None
    gateway6: str | None = None


@attrs.frozen(kw_only=True)
class Router:
    name: str
    site: str
    box: Box
    uplink: Uplink
    lan4: str | None  # address of the router in its lan, with prefix length
    lan6: str | None
    isolated: bool = False


@attrs.frozen(kw_only=True)
class Host:
    name: str
    uplink: Uplink


@attrs.frozen(kw_only=True)
class Server:
    """A host of the internet side: signaling or TURN. Each has two addresses of either family (RFC 5780 asks it)."""

    name: str
    addresses4: tuple[str, str]
    addresses6: tuple[str, str]
    gateway4: str
    gateway6: str


def server(name: str, block: int) -> Server:
    """Block 0 is 203.0.113.0/28 and 2001:db8:f00::/64, block 1 the next ones, and so on."""
    base, net6 = 16 * block, f"2001:db8:f{block:02x}:"
    return Server(
        name=name,
        addresses4=(f"203.0.113.{base + 2}", f"203.0.113.{base + 3}"),
        addresses6=(f"{net6}:2", f"{net6}:3"),
        gateway4=f"203.0.113.{base + 1}",
        gateway6=f"{net6}:1",
    )


@attrs.frozen(kw_only=True)
class Plan:
    """Everything that is to be built. `order` of routers: outermost first."""

    sites: dict[str, Site]
    routers: dict[str, Router]
    hosts: dict[str, Host]
    servers: dict[str, Server]

    @classmethod
    def of(cls, sites: Sequence[Site], server_names: Sequence[str]) -> Self:
        check(sites)
        routers: dict[str, Router] = {}
        hosts: dict[str, Host] = {}
        for index, site in enumerate(sites):
            kind = KINDS[site.kind]
            uplink = internet_uplink(index, kind)
            if site.behind:
                neighbours = sum(other.behind == site.behind for other in sites[:index])
                uplink = lan_uplink(inner_router(routers, site.behind), FIRST_PLAYER_HOST + neighbours)
            for depth in reversed(range(len(kind.boxes))):
                name = f"nat-{site.name}" if depth == 0 else f"cgn-{site.name}"
                router = _router(name, site, index, depth, uplink)
                routers[name] = router
                uplink = lan_uplink(router, FIRST_PLAYER_HOST)
            for number, player in enumerate(site.inhabitants):
                if kind.boxes:
                    uplink = lan_uplink(inner_router(routers, site.name), FIRST_PLAYER_HOST + number)
                hosts[player] = Host(name=player, uplink=uplink)
        return cls(
            sites={site.name: site for site in sites},
            routers=routers,
            hosts=hosts,
            servers={name: server(name, block) for block, name in enumerate(server_names)},
        )

    def internet_links(self) -> dict[str, str]:
        """Site name -> the namespace that holds its `wan` interface towards `inet`."""
        links = {r.site: r.name for r in self.routers.values() if r.uplink.to == "inet"}
        for site in self.sites.values():
            if not KINDS[site.kind].boxes:
                links[site.name] = site.inhabitants[0]
        return links

    def outer_router(self, site: str) -> Router | None:
        """The router of a site that holds its outside address; an open site has none."""
        return self.routers.get(f"cgn-{site}") or self.routers.get(f"nat-{site}")


def check(sites: Sequence[Site]) -> None:
    if len(sites) > MAX_SITES:
        raise ValueError(f"at most {MAX_SITES} sites, not {len(sites)}")
    names = [site.name for site in sites]
    for site in sites:
        if len(site.name) > NAME_LENGTH_MAX:
            raise ValueError(f"{site.name!r}: a site name has at most {NAME_LENGTH_MAX} characters")
        if site.behind is not None and site.behind not in names[: names.index(site.name)]:
            raise ValueError(f"{site.name!r} is behind {site.behind!r}, which must stand before it")
        if not KINDS[site.kind].boxes and len(site.inhabitants) != 1:
            raise ValueError(f"{site.name!r}: an open site is one player with a public address")


def inner_router(routers: dict[str, Router], site: str) -> Router:
    return routers[f"nat-{site}"]


def internet_uplink(index: int, kind: Kind, host: int = 2) -> Uplink:
    base, net6 = 16 * index, f"2001:db8:a{index:02x}:"
    return Uplink(
        to="inet",
        address4=f"198.51.100.{base + host}/28" if kind.ipv4 else None,
        gateway4=f"198.51.100.{base + 1}" if kind.ipv4 else None,
        address6=f"{net6}:{host:x}/64" if kind.ipv6 else None,
        gateway6=f"{net6}:1" if kind.ipv6 else None,
    )


def lan_uplink(router: Router, number: int) -> Uplink:
    """Where host `number` of a router's lan sits."""
    lan4, lan6 = router.lan4, router.lan6
    return Uplink(
        to=router.name,
        address4=f"{lan4.rsplit('.', 1)[0]}.{number}/24" if lan4 else None,
        gateway4=lan4.split("/")[0] if lan4 else None,
        address6=f"{lan6.rsplit(':', 1)[0]}:{number:x}/64" if lan6 else None,
        gateway6=lan6.split("/")[0] if lan6 else None,
    )


def _router(name: str, site: Site, index: int, depth: int, uplink: Uplink) -> Router:
    kind = KINDS[site.kind]
    box = attrs.evolve(kind.boxes[depth], hairpin=site.hairpin)
    home = depth == 0 and bool(site.inhabitants)  # a site without players is a carrier
    lan4 = f"10.{index + 1}.0.1/24" if home else f"100.64.{index}.1/24"
    return Router(
        name=name,
        site=site.name,
        box=box,
        uplink=uplink,
        lan4=lan4 if kind.ipv4 else None,
        lan6=f"2001:db8:b{index:02x}::1/64" if kind.ipv6 and depth == 0 else None,
        isolated=site.isolated and depth == 0,
    )
