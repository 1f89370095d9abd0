"""The TypeScript member by itself: its types, its own tests, and what it weighs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.js.node import needs_node, run_node
from tests.js.worst import write

# Minified and gzipped, libraries included: what it shall weigh, and what it may weigh until it does.
SIZE_WANTED_BYTES = 40 * 1024
SIZE_MAX_BYTES = 60 * 1024


@pytest.fixture(autouse=True)
def _node() -> None:
    needs_node()


def test_types_are_strict_and_right() -> None:
    run_node("node", "node_modules/typescript/bin/tsc", "--noEmit")


def test_its_own_tests_pass(tmp_path: Path) -> None:
    """Among them what a hostile member may cost: with the frames of the kit that Python is tested with."""
    run_node("node", "test.mjs", PSYNE_WORST=str(write(tmp_path / "worst.json")))


@pytest.mark.slow
def test_a_hundred_thousand_bent_inputs() -> None:
    run_node("node", "test.mjs", "hostile", PSYNE_FUZZ_RUNS="100000")


@pytest.fixture
def gzipped(tmp_path: Path) -> int:
    sizes = json.loads(run_node("node", "build.mjs", str(tmp_path)))
    assert (tmp_path / "psyne-mesh.js").stat().st_size == sizes["bytes"]
    size: int = sizes["gzipped"]
    return size


def test_the_built_file_grows_no_further(gzipped: int) -> None:
    assert gzipped <= SIZE_MAX_BYTES


@pytest.mark.xfail(
    reason="not reached: libraries for keys are 10 KB of it, and gossip, seats and repair are whole", strict=True
)
def test_the_built_file_is_small(gzipped: int) -> None:
    assert gzipped <= SIZE_WANTED_BYTES


def test_errors_have_their_names_in_the_built_file(tmp_path: Path) -> None:
    """Minified classes have other names; games, and Python in the page, go by `error.name`."""
    run_node("node", "build.mjs", str(tmp_path))
    shown = (
        f"const all = await import({json.dumps((tmp_path / 'psyne-mesh.js').as_uri())});"
        "await new Promise((done) => setTimeout(done));"
        "const kinds = Object.entries(all).filter(([, each]) => each.prototype instanceof Error);"
        "console.log(JSON.stringify(kinds.map(([name, each]) => [name, new each('ice', 'x').name])));"
    )
    named = json.loads(run_node("node", "--input-type=module", "-e", shown))
    assert len(named) > 20
    assert [(name, told) for name, told in named if name != told] == []
