"""Which rooms there are, once or as they change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Literal, TypedDict

import trio

from psyne_mesh.errors import InvalidConfig, SignalingError, SignalingLost
from psyne_mesh.frozen import Frozen
from psyne_mesh.signaling.events import RoomInfo, RoomListing, SkillRange
from psyne_mesh.signaling.joining import RoomQuery
from psyne_mesh.signaling.requests import checked_list
from psyne_mesh.signaling.transport import SignalingTransport

LOOK_S = 1.0  # a list costs a tenth of what a server lets us ask in a second


class ListOptions(TypedDict, total=False):
    """region, skill_range: only rooms for such players; only_open: that have a seat free; limit: at most so many, 100."""

    app_id: str
    region: str | None
    skill_range: SkillRange | None
    only_open: bool
    limit: int


class RoomChange(Frozen):
    """kind: "new" for a room that was not in the list before, "changed", or "gone" with the room as it was."""

    kind: Literal["new", "changed", "gone"]
    room: RoomInfo


class RoomChanges:
    """What is different between one list and the next. Pure: `look(rooms)` for each."""

    def __init__(self) -> None:
        self._known: dict[str, RoomInfo] = {}

    def look(self, rooms: Iterable[RoomInfo]) -> list[RoomChange]:
        before, self._known = self._known, {room.room: room for room in rooms}
        changes = [RoomChange("gone", room) for key, room in before.items() if key not in self._known]
        for key, room in self._known.items():
            if key not in before:
                changes.append(RoomChange("new", room))
            elif before[key] != room:
                changes.append(RoomChange("changed", room))
        return changes


class RoomList(Awaitable[tuple[RoomInfo, ...]]):
    """Made by `list_rooms`: await it for the rooms as they are now, or iterate for all `RoomChange`s from now on."""

    def __init__(
        self, query: RoomQuery, ask: Callable[[RoomQuery], Awaitable[RoomListing]] | None,
        connected: Callable[[], AbstractAsyncContextManager[SignalingTransport]] | None = None,
    ) -> None:  # fmt: skip
        """ask: a server that is connected, or `connected` connects one for as long as it takes."""
        self._query = query
        self._ask = ask
        self._connected = connected
        self._stack = AsyncExitStack()
        self._changes = RoomChanges()
        self._due: list[RoomChange] = []
        self._look_at: float | None = None

    def __await__(self) -> Generator[Any, None, tuple[RoomInfo, ...]]:
        return self._now().__await__()

    async def __aenter__(self) -> RoomList:
        if self._connected is not None:
            transport = await self._stack.enter_async_context(self._connected())
            self._ask = transport.list_rooms
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    def __aiter__(self) -> AsyncIterator[RoomChange]:
        if self._ask is None:
            raise InvalidConfig("write `async with list_rooms(...) as rooms:`, then `async for change in rooms:`")
        return self

    async def __anext__(self) -> RoomChange:
        """Cancelling loses nothing. A server that is away for a while is waited for."""
        while not self._due:
            if self._look_at is not None:
                await trio.sleep_until(self._look_at)
            self._look_at = trio.current_time() + LOOK_S
            assert self._ask is not None
            try:
                listing = await self._ask(self._query)
            except SignalingLost:
                continue
            self._due = self._changes.look(listing.rooms)
        return self._due.pop(0)

    async def _now(self) -> tuple[RoomInfo, ...]:
        if self._ask is not None:
            return (await self._ask(self._query)).rooms
        assert self._connected is not None
        async with self._connected() as transport:
            return (await transport.list_rooms(self._query)).rooms


def query_of_list(name: str | None, options: ListOptions) -> RoomQuery:
    """`InvalidConfig` for what is out of bounds."""
    query = RoomQuery(name=name, **options)
    checked_list(query)
    return query


__all__ = ["LOOK_S", "ListOptions", "RoomChange", "RoomChanges", "RoomList", "SignalingError", "query_of_list"]
