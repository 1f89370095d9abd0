from __future__ import annotations

from psyne_mesh.webrtc.ice.rate_limit import TokenBucket


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    bucket = TokenBucket(burst=3, per_second=2, now=10.0)
    assert [bucket.allow(10.0) for _ in range(5)] == [True, True, True, False, False]
    assert not bucket.allow(10.4)
    assert bucket.allow(10.5)
    assert not bucket.allow(10.6)
    assert [bucket.allow(100.0) for _ in range(4)] == [True, True, True, False]


def test_refusals_do_not_delay_the_refill() -> None:
    bucket = TokenBucket(burst=1, per_second=1, now=0.0)
    assert sum(bucket.allow(step / 100) for step in range(1000)) in (10, 11)
