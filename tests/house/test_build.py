"""What the optional compiled build compiles, and which of the two builds these tests run with."""

from __future__ import annotations

import importlib
import os
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOOK = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]


def files(pattern: str) -> set[Path]:
    assert pattern.startswith("/psyne_mesh/"), "from the root: else it matches more than meant"
    return set(ROOT.glob(pattern[1:]))


COMPILED = sorted(
    {path for pattern in HOOK["include"] for path in files(pattern)}
    - {path for pattern in HOOK["exclude"] for path in files(pattern)}
)


@pytest.mark.parametrize("pattern", HOOK["include"] + HOOK["exclude"])
def test_the_lists_of_the_compiled_build_name_files_that_exist(pattern: str) -> None:
    assert files(pattern)


def test_pure_python_is_the_default() -> None:
    assert HOOK["enable-by-default"] is False


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.stem)
def test_the_build_under_test_is_the_one_that_was_asked_for(path: Path) -> None:
    """`run.py --compiled` says which. A stray compiled module beside its source would be taken for it without a word."""
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    source = Path(str(module.__file__))
    if os.environ.get("PSYNE_COMPILED") == "1":
        assert source.suffix in (".so", ".pyd")
        assert not source.is_relative_to(ROOT / path.relative_to(ROOT).parts[0])
    else:
        assert source.suffix == ".py"
