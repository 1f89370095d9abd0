"""Drives one `Stack` over one `IceTransport`: datagrams in, events up, datagrams out, one deadline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from psyne_mesh.errors import PsyneMeshError
from psyne_mesh.webrtc.channel import Channel
from psyne_mesh.webrtc.stack import Stack, StackEvent

# A send so soon after the last begins or continues a burst, and waits for the end of the scheduler tick to share its
# datagram. Two sends in a row are 20 us apart; an answer to something that came in is never that quick.
_BURST_S = 100e-6
_WINDOW_NEWS = 8  # the peer hears of our receive window when an eighth of it was filled or freed


class Scheduler(Protocol):
    """What a link needs of its endpoint.

    interval_s: between the frames of a game that may leave, as the loop is behind; 0 while it is not.
    """

    interval_s: float

    def flush_soon(self, link: Link) -> None:
        """Call `link.flush_queued()` after the tasks that are runnable now have had their turn."""
        ...

    def lag_s(self, now: float) -> float:
        """How late the loop is, as far as it is known."""
        ...

    def wake_at(self, deadline: float) -> None:
        """Call `link.handle_timeout(now)` at `deadline` (of `trio.current_time`) or earlier."""
        ...


class Wire(Protocol):
    """What a link needs of ICE."""

    def send(self, datagrams: list[bytes]) -> None: ...


class Quota(Protocol):
    """What a relay on the path allows, often to several links together."""

    def allowance(self, user: object, now: float, *, waits: bool) -> float: ...
    def spend(self, datagrams: Sequence[bytes], now: float) -> None: ...
    def due(self, user: object, now: float) -> float | None: ...
    def forget(self, user: object) -> None: ...


class Link:
    """The turning of the wheel, for one peer.

    1. Call `deliver`, `send`, `handle_timeout` and so on; each runs the whole turn: events up, then one batch out.
    2. Events go up synchronously. What the callback sends is bundled with the acknowledgements of the same batch.
    3. The first send of a burst goes out in the same call; the others together, after the tasks that are runnable now.

    on_events: called with every non-empty list of the stack's events. What it raises, the call raises that set it off.
    deadline: when `handle_timeout` has something to do (`trio.current_time`, or infinity), as of the last turn.
    fault: for the endpoint's tasks, which have many links: told of what a call into this link raised.
    """

    __slots__ = (
        "_bundling",
        "_dirty",
        "_express_dirty",
        "_flush_queued",
        "_on_events",
        "_quota",
        "_scheduler",
        "_sent_at",
        "_unread",
        "_unread_news",
        "_unread_told",
        "_wire",
        "deadline",
        "fault",
        "is_held",
        "stack",
        "turned",
    )

    def __init__(
        self,
        stack: Stack,
        wire: Wire,
        scheduler: Scheduler,
        *,
        on_events: Callable[[list[StackEvent]], None],
        fault: Callable[[Exception], None],
    ) -> None:
        self.stack = stack
        self.fault = fault
        self.turned = trio.lowlevel.ParkingLot()
        self.is_held = False
        self.deadline = math.inf
        self._wire = wire
        self._scheduler = scheduler
        self._on_events = on_events
        self._quota: Quota | None = None
        self._bundling = self._dirty = self._express_dirty = self._flush_queued = False
        self._sent_at = -1.0
        self._unread = self._unread_told = 0
        self._unread_news = stack.config.receive_window_bytes // _WINDOW_NEWS

    def hold(self) -> None:
        """Nothing leaves and no event goes up until `release`: there is no path, and DTLS goes another way meanwhile."""
        self.is_held = True

    def release(self, datagrams: list[bytes], now: float) -> None:
        """There is a path: these first, then what has come together."""
        self.is_held = False
        if datagrams:
            self._wire.send(datagrams)
        self.turn(now)

    # ---------------------------------------------------------------------------------------------------------- inputs

    def deliver(self, datagrams: list[bytes], *, late: bool = False) -> None:
        """A batch of this peer's datagrams, from the UDP port. `late`: messages in it that may be lost are dropped."""
        now = trio.current_time()
        if late:
            self.stack.receive(datagrams, now)
            self.stack.drop_perishable()
            self.turn(now)
            return
        if len(datagrams) > 2 and self._scheduler.interval_s:
            datagrams = self.stack.drop_spare(datagrams)
        if self.stack.receive(datagrams, now) and not self._bundling:
            self._turn_express(now)
        else:
            self.turn(now)

    def send(self, channel: Channel, data: str | bytes | bytearray | memoryview) -> None:
        """Queue a message, and put it on the wire at once when it begins a burst and the window allows."""
        now = trio.current_time()
        express_only = self.stack.send(channel, data, now)
        if self._bundling or self._flush_queued:
            if express_only:
                self._express_dirty = True
            else:
                self._dirty = True
        elif now - self._sent_at < _BURST_S:
            self._flush_later(express_only)
        else:
            self._sent_at = now
            if express_only:
                self._flush_express(now)
            else:
                self.turn(now)

    def turn_soon(self) -> None:
        """A turn after the tasks that are runnable now have had theirs."""
        self._flush_later(False)

    def _flush_later(self, express_only: bool) -> None:
        if express_only:
            self._express_dirty = True
        else:
            self._dirty = True
        if not self._flush_queued:
            self._flush_queued = True
            self._scheduler.flush_soon(self)

    def flush_queued(self) -> None:
        """The endpoint's flusher: send what came after the first message of a burst."""
        self._flush_queued = False
        if self._dirty:
            self.turn(trio.current_time())
        elif self._express_dirty:
            self._flush_express(trio.current_time())

    def handle_timeout(self, now: float) -> None:
        self.stack.handle_timeout(now)
        self.turn(now)

    def close_channel(self, channel: Channel) -> None:
        now = trio.current_time()
        self.stack.close_channel(channel, now)
        self.turn(now)

    def channel_buffered_amount(self, channel: Channel) -> int:
        return self.stack.channel_buffered_amount(channel)

    def set_buffered_amount_low_threshold(self, channel: Channel, threshold: int) -> None:
        self.stack.set_buffered_amount_low_threshold(channel, threshold)

    def close(self, error: PsyneMeshError | None = None) -> None:
        now = trio.current_time()
        self.is_held = False
        self.stack.close(now, error)
        self.turn(now)

    def note_unread(self, n_bytes: int) -> None:
        """The application holds so many bytes more of what was delivered, or less; the window follows in steps."""
        self._unread += n_bytes
        told = self._unread_told
        if abs(self._unread - told) < self._unread_news and not (told and not self._unread):
            return
        self._unread_told = self._unread
        now = trio.current_time()
        self.stack.set_unread(self._unread, now)
        if not self._bundling:
            self.turn(now)

    # ------------------------------------------------------------------------------------------------------------ turn

    def turn(self, now: float) -> None:
        """Events up, one batch out, the timer armed. Inside a callback it only notes that there is something to do."""
        if self._bundling or self.is_held:
            self._dirty = True
            return
        stack = self.stack
        events = stack.take_events()
        while True:
            if events:
                if stack.phase == "closed":  # hearing of it, the owner lets go of the wire
                    self._flush(now)
                self._bundling = True
                try:
                    self._on_events(events)
                finally:
                    self._bundling = False
            self._flush(now)
            events = stack.take_events()
            if not events:
                break
        if self.turned:
            self.turned.unpark_all()
        deadline = stack.next_timeout()
        if self._quota is not None and stack.buffered_amount and (due := self._quota.due(self, now)) is not None:
            deadline = due if deadline is None else min(deadline, due)
        if deadline is None:
            self.deadline = math.inf
        else:
            self.deadline = deadline
            self._scheduler.wake_at(deadline)

    def _turn_express(self, now: float) -> None:
        """The short turn, where nothing but express records came: most of a game's datagrams."""
        stack = self.stack
        events = stack.take_events()
        if events:
            self._bundling = True
            try:
                self._on_events(events)
            finally:
                self._bundling = False
        if self._dirty or stack.phase == "closed":
            self.turn(now)
        else:
            self._flush_express(now)

    def _flush_express(self, now: float) -> None:
        if self.is_held:
            return
        self._express_dirty = False
        datagrams = self.stack.express_to_send(now)
        if datagrams:
            if self._quota is not None:
                self._quota.spend(datagrams, now)
            self._wire.send(datagrams)
        deadline = self.stack.express_timeout
        if deadline is not None and deadline < self.deadline:
            self.deadline = deadline
            self._scheduler.wake_at(deadline)

    def set_quota(self, quota: Quota | None) -> None:
        """The path has changed: to one over a relay with a quota, or to one without."""
        if self._quota is not None:
            self._quota.forget(self)
        self._quota = quota
        if quota is None:
            self.stack.set_bulk_allowance(None)

    def _flush(self, now: float) -> None:
        self._dirty = self._express_dirty = False
        if self._quota is not None:
            waits = self.stack.buffered_amount > 0
            self.stack.set_bulk_allowance(self._quota.allowance(self, now, waits=waits))
        datagrams = self.stack.datagrams_to_send(now)
        if datagrams:
            if self._quota is not None:
                self._quota.spend(datagrams, now)
            self._wire.send(datagrams)
