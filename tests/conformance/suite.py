"""All tables together, and what the report says of them."""

from __future__ import annotations

from collections import Counter

from tests.conformance import etsi_data, etsi_ending, etsi_faults, etsi_invalid, etsi_setup, zero_checksum

CASES = [
    *etsi_setup.CASES,
    *etsi_ending.CASES,
    *etsi_invalid.CASES,
    *etsi_faults.CASES,
    *etsi_data.CASES,
    *zero_checksum.CASES,
]
NOT_APPLICABLE = [
    *etsi_setup.NOT_APPLICABLE,
    *etsi_faults.NOT_APPLICABLE,
    *etsi_data.NOT_APPLICABLE,
    *zero_checksum.NOT_APPLICABLE,
]


def summary(passed: int, failed: int) -> str:
    """`SCTP conformance: N passed, M not applicable (a reason: how many, ...)`."""
    reasons = Counter(row.reason.split(":")[0] for row in NOT_APPLICABLE)
    why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    outcome = f"{passed} passed" + (f", {failed} failed" if failed else "")
    return f"SCTP conformance: {outcome}, {len(NOT_APPLICABLE)} not applicable ({why})"
