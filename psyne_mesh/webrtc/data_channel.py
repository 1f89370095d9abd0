"""A data channel for Trio tasks: send, receive, close."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import trio

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import ClosedError, PeerGone, PsyneMeshError, WouldBlock
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.webrtc.channel import Channel, ChannelState
from psyne_mesh.webrtc.inbox import Inbox
from psyne_mesh.webrtc.sctp import CREDIT_MESSAGE_BYTES

HIGH_WATER_BYTES = 2**20  # send() waits above it: a tenth of a second at 10 MB/s, and more than any window of a LAN
LOW_WATER_BYTES = 2**18  # and goes on below it, early enough that the path never runs dry
UNREAD_OVERHEAD_BYTES = CREDIT_MESSAGE_BYTES  # counted for each message besides its bytes
_CREDIT_NONE = HIGH_WATER_BYTES + 1  # what a message of unknown size takes: the next one asks again
_STREAK_MAX = 64  # sends without giving other tasks a turn: a quarter of a millisecond, and that many share datagrams


class ChannelOwner(Protocol):
    """What a channel needs of its connection; a `Link` has it. Tasks parked in `turned` wake after the next input."""

    turned: trio.lowlevel.ParkingLot

    def send(self, channel: Channel, data: str | bytes | bytearray | memoryview) -> None: ...
    def close_channel(self, channel: Channel) -> None: ...
    def channel_buffered_amount(self, channel: Channel) -> int: ...
    def set_buffered_amount_low_threshold(self, channel: Channel, threshold: int) -> None: ...
    def note_unread(self, n_bytes: int) -> None: ...


@uninterrupted
class DataChannel:
    """One channel of a `PeerConnection`, made by `create_channel` or taken from `incoming_channels`.

    `async for message in channel` gives `str` and `bytes` as the peer sent them, ends when either side closes, and raises
    `PeerGone` when the connection breaks. Several tasks may send; each message stays whole.
    """

    def __init__(self, owner: ChannelOwner, channel: Channel) -> None:
        self.channel = channel
        self._owner = owner
        self._inbox: Inbox[str | bytes] = Inbox()
        self._opened = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._error: PsyneMeshError | None = None
        self._streak = 0
        self._credit = 0  # so many bytes may follow before `buffered_amount` can be over the high-water mark

    @property
    def label(self) -> str:
        return self.channel.config.label

    @property
    def id(self) -> int | None:
        """The SCTP stream; `None` until the connection has its DTLS roles."""
        return self.channel.id

    @property
    def config(self) -> DataChannelConfig:
        return self.channel.config

    @property
    def state(self) -> ChannelState:
        return self.channel.state

    @property
    def buffered_amount(self) -> int:
        """Bytes accepted by `send` and not yet on the network (W3C bufferedAmount)."""
        return self._owner.channel_buffered_amount(self.channel)

    def __repr__(self) -> str:
        return f"<DataChannel {self.id} {self.label!r} {self.state}>"

    async def wait_open(self) -> None:
        """Raises `ConnectFailed` or `PeerGone` when the connection ends first, `ClosedError` after `close`."""
        await self._opened.wait()
        if self._error is not None:
            raise self._error

    async def send(self, data: str | bytes | bytearray | memoryview) -> None:
        """Queue one message, after the channel has opened and while `buffered_amount` is under the high-water mark.

        Returning says nothing about arrival. Cancelled, it has sent nothing. Raises `MessageTooLarge`, `ClosedError`,
        `PeerGone`, `UnserialisableMessage`.
        """
        self._streak += 1
        if self._streak >= _STREAK_MAX:
            self._streak = 0
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        if not self._opened.is_set():
            await self._opened.wait()
        while True:
            while self._error is None and self._credit < 0 and self._is_full():
                await self._room.park()
            if self._error is not None:
                raise self._error
            try:
                self._owner.send(self.channel, data)
                self._credit -= len(data) if type(data) is bytes else _CREDIT_NONE
                return
            except WouldBlock:  # many channels together have filled the queue of the connection
                await self._owner.turned.park()

    def send_nowait(self, data: str | bytes | bytearray | memoryview) -> None:
        """Queue one message now, or raise `WouldBlock`: the channel is not open yet, or over its high-water mark."""
        if self._error is not None:
            raise self._error
        if self._credit < 0 and self._is_full():
            raise WouldBlock(f"{HIGH_WATER_BYTES} bytes are waiting to be sent already")
        self._owner.send(self.channel, data)
        self._credit -= len(data) if type(data) is bytes else _CREDIT_NONE

    def _is_full(self) -> bool:
        """Asked when the credit is used up: what went out meanwhile has made room."""
        self._credit = HIGH_WATER_BYTES - self.buffered_amount
        return self._credit < 0

    async def receive(self) -> str | bytes:
        """The next message; cancelling loses none. Raises `PeerGone` when the peer closed or went, `ClosedError` after
        our own `close`, both after the last message."""
        inbox = self._inbox
        while True:
            await inbox.wait()
            if inbox.has_news:  # else another task was quicker
                return self.receive_nowait()

    def receive_nowait(self) -> str | bytes:
        """The next message if there is one, else `WouldBlock`; otherwise like `receive`."""
        try:
            message = self._inbox.get_nowait()
        except StopAsyncIteration:
            raise self._error or PeerGone("the peer closed the channel") from None
        self._note_read(len(message) + UNREAD_OVERHEAD_BYTES)
        return message

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        message = await self._inbox.__anext__()
        self._note_read(len(message) + UNREAD_OVERHEAD_BYTES)
        return message

    def _note_read(self, n_bytes: int) -> None:
        self.channel.unread -= n_bytes
        self._owner.note_unread(-n_bytes)

    def close(self) -> None:
        """Close after everything sent so far has gone out. The peer sees the end after the last message. What was not
        read is dropped."""
        unread = self._inbox.clear()  # of a channel that the peer closed, too: it would fill the window of the others
        self._note_read(sum(len(message) + UNREAD_OVERHEAD_BYTES for message in unread))
        if self._error is None:
            self.end(ClosedError("the channel was closed on this side"), quietly=True)
            self._owner.close_channel(self.channel)

    # ---------------------------------------------------------------------------------------- called by the connection

    def deliver(self, message: str | bytes) -> int:
        """How many bytes count as unread because of `message`."""
        if self._inbox.closed:
            return 0
        self._inbox.put(message)
        size = len(message) + UNREAD_OVERHEAD_BYTES
        self.channel.unread += size
        return size

    def handle_opened(self) -> None:
        self._opened.set()
        self._owner.set_buffered_amount_low_threshold(self.channel, LOW_WATER_BYTES)

    def handle_low(self) -> None:
        self._room.unpark_all()

    def end(self, error: PsyneMeshError, *, quietly: bool) -> None:
        """No more messages; `quietly`: iteration ends rather than raises."""
        if self._error is None:
            self._error = error
            self._inbox.close(None if quietly else error)
            self._opened.set()
            self._room.unpark_all()
