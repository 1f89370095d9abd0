"""Python in a page: the same API over the page's own member, and the same gossip to the last bit."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.in_page_story import story
from tests.browser.pyodide.scenarios import traces

ROOT = Path(__file__).resolve().parents[2]
PYODIDE = Path(__file__).parent / "pyodide"
needs_pyodide = pytest.mark.skipif(
    not shutil.which("node")
    or not (PYODIDE / "node_modules/pyodide").is_dir()
    or not list(PYODIDE.glob("wheels/*.whl")),
    reason="no Pyodide here, or none of its wheels: .ci/install-browsers",
)


def in_pyodide(file: str) -> str:
    command = ["node", str(PYODIDE / "run.mjs"), str(ROOT), file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_game_in_a_page_over_a_member_that_is_none() -> None:
    asyncio.run(story())


@needs_pyodide
@pytest.mark.slow
def test_the_same_in_pyodide_without_trio_and_without_keys() -> None:
    said = in_pyodide("tests/browser/in_page_story.py").rstrip()
    assert said.startswith("ok 3.")
    assert said.endswith("[]")  # neither trio nor cryptography


@needs_pyodide
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_scenarios_leave_the_same_trace_in_cpython_and_in_pyodide() -> None:
    there = json.loads(in_pyodide("tests/browser/pyodide/scenarios.py"))
    assert set(there["modules"]) <= {"asyncio"}  # Pyodide's own loop
    here = [each[:3] for each in traces()]
    assert len(here) == 10
    assert [each[:3] for each in there["traces"]] == here
