"""A thread with a Trio loop of its own, for as long as a block of the game's."""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import trio

from psyne_mesh.errors import ClosedError, DeadlineExceeded
from psyne_mesh.nurseries import unwrapped

T = TypeVar("T")
R = TypeVar("R")

# Python's own 5 ms make a packet wait a third of a frame for a busy game; half a millisecond costs the game 1 to 2 % and
# was the smallest that still paid (`python -m benchmarks.game_loop --intervals`).
SWITCH_INTERVAL_S = 0.0005
# Of a call that only has to be passed on: the thread answers within a switch interval, or something is very wrong.
CALL_TIMEOUT_S = 10.0
# Reliable words are waited for up to a second, then everybody hears the goodbye.
LEAVE_TIMEOUT_S = 5.0
# Waiting in slices: on Windows a lock that is waited for does not hear Ctrl-C.
_SLICE_S = 0.05


class NetworkThread(Generic[T]):
    """1. `start(block, timeout)` enters an async context manager on the new thread and gives its value. 2.
    `call(function, ...)` runs something there and waits for its answer, `post(function)` does not wait. 3. `stop()`
    leaves the block: its goodbyes are said.

    `ended` is what the block ended with, if it did by itself.
    """

    def __init__(self, name: str) -> None:
        self.ended: BaseException | None = None
        self.is_running = False
        self._narrowed = False
        self._thread = threading.Thread(target=self._run, name=f"psyne-mesh {name}", daemon=True)
        self._entered = threading.Event()
        self._over = threading.Event()
        self._block: Callable[[], AbstractAsyncContextManager[T]]
        self._value: T
        self._token: trio.lowlevel.TrioToken
        self._leave: trio.Event
        self._scope: trio.CancelScope
        self._nursery: trio.Nursery
        # How Trio's clock stands to ours: both are `perf_counter` underneath.
        self._clock_offset_s = 0.0

    def start(self, block: Callable[[], AbstractAsyncContextManager[T]], timeout: float) -> T:
        self._block = block
        _switch_interval.narrow()
        self._narrowed = True
        self._thread.start()
        atexit.register(self._stop_at_exit)
        try:
            if not _wait(self._entered, timeout):
                raise DeadlineExceeded(f"not through after {timeout:g} s; it was given up, and nothing is left behind")
        except BaseException:  # also Ctrl-C
            self._give_up()
            raise
        if self.ended is not None:
            self._finish()
            raise self.ended
        return self._value

    def stop(self) -> None:
        """Leave the block and wait for its end; again is no error. Raises what the block ended with by itself."""
        if self._over.is_set() and not self._thread.is_alive():
            self._finish()
            return
        self.post(self._leave.set)
        if not _wait(self._over, LEAVE_TIMEOUT_S):
            raise DeadlineExceeded(f"the goodbye was not through after {LEAVE_TIMEOUT_S:g} s")
        self._finish()

    def now(self) -> float:
        """Trio's time on that thread, for anybody."""
        return time.perf_counter() + self._clock_offset_s

    def post(self, function: Callable[[], object]) -> None:
        """Have it run there soon. Once the block has ended nothing happens."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._guarded, function, idempotent=True)

    def call(self, function: Callable[..., R], *arguments: Any, timeout: float = CALL_TIMEOUT_S) -> R:
        """What the function returns or raises; `DeadlineExceeded` when it takes longer."""

        async def answer() -> R:
            return function(*arguments)

        return self.call_async(answer, timeout=timeout)

    def read(self, look: Callable[[], R]) -> R:
        """The same from any thread, this one included."""
        return look() if threading.current_thread() is self._thread else self.call(look)

    def call_async(self, function: Callable[..., Awaitable[R]], *arguments: Any, timeout: float) -> R:
        """The same for an async function; past the deadline it is cancelled."""
        done = threading.Event()
        answers: list[R] = []
        errors: list[BaseException] = []

        async def run() -> None:
            try:
                with trio.move_on_after(timeout) as scope:
                    answers.append(await function(*arguments))
                if scope.cancelled_caught:
                    raise DeadlineExceeded(f"not through after {timeout:g} s; it was given up")
            except Exception as error:  # noqa: BLE001  # raised again on the thread that asked
                errors.append(error)
            finally:
                done.set()

        self._check_other_thread()
        with contextlib.suppress(trio.RunFinishedError, RuntimeError):
            self._token.run_sync_soon(lambda: self._nursery.start_soon(run))
        until = time.monotonic() + timeout + 1.0
        while not done.wait(_SLICE_S):
            if self._over.is_set():
                break
            if time.monotonic() > until:
                raise DeadlineExceeded(f"not through after {timeout:g} s: the network's thread does not get its turn")
        if errors:
            raise errors[0]
        if answers:
            return answers[0]
        if self.ended is not None:
            raise self.ended
        raise ClosedError("the block has ended")

    # ------------------------------------------------------------------------------------------------- on the thread

    def spawn(self, function: Callable[[], Awaitable[None]]) -> None:
        """A task there, for as long as the block. To be called on that thread."""
        self._nursery.start_soon(function)

    def _guarded(self, function: Callable[[], object]) -> None:
        """An error of ours ends the block as itself; out of Trio's hands it would be one of Trio's own."""
        try:
            function()
        except Exception as error:  # noqa: BLE001  # raised again in the block's nursery
            self._nursery.start_soon(_raise, error)

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001  # told to the game's thread by its next call
            self.ended = error
        finally:
            self.is_running = False
            self._over.set()
            self._entered.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._clock_offset_s = trio.current_time() - time.perf_counter()
        self._leave = trio.Event()
        with unwrapped(), trio.CancelScope() as self._scope:
            async with self._block() as self._value, trio.open_nursery() as self._nursery:
                self.is_running = True
                self._entered.set()
                await self._leave.wait()
                self._nursery.cancel_scope.cancel()

    # --------------------------------------------------------------------------------------------------------- helpers

    def _check_other_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("the network's thread cannot wait for itself")

    def _give_up(self) -> None:
        with contextlib.suppress(trio.RunFinishedError, AttributeError):
            self._token.run_sync_soon(self._scope.cancel)
        self._over.wait(LEAVE_TIMEOUT_S)
        self._finish()

    def _stop_at_exit(self) -> None:
        """The program ends inside the block, by a way that no block sees."""
        self.post(self._leave.set)
        self._over.wait(LEAVE_TIMEOUT_S)

    def _finish(self) -> None:
        if self._over.is_set():
            self._thread.join()
        atexit.unregister(self._stop_at_exit)
        if self._narrowed:
            self._narrowed = False
            _switch_interval.widen()


async def _raise(error: Exception) -> None:
    raise error


def _wait(event: threading.Event, timeout: float) -> bool:
    until = time.monotonic() + timeout
    while not event.wait(_SLICE_S):
        if time.monotonic() > until:
            return False
    return True


class SwitchInterval:
    """The interval of the process, narrowed while any network's thread runs, and then what it was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = 0.0

    def narrow(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, SWITCH_INTERVAL_S))
            self._users += 1

    def widen(self) -> None:
        with self._lock:
            self._users -= 1
            if (
                self._users == 0 and sys.getswitchinterval() <= SWITCH_INTERVAL_S
            ):  # else the game has set its own meanwhile
                sys.setswitchinterval(self._before)


_switch_interval = SwitchInterval()
