"""What coming and going may cost a server: each is told to others, and answered with a list of them. Pure."""

from __future__ import annotations

from enum import Enum

import attrs

from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket, forget_oldest

THIN_TOLD = 4  # of a room hear of who is over its budget; gossip tells the rest
THIN_LISTED = 8  # it gets to know, which is enough to be led to the others
_COUNTED_MAX = 10_000  # keys, and as many addresses; the one that moved longest ago begins anew


@attrs.frozen(kw_only=True)
class ChurnLimits:
    """In members told or listed. A player enters the largest room four times in a row, later once in eight seconds, and
    costs 64 records a second at most. An address is never refused: many players may share it."""

    per_peer_burst: float = 2_048.0
    per_peer_per_s: float = 64.0
    per_address_burst: float = 16_384.0
    per_address_per_s: float = 512.0


class Weight(Enum):
    FULL = "full"
    THIN = "thin"
    REFUSED = "refused"


class Churn:
    """1. `weigh(peer, address, now)` before it enters or leaves a room. 2. `charge(peer, address, members, now)` with how
    many were told and listed. 3. `wait_s(peer, now)` for who was refused."""

    def __init__(self, limits: ChurnLimits) -> None:
        self._limits = limits
        self._peers: dict[PeerId, TokenBucket] = {}
        self._addresses: dict[str, TokenBucket] = {}

    def weigh(self, peer: PeerId, address: str, now: float) -> Weight:
        own = self._of_peer(peer, now).left(now)
        if own < -self._limits.per_peer_burst / 8:
            return Weight.REFUSED
        return Weight.THIN if own <= 0 or (address and self._of_address(address, now).left(now) <= 0) else Weight.FULL

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
