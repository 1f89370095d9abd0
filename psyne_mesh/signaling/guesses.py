"""How often one player may guess at the door of a locked room. Pure."""

from __future__ import annotations

from collections import OrderedDict

from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket, forget_oldest

BURST = 5.0  # misreadings of a friend's handwriting; a guess
PER_S = 0.1  # a million a hundred days, of one key; a key costs a hello
_COUNTED_MAX = 10_000  # keys; the one that guessed longest ago begins anew


class Guesses:
    """1. `wait_s(peer, now)` before a proof is looked at: 0, or so long it is not. 2. `note(peer, now)` when it was wrong.

    By key and by nothing else: whoever guesses at a room, or from an address, keeps nobody else out of it."""

    def __init__(self) -> None:
        self._left: OrderedDict[PeerId, TokenBucket] = OrderedDict()

    def wait_s(self, peer: PeerId, now: float) -> float:
        bucket = self._left.get(peer)
        return 0.0 if bucket is None or bucket.left(now) >= 1 else bucket.ready_at(1.0) - now

    def note(self, peer: PeerId, now: float) -> None:
        bucket = self._left.pop(peer, None) or TokenBucket(burst=BURST, per_second=PER_S, now=now)
        bucket.charge(1, now)
        self._left[peer] = bucket
        forget_oldest(self._left, _COUNTED_MAX)
