"""Token buckets, accounts of neighbours, tables that forget."""

from __future__ import annotations

import random
from collections import OrderedDict

import pytest

from psyne_mesh.limits import Account, Budget, TokenBucket, Verdict, forget_oldest

BUDGET = Budget(bytes_per_s=1_000, items_per_s=10, work_per_s=100, burst_s=2, patience_s=3)


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


def test_a_debt_is_paid_at_the_rate_and_bounded() -> None:
    bucket = TokenBucket(burst=4, per_second=2, now=0.0)
    bucket.charge(10, 0.0)
    assert (bucket.left(0.0), bucket.ready_at(), bucket.ready_at(2)) == (-6, 3.0, 4.0)
    bucket.charge(100, 3.0, debt_max=4)
    assert bucket.ready_at() == 5.0
    assert bucket.left(100.0) == 4


@pytest.mark.parametrize("costs", [{"n_bytes": 100.0}, {"items": 1.0}, {"items": 0.0, "work": 10.0}])
def test_each_of_the_three_bounds_a_neighbour(costs: dict[str, float]) -> None:
    account = Account(BUDGET, now=0.0)
    verdicts = [account.charge(step / 1_000, **costs) for step in range(10_000)]  # a hundred times the budget
    passed = verdicts.count(Verdict.OK)
    assert passed == pytest.approx(20 + 100, abs=2), "two seconds' worth at once, ten a second after that"
    assert account.dropped == 10_000 - passed
    first = verdicts.index(Verdict.PART)
    assert 30 <= first - verdicts.index(Verdict.OVER) <= 40, "three seconds' worth was dropped before"
    assert verdicts[-1] is Verdict.PART


def test_who_is_a_little_over_loses_that_and_is_not_parted_from() -> None:
    account = Account(BUDGET, now=0.0)
    verdicts = [account.charge(step / 12) for step in range(12 * 600)]
    assert Verdict.PART not in verdicts
    assert verdicts.count(Verdict.OVER) == pytest.approx(2 * 600, rel=0.1)


def test_an_answer_is_charged_to_who_asked() -> None:
    account = Account(BUDGET, now=0.0)
    assert account.charge(0.0, n_bytes=10) is Verdict.OK
    account.bill(0.0, n_bytes=1_000_000)
    assert account.charge(1.9, n_bytes=10) is Verdict.OVER
    assert account.charge(2.1, n_bytes=10) is Verdict.OK, "a debt is never more than a burst"


def test_who_keeps_to_the_budget_is_never_parted_from() -> None:
    rng = random.Random(1)
    account, now = Account(BUDGET, now=0.0), 0.0
    for _ in range(5_000):
        now += rng.expovariate(5)
        assert account.charge(now, n_bytes=rng.uniform(0, 180), work=rng.uniform(0, 18)) is not Verdict.PART


def test_who_stopped_in_time_begins_anew() -> None:
    account = Account(BUDGET, now=0.0)
    for burst in range(20):
        verdicts = [account.charge(20.0 * burst) for step in range(45)]
        assert [verdicts.count(verdict) for verdict in Verdict] == [20, 25, 0]


def test_the_oldest_entry_gives_way() -> None:
    table: OrderedDict[int, str] = OrderedDict()
    for number in range(10):
        table[number] = "x"
        forget_oldest(table, 3)
    assert list(table) == [7, 8, 9]
