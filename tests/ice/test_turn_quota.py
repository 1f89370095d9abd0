"""An allocation with a quota: a TURN server drops what is above it, and we keep below."""

from __future__ import annotations

import pytest

from psyne_mesh.config import TurnServer
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.webrtc.ice.rate_limit import QuotaLimit

QUOTA = 100_000
PACKET = bytes(1196)  # 1200 with the header of ChannelData


def test_bulk_that_asks_first_stays_below_the_quota_in_every_second() -> None:
    limit = QuotaLimit(QUOTA, now=0.0)
    sent: list[tuple[float, int]] = []
    now = 0.0
    while now < 10.0:
        while limit.left(now) > 0:
            limit.spend([PACKET], now)
            sent.append((now, 1200))
        assert limit.ready_at() > now
        now = limit.ready_at()
    for begin in range(90):
        window = sum(size for at, size in sent if begin / 10 <= at < begin / 10 + 1)
        assert 0.85 * QUOTA < window <= QUOTA


def test_bulk_makes_up_for_what_game_traffic_took() -> None:
    limit = QuotaLimit(QUOTA, now=0.0)
    game = bulk = 0
    for step in range(1000):  # 10 s: 40 kB/s of positions, which ask nobody
        now = step / 100
        limit.spend([bytes(396)], now)
        game += 400
        while limit.left(now) > 0:
            limit.spend([PACKET], now)
            bulk += 1200
    assert game + bulk <= 10 * QUOTA
    assert bulk > 0.5 * 10 * (QUOTA - 40_000)


def test_a_debt_is_forgotten_after_a_while() -> None:
    """Game traffic alone was above the quota for a minute: bulk does not wait for a minute more."""
    limit = QuotaLimit(QUOTA, now=0.0)
    for step in range(6000):
        limit.spend([bytes(4000)], step / 100)
    assert limit.left(60.0) < 0
    assert limit.left(61.0) > 0


def test_a_quota_below_some_packets_is_refused() -> None:
    assert TurnServer("turn.example.org", max_bytes_per_s=128_000).max_bytes_per_s == 128_000
    with pytest.raises(InvalidConfig, match="max_bytes_per_s"):
        TurnServer("turn.example.org", max_bytes_per_s=9_999)
