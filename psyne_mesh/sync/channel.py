"""A channel of a room for a loop of the game's own: sending never waits, and what has come is there to be looped over."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

import attrs
import trio

from psyne_mesh.errors import ClosedError, DeadlineExceeded, InvalidConfig, PeerGone, ProtocolError, WouldBlock
from psyne_mesh.room import channel as room_channel
from psyne_mesh.room.callbacks import NO_CALLBACK, checked_callback
from psyne_mesh.room.channel import ChannelStats, To, held_size
from psyne_mesh.room.codec import Payload
from psyne_mesh.room.delivery import DeliveryMode
from psyne_mesh.room.events import MessageRefused
from psyne_mesh.room.peer import Peer
from psyne_mesh.sync.handover import OUTBOX_BYTES_MAX, OUTBOX_MAX, Errand, Outbox, ThreadInbox

M = TypeVar("M")
C = TypeVar("C")
_LOOK_EVERY_S = 0.002  # while `receive` waits: an eighth of a frame


class Channel(Generic[M]):
    """Made by `net.channel(name, *types, mode=...)`.

    `for sender, message in channel` gives what has come and ends; `send` hands over and returns at once. Inboxes are
    bounded as under Trio. Up to 1,024 messages and 8 MiB wait for the network to take them: of an unreliable channel the
    oldest goes then (`stats.skipped`), of a reliable one `send` raises `WouldBlock`.
    """

    def __init__(self, channel: room_channel.Channel[M], outbox: Outbox, called: list[Channel[Any]]) -> None:
        self.name = channel.name
        self.mode: DeliveryMode = channel.mode
        self._channel = channel
        self._inbox: ThreadInbox[tuple[Peer, Payload]] = ThreadInbox()
        self._waiting: deque[tuple[Payload, To]] = deque()
        # Each counter has one thread that writes it: the first two the game's, the third the network's.
        self._put_bytes = self._given_up_bytes = self._taken_bytes = 0
        self._given_up = 0
        self._released: deque[tuple[Peer, int]] = deque()
        self._news = trio.Event()
        self._sending = Errand(outbox, self._send_waiting)
        self._releasing = Errand(outbox, self._release)
        self._called = called  # the channels of the room that have a callback
        self._callback: Callable[[Peer, M], object] | None = None

    @property
    def stats(self) -> ChannelStats:
        """Counts since the channel was made, as under Trio. Each access is a look at them, and does not change any more."""
        stats = self._channel.stats
        return attrs.evolve(stats, skipped=stats.skipped + self._given_up)

    # -------------------------------------------------------------------------------------------------------- sending

    def send(self, message: M, to: To = None) -> None:
        """Hand `message` to everybody in the room, or to the peer or peers in `to`. It is on its way a moment later. A
        reliable channel sends as fast as its receivers read, the fastest of them for broadcasts; what became of each
        message is in `stats`.

        Raises `UnserialisableMessage`, `MessageTooLarge`, `ClosedError`, `InvalidConfig` for a wrong `to`, and
        `WouldBlock` when too much of a reliable channel waits; nothing was sent then.
        """
        payload = self._channel.encode(message)
        to = self._channel.checked_to(to)
        size = held_size(payload)
        if not self._has_room(size):
            self._make_room(size)
        self._waiting.append((payload, to))
        self._put_bytes += size
        self._sending.ask()

    def send_nowait(self, message: M, to: To = None) -> None:
        """The same as `send`, which does not wait either."""
        self.send(message, to)

    # ------------------------------------------------------------------------------------------------------ receiving

    def on_message(self, callback: Callable[[Peer, M], C] = NO_CALLBACK) -> Callable[[Peer, M], C]:
        """`@channel.on_message`: `callback(peer, message)` for every message, inside `poll()`, those that wait already
        first. From then on nobody else gets the messages of this channel: reading it raises `InvalidConfig`, as does a
        second callback."""
        checked_callback("channel.on_message", callback, "peer", "message", is_async=False)
        self._check_nobody_is_called()
        self._callback = callback
        self._called.append(self)
        return callback

    def call(self) -> None:
        """What has come goes to the callback. An error in it leaves `poll()`; the rest waits for the next one."""
        while (item := self._next()) is not None:
            assert self._callback is not None
            self._callback(*item)

    def __iter__(self) -> Iterator[tuple[Peer, M]]:
        """What has come so far; ends when there is no more, and does not wait."""
        while True:
            try:
                yield self.receive_nowait()
            except (WouldBlock, ClosedError):
                return

    def receive_nowait(self) -> tuple[Peer, M]:
        """The next message and who sent it, or `WouldBlock`; `ClosedError` once the room was left and all was read."""
        self._check_nobody_is_called()
        item = self._next()
        if item is not None:
            return item
        if self._inbox.closed:
            raise ClosedError(f"channel {self.name!r}: the room was left")
        raise WouldBlock(f"channel {self.name!r}: nothing has come")

    def _next(self) -> tuple[Peer, M] | None:
        while True:
            try:
                peer, payload = self._inbox.get_nowait()
            except (WouldBlock, StopAsyncIteration):
                return None
            if self.mode.reliable:
                self._released.append((peer, held_size(payload)))
                self._releasing.ask()
            try:
                return peer, self._channel.decode_untrusted(peer, payload)
            except ProtocolError:
                continue

    def _check_nobody_is_called(self) -> None:
        if self._callback is not None:
            raise InvalidConfig(f"channel {self.name!r}: its messages go to its callback")

    def receive(self, timeout: float | None = None) -> tuple[Peer, M]:
        """The next message, waited for; `DeadlineExceeded` after `timeout` seconds, None waits for good. For programs
        without a loop: a game takes what has come, `for sender, message in channel`."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self.receive_nowait()
            except WouldBlock:
                self.wait(None if until is None else max(0.0, until - time.monotonic()))

    def wait(self, timeout: float | None = None) -> None:
        """Until something has come, or the room was left; `DeadlineExceeded` after `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._inbox.has_news:
            if until is not None and time.monotonic() >= until:
                raise DeadlineExceeded(f"channel {self.name!r}: nothing came in {timeout:g} s")
            time.sleep(_LOOK_EVERY_S)

    def __len__(self) -> int:
        """Messages that have come and wait to be read."""
        return len(self._inbox)

    def __bool__(self) -> bool:
        return True  # an empty channel is a channel

    def __repr__(self) -> str:
        return f"<Channel {self.name!r} {self.mode.name} {len(self._inbox)} waiting>"

    # ------------------------------------------------------------------------------------------- on the network's thread

    def attach(self, on_refused: Callable[[MessageRefused], None]) -> None:
        """What has come already and what comes goes to the game's thread, and is decoded there."""
        self._channel.deliver_into(self._inbox, on_refused)

    async def send_reliably(self) -> None:
        """The task of a reliable channel: it sends in order, and waits where receivers make it wait."""
        while True:
            while (waiting := self._take_waiting()) is not None:
                try:
                    self._channel.tell_skipped((await self._channel.send_payload(*waiting)).skipped)
                except PeerGone:
                    self._channel.stats.skipped += 1
                except ClosedError:
                    return
            self._news = trio.Event()
            if not self._waiting:
                await self._news.wait()

    def _send_waiting(self) -> None:
        if self.mode.reliable:
            self._news.set()
            return
        while (waiting := self._take_waiting()) is not None:
            try:
                self._channel.send_payload_nowait(*waiting)
            except PeerGone:
                self._channel.stats.skipped += 1
            except ClosedError:
                return

    def _take_waiting(self) -> tuple[Payload, To] | None:
        try:
            waiting = self._waiting.popleft()
        except IndexError:
            return None
        self._taken_bytes += held_size(waiting[0])
        return waiting

    def _release(self) -> None:
        while self._released:
            peer, size = self._released.popleft()
            self._channel.release(peer, size)

    def _make_room(self, size: int) -> None:
        if self.mode.reliable:
            raise WouldBlock(
                f"channel {self.name!r}: {len(self._waiting)} messages wait to be sent, as their receivers are slow; "
                "nothing was sent: send this one later"
            )
        with suppress(IndexError):  # the network's thread was quicker
            while not self._has_room(size):
                payload, _ = self._waiting.popleft()
                self._given_up_bytes += held_size(payload)
                self._given_up += 1

    def _has_room(self, size: int) -> bool:
        waiting_bytes = self._put_bytes - self._given_up_bytes - self._taken_bytes
        return len(self._waiting) < OUTBOX_MAX and waiting_bytes + size <= OUTBOX_BYTES_MAX
