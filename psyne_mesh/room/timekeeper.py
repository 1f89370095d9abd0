"""The clock of a room: the pure core on an unreliable channel of its own."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from psyne_mesh.errors import ClosedError, PeerGone, ProtocolError
from psyne_mesh.game.room_clock import Reading, RoomClock
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted

if TYPE_CHECKING:
    from psyne_mesh.room.room import Room

CHANNEL = "psyne.clock"
QUICK_ASKS = 5
QUICK_S = 0.1
"""A new link is asked five times in its first half second: the clock is of use then."""
PERIOD_S = 2.0
"""Afterwards; drift widens what is known by 0.4 ms until the next answer."""
EAGER_S = 0.25
"""Of a player whose clock we do not know yet: it may not be set, and is of use as soon as it is."""
FOUND_AFTER_S = 2.0
"""Nobody who has a clock answered for so long: then the one of the lowest id is the room's; any, after three times that."""
_ASK = struct.Struct("!Bd")
_ANSWER = struct.Struct("!Bdddf")


def ask(sent: float) -> bytes:
    return _ASK.pack(0, sent)


def answer(sent: float, reading: Reading) -> bytes:
    """`sent` is the asker's own, and comes back as it was."""
    return _ANSWER.pack(1, sent, *reading)


def word_untrusted(data: bytes | str) -> tuple[float, Reading | None]:
    """(when it was asked, the reading of an answer or None of a question). Raises ProtocolError."""
    if isinstance(data, str):
        raise ProtocolError("text came about the clock")
    if len(data) == _ASK.size and data[0] == 0:
        return _ASK.unpack(data)[1], None
    if len(data) == _ANSWER.size and data[0] == 1:
        _, sent, raw, correction, slew = _ANSWER.unpack(data)
        return sent, Reading(raw, correction, slew)
    raise ProtocolError("not a word about the clock")


@uninterrupted
class Timekeeper:
    """1. The room's task is in `run()`. 2. It is idle until `start()`, or until another player asks. 3. `time()` and
    `error()`.

    wall_ms: the time of day, which the room's clock begins with if we found it: a number that games can show.
    """

    def __init__(self, room: Room, wall_ms: Callable[[], int]) -> None:
        self._room = room
        self._wall_ms = wall_ms
        self._clock: RoomClock | None = None
        self._started = trio.Event()
        self._asks: dict[PeerId, tuple[int, float]] = {}  # quick ones left, when the next is due
        self._open: dict[PeerId, set[float]] = {}
        self.refused = 0

    def start(self) -> None:
        self._started.set()
        if self._clock is None:
            self._clock = RoomClock(trio.current_time())

    @property
    def is_set(self) -> bool:
        return self._clock is not None and self._clock.is_set

    def time(self) -> float:
        self.start()
        assert self._clock is not None
        return self._clock.time(trio.current_time())

    def error(self) -> float:
        self.start()
        assert self._clock is not None
        return self._clock.error(trio.current_time())

    def one_way(self, peer: PeerId) -> tuple[float, float] | None:
        """Seconds from the player to us and back, while anybody asks for the room's time. For any thread."""
        return None if self._clock is None else self._clock.one_way(peer)

    def ahead(self, peer: PeerId) -> tuple[float, float] | None:
        """By how many seconds a player's clock is ahead of ours, and how well that is known."""
        self.start()
        assert self._clock is not None
        return self._clock.offset(peer, trio.current_time())

    def correction(self, peer: PeerId) -> float | None:
        """What a player (or we) adds to its monotonic clock, Trio's, for the room's time; None before it is known."""
        self.start()
        assert self._clock is not None
        now = trio.current_time()
        if peer == self._room.me:
            return self._clock.time(now) - now
        return self._clock.correction(peer, now)

    async def run(self) -> None:
        try:
            channel = self._room.channel(CHANNEL, mode="unreliable")
        except ClosedError:
            return  # the room ended before its task began
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, channel)
            await self._started.wait()
            began = trio.current_time()
            while True:
                now = trio.current_time()
                self._ask_those_due(channel, now)
                clock = self._clock
                if clock is not None and not clock.is_set and now - began >= self._patience_s():
                    self._clock = RoomClock(now, self._wall_ms() / 1000)
                await trio.sleep(QUICK_S)

    def _patience_s(self) -> float:
        if not self._room.peers:
            return 0.0
        is_lowest = all(self._room.me.raw < peer.id.raw for peer in self._room.connected)
        return FOUND_AFTER_S if is_lowest else 3 * FOUND_AFTER_S

    def _ask_those_due(self, channel: Any, now: float) -> None:
        connected = {peer.id for peer in self._room.connected}
        for gone in set(self._asks) - connected:
            del self._asks[gone]
            self._open.pop(gone, None)
            if self._clock is not None and gone not in self._room.peers:
                self._clock.forget(gone)
        for peer in connected:
            quick, due = self._asks.get(peer, (QUICK_ASKS, now))
            if now < due:
                continue
            period = PERIOD_S if self._clock is not None and self._clock.offset(peer, now) is not None else EAGER_S
            self._asks[peer] = (quick - 1, now + QUICK_S) if quick > 1 else (0, now + period)
            asked = self._open.setdefault(peer, set())
            if len(asked) >= QUICK_ASKS:  # of those that were not answered the oldest
                asked.discard(min(asked))
            asked.add(now)
            self._send(channel, peer, ask(now))

    async def _read(self, channel: Any) -> None:
        async for sender, data in channel:
            now = trio.current_time()
            try:
                sent, reading = word_untrusted(data)
            except ProtocolError:
                self.refused += 1
                continue
            if reading is None:
                self.start()
                assert self._clock is not None
                ours = self._clock.reading(now)
                if ours is not None and math.isfinite(sent):
                    self._send(channel, sender.id, answer(sent, ours))
            elif sent in self._open.get(sender.id, ()) and self._clock is not None:
                self._open[sender.id].discard(sent)  # an answer counts once, and only to a question
                self._clock.sample(sender.id, sent, reading, now)

    def _send(self, channel: Any, peer: PeerId, data: bytes) -> None:
        with suppress(PeerGone, ClosedError):  # it is asked again, or asks again
            channel.send_nowait(data, to=peer)
