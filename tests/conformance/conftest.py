"""Tells how many conformance cases held, and how many say nothing about us."""

from __future__ import annotations

from typing import Any

from tests.conformance.suite import summary


def pytest_terminal_summary(terminalreporter: Any) -> None:
    def count(outcome: str) -> int:
        reports = terminalreporter.stats.get(outcome, [])
        return sum("test_conformance.py::test_case[" in getattr(report, "nodeid", "") for report in reports)

    passed, failed = count("passed"), count("failed")
    if passed or failed:
        terminalreporter.write_line(summary(passed, failed))
