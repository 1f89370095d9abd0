"""docs/rfc-coverage.md names tests; they must exist, and every conformance case that it names must be one of ours."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conformance.suite import CASES

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "rfc-coverage.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 50
    for file, name in named:
        text = (TESTS / file).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(async )?(def|class) {name}\b", text, re.MULTILINE), f"{file}::{name}"


def test_every_case_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`([A-Z]+(?:-[A-Z])?(?:-\d+)+)`", PAGE))
    ours = {row.id for row in CASES}
    assert len(named) > 70
    assert named <= ours, named - ours
