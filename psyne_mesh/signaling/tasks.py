"""A nursery for helpers in the background of one block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_background_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that ends with its block: the tasks in it are cancelled, and the block's own exception leaves as itself
    and not inside a group. Two exceptions at once still make a group."""
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            finally:
                nursery.cancel_scope.cancel()
        return
    except BaseExceptionGroup as group:
        # A Cancelled beside a real error may be left out: its scope delivers it again at the next checkpoint.
        errors = [error for error in group.exceptions if not isinstance(error, trio.Cancelled)] or group.exceptions[:1]
        if len(errors) > 1:
            raise
    raise errors[0]
