"""The committed vectors are what this stack writes and reads: who changes the wire writes them anew, and sees what changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from psyne_mesh.gossip import codec, costs
from tests.vectors.current import HERE, stale
from tests.vectors.gossip import KINDS, READERS, frames


def test_they_are_current() -> None:
    assert not stale(), "python -m tests.vectors write"


def test_every_kind_of_frame_has_a_reader_and_a_frame() -> None:
    assert set(READERS) == set(KINDS) == set(costs.SIZES)
    assert {frame[1] for _, frame in frames()} >= set(READERS)


def cases(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "bytes" in value and ("read" in value or "refused" in value):
            yield value
        for each in value.values():
            yield from cases(each)
    elif isinstance(value, list):
        for each in value:
            yield from cases(each)


@pytest.mark.parametrize("path", sorted(HERE.glob("*.json")), ids=lambda path: path.stem)
def test_a_case_says_what_is_read_or_that_nothing_is(path: Path) -> None:
    for case in cases(json.loads(path.read_text(encoding="ascii"))):
        assert ("read" in case) != (case.get("refused") is True), case.get("name")
        bytes.fromhex(case["bytes"])


def test_hostile_bytes_have_verdicts_of_both_kinds() -> None:
    found = json.loads((HERE / "hostile.json").read_text(encoding="ascii"))["cases"]
    refused = sum("refused" in case for case in found)
    assert len(found) > 250
    assert len(found) // 4 < refused < len(found) * 3 // 4
    kinds = {int(case["bytes"][2:4], 16) for case in found if len(case["bytes"]) >= 4}
    assert kinds >= set(READERS) - {codec.PRUNE}  # two bytes: bent it is another kind
