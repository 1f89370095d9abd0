"""Whole rooms on a virtual network: `open_world` gives players, and breaks for them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Literal

import trio

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.identity import Identity
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.room.mesh import Mesh, join_game_room, open_mesh
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.memory import MemorySignaling, open_memory_signaling
from psyne_mesh.signaling.transport import SignalingTransport
from psyne_mesh.testing.network import NatKind, Quality, VirtualHost, VirtualNetwork, check_nat
from psyne_mesh.testing.server import URL, VirtualServer
from psyne_mesh.testing.wire import connect_host

# 1 January 2026, when every world begins: what players sign holds a date, and a seed that decides all decides that, too
WALL_MS = 1_767_225_600_000


@asynccontextmanager
async def open_network(seed: int = 0, quality: Quality | None = None) -> AsyncIterator[VirtualNetwork]:
    """A virtual network for as long as the block."""
    network = VirtualNetwork(seed, quality)
    async with open_background_nursery() as nursery:
        await nursery.start(network.run)
        yield network


class World:
    """A virtual network, signaling, and the players who joined through `join`.

    net: partitions and qualities. hub: `hub.kill()` and `hub.revive()` are the signaling server's death and return; of a world
    with the real server, `server.kill()` and `server.revive()`.
    """

    def __init__(self, net: VirtualNetwork, hub: MemorySignaling | None, nursery: trio.Nursery, seed: int) -> None:
        self.net = net
        self.hosts: dict[str, VirtualHost] = {}
        self._nursery = nursery
        self._seed = seed
        self._wall_ms = WALL_MS - int(trio.current_time() * 1000)
        self._hub = hub
        self._server = VirtualServer(self.wall_ms)
        if hub is not None:
            hub.wall_ms = self.wall_ms

    @property
    def hub(self) -> MemorySignaling:
        if self._hub is None:
            raise InvalidConfig('this world has signaling="real": its server is world.server')
        return self._hub

    @property
    def server(self) -> VirtualServer:
        if self._hub is not None:
            raise InvalidConfig('this world has a hub in memory, world.hub; open_world(signaling="real") has a server')
        return self._server

    async def join(
        self, room: str, name: str, *, nat: NatKind | None = None, clock_skew_s: float = 0.0, **options: Any
    ) -> Room:
        """A player on a machine of its own; it leaves when the world ends. `options` are those of `join_game_room`.

        clock_skew_s: so much the wall clock of the machine is fast, or slow if negative. The hub tells the time, as a
            server does, unless `hub.wall_ms = None`.
        nat: what the machine is behind, "none" if it is new; a machine stays behind the NAT that it has.
        """
        joined: Room = await self._nursery.start(
            self._stay, room, name, {"nat": nat, "clock_skew_s": clock_skew_s, **options}
        )
        return joined

    async def _stay(
        self, room: str, name: str, options: dict[str, Any],
        task_status: trio.TaskStatus[Room] = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        """A task of its own for each player, so that a test may join players inside any block of its own."""
        async with self.joining(room, name, **options) as joined:
            task_status.started(joined)
            await trio.sleep_forever()

    @asynccontextmanager
    async def joining(
        self, room: str, name: str, *, nat: NatKind | None = None, clock_skew_s: float = 0.0, **options: Any
    ) -> AsyncIterator[Room]:
        """The same for a player who leaves at the end of the block."""
        async with (
            self._machine(name, nat, clock_skew_s) as machine,
            join_game_room(room, player_name=name, **{**machine, **options}) as joined,
        ):
            yield joined

    async def mesh(self, name: str, *, nat: NatKind | None = None, clock_skew_s: float = 0.0, **options: Any) -> Mesh:
        """A machine with a mesh and no room yet, for `mesh.create_room(...)`, `mesh.quick_match(...)` and the like; it ends
        with the world. `options` are those of `open_mesh`."""
        mesh: Mesh = await self._nursery.start(self._keep_mesh, name, nat, clock_skew_s, options)
        return mesh

    async def _keep_mesh(
        self, name: str, nat: NatKind | None, clock_skew_s: float, options: dict[str, Any],
        task_status: trio.TaskStatus[Mesh] = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        async with (
            self._machine(name, nat, clock_skew_s) as machine,
            open_mesh(player_name=name, **{**machine, **options}) as mesh,
        ):
            task_status.started(mesh)
            await trio.sleep_forever()

    @asynccontextmanager
    async def _machine(self, name: str, nat: NatKind | None, clock_skew_s: float) -> AsyncIterator[dict[str, Any]]:
        """What a mesh on it is made of."""
        host = self.hosts.get(name)
        if host is None or host.is_dead:
            host = self.hosts[name] = self.net.host(name, nat="none" if nat is None else nat)
        elif nat not in (None, host.nat):
            check_nat(nat)
            raise InvalidConfig(f"host {name!r} is behind nat = {host.nat!r} already, and cannot move to {nat!r}")
        identity = Identity.from_seed(hashlib.sha256(f"{self._seed}/{name}".encode()).digest())
        async with self._connected(host, identity) as transport:
            yield {
                "signaling": transport, "identity": identity, "sockets": host.sockets, "config": host.config,
                "rng": random.Random(f"{self._seed}/{name}"),
                "wall_ms": lambda: self.wall_ms() + int(clock_skew_s * 1000),
            }  # fmt: skip

    def _connected(self, host: VirtualHost, identity: Identity) -> AbstractAsyncContextManager[SignalingTransport]:
        if self._hub is not None:
            return connect_host(self._nursery, self._hub, host, identity.peer_id)
        rng = random.Random(f"{self._seed}/{host.name}/signaling")
        return connect_signaling(URL, identity, rng=rng, dial=partial(self._server.dial, host))

    def wall_ms(self) -> int:
        """The wall clock of a machine that is right, in ms: `WALL_MS` when the world began; from then on it goes with Trio's
        clock."""
        return self._wall_ms + int(trio.current_time() * 1000)

    def crash(self, name: str) -> None:
        """The player's machine dies: nothing more comes from it, by any way; the signaling server misses it after 30 s.
        Its room object is a ghost from now on. Who joins by that name again is the same player on a new machine."""
        self.net.named(name).crash()


@asynccontextmanager
async def open_world(
    seed: int = 0, quality: Quality | None = None, *, signaling: Literal["memory", "real"] = "memory"
) -> AsyncIterator[World]:
    """`async with open_world(seed=1) as world: ada = await world.join("lobby", "ada")`; all of it ends with the block.

    signaling: a hub in memory, whose messages can be held up and changed; or the real server and the real clients, with
        WebSockets over streams of the virtual network.
    """
    if signaling not in ("memory", "real"):
        raise InvalidConfig(f'signaling = {signaling!r}: must be "memory" or "real"')
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(open_network(seed, quality))
        hub = await stack.enter_async_context(open_memory_signaling()) if signaling == "memory" else None
        servers = await stack.enter_async_context(open_background_nursery())
        nursery = await stack.enter_async_context(open_background_nursery())
        world = World(net, hub, nursery, seed)
        if hub is None:
            await servers.start(world.server.run)
        yield world
