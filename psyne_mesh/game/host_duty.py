"""When a member looks after the host: founds the room, asks who the host is, and keeps its lease going.

The lease knows nobody but its roster. Who has heard of no host asks all whom it is linked with, and the member with the lowest
seat becomes the first host if nobody knew one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from psyne_mesh.game.host import Ask, HostLease, HostWord, Member

FOUND_AFTER_S = 2.0
"""The member with the lowest seat becomes the first host, if no other said for so long that there is one."""
WAKE_S = 0.5
"""Who wants a host and hears of none asks everybody this often whether they know one: they may not be looking after
it yet.
"""
LOOK_S = 0.05
"""So often seats and links are looked at."""
SHORTEST_LOOK_S = 0.005
"""What is due is done to within this."""


class HostDuty:
    """1. `look(...)` at `next_look(now)` with who is here; ask whom it returns whether there is a host. 2. `receive` for each
    word, None for such a question. 3. After each, the outputs and events of `lease`; and `look` at once if `is_overdue(now)`.
    """

    def __init__(self, me: Member, now: float) -> None:
        self.lease = HostLease(me, now)
        self._me = me
        self._quiet_since = now
        self._woke_at = -math.inf

    def look(self, seats: dict[Member, int], linked: Iterable[Member], now: float, *, all_linked: bool) -> list[Member]:
        """`seats`: of those whom we are linked with, and ours."""
        lease = self.lease
        lease.set_members(seats, now)
        if self.is_overdue(now):
            lease.handle_timeout(now)
        if not lease.roster and self._may_found(seats, now, all_linked):
            lease.start(now)
        if lease.roster or now - self._woke_at < WAKE_S:
            return []
        self._woke_at = now
        return list(linked)

    def next_look(self, now: float) -> float:
        due = max(self.lease.next_timeout(), now + SHORTEST_LOOK_S) if self.lease.roster else math.inf
        return min(due, now + LOOK_S)

    def is_overdue(self, now: float) -> bool:
        return bool(self.lease.roster) and self.lease.next_timeout() <= now

    def receive(self, member: Member, word: HostWord | None, now: float) -> None:
        if word is None:
            return
        if not isinstance(word, Ask):
            self._quiet_since = now
        self.lease.receive(member, word, now)

    def _may_found(self, seats: dict[Member, int], now: float, all_linked: bool) -> bool:
        """We have the lowest seat, and nobody whom we can ask knows a host; all can be asked, or have been waited for."""
        is_lowest = bool(seats) and min(seats, key=lambda member: seats[member]) == self._me
        return is_lowest and now - self._quiet_since >= (FOUND_AFTER_S if all_linked else 4 * FOUND_AFTER_S)
