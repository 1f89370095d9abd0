"""What coming and going may cost a server: each is told to others, and answered with a list of them. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import Enum

import attrs

from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket, forget_oldest

_COUNTED_MAX = 10_000  # keys, and as many addresses; the one that moved longest ago begins anew


_PATIENCE = 1 / 8  # of a burst: so far into debt before the next step


@attrs.frozen(kw_only=True)
class ChurnLimits:
    """In members told or listed. A player enters and leaves the largest room five times in a row, later once in 48 seconds. An
    address is never refused: many players may share it."""

    per_peer_burst: float = 4_096.0
    per_peer_per_s: float = 16.0
    per_address_burst: float = 8_192.0
    per_address_per_s: float = 256.0


class Weight(Enum):
    """How many are told, and how many it gets to know. Gossip tells the rest, and leads it to the others."""

    FULL = (math.inf, math.inf)
    THIN = (4, 8)  # over its budget
    BARE = (2, 1)  # its address is far over its own: ten bytes out for one in would be too many else
    REFUSED = (4, 0)  # it may leave, but not enter

    def __init__(self, told_max: float, listed_max: float) -> None:
        self.told_max = told_max
        self.listed_max = listed_max


class Churn:
    """1. `weigh(peer, address, now)` before it enters or leaves a room. 2. `charge(peer, address, members, now)` with how
    many were told and listed. 3. `wait_s(peer, now)` for who was refused."""

    def __init__(self, limits: ChurnLimits) -> None:
        self._limits = limits
        self._peers: OrderedDict[PeerId, TokenBucket] = OrderedDict()
        self._addresses: OrderedDict[str, TokenBucket] = OrderedDict()

    def weigh(self, peer: PeerId, address: str, now: float) -> Weight:
        own = self._of_peer(peer, now).left(now)
        shared = self._of_address(address, now).left(now) if address else math.inf
        if own < -self._limits.per_peer_burst * _PATIENCE:
            return Weight.REFUSED
        if shared < -self._limits.per_address_burst * _PATIENCE:
            return Weight.BARE
        return Weight.THIN if min(own, shared) <= 0 else Weight.FULL

    def charge(self, peer: PeerId, address: str, members: int, now: float) -> None:
        self._of_peer(peer, now).charge(members, now, self._limits.per_peer_burst)
        if address:
            self._of_address(address, now).charge(members, now, self._limits.per_address_burst)

    def wait_s(self, peer: PeerId, now: float) -> float:
        return self._of_peer(peer, now).ready_at() - now

    def _of_peer(self, peer: PeerId, now: float) -> TokenBucket:
        bucket = self._peers.pop(peer, None) or TokenBucket(
            burst=self._limits.per_peer_burst, per_second=self._limits.per_peer_per_s, now=now
        )
        self._peers[peer] = bucket
        forget_oldest(self._peers, _COUNTED_MAX)
        return bucket

    def _of_address(self, address: str, now: float) -> TokenBucket:
        bucket = self._addresses.pop(address, None) or TokenBucket(
            burst=self._limits.per_address_burst, per_second=self._limits.per_address_per_s, now=now
        )
        self._addresses[address] = bucket
        forget_oldest(self._addresses, _COUNTED_MAX)
        return bucket
