"""What the documents say of the tree is true: decision pages are whole and listed, and the places they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_four_parts_and_names_places_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Decision", "Measured", "May go when"]
    where = next(line for line in text.splitlines() if line.startswith("Where: "))
    places = re.findall(r"`([^`]+)`", where)
    missing = [place for place in places if not (ROOT / "psyne_mesh" / place).exists()]
    assert not missing, f"{page.name} speaks of {missing}"
    named = re.findall(r"`(tests/[^`]+)`", text)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_decision_is_listed_in_the_architecture() -> None:
    listed = re.findall(r"\]\(docs/decisions/([^)]+)\)", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    assert listed == [page.name for page in DECISIONS]
