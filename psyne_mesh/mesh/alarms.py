"""How often a room is told of tampering: who can spoil one envelope can spoil a thousand."""

from __future__ import annotations

from collections import OrderedDict

from psyne_mesh.identity import PeerId
from psyne_mesh.limits import forget_oldest

# Long enough for people to read them, short enough to see that it goes on.
ALARM_EVERY_S = 10.0
# Carriers remembered: a signaling server and neighbours, for each room. The one that was quiet longest goes first.
CARRIERS_MAX = 256

Carrier = PeerId | None
"""Who handed something over: a member, or None for the signaling server."""


class Alarms:
    """1. `sound(room, carrier, now)` for each tampering; report it unless None comes back, and say how many were left out."""

    def __init__(self) -> None:
        # When, and how many were left out since
        self._last: OrderedDict[tuple[str, Carrier], tuple[float, int]] = OrderedDict()

    def sound(self, room: str, carrier: Carrier, now: float) -> int | None:
        """How many of this carrier were left out since the last report, or None: this one is, too."""
        at, left_out = self._last.pop((room, carrier), (None, 0))
        if at is not None and now - at < ALARM_EVERY_S:
            self._last[room, carrier] = at, left_out + 1
            return None
        self._last[room, carrier] = now, 0
        forget_oldest(self._last, CARRIERS_MAX)
        return left_out
