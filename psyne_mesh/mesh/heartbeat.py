"""A loop that does not turn is not a process that is gone: a small thread says so to the peers while ours stands still.

A level that loads, `time.sleep` in a callback, a debugger: the loop answers no probe, and after two seconds everybody would
have called the player gone. The thread writes one authenticated STUN request to each peer, over the path that carries
anyhow; it touches nothing of the links. What holds the interpreter's lock for long (an extension that never gives it back)
stops the thread, too, and so does SIGSTOP: those players are gone until they come back.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

# The loop is asked for a sign so often. A peer misses us after 0.6 s at the earliest (`gossip/detector.py`), so the first
# heartbeat must come sooner: two of these, and the loop had one whole one to answer.
LOOK_S = 0.15
# A loop that stands still for longer hangs: a player that will not come back holds a seat, and nobody knows it.
STILL_MAX_S = 90.0
# Each is a request to every peer, which a loop that is merely slow must not pay for again and again; a peer that has heard one
# is patient for longer than that.
BEAT_EVERY_S = 0.45


class Heartbeat:
    """Whether the loop turns, and what to do when it does not. Time comes in.

    1. `turned()` in the loop, whenever it turns by itself, and when it was asked.
    2. `look(now)` every `LOOK_S`, in the thread. A loop that has not turned since the look before is asked for a sign
       through `ask`. True: it gave none, send heartbeats.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        self.still_max_s = STILL_MAX_S
        self._ask = ask
        self._has_turned = True
        self._asked_at: float | None = None
        self._beat_at = -math.inf

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Until the end of the block the loop may stand still for so long."""
        self.still_max_s = seconds
        try:
            yield
        finally:
            self.still_max_s = STILL_MAX_S

    def turned(self) -> None:
        self._has_turned = True

    def look(self, now: float) -> bool:
        if self._has_turned:
            self._has_turned, self._asked_at = False, None
        elif self._asked_at is None:
            self._asked_at = now
            self._ask()
        elif now >= self._beat_at and now - self._asked_at <= self.still_max_s:
            self._beat_at = now + BEAT_EVERY_S - LOOK_S / 2  # looks are not punctual
            return True
        return False


@contextmanager
def beating(send: Callable[[int], None]) -> Iterator[Heartbeat]:
    """Inside a Trio loop, for as long as the block: `send(number)`, with numbers that grow, is called in another thread while
    the loop stands still. Leaving the block ends the thread."""
    token = trio.lowlevel.current_trio_token()
    ended = threading.Event()

    def ask() -> None:
        try:
            token.run_sync_soon(heartbeat.turned, idempotent=True)
        except trio.RunFinishedError:
            ended.set()

    def run() -> None:
        while not ended.wait(LOOK_S):
            if heartbeat.look(time.monotonic()):
                send(time.monotonic_ns())

    heartbeat = Heartbeat(ask)
    thread = threading.Thread(target=run, name="psyne heartbeat", daemon=True)
    thread.start()
    try:
        yield heartbeat
    finally:
        ended.set()
        thread.join()
