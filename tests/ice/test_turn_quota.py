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
        while limit.allowance("one", now, waits=True) > 0:
            limit.spend([PACKET], now)
            sent.append((now, 1200))
        due = limit.due("one", now)
        assert due is not None
        assert due > now
        now = due
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
        while limit.allowance("one", now, waits=True) > 0:
            limit.spend([PACKET], now)
            bulk += 1200
    assert game + bulk <= 10 * QUOTA
    assert bulk > 0.5 * 10 * (QUOTA - 40_000)


def test_a_debt_is_forgotten_after_a_while() -> None:
    """Game traffic alone was above the quota for a minute: bulk does not wait for a minute more."""
    limit = QuotaLimit(QUOTA, now=0.0)
    for step in range(6000):
        limit.spend([bytes(4000)], step / 100)
    assert limit.allowance("one", 60.0, waits=True) < 0
    assert limit.allowance("one", 61.0, waits=True) > 0


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "a", "b")])
def test_users_take_turns_whoever_asks_first_each_time(order: tuple[str, ...]) -> None:
    limit = QuotaLimit(QUOTA, now=0.0)
    sent = dict.fromkeys(order, 0)
    dues = dict.fromkeys(order, 0.0)
    asked = 0
    while (now := min(dues.values())) < 10.0:
        for user in order:
            if dues[user] <= now:
                asked += 1
                while limit.allowance(user, now, waits=True) > 0:
                    limit.spend([PACKET], now)
                    sent[user] += 1200
                dues[user] = limit.due(user, now) or now
    assert 0.8 * 10 * QUOTA < sum(sent.values()) <= 10 * QUOTA
    assert min(sent.values()) > 0.8 * max(sent.values())
    assert asked < 6_000  # a timer for each burst and user, and one more


def test_who_has_nothing_to_send_or_has_gone_keeps_nobody_waiting() -> None:
    limit = QuotaLimit(QUOTA, now=0.0)
    limit.spend(3 * [PACKET], 0.0)
    assert [limit.allowance(user, 0.0, waits=True) > 0 for user in ("gone", "other", "quiet")] == 3 * [False]
    ready_at = limit.due("other", 0.0)
    assert ready_at is not None
    assert limit.allowance("other", ready_at, waits=True) <= 0 < limit.allowance("quiet", ready_at, waits=False)
    full_at = limit.due("other", ready_at)
    assert full_at is not None
    assert ready_at < full_at < ready_at + 0.1
    assert limit.allowance("other", full_at, waits=True) > 0
    assert limit.due("other", full_at) is None
    limit.spend(3 * [PACKET], full_at)
    assert limit.allowance("gone", full_at, waits=True) < 0
    limit.forget("gone")
    assert limit.allowance("other", full_at + 0.02, waits=True) > 0


def test_a_quota_below_some_packets_is_refused() -> None:
    assert TurnServer("turn.example.org", max_bytes_per_s=128_000).max_bytes_per_s == 128_000
    with pytest.raises(InvalidConfig, match="max_bytes_per_s"):
        TurnServer("turn.example.org", max_bytes_per_s=9_999)
