"""How often one peer may dial us: each offer costs a connection and a handshake."""

from __future__ import annotations

from psyne_mesh.identity import PeerId
from psyne_mesh.webrtc.ice.rate_limit import TokenBucket

# One peer may dial so often in a row, later once in so many seconds.
DIALS_IN_A_ROW = 6.0
DIAL_EVERY_S = 2.0
DIALLERS_MAX = 1024  # peers whose dials are counted; beyond that the table starts afresh


class DialLimits:
    """`allow` each offer before it is answered."""

    def __init__(self) -> None:
        self._dials: dict[PeerId, TokenBucket] = {}

    def allow(self, peer: PeerId, now: float) -> bool:
        if peer not in self._dials:
            if len(self._dials) >= DIALLERS_MAX:
                self._dials.clear()
            self._dials[peer] = TokenBucket(burst=DIALS_IN_A_ROW, per_second=1 / DIAL_EVERY_S, now=now)
        return self._dials[peer].allow(now)
