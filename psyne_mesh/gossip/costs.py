"""What a frame costs its receiver, and what a neighbour may cost: each handler's bound, in one table.

A unit is about a microsecond of a desktop's core. A frame is counted before it is read; what shows only inside (a signature
to verify, a line to look up) is added while it is handled; what answers a question is counted against who asked.
"""

from __future__ import annotations

from typing import Final

from psyne_mesh.gossip import codec
from psyne_mesh.limits import Account, Budget, Verdict

VERIFY: Final = 150.0  # one ed25519 signature
LINE: Final = 1.0  # one entry of a table looked at, one message asked for
# frame type: (units of the frame, units of each of its bytes)
COSTS: Final[dict[int, tuple[float, float]]] = {
    codec.PING: (15.0, 0.02),
    codec.ACK: (15.0, 0.02),
    codec.PING_REQ: (15.0, 0.0),
    codec.INDIRECT: (5.0, 0.0),
    codec.HELLO: (30.0, 0.02),
    codec.RUMOURS: (5.0, 0.02),
    codec.SUMMARY: (10.0, 0.0),
    codec.DIGEST: (20.0, 0.1),  # a line of 20 bytes is a look-up
    codec.DELTA: (10.0, 0.1),
    codec.GOSSIP: (10.0, 0.005),
    codec.IHAVE: (5.0, 0.15),  # a line of 22 bytes is a look-up and a timer
    codec.GRAFT: (5.0, 0.1),
    codec.PRUNE: (2.0, 0.0),
    codec.HAVES: (5.0, 0.1),
    codec.SIGNAL: (20.0, 0.005),
    codec.RELAY: (10.0, 0.005),
    codec.FORWARD_JOIN: (10.0, 0.02),
    codec.SHUFFLE: (20.0, 0.05),
    codec.SHUFFLE_REPLY: (10.0, 0.05),
    codec.DISCONNECT: (20.0, 0.02),
    codec.TOLD: (5.0, 0.02),
    codec.KEEP: (10.0, 0.0),
}
# The largest frame of a kind that is read; no honest one is larger. Broadcasts, and what carries them, have their own limits.
_LARGE: Final = (codec.GOSSIP, codec.RELAY)
SIZES: Final[dict[int, int]] = {kind: codec.FRAME_MAX if kind in _LARGE else 40_960 for kind in COSTS}
for _kind in (
    codec.HELLO,
    codec.RUMOURS,
    codec.TOLD,
    codec.DELTA,
    codec.DISCONNECT,
    codec.SHUFFLE,
    codec.SHUFFLE_REPLY,
):
    SIZES[_kind] = 20_480  # items are packed into frames of 16 KiB, and one more may follow
# A neighbour may cost a quarter of a core for 1.5 s at once: a storm of honest broadcasts, 1,000 small ones a second
# with their signatures, stays below. Bytes are for memory and queues, items for everything that has no other bound. Who sends
# twice as much, or more, is parted from within three seconds of the first frame.
NEIGHBOUR: Final = Budget(bytes_per_s=4 * 2**20, items_per_s=5_000, work_per_s=250_000, burst_s=1.5, patience_s=0.5)
# What we ask a neighbour for is on our account, not on its: a repaired broadcast with its signature for each line of a GRAFT,
# an answer to each ping. So who brings at once all that we missed is no flooder. What was asked for and did not come counts
# for no more than this.
ASKED_LINE: Final = COSTS[codec.GOSSIP][0] + VERIFY + 10.0  # and 2 KB of payload
ASKED_PROBE: Final = COSTS[codec.ACK][0] + 1.0
_ASKED_MAX: Final = 100_000.0
# What answers cost in bytes: two views of 256 members at once, which a newcomer needs; then two bytes for each that came, and
# a trickle, so that a room in which little is said still repairs itself.
ANSWERS_BYTES: Final = 192 * 1024
ANSWERS_PER_BYTE: Final = 2.0
ANSWERS_PER_S: Final = 2_048.0
_SETTLE_UNITS: Final = 5_000.0  # counted on a link before its account is looked at: that costs as much as a small frame


class Cost:
    """Of one link.

    1. Raise `n_bytes`, `items` and `units` for every frame, before it is read; once `units` reach `limit`, `settle(now)`.
    2. `add(units)` while it is handled; `asked(units)` for what the answer to a question of ours will cost.
    3. `may_answer(size, now)` before an answer goes out, which it pays for.
    """

    __slots__ = ("_account", "_answers", "_answers_at", "_earned", "items", "limit", "n_bytes", "units")

    def __init__(self, now: float) -> None:
        self._account = Account(NEIGHBOUR, now)
        self._answers = float(ANSWERS_BYTES)
        self._answers_at = now
        self.n_bytes = self.items = self._earned = 0
        self.units = 0.0
        self.limit = _SETTLE_UNITS

    def add(self, units: float) -> None:
        self.units += units

    def asked(self, units: float) -> None:
        self.units = max(-_ASKED_MAX, self.units - units)

    def settle(self, now: float) -> Verdict:
        verdict = self._account.charge(now, self.n_bytes, self.items, self.units)
        self._earn(now)
        self.n_bytes = self.items = self._earned = 0
        self.units = 0.0
        self.limit = _SETTLE_UNITS if verdict is Verdict.OK else 0.0  # while it is over, each frame is looked at
        return verdict

    def may_answer(self, size: int, now: float) -> bool:
        """An answer of so many bytes. False: it is not sent; who asked lives without, or asks later."""
        self._earn(now)
        if size > self._answers:
            return False
        self._answers -= size
        return True

    def _earn(self, now: float) -> None:
        earned = ANSWERS_PER_BYTE * (self.n_bytes - self._earned) + ANSWERS_PER_S * (now - self._answers_at)
        self._answers = min(float(ANSWERS_BYTES), self._answers + earned)
        self._answers_at = now
        self._earned = self.n_bytes
