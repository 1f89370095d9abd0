"""What the documents say of the tree is true: decision pages are whole and listed, and the places they name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "psyne_mesh").rglob("*.py"))
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


def test_what_works_in_a_page_names_the_test_that_holds_it() -> None:
    text = (ROOT / "docs" / "browser.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\|.*\| held by \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M)
    rows = [[cell.strip() for cell in line.strip("|").split(" |")] for table in tables for line in table.splitlines()]
    assert len(tables) == 2
    holds = re.compile(r"\b(works|tested|refused)\b")
    for what, *said, held_by in rows:
        named = re.findall(r"`([^`]+)`", held_by)
        assert bool(named) == bool(holds.search(" ".join(said))), what
        for name in named:
            assert re.search(r"\btest\(|def test_", (ROOT / name).read_text(encoding="utf-8")), f"{what}: {name}"


def test_the_walks_lead_somewhere() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    walks = text[text.index("### Four walks") : text.index("## Decisions")]
    steps = re.findall(r"`([a-z_/]+\.py)`[^|`]*: `([a-z_]+)`", walks)
    assert len(steps) == 8
    for place, name in steps:
        assert f"def {name}(" in (ROOT / "psyne_mesh" / place).read_text(encoding="utf-8"), f"{place} has no {name}"


def driving_steps(tree: ast.Module) -> list[tuple[ast.ClassDef, str, list[str]]]:
    """The backticked calls in docstrings of classes that number their steps: (class, method, arguments)."""
    return [
        (node, name, [argument.strip() for argument in arguments.split(",") if argument.strip()])
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and re.search(r"^\s*1\. ", ast.get_docstring(node) or "", re.M)
        for name, arguments in re.findall(r"`([a-z_]+)\(([^()`]*)\)`", ast.get_docstring(node) or "")
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "psyne_mesh").with_suffix("")))
def test_the_numbered_steps_name_methods_as_they_are(path: Path) -> None:
    for node, name, said in driving_steps(ast.parse(path.read_text(encoding="utf-8"))):
        methods = {
            method.name: method for method in node.body if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in methods, f"{node.name} has no {name}"
        arguments = methods[name].args
        positional = [argument.arg for argument in arguments.args][1:]
        required = positional[: len(positional) - len(arguments.defaults)]
        keywords = {argument.arg for argument in arguments.kwonlyargs}
        given = [argument for argument in said if argument != "..." and argument.partition("=")[0] not in keywords]
        assert given == positional[: len(given)], f"{node.name}.{name} takes {positional}, the steps say {said}"
        assert len(given) >= len(required) or "..." in said, f"{node.name}.{name} also needs {required[len(given) :]}"
