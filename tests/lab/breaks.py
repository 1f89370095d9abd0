"""What goes wrong in real networks, as context managers: broken inside the block, mended at its end.

Sites are named as in the plan and servers by their names ("turn", "sig"). A fault acts where a site or server meets
the internet router, which keeps no connection state: it holds from the next packet on. Traffic that stays inside one
site, or inside one carrier's network, never gets there.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from tests.lab import build, nat
from tests.lab.namespaces import Process
from tests.lab.shaper import Shape
from tests.lab.topology import Router, Uplink, lan_uplink

if TYPE_CHECKING:
    from tests.lab.lab import Lab

SPARE_WAN_OFFSET = 3  # still inside the site's /28
SPARE_LAN_HOST = 100
REBOUND_PORTS = (20_000, 29_999)  # Linux keeps ports above 32768: what lies here is surely new
LOSS_STEPS = 10_000
BLOCK_ALL = """
table inet restarting {
 chain everything { type filter hook prerouting priority raw; policy drop;
 }
}
"""


class Breaks:
    """The faults of one lab. They may be nested and mixed; each block undoes only its own."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._rules: list[list[str]] = []

    # ------------------------------------------------------------------------------------------------ lost packets

    @contextlib.contextmanager
    def silenced(self, *names: str) -> Iterator[None]:
        """Nothing goes in or out of these sites or servers (20 s in a tunnel)."""
        interfaces = [self._interface(name) for name in names]
        with self._faults([f'{way}ifname "{i}" drop' for i in interfaces for way in ("i", "o")]):
            yield

    @contextlib.contextmanager
    def partitioned(self, *groups: Sequence[str]) -> Iterator[None]:
        """No packet between different groups. Who is in no group reaches everybody: to close the way over a relay too,
        put the servers into groups."""
        with self._faults(
            [
                f'iifname "{self._interface(a)}" oifname "{self._interface(b)}" drop'
                for one in groups
                for other in groups
                if one is not other
                for a in one
                for b in other
            ]
        ):
            yield

    @contextlib.contextmanager
    def one_way(self, source: str, target: str) -> Iterator[None]:
        """Packets from `source` do not reach `target`; the other way round they do."""
        with self._faults([f'iifname "{self._interface(source)}" oifname "{self._interface(target)}" drop']):
            yield

    @contextlib.contextmanager
    def lossy(self, name: str, *, up: float = 0.0, down: float = 0.0) -> Iterator[None]:
        """Random loss, 0 to 1, from (up) and to (down) a site or server."""
        interface, rules = self._interface(name), []
        for way, share in (("i", up), ("o", down)):
            if share:
                chance = f"numgen random mod {LOSS_STEPS} < {round(share * LOSS_STEPS)} " if share < 1 else ""
                rules.append(f'{way}ifname "{interface}" {chance}drop')
        with self._faults(rules):
            yield

    @contextlib.contextmanager
    def mtu_fallen(self, site: str, mtu: int) -> Iterator[None]:
        """A tunnel on the site's way drops what is larger, and nobody says so: ICMP is blocked."""
        interface = self._interface(site)
        with self._faults([f'{way}ifname "{interface}" meta length > {mtu} drop' for way in ("i", "o")]):
            yield

    @contextlib.contextmanager
    def udp_blocked(self, *names: str) -> Iterator[None]:
        """These sites or servers pass no UDP from now on, TCP still (a captive network comes up)."""
        interfaces = [self._interface(name) for name in names]
        with self._faults([f'{way}ifname "{i}" meta l4proto udp drop' for i in interfaces for way in ("i", "o")]):
            yield

    @contextlib.contextmanager
    def shaped(self, site: str, *, up: Shape | None = None, down: Shape | None = None, back: Shape) -> Iterator[None]:
        """Other delay, jitter, rate; `back` is what both directions get at the end."""
        self._lab.shape(site, up, down)
        try:
            yield
        finally:
            self._lab.shape(site, back if up else None, back if down else None)

    # ------------------------------------------------------------------------------------------------- new addresses

    @contextlib.contextmanager
    def nat_rebound(self, site: str, ports: tuple[int, int] = REBOUND_PORTS) -> Iterator[None]:
        """The site's outer NAT forgets all its mappings, and new ones get other ports. At the end only the range goes
        back: mappings made meanwhile stay as they are."""
        router = self._lab.plan.outer_router(site)
        address = build.bare(router.uplink.address4) if router else None
        if router is None or router.box.nat is None or address is None:
            raise ValueError(f"{site} has no NAT")
        self._forget([router], nat.outward_script(router.box.nat, router.box.hairpin, address, ports))
        try:
            yield
        finally:
            self._nft(router.name, nat.outward_script(router.box.nat, router.box.hairpin, address, None))

    def forget_mappings(self, site: str) -> None:
        """Every router of the site restarts: what it knew of connections is gone."""
        self._forget([router for router in self._lab.plan.routers.values() if router.site == site])

    @contextlib.contextmanager
    def wan_address_changed(self, site: str) -> Iterator[None]:
        """The site's outer NAT (or the player itself, at an open site) has another public IPv4 address."""
        self._interface(site)
        plan = self._lab.plan
        edge = plan.internet_links()[site]
        router = plan.routers.get(edge)
        before = router.uplink if router else plan.hosts[edge].uplink
        if before.address4 is None:
            raise ValueError(f"{site} has no IPv4 address to change")
        network, host = before.address4.split("/")[0].rsplit(".", 1)
        after = attrs.evolve(before, address4=f"{network}.{int(host) + SPARE_WAN_OFFSET}/28")
        self._readdress(edge, "wan", after, router)
        try:
            yield
        finally:
            self._readdress(edge, "wan", before, router)

    @contextlib.contextmanager
    def player_address_changed(self, player: str) -> Iterator[None]:
        """The player's own address in its lan is another one (a new DHCP lease)."""
        host = self._lab.plan.hosts[player]
        if host.uplink.to == "inet":
            raise ValueError(f"{player} stands on the internet itself: use wan_address_changed")
        after = lan_uplink(self._lab.plan.routers[host.uplink.to], SPARE_LAN_HOST)
        self._readdress(player, "eth0", after)
        try:
            yield
        finally:
            self._readdress(player, "eth0", host.uplink)

    @contextlib.contextmanager
    def roamed(self, player: str, to_site: str) -> Iterator[None]:
        """The player leaves its network for another one: Wi-Fi to mobile. All its addresses are replaced at once."""
        plan = self._lab.plan
        host, target = plan.hosts[player], plan.routers[f"nat-{to_site}"]
        if host.uplink.to == "inet":
            raise ValueError(f"{player} stands on the internet itself and cannot roam")
        home = plan.routers[host.uplink.to]
        self._replug(player, home, lan_uplink(target, SPARE_LAN_HOST), target)
        try:
            yield
        finally:
            self._replug(player, target, host.uplink, home)

    @contextlib.contextmanager
    def tunnel_up(self, player: str, to_site: str) -> Iterator[None]:
        """Another interface takes the player's default route, and its old address stays (a VPN); the end takes it down."""
        host, target = self._lab.plan.hosts[player], self._lab.plan.routers[f"nat-{to_site}"]
        uplink = lan_uplink(target, SPARE_LAN_HOST)
        self._ip(target.name, build.plug_in(player, uplink, "tun0", isolated=target.isolated))
        self._ip(player, build.configure(uplink, "tun0"))
        try:
            yield
        finally:
            self._ip(target.name, [f"link del p-{player}"])
            ways = (host.uplink.gateway4, host.uplink.gateway6)
            self._ip(player, [f"route replace default via {gateway}" for gateway in ways if gateway])

    # ------------------------------------------------------------------------------------------------ dead processes

    @contextlib.contextmanager
    def turn_killed(self, name: str = "turn") -> Iterator[None]:
        """coturn dies without a word; at the end a new one starts, which knows nothing of the old allocations."""
        self._lab.coturns[name].kill()
        try:
            yield
        finally:
            self._lab.coturns[name].start()

    @contextlib.contextmanager
    def signaling_killed(self) -> Iterator[None]:
        """Our signaling server dies without a word; at the end a new one starts, which knows nobody."""
        if self._lab.signaling is None:
            raise ValueError("start_signaling comes first")
        self._lab.signaling.kill()
        try:
            yield
        finally:
            self._lab.start_signaling()

    @contextlib.contextmanager
    def frozen(self, process: Process) -> Iterator[None]:
        """The process stands still (a laptop lid, a debugger)."""
        process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.signal(signal.SIGCONT)

    # ------------------------------------------------------------------------------------------------------- helpers

    def _interface(self, name: str) -> str:
        """The internet router's interface towards a site or server."""
        if name in self._lab.plan.servers:
            return f"v-{name}"
        if name not in self._lab.plan.internet_links():
            raise ValueError(f"{name!r} is no site with a link to the internet, and no server")
        return f"i-{name}"

    @contextlib.contextmanager
    def _faults(self, rules: list[str]) -> Iterator[None]:
        self._rules.append(rules)
        try:
            self._write_faults()
            yield
        finally:
            self._rules = [other for other in self._rules if other is not rules]
            self._write_faults()

    def _write_faults(self) -> None:
        lines = "\n".join(rule for rules in self._rules for rule in rules)
        script = (
            "table inet faults { }\ndelete table inet faults\n"  # one transaction: no packet meets half a table
            f"table inet faults {{ chain forward {{ type filter hook forward priority 0;\n{lines}\n }}\n}}\n"
        )
        self._nft("inet", script)

    def _forget(self, routers: Sequence[Router], script: str = "") -> None:
        """Empties the tables of routers while nothing passes: else an answer under way to the old port would make the
        old mapping anew."""
        for router in routers:
            self._nft(router.name, f"{BLOCK_ALL}\n{script}")
        self._lab.namespaces.commands([(router.name, ["conntrack", "-F"], "") for router in routers])
        for router in routers:
            tables = "flush map ip translation mappings\nflush set ip translation permitted\n" if router.box.nat else ""
            self._nft(router.name, f"{tables}delete table inet restarting")

    def _nft(self, netns: str, script: str) -> None:
        self._lab.namespaces.commands([(netns, ["nft", "-f", "-"], script)])

    def _ip(self, netns: str, lines: Sequence[str]) -> None:
        self._lab.namespaces.commands([(netns, ["ip", "-batch", "-"], "\n".join(lines) + "\n")])

    def _readdress(self, netns: str, interface: str, uplink: Uplink, router: Router | None = None) -> None:
        self._ip(netns, [f"addr flush dev {interface} scope global", *build.configure(uplink, interface)])
        if router:
            self._nft(router.name, nat.ruleset(router.box, build.bare(uplink.address4)))

    def _replug(self, player: str, old: Router, uplink: Uplink, new: Router) -> None:
        self._ip(old.name, [f"link del p-{player}"])
        self._ip(new.name, build.plug_in(player, uplink, "eth0", isolated=new.isolated))
        self._ip(player, build.configure(uplink, "eth0"))
