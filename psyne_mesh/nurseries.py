"""Nurseries that a block hides from its user: what the block raises must not come wrapped in a group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TypeVar

import trio

from psyne_mesh.interrupts import uninterrupted

T = TypeVar("T")


@asynccontextmanager
@uninterrupted
async def open_background_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that ends with its block: the tasks in it are cancelled, and the block's own exception leaves as itself
    and not inside a group. Two exceptions at once still make a group."""
    with unwrapped():
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            finally:
                nursery.cancel_scope.cancel()


@asynccontextmanager
@uninterrupted
async def outliving_cancellation(block: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """`block`, whose tasks a cancellation from outside does not reach once it has been entered: it ends when it is left. For
    what has to say goodbye when its user is cancelled. Leaving `block` must come to an end by itself."""
    entered, left, values = trio.Event(), trio.Event(), list[T]()

    async def host() -> None:
        with trio.CancelScope() as scope:
            async with block as value:
                scope.shield = True
                values.append(value)
                entered.set()
                await left.wait()

    async with trio.open_nursery() as nursery:
        # Not `start`: cancelled at the last moment, that would wait for the end of the shielded host.
        nursery.start_soon(host)
        try:
            await entered.wait()
            yield values[0]
        finally:
            left.set()


@contextmanager
def unwrapped() -> Iterator[None]:
    """Around a hidden nursery: when there was only one exception, the block raises that, and no group.

    The user of `async with join_game_room(...)` did not open a nursery, and `except RoomFull` around it should work.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        alone = _sole_exception(group)
        if alone is None:
            raise
        # The traceback of the exception itself tells everything; the group around it is ours.
        raise alone from alone.__cause__


def _sole_exception(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The one exception inside, at any depth; `None` when there are several. A `Cancelled` beside a real one does not
    count: its scope delivers it again at the next checkpoint."""
    leaves = _leaves(group)
    real = [error for error in leaves if not isinstance(error, trio.Cancelled)] or leaves[:1]
    if all(isinstance(error, KeyboardInterrupt) for error in real):
        del real[1:]  # who presses Ctrl-C twice means it once
    return real[0] if len(real) == 1 else None


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
