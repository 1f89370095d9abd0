"""The way in: `join_game_room` for one room, `open_mesh` for several that share their links."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, cast, overload

import attrs
import trio

from psyne_mesh.blocks import async_block
from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import InvalidConfig, SpectatorsFull
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.in_trio import check_in_trio
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.core import MeshCore, open_core
from psyne_mesh.mesh.request import Anywhere, RoomEntry
from psyne_mesh.nurseries import outliving_cancellation, unwrapped
from psyne_mesh.room.listing import ListOptions, RoomList, query_of_list
from psyne_mesh.room.options import (
    CodeJoinOptions,
    CodeOptions,
    CreateJoinOptions,
    CreateOptions,
    JoinOptions,
    MatchJoinOptions,
    MatchOptions,
    MeshOptions,
    RoomOptions,
    code_entry,
    lobby_entry,
    match_entry,
    new_entry,
    split,
)  # fmt: skip
from psyne_mesh.room.room import Room, inside
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.transport import SignalingTransport
from psyne_mesh.webrtc.ice import SocketFactory

if TYPE_CHECKING:
    from psyne_mesh.room.watched import WatchedRoom

DEFAULT_SIGNALING = "ws://127.0.0.1:8080"  # where `psyne-mesh serve` listens; psyne's demos used the same port
QUICK_MATCH = "quick-match"
# So long those who were put together may take to be connected: a link over a slow relay takes some seconds.
MATCH_S = 12.0
MATCHES_AVOIDED = 8
WATCH_TRIES_MAX = 8  # full galleries, until somebody who wants to watch is told so
Signaling: TypeAlias = str | Sequence[str] | SignalingTransport


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

    @overload
    async def join_game_room(
        self, name: str, *, spectate: Literal[False] = False, **options: Unpack[RoomOptions]
    ) -> Room: ...
    @overload
    async def join_game_room(
        self, name: str, *, spectate: Literal[True], **options: Unpack[RoomOptions]
    ) -> WatchedRoom: ...
    async def join_game_room(
        self, name: str, *, spectate: bool = False, **options: Unpack[RoomOptions]
    ) -> Room | WatchedRoom:
        """Enter a room; it ends with `await room.leave()` or with the mesh. Options and errors: see `join_game_room`."""
        entry = lobby_entry(name, self._name, **options)
        return await (self._watch(entry) if spectate else self._enter(entry))

    async def create_room(self, name: str, **options: Unpack[CreateOptions]) -> Room:
        """Make a room of our own. See `create_room`."""
        return await self._enter(new_entry(name, self._name, **options))

    @overload
    async def join_room(
        self, code: str, *, spectate: Literal[False] = False, **options: Unpack[CodeOptions]
    ) -> Room: ...
    @overload
    async def join_room(self, code: str, *, spectate: Literal[True], **options: Unpack[CodeOptions]) -> WatchedRoom: ...
    async def join_room(
        self, code: str, *, spectate: bool = False, **options: Unpack[CodeOptions]
    ) -> Room | WatchedRoom:
        """Enter the room with that code, or to which we are invited. See `join_room`."""
        entry = code_entry(code, self._name, **options)
        return await (self._watch(entry) if spectate else self._enter(entry))

    async def quick_match(self, name: str = QUICK_MATCH, *, players: int, **options: Unpack[MatchOptions]) -> Room:
        """Wait for others, and enter a fresh room with them. See `quick_match`."""
        return await self._match(match_entry(name, players, self._name, **options))

    def list_rooms(self, name: str | None = None, **options: Unpack[ListOptions]) -> RoomList:
        """`await mesh.list_rooms("fps-lobby")`, or `async for change in mesh.list_rooms("fps-lobby")`. See `list_rooms`."""
        return RoomList(query_of_list(name, options), self._core.list_rooms)

    async def _match(self, entry: RoomEntry) -> Room:
        """With a full room, or again: somebody's game may have ended while it was on the way."""
        while True:
            room = await self._enter(entry)
            with trio.move_on_after(MATCH_S):
                await room.wait_connected(entry.request.max_players - 1)
                self._core.signaling.note_match(room.info.room, failed=False)
                return room
            self._core.signaling.note_match(room.info.room, failed=True)
            await room.leave()
            wish = entry.which
            assert isinstance(wish, Anywhere)
            avoid = (*wish.avoid, room.info.room)[-MATCHES_AVOIDED:]
            entry = attrs.evolve(entry, which=attrs.evolve(wish, avoid=avoid))

    async def _enter(self, entry: RoomEntry) -> Room:
        room = Room(entry, self._core, self._rng)
        await self._core.stays.enter(entry, inside(room))
        self._nursery.start_soon(inside(room).run, name=f"events of room {entry.request.name}")
        return room

    async def _watch(self, entry: RoomEntry) -> WatchedRoom:
        """Of a lobby, the next room that may be watched where one is full."""
        from psyne_mesh.room.watched import WatchedRoom  # few programs watch

        tried: list[str] = []
        while True:
            info, secret = await self._core.stays.found(entry, tried)
            room = WatchedRoom(self._core, entry, info, secret, self._rng)
            try:
                await room.enter()
            except SpectatorsFull:
                tried.append(info.room)
                if not isinstance(entry.which, Anywhere) or len(tried) >= WATCH_TRIES_MAX:
                    raise
                continue
            self._nursery.start_soon(room.run, name=f"events of watched room {info.name}")
            return room


