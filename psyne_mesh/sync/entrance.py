"""The way in without Trio: `with sync.join_game_room(...) as net`, `sync.open_mesh()`, `sync.open_server()`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Generic, Literal, NoReturn, TypeVar, Unpack, overload

import trio

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.identity import PeerId
from psyne_mesh.room import mesh as trio_mesh
from psyne_mesh.room import room as trio_room
from psyne_mesh.room.listing import ListOptions
from psyne_mesh.room.mesh import DEFAULT_SIGNALING, QUICK_MATCH
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
)  # fmt: skip
from psyne_mesh.room.watched import WatchedRoom as TrioWatchedRoom
from psyne_mesh.signaling import server as trio_server
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.server import DEFAULT_PORT, SignalingServer
from psyne_mesh.sync.room import Room
from psyne_mesh.sync.thread import NetworkThread
from psyne_mesh.sync.watched import WatchedRoom

V = TypeVar("V")
T = TypeVar("T")

# Until signaling has admitted us: its own tries end before that.
JOIN_TIMEOUT_S = 30.0
# Until others are there to play with: past it a player goes and does something else; a guess.
MATCH_TIMEOUT_S = 120.0


class Block(AbstractContextManager[V], Generic[V]):
    """What the functions of this page return: nothing has happened until `with` enters it, and leaving it ends all of it."""

    def __init__(
        self, what: str, name: str, opened: Callable[[], AbstractAsyncContextManager[T]],
        made: Callable[[NetworkThread[T], T], V], timeout: float,
    ) -> None:  # fmt: skip
        self._what = what
        self._name = name
        self._opened: Callable[[], AbstractAsyncContextManager[Any]] = opened
        self._made: Callable[[NetworkThread[Any], Any], V] = made
        self._timeout = timeout
        self._thread: NetworkThread[Any] | None = None

    def __enter__(self) -> V:
        if self._thread is not None:
            raise InvalidConfig(f"this sync.{self._what} was entered before: call it again for another block")
        if trio.lowlevel.in_trio_run():
            raise InvalidConfig(
                f"sync.{self._what} would stop your Trio tasks: in Trio, write `async with psyne_mesh.{self._what}`"
            )
        self._thread = NetworkThread(self._name)
        value = self._thread.start(self._opened, self._timeout)
        try:
            return self._made(self._thread, value)
        except BaseException:
            self._thread.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._thread is not None
        try:
            self._thread.stop()
        except Exception:
            if error is None:
                raise  # else the block's own error says more, and this one was raised by `poll` or is no news
        ended = self._thread.ended
        if error is None and ended is not None:
            raise ended

    async def __aenter__(self) -> NoReturn:
        raise InvalidConfig(f"`async with sync.{self._what}`: without async here; in Trio, psyne_mesh.{self._what}")

    async def __aexit__(self, *error: object) -> None: ...

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise InvalidConfig(f"nothing is open yet: write `with sync.{self._what}(...) as net:`, then net.{name}")


class Mesh:
    """Made by `sync.open_mesh`: one identity, one UDP port, one thread, any number of rooms."""

    def __init__(self, thread: NetworkThread[trio_mesh.Mesh], mesh: trio_mesh.Mesh) -> None:
        self._thread = thread
        self._mesh = mesh

    @property
    def me(self) -> PeerId:
        return self._mesh.me

    def join_game_room(self, name: str, *, timeout: float = JOIN_TIMEOUT_S, **options: Unpack[RoomOptions]) -> Room:
        """Enter a room; it ends with `room.leave()` or with the mesh. Each room has its own `poll()`. Arguments and
        errors: as under Trio, and `DeadlineExceeded`. Who only watches calls `sync.join_game_room(..., spectate=True)`."""
        return self._entered(lambda: self._mesh.join_game_room(name, **options), timeout)

    def create_room(self, name: str, *, timeout: float = JOIN_TIMEOUT_S, **options: Unpack[CreateOptions]) -> Room:
        return self._entered(lambda: self._mesh.create_room(name, **options), timeout)

    def join_room(self, code: str, *, timeout: float = JOIN_TIMEOUT_S, **options: Unpack[CodeOptions]) -> Room:
        return self._entered(lambda: self._mesh.join_room(code, **options), timeout)

    def quick_match(
        self,
        name: str = QUICK_MATCH,
        *,
        players: int,
        timeout: float = MATCH_TIMEOUT_S,
        **options: Unpack[MatchOptions],
    ) -> Room:
        return self._entered(lambda: self._mesh.quick_match(name, players=players, **options), timeout)

    def list_rooms(
        self, name: str | None = None, *, timeout: float = JOIN_TIMEOUT_S, **options: Unpack[ListOptions]
    ) -> tuple[RoomInfo, ...]:
        """The rooms as they are now. For what changes between two calls: `RoomChanges().look(rooms)`."""

        async def listed() -> tuple[RoomInfo, ...]:
            return await self._mesh.list_rooms(name, **options)

        return self._thread.call_async(listed, timeout=timeout)

    def _entered(self, enter: Callable[[], Awaitable[trio_room.Room]], timeout: float) -> Room:
        return Room(self._thread, self._thread.call_async(enter, timeout=timeout))


@overload
def join_game_room(
    name: str, *, signaling: str | Sequence[str] = ..., timeout: float = ..., spectate: Literal[False] = ...,
    **options: Unpack[JoinOptions],
) -> AbstractContextManager[Room]: ...  # fmt: skip
@overload
def join_game_room(
    name: str, *, signaling: str | Sequence[str] = ..., timeout: float = ..., spectate: Literal[True],
    **options: Unpack[JoinOptions],
) -> AbstractContextManager[WatchedRoom]: ...  # fmt: skip
def join_game_room(
    name: str, *, signaling: str | Sequence[str] = DEFAULT_SIGNALING, timeout: float = JOIN_TIMEOUT_S,
    spectate: bool = False, **options: Unpack[JoinOptions],
) -> AbstractContextManager[Room | WatchedRoom]:  # fmt: skip
    """`with sync.join_game_room("arena", max_players=8) as net:`, for a program with a loop of its own.

    Options and errors are those of `psyne_mesh.join_game_room`. Entering waits until signaling has admitted us,
    `timeout` seconds at most (`DeadlineExceeded`). However the block is left (its end, an exception, `sys.exit`,
    Ctrl-C), the others see us leave.
    """
    if spectate:
        return _watched(
            "join_game_room",
            lambda: trio_mesh.join_game_room(name, signaling=signaling, spectate=True, **options),
            timeout,
        )
    return _room("join_game_room", lambda: trio_mesh.join_game_room(name, signaling=signaling, **options), timeout)


def create_room(
    name: str, *, signaling: str | Sequence[str] = DEFAULT_SIGNALING, timeout: float = JOIN_TIMEOUT_S,
    **options: Unpack[CreateJoinOptions],
) -> AbstractContextManager[Room]:  # fmt: skip
    """`with sync.create_room("arena", password="swordfish") as net: print(net.code)`. As `psyne_mesh.create_room`."""
    return _room("create_room", lambda: trio_mesh.create_room(name, signaling=signaling, **options), timeout)


@overload
def join_room(
    code: str, *, signaling: str | Sequence[str] = ..., timeout: float = ..., spectate: Literal[False] = ...,
    **options: Unpack[CodeJoinOptions],
) -> AbstractContextManager[Room]: ...  # fmt: skip
@overload
def join_room(
    code: str, *, signaling: str | Sequence[str] = ..., timeout: float = ..., spectate: Literal[True],
    **options: Unpack[CodeJoinOptions],
) -> AbstractContextManager[WatchedRoom]: ...  # fmt: skip
def join_room(
    code: str, *, signaling: str | Sequence[str] = DEFAULT_SIGNALING, timeout: float = JOIN_TIMEOUT_S,
    spectate: bool = False, **options: Unpack[CodeJoinOptions],
) -> AbstractContextManager[Room | WatchedRoom]:  # fmt: skip
    """`with sync.join_room("K7QM-3FHT") as net:` a room by its code or an invitation. As `psyne_mesh.join_room`."""
    if spectate:
        return _watched(
            "join_room", lambda: trio_mesh.join_room(code, signaling=signaling, spectate=True, **options), timeout
        )
    return _room("join_room", lambda: trio_mesh.join_room(code, signaling=signaling, **options), timeout)


def quick_match(
    name: str = QUICK_MATCH, *, players: int, signaling: str | Sequence[str] = DEFAULT_SIGNALING,
    timeout: float = MATCH_TIMEOUT_S, **options: Unpack[MatchJoinOptions],
) -> AbstractContextManager[Room]:  # fmt: skip
    """`with sync.quick_match(players=4) as net:` waits until all are here, `timeout` seconds at most. As
    `psyne_mesh.quick_match`."""
    return _room(
        "quick_match", lambda: trio_mesh.quick_match(name, players=players, signaling=signaling, **options), timeout
    )


def list_rooms(
    name: str | None = None, *, signaling: str | Sequence[str] = DEFAULT_SIGNALING, timeout: float = JOIN_TIMEOUT_S,
    **options: Unpack[ListOptions],
) -> tuple[RoomInfo, ...]:  # fmt: skip
    """The rooms of a lobby as they are now. As `await psyne_mesh.list_rooms(name)`."""
    wanted = trio_mesh.list_rooms(name, signaling=signaling, **options)

    @asynccontextmanager
    async def listed() -> AsyncIterator[tuple[RoomInfo, ...]]:
        yield await wanted

    with Block("list_rooms", "room list", listed, lambda thread, rooms: rooms, timeout) as rooms:
        return rooms


def _room(what: str, opened: Callable[[], AbstractAsyncContextManager[trio_room.Room]], timeout: float) -> Block[Room]:
    return Block(what, what.replace("_", " "), opened, Room, timeout)


def _watched(
    what: str, opened: Callable[[], AbstractAsyncContextManager[TrioWatchedRoom]], timeout: float
) -> Block[WatchedRoom]:
    return Block(what, what.replace("_", " "), opened, WatchedRoom, timeout)


def open_mesh(
    signaling: str | Sequence[str] = DEFAULT_SIGNALING,
    *,
    player_name: str | None = None,
    timeout: float = JOIN_TIMEOUT_S,
    **options: Unpack[MeshOptions],
) -> AbstractContextManager[Mesh]:
    """`with sync.open_mesh() as mesh:`, for several rooms at once or one after the other, over shared links."""
    return Block(
        "open_mesh", "mesh",
        lambda: trio_mesh.open_mesh(signaling, player_name=player_name, **options), Mesh, timeout,
    )  # fmt: skip


def open_server(
    host: str = "127.0.0.1", port: int = DEFAULT_PORT, *, config: ServerConfig | None = None
) -> AbstractContextManager[SignalingServer]:
    """`with sync.open_server(port=0) as server:` a signaling server inside this program, at `server.url`. For a game
    that hosts on a local network, for tests, and for trying things out; `psyne-mesh serve` is the one to leave running."""
    return Block(
        "open_server", "signaling", lambda: trio_server.open_server(host, port, config=config),
        lambda thread, server: server, JOIN_TIMEOUT_S,
    )  # fmt: skip


__all__ = [
    "Block", "Mesh", "create_room", "join_game_room", "join_room", "list_rooms", "open_mesh", "open_server", "quick_match",
]  # fmt: skip
