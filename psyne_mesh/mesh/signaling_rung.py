"""The last rung's pace: a server reads a client only so fast, and what waits in front of it would come late. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket

# Of what the server reads: the rest is for offers, answers, candidates and pings.
SHARE = 0.8
BURST_SIGNALS = 8.0
# A signal of more than so many bytes costs the server more than one frame (`signaling.metered.BYTES_PER_TOKEN`, in base64).
BYTES_PER_TOKEN = 3_072
SIGNAL_BYTES_MAX = 30_000  # datagrams in one signal: an envelope takes 36,864
# What waits for longer is left out, the oldest first: half of what an unreliable message may wait at all.
LATE_S = 0.25
WAITING_BYTES_MAX = (
    2 * SIGNAL_BYTES_MAX
)  # for one peer; then large datagrams give way, which bulk fills, and then the oldest
LARGE_BYTES = 600


# Later than at its best of the last seconds by so much, a signal was held; by the clock of the server, or of two servers.
HELD_S = 0.75
WINDOW_S = 2.0


class Lateness:
    """Whether a signal of one peer was held on its way. `is_late(age_s, now)` for each, by the clock that both know. What two
    clocks differ by shows in the smallest age while signals flow; after a gap they count as one clock."""

    def __init__(self) -> None:
        self._base = 0.0
        self._smallest = math.inf
        self._since = self._heard_at = -math.inf

    def is_late(self, age_s: float, now: float) -> bool:
        if now - self._heard_at > WINDOW_S:
            self._base, self._smallest, self._since = 0.0, math.inf, now
        elif now - self._since > WINDOW_S:
            self._base, self._smallest, self._since = self._smallest, math.inf, now
        self._heard_at = now
        self._smallest = min(self._smallest, age_s)
        return age_s - self._base > HELD_S


class SignalingRung:
    """Datagrams for peers to whom there is no other way, bundled into signals.

    1. `add(peer, datagrams, now)`. 2. `take(now)`: signals that may leave now, each with its peer. 3. Again at
    `next_timeout()`, infinite when nothing waits. `set_rate(signals_per_s, now)` when a server tells how fast it reads.
    """

    def __init__(self, now: float) -> None:
        self._bucket: TokenBucket | None = None
        self._rate = math.inf
        self._waiting: dict[PeerId, deque[tuple[float, bytes]]] = {}  # who was served longest ago first
        self._used_at: dict[PeerId, float] = {}
        self.dropped = 0

    def set_rate(self, signals_per_s: float, now: float) -> None:
        if signals_per_s == self._rate:
            return
        self._rate = signals_per_s
        finite = math.isfinite(signals_per_s)
        per_second = SHARE * signals_per_s
        self._bucket = TokenBucket(burst=BURST_SIGNALS, per_second=per_second, now=now) if finite else None

    def rate_of(self, now: float) -> float | None:
        """Signals in a second for each peer that uses this rung now; None where nobody counts."""
        if self._bucket is None:
            return None
        users = sum(now - at < 1.0 for at in self._used_at.values())
        return SHARE * self._rate / max(1, users)

    def add(self, peer: PeerId, datagrams: Sequence[bytes], now: float) -> None:
        self._used_at[peer] = now
        if len(self._used_at) > 256:
            self._used_at = {user: at for user, at in self._used_at.items() if now - at < 1.0}
        queue = self._waiting.setdefault(peer, deque())
        queue.extend((now, datagram) for datagram in datagrams)
        excess = sum(len(datagram) for _, datagram in queue) - WAITING_BYTES_MAX
        if excess > 0:
            self._thin(queue, excess)

    def take(self, now: float) -> list[tuple[PeerId, list[bytes]]]:
        signals = []
        while self._waiting and (self._bucket is None or self._bucket.left(now) > 0):
            peer, queue = next(iter(self._waiting.items()))
            del self._waiting[peer]
            while queue and now - queue[0][0] > LATE_S:
                queue.popleft()
                self.dropped += 1
            bundle: list[bytes] = []
            size = 0
            while queue and (not bundle or size + len(queue[0][1]) <= SIGNAL_BYTES_MAX):
                bundle.append(queue.popleft()[1])
                size += len(bundle[-1]) + 2
            if queue:
                self._waiting[peer] = queue  # behind the others
            if bundle:
                signals.append((peer, bundle))
                if self._bucket is not None:
                    self._bucket.charge(1 + size / BYTES_PER_TOKEN, now)
        return signals

    def next_timeout(self) -> float:
        return math.inf if not self._waiting or self._bucket is None else self._bucket.ready_at(0.01)

    def _thin(self, queue: deque[tuple[float, bytes]], excess: int) -> None:
        """Bulk first, the oldest first: it is sent again, and newer positions make older ones worthless."""
        kept: list[tuple[float, bytes]] = []
        for entry in queue:
            if excess > 0 and len(entry[1]) >= LARGE_BYTES:
                excess -= len(entry[1])
                self.dropped += 1
            else:
                kept.append(entry)
        queue.clear()
        queue.extend(kept)
        while excess > 0 and queue:
            excess -= len(queue.popleft()[1])
            self.dropped += 1
