"""The signaling server as the gossip layer sees it: who is registered, who hears of newcomers, who can be offered to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.simulations import trace as tr
from psyne_mesh.simulations.net import Host

if TYPE_CHECKING:
    from psyne_mesh.simulations.world import World

# What the server tells a newcomer of a large room, and how many members hear of the newcomer: a random part.
LIST_MAX = 64
NOTICES_MAX = 8
SMALL_ROOM = 256  # up to here everybody hears of everybody
LOOK_OUT_S = (15.0, 30.0)  # so often the lookouts of a room register again: `mesh/admission.py`
# The server takes a silent client off its list after that: what `signaling/server.py` does.
SOCKET_TIMEOUT_S = ServerConfig().keepalive_s * ServerConfig().silence_factor


class Rendezvous:
    """Drive it so: `join(host)` when a machine starts, `leave`/`notice_gone` when it ends; `up = False` kills the server."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._members: dict[int, Host] = {}
        self.up = True
        self.list_max = LIST_MAX
        self.only: Host | None = None  # the one member that newcomers are told of, if not all; nobody is told of them

    def join(self, host: Host) -> None:
        """Asks for the room's members. A client that cannot reach the server tries again every 2 s."""
        if not self._serves(host):
            self._world.after(2.0, self._join_again, host, host.generation)
            return
        self._world.after(self._world.net.signaling_s, self._register, host, host.generation)

    def _join_again(self, host: Host, generation: int) -> None:
        if host.up and host.generation == generation and not host.registered:
            self.join(host)

    def _register(self, host: Host, generation: int) -> None:
        if not (host.up and host.generation == generation and self._serves(host)):
            return
        world = self._world
        world.trace.add(world.now, tr.SIGNALING, host.index, -1, len(self._members))
        others = [other for other in self._members.values() if other is not host]
        host.registered = True
        self._members[host.index] = host
        if self.only is not None:
            others = [self.only] if self.only.registered and self.only is not host else []
        shown = others if len(others) <= self.list_max else world.rng.sample(others, self.list_max)
        told = (
            []
            if self.only is not None
            else others
            if len(others) < SMALL_ROOM
            else world.rng.sample(others, NOTICES_MAX)
        )
        if shown:
            world.after(
                world.net.signaling_s, self._teach, host, generation, [other.actor.own_record for other in shown]
            )
        for other in told:
            world.after(world.net.signaling_s, self._teach, other, other.generation, [host.actor.own_record])
        if hasattr(host.actor, "is_lookout"):
            world.after(world.rng.uniform(*LOOK_OUT_S), self._look_out, host, generation)

    def _teach(self, host: Host, generation: int, records: list[object]) -> None:
        if host.up and not host.paused and host.generation == generation and self._serves(host):
            host.actor.learn(records, host.local(self._world.now))
            self._world.drain(host)

    def _look_out(self, host: Host, generation: int) -> None:
        """Registers again, if that is the node's task: its record here is fresh, and it learns whom the server lists."""
        world = self._world
        if not host.up or host.generation != generation:
            return
        world.after(world.rng.uniform(*LOOK_OUT_S), self._look_out, host, generation)
        if self._serves(host) and not host.paused and host.actor.is_lookout():
            others = [other for other in self._members.values() if other is not host]
            shown = others if len(others) <= self.list_max else world.rng.sample(others, self.list_max)
            self._teach(host, generation, [other.actor.own_record for other in shown])

    def leave(self, host: Host) -> None:
        host.registered = False
        self._members.pop(host.index, None)

    def notice_gone(self, host: Host) -> None:
        """The machine died: its socket times out at the server."""
        self._world.after(SOCKET_TIMEOUT_S, self._forget, host, host.generation)

    def _forget(self, host: Host, generation: int) -> None:
        if not host.up or host.generation != generation:
            if host.generation == generation:
                host.registered = False
            if not host.up:
                self._members.pop(host.index, None)

    def _serves(self, host: Host) -> bool:
        return self.up and host.sees_signaling

    def meets(self, host: Host) -> bool:
        """Whether it is registered, and hears of whoever else is."""
        return host.up and host.registered and self._serves(host)

    def takes(self, a: Host, b: Host) -> bool:
        """Whether the server takes an offer of `a` to `b`: it lists both. Whether `b` is still there it finds out late."""
        return self._serves(a) and a.registered and b.index in self._members

    def connects(self, a: Host, b: Host) -> bool:
        """Whether what `a` says comes to `b` over the server now."""
        return self._serves(a) and self._serves(b) and a.registered and b.registered and a.up and b.up
