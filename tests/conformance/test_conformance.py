"""SCTP conformance: the ETSI suite (TS 102 369) and the zero checksum tests, case by case (see `script` for the notation)."""

from __future__ import annotations

import pytest

from tests.conformance.script import Case, case, run
from tests.conformance.steps import ACTIVE
from tests.conformance.suite import CASES, NOT_APPLICABLE, summary


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.id)
def test_case(row: Case) -> None:
    run(row)


def test_every_case_of_the_suites_is_accounted_for_once() -> None:
    """The ETSI scripts and the cases that its index names without a script; 13 for the zero checksum."""
    ids = [row.id for row in CASES] + [row.id for row in NOT_APPLICABLE]
    assert len(set(ids)) == len(ids)
    groups = {
        "AS": 33, "AT": 16, "IMH": 10, "DM": 15, "FH": 8, "E": 6, "BDC": 8, "D": 15, "A": 3, "M": 4, "RT": 3, "ZC": 13,
    }  # fmt: skip
    assert {group: sum(row.split("-")[0] == group for row in ids) for group in groups} == groups
    assert str(len(CASES)) in summary(len(CASES), 0)


@pytest.mark.parametrize(
    "wrong",
    [
        "-> SACK",  # nothing is sent
        "call send 10",  # something is sent that no line expects
        "call send 10\n-> DATA BE tsn=2",
        "call send 10\n-> SACK / DATA BE tsn=1",
        "call send 10\n+0.1 -> DATA BE tsn=1",  # too late: it was sent before
        "refused send 10",
        "told Message 10",
        "<- ABORT",  # something is told that no line expects
        "state closed",
        "state established idle",
        "call send 10\n-> {crc=zero} DATA BE",
    ],
)
def test_a_script_that_does_not_hold_fails(wrong: str) -> None:
    with pytest.raises(AssertionError):
        run(case("X", "a wrong script", ACTIVE, wrong))
