"""Numbered messages between players, and what became of them."""

from __future__ import annotations

import struct
import time
from collections import Counter
from typing import Any

import attrs

TICK = struct.Struct("!Id")  # number, monotonic time of sending


@attrs.define
class Tally:
    """What went out and came in over one channel from one player."""

    sent: int = 0
    received: Counter[int] = attrs.Factory(Counter)
    received_bytes: int = 0
    latencies_ms: list[float] = attrs.Factory(list)
    silence_s: float = 0.0
    last_at: float | None = None

    def next_message(self, size: int = 0) -> bytes:
        """The next one, filled up to `size` bytes."""
        self.sent += 1
        return TICK.pack(self.sent - 1, time.monotonic()).ljust(size, b"\0")

    def note(self, message: bytes) -> None:
        number, left_at = TICK.unpack_from(message)
        now = time.monotonic()
        self.received_bytes += len(message)
        self.received[number] += 1
        self.latencies_ms.append((now - left_at) * 1000)
        if self.last_at is not None:
            self.silence_s = max(self.silence_s, now - self.last_at)
        self.last_at = now

    def report(self) -> dict[str, Any]:
        """received: different numbers; doubled: how often one came again; silence_s: the longest gap so far, the
        present one (idle_s) included."""
        ordered = sorted(self.latencies_ms)
        idle = time.monotonic() - self.last_at if self.last_at is not None else 0.0
        return {
            "sent": self.sent,
            "received": len(self.received),
            "received_bytes": self.received_bytes,
            "doubled": sum(count - 1 for count in self.received.values()),
            "highest": max(self.received, default=-1),
            "silence_s": round(max(self.silence_s, idle), 3),
            "idle_s": round(idle, 3),
            "latency_ms_median": round(ordered[len(ordered) // 2], 1) if ordered else None,
            "latency_ms_p99": round(ordered[len(ordered) * 99 // 100], 1) if ordered else None,
            "latency_ms_max": round(ordered[-1], 1) if ordered else None,
        }
