"""A queue between the synchronous side that fills it and the tasks that drain it."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import trio

from psyne_mesh.errors import WouldBlock

T = TypeVar("T")

_STREAK_MAX = 64  # items taken without giving other tasks a turn; a full checkpoint costs about as much as 10 items


class Inbox(Generic[T]):
    """Items in order, then an end. It has no limit of its own: whoever fills it bounds what it holds.

    Iterating ends quietly after `close()`, and raises the error after `close(error)`.
    """

    __slots__ = ("_end_error", "_items", "_streak", "_waiters", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._items: deque[T] = deque()
        self._waiters = trio.lowlevel.ParkingLot()
        self._end_error: Exception | None = None
        self._streak = 0

    def put(self, item: T) -> None:
        self._items.append(item)
        if self._waiters:
            self._waiters.unpark()

    def close(self, error: Exception | None = None) -> None:
        """No more items come. Those inside can still be taken. Only the first call counts."""
        if not self.closed:
            self.closed = True
            self._end_error = error
            self._waiters.unpark_all()

    def wake(self) -> None:
        """Whoever waits looks again, though nothing has come."""
        self._waiters.unpark_all()

    def clear(self) -> list[T]:
        """Take all that is inside."""
        items = list(self._items)
        self._items.clear()
        return items

    @property
    def has_news(self) -> bool:
        """Whether `get_nowait` would say anything but `WouldBlock`."""
        return bool(self._items) or self.closed

    def get_nowait(self) -> T:
        """Raises `WouldBlock` when empty, `StopAsyncIteration` or the error when empty for good."""
        if self._items:
            return self._items.popleft()
        if self._end_error is not None:
            raise self._end_error
        if self.closed:
            raise StopAsyncIteration
        raise WouldBlock("nothing has come yet")

    def __len__(self) -> int:
        return len(self._items)

    def __aiter__(self) -> Inbox[T]:
        return self

    async def __anext__(self) -> T:
        """The next item. Cancelling loses none."""
        while True:
            await self.wait()
            if self.has_news:  # else another task was quicker
                return self.get_nowait()

    async def wait(self) -> None:
        """Until there is an item, or the end. A checkpoint in any case; and a task that finds one item after another lets
        the others have their turn now and then."""
        if not self.has_news:
            self._streak = 0
            await self._waiters.park()
        elif self._streak < _STREAK_MAX:
            self._streak += 1
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._streak = 0
            await trio.lowlevel.checkpoint()
