"""Whether a signed word is of today and of this room: its date against ours, and the instance of the room that it names.

A room of the same name can be founded again and again; each time is an instance of its own. The first two who meet found it:
its number is a hash of the elder's key and of the moment it came. Whoever is introduced takes the number over and signs it.
Two instances that meet become the lower one, and what was signed under the other still counts for as long as a word is fresh.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from psyne_mesh.frozen import Frozen
from psyne_mesh.limits import TokenBucket, forget_oldest

if TYPE_CHECKING:
    from psyne_mesh.gossip.records import Record

# The oldest word of another session that is believed. Records are renewed after 240 s at most, which leaves six minutes for
# clocks that differ where no server tells the time.
FRESH_S = 600
RENEW_WITHIN_S = 300.0  # see `Census`: 0.6 to 0.8 of it
_CLOCK_S = 30.0  # a neighbour's time that differs by less is not taken over: it may have been on its way
_BEFORE_MAX = 8  # instances that we were in, all within `FRESH_S`; the oldest is forgotten
# Everybody signs a new record for each instance that is given up. As many as meet in one crowd, on a guess; then half a minute.
_ADOPTIONS, _ADOPTIONS_PER_S = 8.0, 1 / 30


class Calendar(Frozen):
    """What day it is: Unix seconds are `now + offset_s`. `told`: by a server whom all ask; else it is our own clock, which may
    be wrong, and we go by our first neighbour's."""

    offset_s: float = 0.0
    told: bool = False


UNTOLD = Calendar()


class Freshness:
    """How to drive it:

    1. `is_timely(at, now)` and `honours(...)` for what others signed; `seconds(now)` and `instance` for what we sign.
    2. `meet(wall_s, now)` with the time of who introduces us; `adopt(instance, now)` with the number of the room.
    """

    def __init__(self, calendar: Calendar, now: float) -> None:
        self.instance = 0  # 0: nobody has told us yet
        self._calendar = calendar
        self._before: OrderedDict[int, float] = OrderedDict()  # and until when they count
        self._adoptions = TokenBucket(burst=_ADOPTIONS, per_second=_ADOPTIONS_PER_S, now=now)

    def seconds(self, now: float) -> int:
        return max(0, int(now + self._calendar.offset_s))

    def is_timely(self, at: int, now: float) -> bool:
        return -FRESH_S <= now + self._calendar.offset_s - at <= FRESH_S

    def honours(self, instance: int, now: float, *known: int) -> bool:
        """`known`: of records of its signer, or of the neighbour that brought it, whom we took in. A lower one than ours is one
        that we are about to hear of; and who has just come knows none, nor do we then."""
        if instance <= self.instance or not self.instance or instance in known:
            return True
        return self._before.get(instance, -math.inf) > now

    def adopt(self, instance: int, now: float) -> bool:
        """Whether that is our room's number from now on: it is lower than ours, or our first."""
        if not instance or (self.instance and instance >= self.instance) or not self._adoptions.allow(now):
            return False
        if self.instance:
            self._before.pop(self.instance, None)
            self._before[self.instance] = now + FRESH_S
            forget_oldest(self._before, _BEFORE_MAX)
        self.instance = instance
        return True

    def meet(self, wall_s: int, now: float) -> bool:
        """The time of the room that we enter. Whether our clock was another's."""
        calendar = self._calendar
        if calendar.told or abs(wall_s - (now + calendar.offset_s)) <= _CLOCK_S:
            return False
        self._calendar = msgspec.structs.replace(calendar, offset_s=wall_s - now)
        return True


def founded_by(one: Record, other: Record) -> int:
    """The number of the room that these two found, the same for both."""
    elder = min(one, other, key=lambda record: (record.joined_at, record.peer))
    born = elder.joined_at.to_bytes(8, "big")
    return int.from_bytes(blake2b(elder.public_key + born, key=elder.room, digest_size=8).digest(), "big") or 1
