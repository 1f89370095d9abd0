"""Players for tests: rooms over real sockets on loopback and a signaling hub in memory, all in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.identity import Identity
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.room.mesh import Mesh, join_game_room, open_mesh
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.memory import MemorySignaling, open_memory_signaling

# Generous: these tests say what happens, never how fast, and the machine may be busy.
PATIENCE_S = 30
LOOPBACK = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)


class Party:
    """Enters players one by one, and lets them all out at the end."""

    def __init__(self, hub: MemorySignaling, stack: AsyncExitStack) -> None:
        self.hub = hub
        self._stack = stack

    async def join(self, room: str = "lobby", name: str = "", **options: Any) -> Room:
        return await self._stack.enter_async_context(self.joining(room, name, **options))

    @asynccontextmanager
    async def joining(
        self, room: str = "lobby", name: str = "", *, identity: Identity | None = None, config: WebRTCConfig = LOOPBACK,
        **options: Any,
    ) -> AsyncIterator[Room]:  # fmt: skip
        identity = identity or Identity.generate()
        async with (
            self.hub.connect(identity.peer_id) as transport,
            join_game_room(
                room, signaling=transport, identity=identity, player_name=name, config=config, **options
            ) as joined,
        ):
            yield joined

    async def mesh(self, name: str = "", config: WebRTCConfig = LOOPBACK) -> Mesh:
        identity = Identity.generate()
        transport = await self._stack.enter_async_context(self.hub.connect(identity.peer_id))
        return await self._stack.enter_async_context(
            open_mesh(transport, identity=identity, player_name=name, config=config)
        )


@asynccontextmanager
async def open_party() -> AsyncIterator[Party]:
    with unwrapped(), trio.fail_after(PATIENCE_S):
        async with open_memory_signaling() as hub, AsyncExitStack() as stack:
            yield Party(hub, stack)


async def connected(*rooms: Room) -> None:
    """Until all of these see each other."""
    for room in rooms:
        await room.wait_connected(len(rooms) - 1)


async def first(room: Room, kind: type[Any]) -> Any:
    """The first event of that type, past ones that still hold included."""
    async for event in room.events():
        if isinstance(event, kind):
            return event
    raise AssertionError("the room was left")
