"""The arena's page: its types are of the game's classes, its files are what the sources give."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from examples.arena import world
from psyne_mesh.cli.schema import schema_of_module

ROOT = Path(__file__).resolve().parents[2]
JS, WEB = ROOT / "js", ROOT / "psyne_mesh" / "web"
needs_node = pytest.mark.skipif(
    not (JS / "node_modules/esbuild").is_dir() or not shutil.which("node"),
    reason="no esbuild here: .ci/install-browsers",
)


def node(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["node", *arguments], cwd=JS, capture_output=True, text=True, check=False)


def test_its_messages_are_those_of_the_game() -> None:
    assert (JS / "arena/messages.ts").read_text(encoding="utf-8") == schema_of_module(world, as_json=False), (
        "psyne-mesh schema --typescript examples.arena.world > js/arena/messages.ts"
    )


@needs_node
def test_it_is_typescript() -> None:
    done = node("node_modules/typescript/bin/tsc", "--noEmit", "-p", "arena")
    assert done.returncode == 0, done.stdout


@needs_node
@pytest.mark.slow  # decides in CI: every change of the member changes the built file
def test_the_files_in_the_package_are_what_the_sources_give(tmp_path: Path) -> None:
    done = node("arena/build.mjs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in WEB.iterdir())
    stale = [path.name for path in WEB.iterdir() if path.read_bytes() != (tmp_path / path.name).read_bytes()]
    assert not stale, f"cd js && node arena/build.mjs: {stale}"
