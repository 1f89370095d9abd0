"""Every reader of bytes from outside has an entry in the table of what it may cost: `tests/costs/readers.py`."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.costs.readers import ELSEWHERE, PARTS, READERS

PACKAGE = Path(__file__).resolve().parents[2] / "psyne_mesh"


def readers() -> list[str]:
    """Every function of the package whose name says that it reads outside bytes."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place = str(path.relative_to(PACKAGE).with_suffix(""))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        owners = [
            ("", tree.body),
            *((node.name + ".", node.body) for node in tree.body if isinstance(node, ast.ClassDef)),
        ]
        for owner, body in owners:
            found += [
                f"{place}.{owner}{node.name}"
                for node in body
                if isinstance(node, ast.FunctionDef) and node.name.endswith("_untrusted") and node.name[0] != "_"
            ]
    return found


def test_every_reader_has_an_entry() -> None:
    known = READERS.keys() | PARTS.keys()
    folders = (*ELSEWHERE, *(part for part in PARTS if "." not in part))
    without = [
        name
        for name in readers()
        if name not in known and not name.startswith(tuple(f"{folder}/" for folder in folders))
    ]
    assert not without, f"no entry in tests/costs/readers.py: {without}"
    there = set(readers())
    gone = [name for name in known - there if "." in name and name != "game/shared.SharedObjects.receive"]
    assert not gone, f"these are gone: {gone}"
