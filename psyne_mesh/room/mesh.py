"""The way in: `join_game_room` for one room, `open_mesh` for several that share their links."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from psyne_mesh.blocks import async_block
from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.in_trio import check_in_trio
from psyne_mesh.mesh.core import MeshCore, open_core
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.request import RoomRequest
from psyne_mesh.names import is_plain
from psyne_mesh.nurseries import outliving_cancellation, unwrapped
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.transport import CreatePolicy, SignalingTransport
from psyne_mesh.webrtc.ice import SocketFactory

DEFAULT_SIGNALING = "ws://127.0.0.1:8080"  # where `psyne-mesh serve` listens; psyne's demos used the same port
SkillRange = tuple[float, float]


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

    async def join_game_room(
        self,
        name: str,
        *,
        max_players: int = 16,
        region: str | None = None,
        skill_range: SkillRange | None = None,
        app_id: str = "",
        create: bool | None = None,
        player_name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        room_metadata: Mapping[str, str] | None = None,
        gossip: GossipConfig | None = None,
    ) -> Room:
        """Enter a room; it ends with `await room.leave()` or with the mesh. Arguments and errors: see `join_game_room`."""
        request = _request(name, max_players, region, skill_range, app_id, create, room_metadata)
        profile = Profile.make(region, skill_range, metadata)
        return await self._enter(request, profile, player_name or self._name or "", gossip)

    async def _enter(self, request: RoomRequest, profile: Profile, name: str, gossip: GossipConfig | None) -> Room:
        if gossip is not None and not isinstance(gossip, GossipConfig):
            raise InvalidConfig(f"gossip = {gossip!r}: must be a GossipConfig")
        if not isinstance(name, str) or not is_plain(name):
            raise InvalidConfig(f"player_name = {name!r}: must be text without controls and marks that turn it round")
        gossip = gossip or GossipConfig(max_players=request.max_players)
        room = Room(request, self._core, gossip.seat_hold_s, name, self._rng)
        await self._core.join(request, name, profile, gossip, room)
        self._nursery.start_soon(room.run, name=f"events of room {request.name}")
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
    max_players: int = 16,
    region: str | None = None,
    skill_range: SkillRange | None = None,
    signaling: str | Sequence[str] | SignalingTransport = DEFAULT_SIGNALING,
    app_id: str = "",
    create: bool | None = None,
    identity: Identity | None = None,
    player_name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    room_metadata: Mapping[str, str] | None = None,
    config: WebRTCConfig | None = None,
    gossip: GossipConfig | None = None,
    rng: random.Random | None = None,
    sockets: SocketFactory | None = None,
    wall_ms: Callable[[], int] | None = None,
) -> AsyncIterator[Room]:
    """`async with join_game_room("fps-lobby", max_players=16, region="us-west", skill_range=(1200, 1400)) as room:`

    Players who name the same room, region and `app_id` meet. Entering returns once signaling has admitted us; the links
    to the others are made meanwhile (`await room.wait_connected()`), and leaving the block says goodbye.

    max_players: the size of the room; its creator's value holds.
    skill_range: (low, high); the creator's range is the room's, and later players' ranges must overlap it.
    create: None joins or creates; True insists on a new room, False on one that exists.
    metadata: up to about 400 bytes of text about the player; room_metadata: about the room, its creator's holds.

    Raises `RoomFull`, `RoomNotFound`, `RoomExists`, `RoomMismatch`, `SignalingUnreachable`, `SignalingLost`,
    `VersionMismatch`, `InvalidConfig`; in each case nothing is left behind.
    """
    check_in_trio()
    # What can be refused here is refused before anything is opened.
    request = _request(name, max_players, region, skill_range, app_id, create, room_metadata)
    profile = Profile.make(region, skill_range, metadata)
    async with open_mesh(
        signaling, identity=identity, player_name=player_name, config=config, rng=rng, sockets=sockets, wall_ms=wall_ms
    ) as mesh:
        yield await mesh._enter(request, profile, player_name or "", gossip)


def _request(
    name: str,
    max_players: int,
    region: str | None,
    skill_range: SkillRange | None,
    app_id: str,
    create: bool | None,
    room_metadata: Mapping[str, str] | None,
) -> RoomRequest:
    if not isinstance(name, str) or not 1 <= len(name) <= 128 or not is_plain(name):
        raise InvalidConfig("a room name is 1 to 128 characters, without controls and marks that turn text round")
    for label, text in (("region", region or ""), ("app_id", app_id)):
        if not isinstance(text, str) or len(text) > 64 or "/" in text or not is_plain(text):
            raise InvalidConfig(
                f"{label} is at most 64 characters, without slashes, controls and marks that turn text round"
            )
    if not isinstance(max_players, int) or not 2 <= max_players <= 1024:
        raise InvalidConfig(f"max_players = {max_players!r}: must lie in [2, 1024]")
    if skill_range is not None and not _is_band(skill_range):
        raise InvalidConfig(f"skill_range = {skill_range!r}: must be (low, high)")
    if room_metadata is not None and not isinstance(room_metadata, Mapping):
        raise InvalidConfig(f"room_metadata = {room_metadata!r}: must be a mapping of names to values")
    policy: CreatePolicy = "or" if create is None else "only" if create else "never"
    return RoomRequest(
        name=name, app_id=app_id, region=region or "", max_players=max_players, skill_range=skill_range,
        create=policy, metadata=dict(room_metadata or {}),
    )  # fmt: skip


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


def _is_band(value: object) -> bool:
    match value:
        case (int() | float() as low, int() | float() as high):
            return low <= high
    return False
