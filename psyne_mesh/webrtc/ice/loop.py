"""The asyncio loop that aioice runs on: trio-asyncio's, without what importing trio-asyncio does to a process.

That import gives asyncio another policy and a dozen functions of its own, for every thread: `asyncio.run` of others then runs
on Trio, fourteen times slower, and fails in guest mode. The loop itself needs none of it as long as asyncio knows which loop
is running; it keeps that for each thread, and we say so for each callback. What a program does with asyncio, or with
trio-asyncio itself, is its own affair and stays as it was.
"""

from __future__ import annotations

import asyncio
import heapq
import importlib.util
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import trio
from sniffio import thread_local as sniffio_library

from psyne_mesh.interrupts import TheirNursery, uninterrupted

# The stock one: what trio-asyncio puts in its place does not tell which loop this thread runs.
_running_loop = getattr(asyncio.events, "_c__get_running_loop", asyncio._get_running_loop)
_loading = threading.Lock()
BURST_MAX = 64  # callbacks in one pass of Trio's scheduler: setting up one connection takes some seventy


@asynccontextmanager
@uninterrupted
async def open_loop() -> AsyncIterator[Any]:
    """A loop for as long as the block; its tasks are cancelled at the end, and heard out. Needs a Trio task."""
    with _loading:
        loop = _loop_class()()
    async with trio.open_nursery() as nursery:
        # Shielded: Trio does not let `start` end while a cancellation is pending, and the main loop waits for nothing that
        # one ends.
        with trio.CancelScope(shield=True):
            theirs = TheirNursery(nursery)
            await loop._main_loop_init(theirs)
            await theirs.start(loop._main_loop)
        try:
            yield loop
        finally:
            with trio.CancelScope(shield=True):
                await loop.run_aio_coroutine(_end_tasks(loop))
                await loop._main_loop_exit()
            loop.close()
            nursery.cancel_scope.cancel()


async def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@cache
def _loop_class() -> Any:
    theirs = _load_loop()

    class Inside:
        """Of a callback of the loop: it tells asyncio which loop it is in."""

        __slots__ = ()

        def _run(self: Any) -> None:
            package = sys.modules.get("trio_asyncio")  # the program's own: its asyncio functions look here in Trio
            if package is not None and hasattr(package, "current_loop"):
                package.current_loop.set(self._loop)
            around = _running_loop()  # of the host, in guest mode
            asyncio._set_running_loop(self._loop)
            try:
                super()._run()  # type: ignore[misc]
            finally:
                asyncio._set_running_loop(around)

    class Callback(Inside, asyncio.Handle):
        __slots__ = ()

    class Timer(Inside, asyncio.TimerHandle):
        __slots__ = ()

    class Loop(theirs):  # type: ignore[misc, valid-type]
        """trio-asyncio's, whose callbacks know where they are."""

        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
            return self._queue_handle(Callback(callback, args, self, context))  # type: ignore[no-any-return]

        def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
            return self._queue_handle(Timer(when, callback, args, self, context))  # type: ignore[no-any-return]

        async def _main_loop_one(self, no_wait: bool = False) -> None:
            """As theirs, which waits for one callback and takes a pass of Trio's scheduler for each: those that wait already
            follow in the same pass, at most so many that the timers and the rest of the program have their turn."""
            await super()._main_loop_one(no_wait)
            for _ in range(BURST_MAX):
                try:
                    handle = self._q_recv.receive_nowait()
                except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                    return
                if isinstance(handle, asyncio.TimerHandle):
                    heapq.heappush(self._timers, handle)
                elif not hasattr(handle, "_started"):
                    if not handle._cancelled:
                        around, sniffio_library.name = sniffio_library.name, "asyncio"
                        try:
                            handle._run()
                        finally:
                            sniffio_library.name = around
                else:  # a task of Trio's that asyncio code wants
                    handle._context.run(self._nursery.start_soon, handle._run, name=handle._callback)
                    await handle._started.wait()
                    return

        def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
            return self.call_at(self.time() + delay, callback, *args, context=context)

    return Loop


def _load_loop() -> Any:
    """`TrioEventLoop`. If the program has not imported trio-asyncio by itself, from a copy of our own, without the package's
    `__init__`, which imports what changes asyncio."""
    is_theirs = "trio_asyncio" in sys.modules
    if not is_theirs:
        spec = importlib.util.find_spec("trio_asyncio")
        assert spec is not None
        sys.modules["trio_asyncio"] = importlib.util.module_from_spec(spec)  # and not executed
    try:
        from trio_asyncio._async import TrioEventLoop
    finally:
        if not is_theirs:
            for name in [name for name in sys.modules if name.partition(".")[0] == "trio_asyncio"]:
                del sys.modules[name]
    return TrioEventLoop
