"""The corpus must hold for ever; fuzzing itself is a slow test, and a command (see `__main__`)."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.mass import BATCH, SHARES, Mutator, batch, batches
from tests.fuzz.targets import TARGETS, corpus

FILES_MAX = 200
FILE_BYTES_MAX = 4096
SECONDS = 20
MILLION = 1_000_000
EVERYDAY = 100  # mutated inputs of each target


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


@pytest.mark.parametrize("target", TARGETS)
def test_mutated_inputs_escape_nowhere(target: str) -> None:
    assert batch(target, 0, 0, EVERYDAY) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", TARGETS)
def test_nor_does_one_of_a_million(target: str) -> None:
    """A million over all targets together; `python -m tests.fuzz --mutated 10000000` for more."""
    for number in [number for other, number in batches(MILLION) if other == target]:
        assert batch(target, 1, number) == []


def test_the_batches_of_a_million_are_a_million_and_each_is_the_same_again() -> None:
    assert MILLION <= BATCH * len(list(batches(MILLION))) <= 1.1 * MILLION
    assert SHARES.keys() == TARGETS.keys()
    first, again = (Mutator("stun").next(random.Random(5)) for _ in range(2))
    assert first == again
