"""One script for two worlds: the simulator's, and real rooms on the virtual network of the test kit."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import attrs
import trio

from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.room import events as room_events
from psyne_mesh.room.room import Room
from psyne_mesh.simulations.actors import NodeFactory
from psyne_mesh.simulations.cuts import Cut, split
from psyne_mesh.simulations.latency import Constant
from psyne_mesh.simulations.net import Host, NetModel
from psyne_mesh.simulations.watcher import Watcher
from psyne_mesh.simulations.world import World as SimulatedWorld
from psyne_mesh.testing import Quality, open_world

LATENCY_S = 0.01
# What offer, answer, ICE, DTLS and SCTP take on the kit's network: measured there, without loss.
DIAL_S = (0.1, 0.2)


@attrs.frozen
class Fact:
    """What one player was told, and when."""

    at: float
    kind: str
    about: tuple[Any, ...]  # names, sorted
    reason: str = ""


@attrs.frozen
class Step:
    """`verb` is one of join, crash, hang_up, cut, heal, start, leave. A cut is between the first names and all others."""

    at: float
    verb: str
    names: tuple[str, ...] = ()


Facts = dict[str, list[Fact]]


# -------------------------------------------------------------------------------------------------------- real rooms


async def play_rooms(script: list[Step], until: float, seed: int, **options: Any) -> Facts:
    """Under Trio's mock clock."""
    facts: Facts = {}
    async with open_world(seed, Quality(latency_s=LATENCY_S)) as world:
        began = trio.current_time()
        rooms: dict[str, Room] = {}
        names: dict[Any, str] = {}
        ghosts: list[Room] = []  # their programs go on, on machines that are off
        with ExitStack() as cuts:
            for step in script:
                await trio.sleep_until(began + step.at)
                match step.verb:
                    case "join" | "start":
                        for name in step.names:
                            facts.setdefault(name, [])
                            room = rooms[name] = await world.join("lobby", name, **options)
                            names[room.me] = name
                            _listen(room, facts[name], began, ghosts)
                    case "crash":
                        for name in step.names:
                            world.crash(name)
                            ghosts.append(rooms[name])
                    case "leave":
                        for name in step.names:
                            await rooms[name].leave()
                    case "hang_up":
                        link = rooms[step.names[0]]._core.link(rooms[step.names[1]].me)
                        assert link is not None
                        link.close("overflow")
                    case "cut":
                        others = [name for name in facts if name not in step.names]
                        cuts.enter_context(world.net.partition(step.names, others, signaling=False))
                    case "heal":
                        cuts.pop_all().close()
            await trio.sleep_until(began + until)
    return {name: [_named(fact, names) for fact in told] for name, told in facts.items()}


def _listen(room: Room, facts: list[Fact], began: float, ghosts: list[Room]) -> None:
    def note(kind: str, about: list[Any], reason: str = "") -> None:
        if room not in ghosts:
            facts.append(Fact(trio.current_time() - began, kind, tuple(about), reason))

    room.on(room_events.PeerDiscovered, lambda event: note("discovered", [event.peer.id]))
    room.on(room_events.PeerSuspected, lambda event: note("suspected", [event.peer.id]))
    room.on(room_events.PeerResumed, lambda event: note("resumed", [event.peer.id]))
    room.on(room_events.PeerLeft, lambda event: note("left", [event.peer.id], event.reason))
    room.on(room_events.PartitionSuspected, lambda event: note("cut", list(event.lost)))
    room.on(room_events.PartitionHealed, lambda event: note("healed", list(event.returned)))


# ---------------------------------------------------------------------------------------------------- the simulator


def play_simulator(script: list[Step], until: float, seed: int, **config: Any) -> Facts:
    notes = _Notes()
    factory = NodeFactory("node", seed, config)
    net = NetModel(dial_s=DIAL_S, signaling_s=LATENCY_S)
    world = notes.world = SimulatedWorld(seed, net, Constant(2 * LATENCY_S), factory, notes)
    hosts: dict[str, Host] = {}
    cuts: list[Cut] = []
    for step in script:
        world.run(step.at)
        match step.verb:
            case "join" | "start":
                for name in step.names:
                    if name not in hosts:
                        hosts[name] = world.add_host(factory.new_peer())
                        notes.names[hosts[name].peer] = name
                        notes.facts[name] = []
                    world.start(hosts[name])
            case "crash":
                for name in step.names:
                    world.crash(hosts[name])
            case "leave":
                for name in step.names:
                    world.leave(hosts[name])
            case "hang_up":
                one, other = (hosts[name] for name in step.names)
                world.links.close(one, one.table.links[other.peer], "overflow")
                world.obey(one)
            case "cut":
                sides = [
                    [host.index for name, host in hosts.items() if (name in step.names) is near]
                    for near in (True, False)
                ]
                cuts.append(split(sides, signaling=2))
                world.links.cut(cuts[-1])
            case "heal":
                for cut in cuts:
                    world.links.mend(cut)
    world.run(until)
    return notes.facts


class _Notes(Watcher):
    def __init__(self) -> None:
        self.world: SimulatedWorld
        self.names: dict[Any, str] = {}
        self.facts: Facts = {}

    def on_event(self, host: Host, event: Any) -> None:
        about: list[Any]
        reason = ""
        match event:
            case gossip_events.PeerDiscovered(record=record):
                kind, about = "discovered", [record.peer]
            case gossip_events.PeerSuspected(peer=peer):
                kind, about = "suspected", [peer]
            case gossip_events.PeerResumed(peer=peer):
                kind, about = "resumed", [peer]
            case gossip_events.PeerLeft(peer=peer, reason=reason):
                kind, about = "left", [peer]
            case gossip_events.PartitionSuspected(lost=lost):
                kind, about = "cut", list(lost)
            case gossip_events.PartitionHealed(returned=returned):
                kind, about = "healed", list(returned)
            case _:
                return
        name = self.names[host.peer]
        self.facts[name].append(_named(Fact(self.world.now, kind, tuple(about), reason), self.names))


def _named(fact: Fact, names: dict[Any, str]) -> Fact:
    return attrs.evolve(fact, about=tuple(sorted(names[peer] for peer in fact.about)))
