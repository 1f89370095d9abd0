"""The lab itself: builds a plan of sites and servers out of namespaces, and takes it down."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from tests.lab import build
from tests.lab.breaks import Breaks
from tests.lab.coturn import CA_FILE, Coturn, TurnOptions
from tests.lab.namespaces import REPOSITORY, Namespaces, Process
from tests.lab.nat import WEB_PORT
from tests.lab.shaper import Shape
from tests.lab.topology import KINDS, Plan, Site

# 15 ms a link and direction makes 60 ms from player to player and back: a continent. With none, the first check always
# comes before the other side has opened its hole, and the relay wins by chance: zero latency lies.
DEFAULT_SHAPE = Shape(delay_ms=15)
SIGNALING_NAME = "sig.example"
SHAPER = Path(__file__).with_name("shaper.py")
SHAPER_DEADLINE_S = 5.0


class Lab:
    """Sites of players, servers, and the internet between them.

    1. `with Lab([Site("a", "symmetric"), Site("b", "open")]) as lab:` builds it and starts coturn (about 0.2 s).
    2. `lab.python("a", "tests.lab.player")` starts a Python module where player "a" stands, `lab.namespaces.spawn`
       and `.run` any other program. `lab.stun_uris("a")` and `lab.turn_uris("a")` tell what to give them.
    3. `with lab.breaks.partitioned(["a"], ["b"]): ...` and its like break things and mend them.
    4. The end of the block kills everything that was started; nothing stays.

    turn_servers: one coturn each (default: one, "turn"); next to them stands "sig", a bare host for signaling.
    shape: of every site's link to the internet, both ways; None makes plain links that cannot be shaped later.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        *,
        turn_servers: Mapping[str, TurnOptions] | None = None,
        shape: Shape | None = DEFAULT_SHAPE,
        seed: int = 1,
    ) -> None:
        options = {"turn": TurnOptions()} if turn_servers is None else turn_servers
        self.plan = Plan.of(sites, ["sig", *options])
        self.namespaces = Namespaces()
        self.coturns = {
            name: Coturn(self.namespaces, self.plan.servers[name], option) for name, option in options.items()
        }
        self.breaks = Breaks(self)
        self.signaling: Process | None = None
        self._shaper: Process | None = None
        try:
            self._build(shape is not None)
            if shape is not None:
                self._start_shaper(shape, seed)
            for coturn in self.coturns.values():
                coturn.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything at once; harmless when done twice."""
        self.namespaces.close()

    def python(self, player: str, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """A process of this interpreter where `player` stands; `arguments` as they follow `python -m`."""
        environment = {"PYTHONPATH": str(REPOSITORY), "SSL_CERT_FILE": CA_FILE, **(env or {})}
        return self.namespaces.spawn(player, [sys.executable, "-m", *arguments], env=environment)

    def start_signaling(self) -> str:
        """Starts our signaling server at "sig" and returns its URL. Port 443, which every firewall of the lab passes."""
        server = self.plan.servers["sig"]
        names = [f"{address} {SIGNALING_NAME}\n" for address in (server.addresses4[0], server.addresses6[0])]
        self.namespaces.write("/run/lab/hosts", "127.0.0.1 localhost\n::1 localhost\n" + "".join(names))
        where = ["--host", SIGNALING_NAME, "--port", str(WEB_PORT)]
        self.signaling = self.python("sig", "psyne_mesh.cli", "serve", *where)
        self.namespaces.wait_for_server(self.signaling, "sig", server.addresses4[0], WEB_PORT)
        return f"ws://{SIGNALING_NAME}:{WEB_PORT}"

    def stun_uris(self, player: str) -> list[str]:
        return [f"stun:{address}:3478" for name in self.coturns for address in self.server_addresses(player, name)]

    def turn_uris(self, player: str, transports: Sequence[str] = ("udp", "tcp")) -> list[str]:
        """In the order of `transports`: "udp" is port 3478; "tcp" and "tls" are port 443, open behind every firewall."""
        forms = {"udp": "turn:{}:3478?transport=udp", "tcp": "turn:{}:443?transport=tcp", "tls": "turns:{}:443"}
        addresses = [address for name in self.coturns for address in self.server_addresses(player, name)]
        return [forms[transport].format(address) for transport in transports for address in addresses]

    def server_addresses(self, player: str, server: str) -> list[str]:
        """The first address of a server in each family that the player has, written as in a URI."""
        uplink, place = self.plan.hosts[player].uplink, self.plan.servers[server]
        four = [place.addresses4[0]] if uplink.address4 else []
        return four + ([f"[{place.addresses6[0]}]"] if uplink.address6 else [])

    def passes_udp(self, player: str) -> bool:
        router = self.plan.routers.get(self.plan.hosts[player].uplink.to)
        return router is None or KINDS[self.plan.sites[router.site].kind].udp

    def shape(self, site: str, up: Shape | None = None, down: Shape | None = None) -> dict[str, Any]:
        """Changes a link from now on; returns the counters of both directions so far (see shaper.Counters)."""
        ways = {name: asdict(shape) for name, shape in (("up", up), ("down", down)) if shape is not None}
        if self._shaper is None or self._shaper.stdin is None:
            raise ValueError("this lab was built without shaping")
        os.write(self._shaper.stdin, json.dumps({"link": site, **ways}).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self._shaper_line())
        return answer

    def _build(self, shaped: bool) -> None:
        settings = build.namespaces(self.plan, shaped)
        self.namespaces.add(list(settings))
        self.namespaces.sysctl(settings)
        self.namespaces.commands(
            [
                (name, ["ip", "-batch", "-"], "\n".join(lines) + "\n")
                for name, lines in build.scripts(self.plan, shaped).items()
            ]
            + [(name, ["nft", "-f", "-"], rules) for name, rules in build.rulesets(self.plan).items()]
        )

    def _start_shaper(self, shape: Shape, seed: int) -> None:
        links = self.plan.internet_links()
        for site, edge in links.items():
            self.namespaces.offload("wire", [f"e-{site}", f"i-{site}"])
            self.namespaces.offload("inet", [f"i-{site}"])
            self.namespaces.offload(edge, ["wan"])
        argv = [sys.executable, "-I", "-S", str(SHAPER), str(seed), *links]
        self._shaper = self.namespaces.spawn("wire", argv)
        self._shaper_line()
        for site in links:
            self.shape(site, shape, shape)

    def _shaper_line(self) -> str:
        assert self._shaper is not None
        assert self._shaper.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._shaper.stdout], [], [], SHAPER_DEADLINE_S)
            piece = os.read(self._shaper.stdout, 65536) if ready else b""
            if not piece:
                raise RuntimeError(f"the shaper does not answer: {self._shaper.errors()}")
            line += piece
        return line.decode()
