"""The corpus must hold for ever; fuzzing itself is a slow test, and a command (see `__main__`)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, corpus

FILES_MAX = 200
FILE_BYTES_MAX = 4096
SECONDS = 20


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_holds(target: str) -> None:
    run = TARGETS[target]
    run(b"")
    for path in corpus(target):
        try:
            run(path.read_bytes())
        except BaseException as error:
            error.add_note(f"python -m tests.fuzz {target} --input {path}")
            raise


def test_the_corpus_is_small() -> None:
    files = [path for target in TARGETS for path in corpus(target)]
    assert len(files) <= FILES_MAX
    assert max(path.stat().st_size for path in files) <= FILE_BYTES_MAX


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing_finds_nothing(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("NO FUZZING: atheris has no wheel for this Python or system")
    command = [sys.executable, "-m", "tests.fuzz", target, "--seconds", str(SECONDS), "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    findings = [path.read_bytes().hex() for path in tmp_path.rglob("finding-*")]
    assert done.returncode == 0, f"{findings}\n{done.stderr[-4000:]}"
