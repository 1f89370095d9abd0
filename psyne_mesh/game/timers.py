"""Timers of a room: state in the room's map, so that they outlive the host who set them.

A timer is a key with its time on the room's clock and what it says. Whoever is host when it is due writes there that it has
fired; everybody learns it from that, once, whichever hosts have come and gone. Some time later the key is taken away.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Annotated

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.limits import forget_oldest
from psyne_mesh.words import read_untrusted

TIMER = "@"
KEPT_S = 10.0
"""A timer that has fired is remembered for so long, should the host who fired it die: a new host is there within 3 s."""
FIRED_MAX = 1024
LATEST_S = 1e11
PAYLOAD_BYTES_MAX = 4096


class _Timer(msgspec.Struct, frozen=True, array_like=True):
    """due: on the room's clock; or, while that is not set, seconds from when this is heard (`is_relative`)."""

    due: float
    payload: Annotated[bytes, msgspec.Meta(max_length=PAYLOAD_BYTES_MAX)]
    has_fired: bool = False
    is_relative: bool = False


_decoder = msgspec.msgpack.Decoder(_Timer)


def timer_value(due: float, payload: bytes, *, is_relative: bool = False) -> bytes:
    """What the key of a timer holds."""
    return msgspec.msgpack.encode(_Timer(due, payload, False, is_relative))


def timer_untrusted(value: bytes) -> _Timer:
    """Raises ProtocolError."""
    timer = read_untrusted(_decoder, value, "a timer")
    if not abs(timer.due) <= LATEST_S:
        raise ProtocolError("a timer that is due at no time")
    return timer


class _Waiting:
    def __init__(self, payload: bytes, due: float | None, local_due: float) -> None:
        self.payload = payload
        self.due = due  # None: it was set before there was a clock
        self.local_due = local_due

    def left_s(self, room_now: float | None, now: float) -> float:
        if self.due is None:
            return self.local_due - now
        return math.inf if room_now is None else self.due - room_now


class Timers:
    """1. `changed(key, value, now, is_first)` for each key of the room's map that begins with `TIMER`; what it returns has just
    fired. 2. Once `left_s(room_now, now)` is not above 0 the host writes `due(room_now, now)`: keys with what they hold from
    then on, None for those to take away; and `dated(room_now, now)` once there is a clock.

    `room_now` is the room's clock, None before it is set; `now` is ours.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._fired: dict[str, float] = {}  # since when we know
        self._seen: OrderedDict[str, None] = OrderedDict()
        self.refused = 0

    def changed(self, key: str, value: bytes | None, now: float, *, is_first: bool = False) -> bytes | None:
        if value is None:
            self._waiting.pop(key, None)
            self._fired.pop(key, None)
            return None
        try:
            timer = timer_untrusted(value)
        except ProtocolError:
            self.refused += 1
            return None
        if not timer.has_fired:
            self._waiting[key] = _Waiting(timer.payload, None if timer.is_relative else timer.due, now + timer.due)
            return None
        self._waiting.pop(key, None)
        self._fired[key] = now
        if key in self._seen:
            return None
        self._seen[key] = None
        forget_oldest(self._seen, FIRED_MAX)
        return None if is_first else timer.payload  # before our time

    def is_waiting(self, key: str) -> bool:
        return key in self._waiting

    def left_s(self, room_now: float | None, now: float) -> float:
        """Until there is something to write; infinite while nothing waits."""
        waiting = min((timer.left_s(room_now, now) for timer in self._waiting.values()), default=math.inf)
        return min(waiting, min(self._fired.values(), default=math.inf) + KEPT_S - now)

    def due(self, room_now: float | None, now: float) -> list[tuple[str, bytes | None]]:
        """The earliest first."""
        left = sorted((timer.left_s(room_now, now), key) for key, timer in self._waiting.items())
        fired: list[tuple[str, bytes | None]] = [
            (key, msgspec.msgpack.encode(_Timer(0.0, self._waiting[key].payload, True)))
            for left_s, key in left
            if left_s <= 0
        ]
        return fired + [(key, None) for key, since in self._fired.items() if since + KEPT_S <= now]

    def dated(self, room_now: float, now: float) -> list[tuple[str, bytes]]:
        """What the host writes once the clock is set: timers that were set before get their time on it."""
        return [
            (key, timer_value(room_now + timer.local_due - now, timer.payload))
            for key, timer in self._waiting.items()
            if timer.due is None
        ]
