"""What crosses between the game's thread and the network's: deques, and one wake-up a frame."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from psyne_mesh.errors import WouldBlock
from psyne_mesh.game.schema import TheirSchema
from psyne_mesh.game.shared import Announced, OwnerAbsent, SharedEvent, Updated
from psyne_mesh.game.shared_records import Kept
from psyne_mesh.identity import PeerId
from psyne_mesh.room.peer import Peer, Player
from psyne_mesh.sync.thread import NetworkThread
from psyne_mesh.webrtc.inbox import Inbox

T = TypeVar("T")
Put = tuple[SharedEvent, Peer | Player]

# Messages of one channel that the network has not taken yet: a second of positions for a network's thread that gets no turn.
# Of an unreliable channel the oldest goes then, and is counted as skipped; of a reliable one `send` raises `WouldBlock`.
OUTBOX_MAX = 1024
OUTBOX_BYTES_MAX = 8 * 2**20
# Updates of shared objects that wait for a game that does not poll; beyond it all of one object are made one.
BACKLOG_MAX = 4096


class ThreadInbox(Inbox[T]):
    """The inbox of a channel, filled on the network's thread and emptied on the game's. Its bounds are the channel's."""

    __slots__ = ()

    def get_nowait(self) -> T:
        try:
            return self._items.popleft()
        except IndexError:
            if self.closed:
                raise StopAsyncIteration from None
            raise WouldBlock("nothing has come") from None


class Outbox:
    """What the game's thread has for the network's: 1. `run(function)` from the game wakes the other thread, once while it
    has not come. 2. There, `flush()` runs all of it in order.
    """

    def __init__(self, thread: NetworkThread[Any]) -> None:
        self._thread = thread
        self._work: deque[Callable[[], None]] = deque()
        self._is_awake = False

    def run(self, function: Callable[[], None]) -> None:
        self._work.append(function)
        if not self._is_awake:
            self._is_awake = True
            self._thread.post(self.flush)

    def flush(self) -> None:
        # First, so that what comes from now on wakes us again.
        self._is_awake = False
        work = self._work
        while work:
            work.popleft()()


class Errand:
    """One function for the network's thread, however often it is asked for before it runs: 1. `ask()` from the game."""

    def __init__(self, outbox: Outbox, function: Callable[[], None]) -> None:
        self._outbox = outbox
        self._function = function
        self._is_due = False

    def ask(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._outbox.run(self._run)

    def _run(self) -> None:
        self._is_due = False
        self._function()


class Backlog:
    """Events of shared objects on their way to the game: 1. `put(event, peer)` there; 2. `take()` here.

    The lock is held for an append or a swap only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Put] = []
        self._compact_at = BACKLOG_MAX

    def put(self, event: SharedEvent, peer: Peer | Player) -> None:
        with self._lock:
            self._events.append((event, peer))
            if len(self._events) > self._compact_at:
                self._events = compacted(self._events)
                self._compact_at = max(BACKLOG_MAX, 2 * len(self._events))

    def take(self) -> list[Put]:
        if not self._events:
            return []
        with self._lock:
            events, self._events = self._events, []
            self._compact_at = BACKLOG_MAX
        return events


def compacted(events: list[Put]) -> list[Put]:
    """The same in the end with one update for each object, and without those that came and went meanwhile."""
    announced: dict[tuple[PeerId, TheirSchema], Put] = {}
    kept: dict[tuple[PeerId, int], list[Put]] = {}
    absent: dict[PeerId, Put] = {}  # whose owner has crashed and said nothing since
    ours: list[Put] = []
    for event, peer in events:
        if isinstance(event, Announced):
            announced[event.owner, event.schema] = event, peer
            continue
        if isinstance(event, OwnerAbsent):
            absent[event.owner] = event, peer
            continue
        if isinstance(event, Kept):
            ours.append((event, peer))
            continue
        of_object = kept.setdefault((event.owner, event.number), [])
        last = of_object[-1][0] if of_object else None
        if isinstance(event, Updated):
            absent.pop(event.owner, None)
            if isinstance(last, Updated) and not event.fresh:
                event.values = last.values | event.values
                event.fresh = last.fresh
                of_object.pop()
        else:
            if isinstance(last, Updated):
                of_object.pop()
                if last.fresh and not of_object:
                    continue
            if of_object:
                continue
        of_object.append((event, peer))
    of_objects = [each for of_object in kept.values() for each in of_object]
    return list(announced.values()) + of_objects + list(absent.values()) + ours