@async_block(without_trio="psyne_mesh.sync.open_mesh")
async def open_mesh(
    signaling: Signaling = DEFAULT_SIGNALING,
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


@overload
def join_game_room(
    name: str, *, signaling: Signaling = ..., spectate: Literal[False] = ..., **options: Unpack[JoinOptions]
) -> AbstractAsyncContextManager[Room]: ...
@overload
def join_game_room(
    name: str, *, signaling: Signaling = ..., spectate: Literal[True], **options: Unpack[JoinOptions]
) -> AbstractAsyncContextManager[WatchedRoom]: ...
@async_block(without_trio="psyne_mesh.sync.join_game_room")
async def join_game_room(
    name: str, *, signaling: Signaling = DEFAULT_SIGNALING, spectate: bool = False, **options: Unpack[JoinOptions]
) -> AsyncIterator[Room | WatchedRoom]:
    """`async with join_game_room("fps-lobby", max_players=16, region="us-west", skill_range=(1200, 1400)) as room:`

    `name` is a lobby: we get the best of its rooms that has a seat for us, or a new one. Entering returns once signaling
    has admitted us; the links to the others are made meanwhile (`await room.wait_connected()`), and leaving the block says
    goodbye.

    max_players=16: the size of the room; its creator's value holds. The 17th player gets a second room.
    region="": a text of your own. Rooms of our own region only, and of those that `region_rtt_ms` measured as near.
    skill_range=None: (low, high); a room has its creator's range, and ours must overlap it.
    app_id="", app_version="": only players of the same meet.
    party=None: `Party(name, size)`, friends who enter together; waits until all of them are here.
    create=None: joins or creates; False insists on a room that exists, True on the first of a new lobby.
    player_name: what others see. metadata: up to about 400 bytes of text about the player; room_metadata: about the room, its
        creator's holds.
    spectators=0: so many may watch the room if we make it. spectate=True: watch one of the lobby's rooms, without a seat; the
        block's value is a `WatchedRoom`.
    gossip, and what `open_mesh` takes: identity, config, rng, sockets, wall_ms.

    Raises `SignalingUnreachable`, `SignalingLost`, `VersionMismatch`, `InvalidConfig`; with create=False `RoomNotFound`,
    `RoomFull`, `RoomMismatch`, `AppVersionMismatch`, with create=True `RoomExists`; with
    spectate=True `SpectatorsFull`. In each case nothing is left behind.
    """
    check_in_trio()
    of_room, of_mesh = split(options)
    entry = lobby_entry(name, **of_room)  # what can be refused here is refused before anything is opened
    async with open_mesh(signaling, **of_mesh) as mesh:
        yield await (mesh._watch(entry) if spectate else mesh._enter(entry))


@async_block(without_trio="psyne_mesh.sync.create_room")
async def create_room(
    name: str, *, signaling: Signaling = DEFAULT_SIGNALING, **options: Unpack[CreateJoinOptions]
) -> AsyncIterator[Room]:
    """`async with create_room("fps-lobby", password="swordfish") as room: print(room.code)`: a room of our own.

    policy="open": who joins the lobby `name` may be placed in it. "code": only who has `room.code`; "password": who knows
    the password, too, of which no server learns; "invite": who has a text of `room.invite()`. Rooms by code and invitation
    are in no list; visible=False keeps others out of them as well. Friends enter with `join_room`.

    Other options are those of `join_game_room`. Raises `SignalingUnreachable`, `SignalingLost`, `SignalingError` (a limit of
    the server), `InvalidConfig`.
    """
    check_in_trio()
    of_room, of_mesh = split(options)
    entry = new_entry(name, **of_room)
    async with open_mesh(signaling, **of_mesh) as mesh:
        yield await mesh._enter(entry)


@overload
def join_room(
    code: str, *, signaling: Signaling = ..., spectate: Literal[False] = ..., **options: Unpack[CodeJoinOptions]
) -> AbstractAsyncContextManager[Room]: ...
@overload
def join_room(
    code: str, *, signaling: Signaling = ..., spectate: Literal[True], **options: Unpack[CodeJoinOptions]
) -> AbstractAsyncContextManager[WatchedRoom]: ...
@async_block(without_trio="psyne_mesh.sync.join_room")
async def join_room(
    code: str, *, signaling: Signaling = DEFAULT_SIGNALING, spectate: bool = False, **options: Unpack[CodeJoinOptions]
) -> AsyncIterator[Room | WatchedRoom]:
    """`async with join_room("K7QM-3FHT") as room:` the room with that code; `code` may be an invitation as well.

    password: of a room that has one; a wrong one is found out on this machine. spectate=True: only watch, without a seat;
    the block's value is a `WatchedRoom`.

    Raises `UnknownCode`, `RoomFull`, `WrongPassword`, `NotInvited`, `InviteExpired`, `AppVersionMismatch`, `ManifestRefused`,
    `RoomGone` (it ended while we came), `SpectatorsFull`, `SignalingUnreachable`, `SignalingLost`, `InvalidConfig`.
    """
    check_in_trio()
    of_room, of_mesh = split(options)
    entry = code_entry(code, **of_room)
    async with open_mesh(signaling, **of_mesh) as mesh:
        yield await (mesh._watch(entry) if spectate else mesh._enter(entry))


@async_block(without_trio="psyne_mesh.sync.quick_match")
async def quick_match(
    name: str = QUICK_MATCH,
    *,
    players: int,
    signaling: Signaling = DEFAULT_SIGNALING,
    **options: Unpack[MatchJoinOptions],
) -> AsyncIterator[Room]:
    """`async with quick_match(players=4, skill_range=(1200, 1400)) as room:` a fresh room with exactly so many in it.

    Entering waits until all are here and connected; put it into `trio.fail_after`. Skill ranges widen and regions open while
    it waits, so that after 20 s everybody fits. Friends give the same `party`.

    Other options and errors are those of `join_game_room`; `SignalingLost` if the server is lost while we wait.
    """
    check_in_trio()
    of_room, of_mesh = split(options)
    entry = match_entry(name, players, **of_room)
    async with open_mesh(signaling, **of_mesh) as mesh:
        yield await mesh._match(entry)


def list_rooms(
    name: str | None = None, *, signaling: Signaling = DEFAULT_SIGNALING, **options: Unpack[ListOptions]
) -> RoomList:
    """`await list_rooms("fps-lobby")`: the rooms of a lobby, or all of `app_id`, up to a hundred; hidden ones are not shown.

    `async with list_rooms("fps-lobby") as rooms: async for change in rooms:` tells each `RoomChange` as well, within a second.

    Raises `SignalingUnreachable`, `SignalingLost`, `SignalingError`, `InvalidConfig`.
    """
    return RoomList(query_of_list(name, options), None, lambda: _connected(signaling))


@asynccontextmanager
async def open_exact_room(entry: RoomEntry, signaling: Signaling, options: MeshOptions) -> AsyncIterator[Room]:
    """The room of that name and no other instance of it, with a mesh of its own."""
    async with open_mesh(signaling, **options) as mesh:
        yield await mesh._enter(entry)


@asynccontextmanager
async def _connected(signaling: Signaling) -> AsyncIterator[SignalingTransport]:
    check_in_trio()
    if urls := _urls(signaling):
        async with connect_signaling(urls, Identity.generate()) as client:
            yield client
    else:
        yield cast(SignalingTransport, signaling)


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
