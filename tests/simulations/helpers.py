"""A world of echo nodes: just enough actor to see what the world does."""

from __future__ import annotations

from typing import Any

from psyne_mesh.gossip.events import SendFrame
from psyne_mesh.identity import PeerId
from psyne_mesh.simulations.accounting import Accounting
from psyne_mesh.simulations.actors import StubSigner, seed_of
from psyne_mesh.simulations.baselines.base import Baseline
from psyne_mesh.simulations.latency import Constant, Latency
from psyne_mesh.simulations.net import Host, NetModel
from psyne_mesh.simulations.world import World

GRAIN = 3e-6  # the world rounds times up to its grains


class Probe(Baseline):
    """Notes everything that happens to it; sends when told to."""

    def __init__(self, peer: PeerId, rng: Any) -> None:
        super().__init__(peer, rng)
        self.log: list[tuple[Any, ...]] = []
        self.lag = 0.0

    def start(self, now: float) -> None:
        self.log.append(("start", now))

    def link_up(self, peer: PeerId, now: float, rtt: float | None = None) -> None:
        self.log.append(("up", now, peer))

    def link_down(self, peer: PeerId, reason: str, now: float) -> None:
        self.log.append(("down", now, peer, reason))

    def dial_failed(self, peer: PeerId, cause: str, now: float) -> None:
        self.log.append(("failed", now, peer, cause))

    def receive(self, peer: PeerId, frame: bytes, now: float) -> None:
        self.log.append(("got", now, frame))

    def note_loop_lag(self, seconds: float, now: float) -> None:
        self.lag += seconds

    def timer_fired(self, what: Any, now: float) -> None:
        self.log.append(("timer", now, what))

    def say(self, peer: PeerId, frame: bytes, *, reliable: bool) -> None:
        self._outputs.append(SendFrame(peer, frame, reliable))

    def order(self, output: Any) -> None:
        self._outputs.append(output)

    def times(self, kind: str) -> list[float]:
        return [entry[1] for entry in self.log if entry[0] == kind]

    def frames(self) -> list[bytes]:
        return [entry[2] for entry in self.log if entry[0] == "got"]


def probes(number: int, *, seed: int = 1, latency: Latency | None = None, **net: Any) -> tuple[World, list[Host]]:
    """A world with so many probes, all switched on."""
    accounting = Accounting()
    model = NetModel(**{"bridged": False, **net})  # a probe's connection has one path
    world = World(seed, model, latency or Constant(0.05), lambda _, host: Probe(host.peer, host.rng), accounting)
    accounting.world = world
    hosts = [world.add_host(StubSigner.of(seed_of(seed, index)).peer_id) for index in range(number)]
    for host in hosts:
        world.start(host)
    world.run(0.5)
    return world, hosts


def pair(**settings: Any) -> tuple[World, Host, Host]:
    """Two probes with a link between them."""
    world, hosts = probes(2, **settings)
    world.links.connect(hosts[0], hosts[1])
    return world, hosts[0], hosts[1]


def send(world: World, src: Host, dst: Host, frame: bytes, *, reliable: bool = False) -> None:
    src.actor.say(dst.peer, frame, reliable=reliable)
    world.drain(src)
