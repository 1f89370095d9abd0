"""The way in: `join_game_room` for one room, `open_mesh` for several that share their links."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Unpack

import trio

from psyne_mesh.blocks import async_block
from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.in_trio import check_in_trio
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.core import MeshCore, open_core
from psyne_mesh.mesh.request import RoomEntry
from psyne_mesh.nurseries import outliving_cancellation, unwrapped
from psyne_mesh.room.options import JoinOptions, RoomOptions, entry_of, split
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.transport import SignalingTransport
from psyne_mesh.webrtc.ice import SocketFactory

DEFAULT_SIGNALING = "ws://127.0.0.1:8080"  # where `psyne-mesh serve` listens; psyne's demos used the same port


@uninterrupted
class Mesh:
    """Made by `open_mesh`: one identity, one UDP port, one signaling connection, any number of rooms."""

    def __init__(self, core: MeshCore, nursery: trio.Nursery, name: str | None, rng: random.Random) -> None:
        self._core = core
        self._nursery = nursery
        self._name = name
        self._rng = rng

    @property
    def me(self) -> PeerId:
        return self._core.me

    async def join_game_room(self, name: str, **options: Unpack[RoomOptions]) -> Room:
        """Enter a room; it ends with `await room.leave()` or with the mesh. Options and errors: see `join_game_room`."""
        return await self._enter(entry_of(name, self._name, **options))

    async def _enter(self, entry: RoomEntry) -> Room:
        room = Room(entry, self._core, self._rng)
        await self._core.join(entry, room)
        self._nursery.start_soon(room.run, name=f"events of room {entry.request.name}")
        return room


@async_block(without_trio="psyne_mesh.sync.open_mesh")
async def open_mesh(
    signaling: str | Sequence[str] | SignalingTransport = DEFAULT_SIGNALING,
    *,
    identity: Identity | None = None,
    player_name: str | None = None,
    config: WebRTCConfig | None = None,
    rng: random.Random | None = None,
    sockets: SocketFactory | None = None,
    wall_ms: Callable[[], int] | None = None,
) -> AsyncIterator[Mesh]:
    """A mesh for several rooms; links are shared between them, and leaving the block leaves every room.

    signaling: the URL of a server (`ws://` or `wss://`), those of several that share their rooms, of which one must
        answer, or any `SignalingTransport`. Members go by its clock, where it has one.
    identity: who we are; a new player each time without one. Keep `identity.seed` to be the same player again.
    rng, sockets, wall_ms: for tests that want the same run again, a virtual network under it, or another wall clock
    (milliseconds since 1970; envelopes expire by it).

    Raises `SignalingUnreachable` when no server answers at the URL.
    """
    for name, given, kinds in (
        ("identity", identity, Identity), ("config", config, WebRTCConfig), ("rng", rng, random.Random),
    ):  # fmt: skip
        if given is not None and not isinstance(given, kinds):
            raise InvalidConfig(f"{name} = {given!r}: must be {kinds.__module__}.{kinds.__name__}")
    urls = _urls(signaling)
    check_in_trio()
    identity = identity or Identity.generate()
    rng = rng or random.SystemRandom()

    @asynccontextmanager
    async def machinery() -> AsyncIterator[MeshCore]:
        async with AsyncExitStack() as stack:
            if urls:
                server = " or ".join(urls)
                transport: Any = await stack.enter_async_context(connect_signaling(urls, identity, rng=rng))
            else:
                server, transport = type(signaling).__name__, signaling
            yield await stack.enter_async_context(
                open_core(
                    identity,
                    transport,
                    config or WebRTCConfig(),
                    server=server,
                    rng=rng,
                    sockets=sockets,
                    wall_ms=wall_ms,
                )
            )

    with unwrapped():
        async with outliving_cancellation(machinery()) as core, trio.open_nursery() as nursery:
            try:
                yield Mesh(core, nursery, player_name, rng)
            finally:
                with trio.CancelScope(shield=True):
                    await core.close()
                nursery.cancel_scope.cancel()


@async_block(without_trio="psyne_mesh.sync.join_game_room")
async def join_game_room(
    name: str,
    *,
    signaling: str | Sequence[str] | SignalingTransport = DEFAULT_SIGNALING,
    **options: Unpack[JoinOptions],
) -> AsyncIterator[Room]:
    """`async with join_game_room("fps-lobby", max_players=16, region="us-west", skill_range=(1200, 1400)) as room:`

    Players who name the same room, region and `app_id` meet. Entering returns once signaling has admitted us; the links
    to the others are made meanwhile (`await room.wait_connected()`), and leaving the block says goodbye.

    max_players=16: the size of the room; its creator's value holds.
    region="": a text of your own; players of different regions do not meet.
    skill_range=None: (low, high); the creator's range is the room's, and later players' ranges must overlap it.
    create=None: joins or creates; True insists on a new room, False on one that exists.
    player_name: what others see. metadata: up to about 400 bytes of text about the player; room_metadata: about the room,
        its creator's holds.
    app_id, gossip, and what `open_mesh` takes: identity, config, rng, sockets, wall_ms.

    Raises `RoomFull`, `RoomNotFound`, `RoomExists`, `RoomMismatch`, `SignalingUnreachable`, `SignalingLost`,
    `VersionMismatch`, `InvalidConfig`; in each case nothing is left behind.
    """
    check_in_trio()
    of_room, of_mesh = split(options)
    entry = entry_of(name, **of_room)  # what can be refused here is refused before anything is opened
    async with open_mesh(signaling, **of_mesh) as mesh:
        yield await mesh._enter(entry)


def _urls(signaling: object) -> tuple[str, ...]:
    """Of servers; none for a transport."""
    if isinstance(signaling, str):
        return (signaling,)
    if isinstance(signaling, Sequence) and signaling and all(isinstance(url, str) for url in signaling):
        return tuple(signaling)
    if not hasattr(signaling, "send_signal"):
        raise InvalidConfig(
            f"signaling = {signaling!r}: must be the URL of a server, several of one cluster, or a SignalingTransport"
        )
    return ()
