"""Nurseries in the background of one block, and the groups that they wrap around its exceptions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio


@asynccontextmanager
async def open_background_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that ends with its block: the tasks in it are cancelled, and the block's own exception leaves as itself
    and not inside a group. Two exceptions at once still make a group."""
    with unwrapped():
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            finally:
                nursery.cancel_scope.cancel()


@contextmanager
def unwrapped(levels: int = 1) -> Iterator[None]:
    """Takes the group off an exception that is alone in it, as often as there are nurseries inside the block."""
    try:
        yield
        return
    except BaseExceptionGroup as group:
        error: BaseException = group
    for _ in range(levels):
        if isinstance(error, BaseExceptionGroup):
            # A Cancelled beside a real error may be left out: its scope delivers it again at the next checkpoint.
            errors = [inner for inner in error.exceptions if not isinstance(inner, trio.Cancelled)]
            errors = errors or list(error.exceptions[:1])
            error = errors[0] if len(errors) == 1 else error
    raise error
